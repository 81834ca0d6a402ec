"""What results were measured on."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
from pathlib import Path

from vidstreamx_devtools.settings import REPO
from vidstreamx_devtools.bench.container import Machine


def machine() -> dict:
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


def programs(machine: Machine) -> dict:
    """The image's."""
    x264 = machine.run("sh", "-c", "dpkg-query -W -f '${Package} ${Version}\\n' 'libx264*'").split()
    return {"ffmpeg": machine.run("ffmpeg", "-version").split()[2], "x264": x264[1] if x264 else "unknown"}


def sentence(about: dict) -> str:
    return (
        f"{about['cores']} cores of {about['cpu']}, {about['memory_gb']:.0f} GB, Linux {about['kernel']}, load"
        f" {about['load']:.1f} at the start. {about['date']}, commit {about['commit']}."
    )


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=REPO, capture_output=True, text=True).stdout.strip()
