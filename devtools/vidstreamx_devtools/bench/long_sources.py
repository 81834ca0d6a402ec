"""Sources of any length: ten seconds of a real clip, repeated without encoding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidstreamx_devtools.bench.clips import clip, provide
from vidstreamx_devtools.bench.container import BenchContainer

_PIECE_SECONDS = 10
_X264 = "-c:v libx264 -preset veryfast -crf 28 -pix_fmt yuv420p"
_X265 = "-c:v libx265 -preset ultrafast -crf 30 -pix_fmt yuv420p -x265-params log-level=error"


@dataclass(frozen=True)
class LongSource:
    name: str
    description: str
    encoder: str  # FFmpeg arguments
    is_copied: bool  # whether the task copies its top rung


KEYFRAMES = LongSource(
    "keyframes", "1080p30 H.264, a keyframe every 2 s", f"{_X264} -g 60 -keyint_min 60 -sc_threshold 0", True
)
DEFAULT = LongSource(
    "default", "1080p30 H.264, x264's default keyframes (up to 250 frames apart)", _X264, True
)
HEVC = LongSource("hevc", "1080p30 HEVC", _X265, False)
HEVC_720P = LongSource("hevc-720p", "720p30 HEVC", f"-vf scale=1280:720 {_X265}", False)
# One rung and few frames: transcoded quickly, with as many segments as other sources.
SMALL = LongSource("small", "240p5 MPEG-4", "-vf fps=5,scale=426:240 -c:v mpeg4 -q:v 10 -g 20", False)
SMALL_COPIED = LongSource("small-copied", "240p15 H.264", f"-vf fps=15,scale=426:240 {_X264} -g 30", True)


class LongSourceMaker:
    """Makes sources in the container. Encodes each piece once."""

    def __init__(self, container: BenchContainer) -> None:
        self._container = container
        self._pieces: dict[str, str] = {}

    def make(self, source: LongSource, seconds: int) -> Path:
        """A file of this length with the sample index at the end, as cameras write it."""
        path = f"{self._container.CLIPS}/{source.name}-{seconds}s.mp4"
        repeat = ("-stream_loop", "-1", "-i", self._piece(source), "-t", str(seconds))
        self._container.ffmpeg(*repeat, "-c", "copy", "-map", "0:v", "-map", "0:a", path)
        return self._container.path(path)

    def _piece(self, source: LongSource) -> str:
        if source.name not in self._pieces:
            original, _ = provide(clip("copy"), self._container)
            path = f"{self._container.CLIPS}/piece-{source.name}.mp4"
            audio = ("-c:a", "aac", "-b:a", "128k")
            duration = ("-t", str(_PIECE_SECONDS))
            self._container.ffmpeg("-i", original, *duration, *source.encoder.split(), *audio, path)
            self._pieces[source.name] = path
        return self._pieces[source.name]
