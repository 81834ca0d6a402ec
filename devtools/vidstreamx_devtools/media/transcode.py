"""Runs the transcoder on a file, and reuses the output while neither the program nor the file changes."""

from __future__ import annotations

import json
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


def transcode(binary: Path, file: Path) -> TranscodeRun:
    """Transcodes the file into a folder with the same name in `OUTPUTS`."""
    folder = OUTPUTS / file.name
    run_file = OUTPUTS / f"{file.name}.run.json"
    fingerprint = f"{_fingerprint(binary)} {_fingerprint(file)}"
    try:
        saved = json.loads(run_file.read_text())
        if saved.pop("fingerprint") == fingerprint and folder.is_dir():
            return TranscodeRun(folder, saved["exit_code"], saved["seconds"])
    except (OSError, ValueError, KeyError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = _run(binary, file, folder)
    run_file.write_text(json.dumps({**asdict(run), "folder": str(folder), "fingerprint": fingerprint}))
    return run


def _run(binary: Path, file: Path, folder: Path) -> TranscodeRun:
    start = time.monotonic()
    with folder.with_name(f"{folder.name}.log").open("wb") as log:
        command = [str(binary), "--input", str(file), "--output", str(folder)]
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=_TIMEOUT
            ).returncode
        except subprocess.TimeoutExpired:
            return TranscodeRun(folder, None, time.monotonic() - start)
    return TranscodeRun(folder, code, time.monotonic() - start)


def _fingerprint(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
