"""Running the task's program on a file, once for as long as neither of the two changes."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vidstreamx_devtools.settings import REPO

OUTPUTS = REPO / "target" / "media"
_TIME_LIMIT = 180  # seconds; the longest of the corpus takes a third of it


@dataclass(frozen=True)
class Run:
    folder: Path
    exit_code: int | None  # None if the time limit ended it
    seconds: float

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")


def transcoded(binary: Path, file: Path, under: Path) -> Run:
    folder = under / file.name
    note = under / f"{file.name}.run.json"
    stamp = f"{_state(binary)} {_state(file)}"
    try:
        known = json.loads(note.read_text())
        if known.pop("stamp") == stamp and folder.is_dir():
            return Run(folder, known["exit_code"], known["seconds"])
    except (OSError, ValueError, KeyError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = _run(binary, file, folder)
    note.write_text(json.dumps({**asdict(run), "folder": str(folder), "stamp": stamp}))
    return run


def _run(binary: Path, file: Path, folder: Path) -> Run:
    started = time.monotonic()
    with folder.with_name(f"{folder.name}.log").open("wb") as log:
        command = [str(binary), "--input", str(file), "--output", str(folder)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=_TIME_LIMIT)
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = None
    return Run(folder, code, time.monotonic() - started)


def _state(path: Path) -> str:
    about = path.stat()
    return f"{about.st_size} {about.st_mtime_ns}"
