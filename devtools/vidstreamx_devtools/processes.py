"""Background processes that outlive the command that started them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from vidstreamx_devtools.settings import Problem, Settings


class Process:
    """A process known by its pid file. The start time in it tells reused process ids apart."""

    def __init__(self, settings: Settings, name: str):
        self.name = name
        self.log = settings.log(name)
        self._file = settings.state / f"{name}.pid"

    @property
    def _known(self) -> dict:
        try:
            return json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}

    @property
    def pid(self) -> int | None:
        """The process id if it is running."""
        known = self._known
        if known and _start_time(known["pid"]) == known["start_time"]:
            return known["pid"]
        return None

    @property
    def fingerprint(self) -> str:
        """What `start` was told, to see whether a running process is of today's making."""
        return self._known.get("fingerprint", "")

    def start(self, command: list, env: dict[str, str], fingerprint: str = "", cwd: Path | None = None) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            started = subprocess.Popen(
                [str(part) for part in command],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # no Ctrl-C reaches it, and its group is all its own
            )
        known = {"pid": started.pid, "start_time": _start_time(started.pid), "fingerprint": fingerprint}
        self._file.write_text(json.dumps(known))

    def stop(self, patience: float = 10) -> bool:
        """Ends it, at first politely. False if it was not running."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
            deadline = time.monotonic() + patience
            while self.pid is not None and time.monotonic() < deadline:
                time.sleep(0.05)
            if self.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        self._file.unlink(missing_ok=True)
        return pid is not None

    def wait_until(self, is_ready, patience: float) -> None:
        """Waits for readiness; a process that ends instead is a problem, named with its last words."""
        deadline = time.monotonic() + patience
        while not is_ready():
            if self.pid is None:
                raise Problem(f"{self.name} ended at once: {self.last_line()} (all of it: {self.log})")
            if time.monotonic() > deadline:
                raise Problem(f"{self.name} is not ready after {patience:.0f} s: see {self.log}")
            time.sleep(0.05)

    def last_line(self) -> str:
        with contextlib.suppress(OSError):
            text = re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(errors="replace"))
            lines = text.strip().splitlines()
            if lines:
                return lines[-1].strip()
        return "it said nothing"


def _start_time(pid: int) -> str | None:
    """In clock ticks since boot; None if there is no such process, or only its remains."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        # The second field, a name in brackets, can hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
