"""The environment of a measurement: machine, commit, and versions of FFmpeg and x264."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from vidstreamx_devtools.bench.container import BenchContainer
from vidstreamx_devtools.settings import REPO

Environment = dict[str, Any]


def machine() -> Environment:
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu[1] if cpu else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": int(memory[1]) / 1e6 if memory else 0,
        "kernel": os.uname().release,
        "load": os.getloadavg()[0],
        "commit": _git("describe", "--always", "--dirty"),
    }


def image_programs(container: BenchContainer) -> Environment:
    """The versions in the image."""
    x264 = container.run("sh", "-c", "dpkg-query -W -f '${Package} ${Version}\\n' 'libx264*'").split()
    ffmpeg = container.run("ffmpeg", "-version").split()
    return {"ffmpeg": ffmpeg[2], "x264": x264[1] if x264 else "unknown"}


def sentence(environment: Environment) -> str:
    """Machine, date, commit and, if known, the versions in the image."""
    cores = environment["cores"]
    text = (
        f"{cores} core{'' if cores == 1 else 's'} of {environment['cpu']}, {environment['memory_gb']:.0f} GB,"
        f" Linux {environment['kernel']}, load {environment['load']:.1f} at the start."
        f" {environment['date']}, commit {environment['commit']}."
    )
    if "ffmpeg" in environment:
        text += f" FFmpeg {environment['ffmpeg']} and x264 {environment['x264']} of the image."
    return text


def _git(*arguments: str) -> str:
    completed = subprocess.run(["git", *arguments], cwd=REPO, capture_output=True, text=True)
    return completed.stdout.strip()
