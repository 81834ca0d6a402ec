"""Background processes that outlive the command that started them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vidstreamx_devtools.settings import Settings, UserError


class BackgroundProcess:
    """A process with a pid file. The file also has the start time, which exposes a reused process id."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.name = name
        self.log = settings.log(name)
        self._pid_file = settings.state / f"{name}.pid"

    @property
    def _saved(self) -> dict[str, Any]:
        try:
            saved: dict[str, Any] = json.loads(self._pid_file.read_text())
        except (OSError, ValueError):
            return {}
        return saved

    @property
    def pid(self) -> int | None:
        """The process id, or None if the process does not run."""
        saved = self._saved
        if saved and _start_time(saved["pid"]) == saved["start_time"]:
            return int(saved["pid"])
        return None

    @property
    def fingerprint(self) -> str:
        """The fingerprint given to `start`: shows whether the running process is up to date."""
        return str(self._saved.get("fingerprint", ""))

    def start(
        self,
        command: Sequence[str | Path],
        environment: dict[str, str],
        fingerprint: str = "",
        cwd: Path | None = None,
    ) -> None:
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            started = subprocess.Popen(
                [str(part) for part in command],
                env=environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C does not reach it, and `stop` can signal its group
            )
        saved = {"pid": started.pid, "start_time": _start_time(started.pid), "fingerprint": fingerprint}
        self._pid_file.write_text(json.dumps(saved))

    def stop(self, timeout: float = 10) -> bool:
        """Sends SIGTERM, and SIGKILL after the timeout. Returns False if the process did not run."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
            deadline = time.monotonic() + timeout
            while self.pid is not None and time.monotonic() < deadline:
                time.sleep(0.05)
            if self.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        self._pid_file.unlink(missing_ok=True)
        return pid is not None

    def wait_until_ready(self, is_ready: Callable[[], bool], timeout: float) -> None:
        """Waits for readiness. Raises `UserError` with the last log line if the process exits first."""
        deadline = time.monotonic() + timeout
        while not is_ready():
            if self.pid is None:
                raise UserError(f"{self.name} exited: {self.last_line()} (log: {self.log})")
            if time.monotonic() > deadline:
                raise UserError(f"{self.name} is not ready after {timeout:.0f} s: see {self.log}")
            time.sleep(0.05)

    def last_line(self) -> str:
        with contextlib.suppress(OSError):
            text = re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(errors="replace"))
            lines = text.strip().splitlines()
            if lines:
                return lines[-1].strip()
        return "no output"


def _start_time(pid: int) -> str | None:
    """Start time in clock ticks since boot. None if there is no such process, or only a zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        # The second field, a program name in parentheses, can contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
