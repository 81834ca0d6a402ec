"""Every file of the corpus becomes the stream it should, or is refused as it should be."""

from vidstreamx_devtools.media import uploads as corpus
import pytest


@pytest.mark.parametrize("name", [upload.name for upload in corpus.uploads()])
def test_a_file_becomes_what_it_should(verdicts, name):
    verdict = verdicts[name]
    told = "\n".join(f"  {one.what}: expected {one.expected}, got {one.got}" for one in verdict.differences)
    assert not verdict.differences, f"{name} ({verdict.categories}), {len(verdict.differences)} differences:\n{told}"
