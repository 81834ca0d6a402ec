"""A container of the transcoder's image. All commands run in it and are measured inside it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from vidstreamx_devtools import corpus
from vidstreamx_devtools.local.engine import docker

_TIMEOUT = 900  # seconds


class BenchContainer:
    """A container that runs until the end of the `with` block.

    `folder` is mounted at /bench. The other mounts are read-only.
    """

    WORK = "/bench/work"
    CLIPS = "/bench/clips"
    CORPUS = "/corpus"

    def __init__(self, image: str, folder: Path) -> None:
        self.folder = folder
        for name in ("work", "clips", "bin"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        mounts = ["--volume", f"{folder}:/bench", "--volume", f"{Path(__file__).parent}:/tools:ro"]
        if corpus.FOLDER.is_dir():
            mounts += ["--volume", f"{corpus.FOLDER.resolve()}:{self.CORPUS}:ro"]
        # Runs as the current user, who then owns the written files.
        options = ["--detach", "--rm", "--network", "none", "--user", f"{os.getuid()}:{os.getgid()}"]
        options += ["--workdir", "/bench", *mounts, "--entrypoint", "sleep"]
        self._container = docker("run", *options, image, "7200")

    def __enter__(self) -> BenchContainer:
        return self

    def __exit__(self, *_: object) -> None:
        docker("kill", self._container)

    def path(self, inside: str) -> Path:
        """The path on the host for a path in the container."""
        return self.folder / Path(inside).relative_to("/bench")

    def run(self, *command: str) -> str:
        return docker("exec", self._container, *command, timeout=_TIMEOUT)

    def ffmpeg(self, *arguments: str) -> None:
        self.run("ffmpeg", "-nostdin", "-v", "error", "-y", *arguments)

    def ffprobe(self, *arguments: str) -> str:
        return self.run("ffprobe", "-v", "error", *arguments)

    def duration(self, file: str) -> float:
        """The duration of a video in seconds."""
        return float(self.ffprobe("-show_entries", "format=duration", "-of", "csv=p=0", file))

    def measure(self, names: str, *command: str) -> dict[str, float]:
        """Wall, user and system time in seconds, and peak memory of the named programs (see measure.sh)."""
        measured: dict[str, float] = json.loads(self.run("bash", "/tools/measure.sh", names, *command))
        return measured

    def clear(self) -> None:
        shutil.rmtree(self.path(self.WORK), ignore_errors=True)
        self.path(self.WORK).mkdir()
