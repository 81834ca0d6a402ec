"""Runs the transcoder on a file, and reuses the output while neither the program nor the file changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vidstreamx_devtools.settings import REPO

OUTPUTS = REPO / "target" / "media"
GENERATED = OUTPUTS / "generated"
_TIMEOUT = 180  # seconds; the slowest file of the corpus takes a third of this time


@dataclass(frozen=True)
class TranscodeRun:
    folder: Path
    exit_code: int | None  # None after a timeout
    seconds: float

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")


@dataclass(frozen=True)
class Transcoder:
    """The program with the FFmpeg of this machine, or with that of the task's image."""

    binary: Path
    image: str | None = None

    @property
    def outputs(self) -> Path:
        return OUTPUTS / "image" if self.image else OUTPUTS

    def command(self, file: Path, folder: Path) -> list[str]:
        if self.image is None:
            return [str(self.binary), "--input", str(file), "--output", str(folder)]
        mounts = [f"--volume={file.parent.resolve()}:/input:ro", f"--volume={folder.resolve()}:/output"]
        # Runs as the current user, who then owns the written files.
        user = f"--user={os.getuid()}:{os.getgid()}"
        options = ["--rm", f"--name={self._container(folder)}", user, "--tmpfs=/work:mode=1777", *mounts]
        return [
            "docker",
            "run",
            *options,
            self.image,
            "--input",
            f"/input/{file.name}",
            "--output",
            "/output",
        ]

    def stop(self, folder: Path) -> None:
        """Ends the container, which outlives the client that a timeout has killed."""
        if self.image:
            subprocess.run(["docker", "kill", self._container(folder)], capture_output=True)

    def _container(self, folder: Path) -> str:
        return f"vidstreamx-media-{os.getpid()}-{''.join(c if c.isalnum() else '-' for c in folder.name)}"


def transcode(transcoder: Transcoder, file: Path) -> TranscodeRun:
    """Transcodes the file into a folder with the same name in the transcoder's outputs."""
    folder = transcoder.outputs / file.name
    run_file = folder.with_name(f"{folder.name}.run.json")
    fingerprint = f"{_fingerprint(transcoder.binary)} {_fingerprint(file)}"
    try:
        saved = json.loads(run_file.read_text())
        if saved.pop("fingerprint") == fingerprint and folder.is_dir():
            return TranscodeRun(folder, saved["exit_code"], saved["seconds"])
    except (OSError, ValueError, KeyError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = _run(transcoder, file, folder)
    run_file.write_text(json.dumps({**asdict(run), "folder": str(folder), "fingerprint": fingerprint}))
    return run


def _run(transcoder: Transcoder, file: Path, folder: Path) -> TranscodeRun:
    start = time.monotonic()
    run = TranscodeRun(folder, None, 0.0)
    with run.log.open("wb") as log:
        command = transcoder.command(file, folder)
        try:
            code: int | None = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=_TIMEOUT
            ).returncode
        except subprocess.TimeoutExpired:
            transcoder.stop(folder)
            code = None
    return TranscodeRun(folder, code, time.monotonic() - start)


def _fingerprint(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
