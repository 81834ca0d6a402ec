"""WebVTT as far as subtitles and storyboards use it (https://www.w3.org/TR/webvtt1/)."""

from __future__ import annotations

import re

from vidstreamx_devtools.streams.source import Cue

_TIMING = re.compile(r"^((?:\d+:)?\d\d:\d\d\.\d{3})[ \t]+-->[ \t]+((?:\d+:)?\d\d:\d\d\.\d{3})")


class NotWebVtt(Exception):
    """What is wrong with a file."""


def parse(text: str) -> list[Cue]:
    blocks = re.split(r"\n\n+", text.replace("\r\n", "\n").strip("\n\ufeff"))
    if not re.match(r"WEBVTT(?:[ \t\n]|$)", blocks[0]):
        raise NotWebVtt(f"begins with {blocks[0][:20]!r}")
    cues = []
    for block in blocks[1:]:
        lines = block.split("\n")
        at = next((number for number, line in enumerate(lines[:2]) if "-->" in line), None)
        if at is None:
            continue  # NOTE, STYLE or REGION
        timing = _TIMING.match(lines[at])
        if not timing:
            raise NotWebVtt(f"a cue's times are {lines[at]!r}")
        cue = Cue(_seconds(timing[1]), _seconds(timing[2]), "\n".join(lines[at + 1 :]).strip())
        if cue.end <= cue.start:
            raise NotWebVtt(f"the cue at {timing[1]} ends at {timing[2]}")
        cues.append(cue)
    return cues


def _seconds(text: str) -> float:
    parts = [float(part) for part in text.split(":")]
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))
