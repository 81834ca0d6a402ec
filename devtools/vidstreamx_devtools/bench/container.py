"""The transcoder's image as the place where everything is measured: one container, in which each command is
timed from within."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


from vidstreamx_devtools.settings import Problem

_LIMIT_SECONDS = 900


class Machine:
    """Folders as they are seen inside: /bench is `folder`, the rest is read only."""

    WORK = "/bench/work"
    CLIPS = "/bench/clips"
    CORPUS = "/corpus"

    def __init__(self, image: str, folder: Path, corpus: Path):
        self.folder = folder
        for name in ("work", "clips", "bin"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        mounts = ["--volume", f"{folder}:/bench", "--volume", f"{Path(__file__).parent}:/tools:ro"]
        if corpus.is_dir():
            mounts += ["--volume", f"{corpus.resolve()}:{self.CORPUS}:ro"]
        # As whoever runs this, so that what is written belongs to them.
        self._container = _docker(
            "run", "--detach", "--rm", "--network", "none", "--user", f"{os.getuid()}:{os.getgid()}",
            "--workdir", "/bench", *mounts, "--entrypoint", "sleep", image, "7200",
        )  # fmt: skip

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_) -> None:
        _docker("kill", self._container)

    def path(self, inside: str) -> Path:
        """Where a path inside is on this side."""
        return self.folder / Path(inside).relative_to("/bench")

    def run(self, *command: str) -> str:
        return _docker("exec", self._container, *command)

    def ffmpeg(self, *arguments: str) -> None:
        self.run("ffmpeg", "-nostdin", "-v", "error", "-y", *arguments)

    def seconds(self, file: str) -> float:
        """How long a video lasts."""
        return float(self.run("ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", file))

    def measure(self, names: str, *command: str) -> dict[str, float]:
        """Seconds of wall, user and system time, and peak memory of the named programs."""
        return json.loads(self.run("bash", "/tools/measure.sh", names, *command))

    def clear(self) -> None:
        shutil.rmtree(self.path(self.WORK), ignore_errors=True)
        self.path(self.WORK).mkdir()


def _docker(*arguments: str) -> str:
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise Problem(f"this took more than {_LIMIT_SECONDS} s: docker {' '.join(arguments)}") from None
    if done.returncode != 0:
        raise Problem(f"docker {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()
