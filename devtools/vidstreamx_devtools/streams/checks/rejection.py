"""Rejection: an unusable file ends quickly with exit code 65 and a reason that a user understands."""

from __future__ import annotations

import re
from typing import Any

from vidstreamx_devtools.media.transcode import TranscodeRun
from vidstreamx_devtools.streams.findings import Findings

UNUSABLE = 65
_MAX_SECONDS = 10.0
# Words of FFmpeg's messages that only authors of decoders understand.
_JARGON = re.compile(
    r"0x[0-9a-f]|Invalid data|moov atom|\[\w+ @|Error while|errno|AVERROR|NULL|stsc|\bNAL\b", re.IGNORECASE
)


def check(run: TranscodeRun, report: dict[str, Any], findings: Findings) -> None:
    findings.equal("exit code", UNUSABLE, run.exit_code)
    findings.expect(
        run.seconds <= _MAX_SECONDS, "seconds", f"at most {_MAX_SECONDS:.0f}", f"{run.seconds:.1f}"
    )
    findings.equal("job.json: outcome", "rejected", report.get("outcome"))
    reason = report.get("reason") or ""
    is_plain = reason and "\n" not in reason and len(reason) <= 200 and not _JARGON.search(reason)
    findings.expect(is_plain, "job.json: reason", "one plain sentence", repr(reason))
    findings.expect(not (run.folder / "master.m3u8").exists(), "master.m3u8", "none", "one exists")
