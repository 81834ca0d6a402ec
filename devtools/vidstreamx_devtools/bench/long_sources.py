"""Sources of any length, made by repeating a short piece of a real clip without encoding it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidstreamx_devtools.bench.clips import CLIPS, gather
from vidstreamx_devtools.bench.container import Machine

_PIECE_SECONDS = 10
_PARK = next(clip for clip in CLIPS if clip.name == "copy")
_X264 = "-c:v libx264 -preset veryfast -crf 28 -pix_fmt yuv420p"
_X265 = "-c:v libx265 -preset ultrafast -crf 30 -pix_fmt yuv420p -x265-params log-level=error"


@dataclass(frozen=True)
class Source:
    name: str
    about: str
    encoder: str
    copied: bool  # whether its top rung is published as it is


KEYFRAMES = Source(
    "keyframes", "1080p30 H.264, a keyframe every 2 s", f"{_X264} -g 60 -keyint_min 60 -sc_threshold 0", True
)
DEFAULT = Source("default", "1080p30 H.264, x264's default keyframes (up to 250 frames apart)", _X264, True)
HEVC = Source("hevc", "1080p30 HEVC", _X265, False)
HEVC_720P = Source("hevc-720p", "720p30 HEVC", f"-vf scale=1280:720 {_X265}", False)
# One rung, few frames: quickly made, with as many segments as any other.
SMALL = Source("small", "240p5 MPEG-4", "-vf fps=5,scale=426:240 -c:v mpeg4 -q:v 10 -g 20", False)
SMALL_COPIED = Source("small-copied", "240p15 H.264", f"-vf fps=15,scale=426:240 {_X264} -g 30", True)


class Sources:
    """Makes them, each piece once."""

    def __init__(self, machine: Machine):
        self._machine = machine
        self._pieces: dict[str, str] = {}

    def make(self, source: Source, seconds: int) -> Path:
        """A file of this length, its index at the end, as cameras write it."""
        place = f"{self._machine.CLIPS}/{source.name}-{seconds}s.mp4"
        self._machine.ffmpeg("-stream_loop", "-1", "-i", self._piece(source), "-t", str(seconds), "-c", "copy",
                             "-map", "0:v", "-map", "0:a", place)  # fmt: skip
        return self._machine.path(place)

    def _piece(self, source: Source) -> str:
        if source.name not in self._pieces:
            park, _ = gather(_PARK, self._machine)
            place = f"{self._machine.CLIPS}/piece-{source.name}.mp4"
            self._machine.ffmpeg("-i", park, "-t", str(_PIECE_SECONDS), *source.encoder.split(), "-c:a", "aac",
                                 "-b:a", "128k", place)  # fmt: skip
            self._pieces[source.name] = place
        return self._pieces[source.name]
