"""What is no usable video ends with exit 65 and a sentence that a person understands, soon."""

from __future__ import annotations

import re

from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.media.transcode import Run

UNUSABLE = 65
_SOON = 10.0  # seconds
# What FFmpeg says, and people who do not write decoders should not have to read.
_JARGON = re.compile(
    r"0x[0-9a-f]|Invalid data|moov atom|\[\w+ @|Error while|errno|AVERROR|NULL|stsc|\bNAL\b", re.IGNORECASE
)


def check(run: Run, report: dict, found: Findings) -> None:
    found.equal("exit code", UNUSABLE, run.exit_code)
    found.expect(run.seconds <= _SOON, "seconds", f"at most {_SOON:.0f}", f"{run.seconds:.1f}")
    found.equal("job.json: outcome", "rejected", report.get("outcome"))
    reason = report.get("reason") or ""
    plain = reason and "\n" not in reason and len(reason) <= 200 and not _JARGON.search(reason)
    found.expect(bool(plain), "job.json: reason", "one plain sentence", repr(reason))
    found.expect(not (run.folder / "master.m3u8").exists(), "master.m3u8", "none", "there")
