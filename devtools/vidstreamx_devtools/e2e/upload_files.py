"""The files that are uploaded: from the corpus where it is there, else made on the spot."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vidstreamx_devtools import corpus

LONG_SECONDS = 48

_CORPUS = corpus.FOLDER


@dataclass(frozen=True)
class Clips:
    full_hd: Path  # 1080p, a little over ten seconds
    small: Path  # 360p, two seconds: two rungs, quickly made
    long: Path  # 720p, LONG_SECONDS: the picture has to be encoded in every rung, which takes a while
    far_apart: Path  # as long, with ten seconds between keyframes: the picture is published as it is, too
    truncated: Path
    text: Path
    empty: Path

    @classmethod
    def gather(cls, folder: Path) -> Clips:
        folder.mkdir(parents=True, exist_ok=True)
        return cls(
            full_hd=_from_corpus("derived_1080p30_park_11s_h264_aac.mp4")
            or _film(folder / "full-hd.mp4", "1920x1080", 11),
            small=_film(folder / "small.mp4", "640x360", 2),
            long=_film(folder / "long.mp4", "1280x720", LONG_SECONDS, ["mpeg4", "-q:v", "20"]),
            far_apart=_film(folder / "far-apart.mp4", "1280x720", LONG_SECONDS, keyframe_every=300),
            truncated=_from_corpus("synth_truncated_mdat.mp4")
            or _cut(_film(folder / "truncated.mp4", "640x360", 6)),
            text=_from_corpus("synth_text_named_mp4.mp4") or _file(folder / "text.mp4", b"this is not a video\n"),
            empty=_file(folder / "empty.mp4", b""),
        )


def _from_corpus(name: str) -> Path | None:
    path = _CORPUS / name
    return path if path.is_file() else None


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _cut(path: Path) -> Path:
    """A third is missing, the last one."""
    os.truncate(path, path.stat().st_size * 2 // 3)
    return path


_H264 = ["libx264", "-preset", "ultrafast", "-crf", "24"]


def _film(path: Path, size: str, seconds: int, encoder: list[str] = _H264, keyframe_every: int = 60) -> Path:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y"]
    command += ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=30", "-f", "lavfi", "-i", "sine=frequency=330"]
    command += ["-t", str(seconds), "-c:v", *encoder, "-g", str(keyframe_every)]
    command += ["-pix_fmt", "yuv420p", "-c:a", "aac", "-movflags", "+faststart", str(path)]
    subprocess.run(command, check=True)
    return path
