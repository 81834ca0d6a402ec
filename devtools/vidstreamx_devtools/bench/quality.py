"""The quality of a rung (VMAF), and the size of its video packets."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import imageio_ffmpeg

from vidstreamx_devtools.bench.container import BenchContainer
from vidstreamx_devtools.settings import UserError

MODEL = "vmaf_v0.6.1"
# Measuring every third frame takes a third of the time. Neighbouring frames are alike, so the mean hardly
# changes.
_FRAME_STEP = 3


def video_packets(container: BenchContainer, playlist: str) -> dict[str, int]:
    """Number and bytes of the video packets, without containers and audio."""
    sizes = container.ffprobe(
        *("-select_streams", "v:0", "-show_entries", "packet=size"),
        *("-of", "csv=print_section=0:nokey=1", playlist),
    ).split()
    return {"frames": len(sizes), "bytes": sum(int(size.strip(",")) for size in sizes)}


def is_full_range(container: BenchContainer, clip: str) -> bool:
    entries = ("-show_entries", "stream=pix_fmt,color_range", "-of", "csv=p=0")
    values = container.ffprobe("-select_streams", "v:0", *entries, clip)
    return "yuvj" in values or "pc" in values.split(",")


def vmaf(playlist: Path, source: Path, width: int, height: int, full_range: bool) -> float:
    """The mean VMAF of a rung on a screen of the source's size.

    Frames are paired by number, so the rung must contain each frame of the source exactly once; the report
    checks this. Frames are compared in the colour range of the source, because conversion to limited range
    cost a lossless full-range rung 2 VMAF.
    """
    log = playlist.parent / "vmaf.json"
    rung_matrix, source_matrix = (_assumed_matrix(file, width, height) for file in (playlist, source))
    colours = "out_range=pc,format=yuvj420p" if full_range else "out_range=tv,format=yuv420p"
    scale = f"setpts=N/25/TB,scale={width}:{height}:flags=bicubic:{colours}"
    graph = (
        f"[0:v]{rung_matrix}{scale}[rung];[1:v]{source_matrix}{scale}[source];"
        f"[rung][source]libvmaf=n_threads=4:n_subsample={_FRAME_STEP}:log_fmt=json:log_path={log}"
    )
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error"]
    command += ["-i", str(playlist), "-i", str(source), "-lavfi", graph, "-f", "null", "-"]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if completed.returncode != 0:
        raise UserError(f"VMAF of {playlist}: {completed.stderr.strip()[-300:]}")
    return float(json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"])


def _assumed_matrix(file: Path, width: int, height: int) -> str:
    """A filter that tags untagged frames with the matrix that players assume.

    Without it, a tagged rung would be converted from BT.709 to the matrix that FFmpeg assumes for untagged
    frames.
    """
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=color_space"]
    command += ["-of", "default=nw=1:nk=1", str(file)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    if output.split()[0] not in ("unknown", "N/A"):
        return ""
    matrix = "bt709" if width >= 1280 or height > 576 else "smpte170m"
    return f"setparams=colorspace={matrix},"
