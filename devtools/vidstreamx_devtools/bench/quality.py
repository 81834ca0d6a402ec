"""How good a rung is, and how many bytes its picture has."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import imageio_ffmpeg
from vidstreamx_devtools.bench.container import Machine
from vidstreamx_devtools.settings import Problem

# Most frames are like their neighbours: every third one costs a third of the time.
_EVERY = 3
MODEL = "vmaf_v0.6.1"


def picture(machine: Machine, playlist: str) -> dict[str, int]:
    """Bytes of the video packets, without sound (which the naive way has in every rung) and containers."""
    sizes = machine.run(
        "ffprobe", "-v", "error", "-select_streams", "v:0",
        "-show_entries", "packet=size", "-of", "csv=print_section=0:nokey=1", playlist,
    ).split()  # fmt: skip
    return {"frames": len(sizes), "bytes": sum(int(size.strip(",")) for size in sizes)}


def is_full_range(machine: Machine, clip: str) -> bool:
    shown = machine.run(
        "ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=pix_fmt,color_range",
        "-of", "csv=p=0", clip,
    )  # fmt: skip
    return "yuvj" in shown or "pc" in shown.split(",")


def vmaf(playlist: Path, source: Path, width: int, height: int, full_range: bool) -> float:
    """Mean VMAF of a rung as a viewer with a screen of the source's size sees it.

    Frames are paired by number: all of the source's must be there exactly once, see `page`. They are
    compared in the source's own range: converting the source to limited range while it is not scaled, but a
    rung while it is, was seen to cost a full-range rung without any loss 2 VMAF.
    """
    log = playlist.parent / "vmaf.json"
    known = [_known_matrix(file, width, height) for file in (playlist, source)]
    colours = "out_range=pc,format=yuvj420p" if full_range else "out_range=tv,format=yuv420p"
    same = f"setpts=N/25/TB,scale={width}:{height}:flags=bicubic:{colours}"
    graph = (
        f"[0:v]{known[0]}{same}[rung];[1:v]{known[1]}{same}[source];"
        f"[rung][source]libvmaf=n_threads=4:n_subsample={_EVERY}:log_fmt=json:log_path={log}"
    )
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error"]
    command += ["-i", str(playlist), "-i", str(source), "-lavfi", graph, "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise Problem(f"VMAF of {playlist}: {done.stderr.strip()[-300:]}")
    return json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"]


def _known_matrix(file: Path, width: int, height: int) -> str:
    """A filter that says of untagged frames what players take them for.

    A rung that is tagged would else be converted, from its BT.709 to what FFmpeg takes untagged frames for.
    """
    shown = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=color_space",
         "-of", "default=nw=1:nk=1", str(file)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    if shown.stdout.split()[0] not in ("unknown", "N/A"):
        return ""
    matrix = "bt709" if width >= 1280 or height > 576 else "smpte170m"
    return f"setparams=colorspace={matrix},"
