"""What is measured: real clips from the corpus, or clips made on the spot where it is not there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidstreamx_devtools import corpus
from vidstreamx_devtools.bench.container import Machine

CORPUS = corpus.FOLDER


@dataclass(frozen=True)
class Clip:
    name: str
    about: str
    file: str  # in the corpus
    times: int  # a clip of two seconds measures how fast programs start: such are played several times over
    size: str  # of the stand-in
    stand_in: str  # FFmpeg's encoder arguments of the stand-in
    quick: bool = False


_H264 = "-c:v libx264 -preset veryfast -crf 20 -g 120 -pix_fmt yuv420p"

CLIPS = [
    Clip(
        "copy", "1080p30 H.264, natural, may be copied", "derived_1080p30_park_11s_h264_aac.mp4", 1,
        "1920x1080", _H264, quick=True,
    ),
    Clip(
        "full-range", "1080p25 H.264, motion graphics, full range: may not be copied",
        "real_1080p25_motiongraphics_5s.mp4", 2,
        "1920x1080", _H264.replace("yuv420p", "yuvj420p"), quick=True,
    ),
    Clip(
        "portrait", "1080x1440 H.264, variable frame rate", "real_vfr_flir_1080x1440.mp4", 1,
        "1080x1440", _H264,
    ),
    Clip(
        "hevc", "1080p30 HEVC from a phone, full range", "real_hevc8_1080p30_10s.mp4", 1,
        "1920x1080", "-c:v libx265 -preset veryfast -crf 24 -pix_fmt yuv420p -x265-params log-level=error",
    ),
    Clip(
        "animation", "480p30 H.264, drawn, with grain", "real_480p30_animation_elf.mp4", 1,
        "720x480", _H264,
    ),
    Clip(
        "4k", "2160p30 H.264", "synth_2160p30_park_2s.mp4", 3,
        "3840x2160", _H264,
    ),
]  # fmt: skip

_STAND_IN_SECONDS = 10


def gather(clip: Clip, machine: Machine) -> tuple[str, bool]:
    """The clip's place in the machine, and whether it comes from the corpus."""
    place = f"{machine.CLIPS}/{clip.name}.mp4"
    source = CORPUS / clip.file
    if not source.is_file():
        machine.ffmpeg(
            *f"-f lavfi -i testsrc2=size={clip.size}:rate=30 -f lavfi -i sine=frequency=330".split(),
            *f"-t {_STAND_IN_SECONDS} {clip.stand_in} -c:a aac".split(), place,
        )  # fmt: skip
        return place, False
    machine.ffmpeg("-stream_loop", str(clip.times - 1), "-i", f"{machine.CORPUS}/{clip.file}", "-c", "copy",
                   "-map", "0:v", "-map", "0:a", place)  # fmt: skip
    return place, True
