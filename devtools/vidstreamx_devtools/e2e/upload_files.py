"""The files that the end-to-end tests upload: generated clips, and a file of the corpus if it exists."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vidstreamx_devtools import corpus
from vidstreamx_devtools.generate import H264, ffmpeg

LONG_SECONDS = 48


@dataclass(frozen=True)
class UploadFiles:
    full_hd: Path  # 1080p, a little over ten seconds
    small: Path  # 360p, two seconds: two rungs, encoded quickly
    long: Path  # 720p, LONG_SECONDS, not H.264: every rung is encoded, which takes a while
    far_keyframes: Path  # 720p, LONG_SECONDS, a keyframe every ten seconds: the top rung is copied
    truncated: Path  # most of its samples are missing
    text: Path
    empty: Path
    real: Path | None  # 1080p, a little over ten seconds, from the corpus

    @classmethod
    def create(cls, folder: Path) -> UploadFiles:
        folder.mkdir(parents=True, exist_ok=True)
        mpeg4 = ["-c:v", "mpeg4", "-q:v", "20", "-pix_fmt", "yuv420p"]
        return cls(
            full_hd=_clip(folder / "full-hd.mp4", "1920x1080", 11),
            small=_clip(folder / "small.mp4", "640x360", 2),
            long=_clip(folder / "long.mp4", "1280x720", LONG_SECONDS, mpeg4),
            far_keyframes=_clip(
                folder / "far-keyframes.mp4", "1280x720", LONG_SECONDS, keyframe_interval=300
            ),
            truncated=_truncate(_clip(folder / "truncated.mp4", "640x360", 6)),
            text=_write(folder / "text.mp4", b"this is not a video\n"),
            empty=_write(folder / "empty.mp4", b""),
            real=corpus.find("derived_1080p30_park_11s_h264_aac.mp4"),
        )


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _truncate(path: Path) -> Path:
    """Keeps the first third: the task publishes a damaged file only if it can decode half of it."""
    os.truncate(path, path.stat().st_size // 3)
    return path


def _clip(
    path: Path, size: str, seconds: int, encoder: list[str] = H264, keyframe_interval: int = 60
) -> Path:
    return ffmpeg(
        path,
        *("-f", "lavfi", "-i", f"testsrc2=size={size}:rate=30", "-f", "lavfi", "-i", "sine=frequency=330"),
        *("-t", str(seconds), *encoder, "-g", str(keyframe_interval)),
        *("-c:a", "aac", "-movflags", "+faststart"),
        timeout=300,
    )
