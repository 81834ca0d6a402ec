"""The clips that the benchmarks measure. A clip that is missing in the corpus is generated."""

from __future__ import annotations

from dataclasses import dataclass

from vidstreamx_devtools import corpus
from vidstreamx_devtools.bench.container import BenchContainer

_H264 = "-c:v libx264 -preset veryfast -crf 20 -g 120 -pix_fmt yuv420p"
_H264_FULL_RANGE = "-c:v libx264 -preset veryfast -crf 20 -g 120 -pix_fmt yuvj420p"
_HEVC = "-c:v libx265 -preset veryfast -crf 24 -pix_fmt yuv420p -x265-params log-level=error"
_GENERATED_SECONDS = 10


@dataclass(frozen=True)
class Clip:
    name: str
    description: str
    file: str  # path in the corpus
    repeats: int  # short clips are repeated, because the start of the programs would dominate their times
    generated_size: str
    generated_encoder: str  # FFmpeg arguments
    is_quick: bool = False


CLIPS = [
    Clip(
        name="copy",
        description="1080p30 H.264, natural, may be copied",
        file="derived_1080p30_park_11s_h264_aac.mp4",
        repeats=1,
        generated_size="1920x1080",
        generated_encoder=_H264,
        is_quick=True,
    ),
    Clip(
        name="full-range",
        description="1080p25 H.264, motion graphics, full range: may not be copied",
        file="real_1080p25_motiongraphics_5s.mp4",
        repeats=2,
        generated_size="1920x1080",
        generated_encoder=_H264_FULL_RANGE,
        is_quick=True,
    ),
    Clip(
        name="portrait",
        description="1080x1440 H.264, variable frame rate",
        file="real_vfr_flir_1080x1440.mp4",
        repeats=1,
        generated_size="1080x1440",
        generated_encoder=_H264,
    ),
    Clip(
        name="hevc",
        description="1080p30 HEVC from a phone, full range",
        file="real_hevc8_1080p30_10s.mp4",
        repeats=1,
        generated_size="1920x1080",
        generated_encoder=_HEVC,
    ),
    Clip(
        name="animation",
        description="480p30 H.264, drawn, with grain",
        file="real_480p30_animation_elf.mp4",
        repeats=1,
        generated_size="720x480",
        generated_encoder=_H264,
    ),
    Clip(
        name="4k",
        description="2160p30 H.264",
        file="synth_2160p30_park_2s.mp4",
        repeats=3,
        generated_size="3840x2160",
        generated_encoder=_H264,
    ),
]


def clip(name: str) -> Clip:
    return next(clip for clip in CLIPS if clip.name == name)


def provide(clip: Clip, container: BenchContainer) -> tuple[str, bool]:
    """Makes the clip available in the container. Returns its path, and whether it is from the corpus."""
    path = f"{container.CLIPS}/{clip.name}.mp4"
    if corpus.find(clip.file):
        source = f"{container.CORPUS}/{clip.file}"
        repeat = ("-stream_loop", str(clip.repeats - 1))
        container.ffmpeg(*repeat, "-i", source, "-c", "copy", "-map", "0:v", "-map", "0:a", path)
        return path, True
    container.ffmpeg(
        *f"-f lavfi -i testsrc2=size={clip.generated_size}:rate=30 -f lavfi -i sine=frequency=330".split(),
        *f"-t {_GENERATED_SECONDS} {clip.generated_encoder} -c:a aac".split(),
        path,
    )
    return path, False
