"""Generates test videos with FFmpeg."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vidstreamx_devtools.settings import UserError

H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "24", "-pix_fmt", "yuv420p"]


def ffmpeg(path: Path, *arguments: str, timeout: float = 60) -> Path:
    """Runs FFmpeg with this output file. The file appears under its name only when it is complete."""
    partial = path.with_name(f"partial-{path.name}")
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *arguments, str(partial)]
    completed = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=timeout)
    if completed.returncode != 0:
        raise UserError(f"ffmpeg could not make {path.name}: {completed.stderr.strip()[-300:]}")
    return partial.rename(path)
