"""Every file of the corpus becomes the right stream, or is rejected for the right reason."""

from __future__ import annotations

import pytest
from vidstreamx_devtools.media.media_files import media_files
from vidstreamx_devtools.media.verdict import Verdict


@pytest.mark.parametrize("name", [file.name for file in media_files()])
def test_stream_matches_its_source(verdicts: dict[str, Verdict], name: str) -> None:
    verdict = verdicts[name]
    listed = "\n".join(
        f"  {one.aspect}: expected {one.expected}, got {one.got}" for one in verdict.differences
    )
    assert not verdict.differences, (
        f"{name} ({verdict.categories}), {len(verdict.differences)} differences:\n{listed}"
    )
