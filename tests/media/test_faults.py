"""Uploads of which earlier versions made wrong streams come out right, with both versions of FFmpeg."""

from __future__ import annotations

import pytest
from vidstreamx_devtools.media import fault_cases
from vidstreamx_devtools.media.fault_checks import Row


@pytest.mark.parametrize("version", fault_cases.VERSIONS)
@pytest.mark.parametrize("file", [case.file for case in fault_cases.cases()])
def test_stream_is_as_the_table_of_faults_expects(
    fault_rows: dict[tuple[str, str], Row], file: str, version: str
) -> None:
    row = fault_rows[version, file]
    listed = "\n".join(f"  {one.aspect}: expected {one.expected}, got {one.got}" for one in row.differences)
    assert not row.differences, f"{row.kind} {file}, {len(row.differences)} differences:\n{listed}"
