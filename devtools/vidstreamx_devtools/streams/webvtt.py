"""Parses the part of WebVTT that subtitles and storyboards use (https://www.w3.org/TR/webvtt1/)."""

from __future__ import annotations

import re

from vidstreamx_devtools.streams.source import Cue

_TIMING = re.compile(r"^((?:\d+:)?\d\d:\d\d\.\d{3})[ \t]+-->[ \t]+((?:\d+:)?\d\d:\d\d\.\d{3})")


class WebVttError(Exception):
    """A file is not valid WebVTT."""


def parse(text: str) -> list[Cue]:
    blocks = re.split(r"\n\n+", text.replace("\r\n", "\n").strip("\n\ufeff"))
    if not re.match(r"WEBVTT(?:[ \t\n]|$)", blocks[0]):
        raise WebVttError(f"begins with {blocks[0][:20]!r}")
    cues = []
    for block in blocks[1:]:
        lines = block.split("\n")
        timing_line = next((number for number, line in enumerate(lines[:2]) if "-->" in line), None)
        if timing_line is None:
            continue  # NOTE, STYLE or REGION
        timing = _TIMING.match(lines[timing_line])
        if not timing:
            raise WebVttError(f"invalid cue timing {lines[timing_line]!r}")
        cue = Cue(_seconds(timing[1]), _seconds(timing[2]), "\n".join(lines[timing_line + 1 :]).strip())
        if cue.end <= cue.start:
            raise WebVttError(f"the cue at {timing[1]} ends at {timing[2]}")
        cues.append(cue)
    return cues


def _seconds(text: str) -> float:
    parts = [float(part) for part in text.split(":")]
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))
