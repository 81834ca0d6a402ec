"""Runs programs on their own cores and reads their memory and CPU time from /proc."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from vidstreamx_devtools.bench.program import FOLDER
from vidstreamx_devtools.settings import UserError

_CORES = sorted(os.sched_getaffinity(0))
# The endpoints and this program share the last core. The measured program has the others.
IS_PINNED = len(_CORES) > 1
MEASURED_CORES = set(_CORES[:-1]) if IS_PINNED else set(_CORES)
OTHER_CORES = {_CORES[-1]}

# The time between two samples of the memory of a program that runs to its end.
_SAMPLE_SECONDS = 0.005

_TICKS = os.sysconf("SC_CLK_TCK")


class MonitoredProcess:
    """A program that runs until the end of the `with` block."""

    def __init__(
        self,
        name: str,
        command: Sequence[object],
        environment: dict[str, str],
        cores: set[int],
        output: int | IO[bytes] = subprocess.PIPE,
    ) -> None:
        self.name = name
        self.log = FOLDER / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._start = time.monotonic()
        self._process = subprocess.Popen(
            [str(part) for part in command],
            # Passes on only PATH, so that the program does not use the user's settings and credentials.
            env={"PATH": os.environ["PATH"], **environment},
            cwd=self.log.parent,  # a folder without a .env file
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=self.log.open("wb"),
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        self._proc = Path("/proc") / str(self._process.pid)

    def __enter__(self) -> MonitoredProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def read_line(self) -> str:
        """The next line of the program's output."""
        assert self._process.stdout
        line = self._process.stdout.readline().decode().strip()
        if not line:
            raise UserError(f"{self.name} exited: {self._log_end()}")
        return line

    def run_to_end(self, timeout: float) -> tuple[float, float]:
        """Waits for the end of a program that succeeds. Returns its seconds and its peak memory in MB."""
        peak = 0.0
        while self._process.poll() is None:
            # The peak never falls, so the last sample misses only the growth after it. The kernel's figure of
            # an ended process (ru_maxrss) includes the memory of this program, from before exec.
            with contextlib.suppress(UserError):
                peak = max(peak, self.megabytes("VmHWM"))
            if time.monotonic() - self._start > timeout:
                raise UserError(f"{self.name} runs for more than {timeout:.0f} s (its log: {self.log})")
            time.sleep(_SAMPLE_SECONDS)
        seconds = time.monotonic() - self._start
        if self._process.returncode:
            raise UserError(f"{self.name} exited with {self._process.returncode}: {self._log_end()}")
        return seconds, peak

    def megabytes(self, field: str = "VmRSS") -> float:
        """VmRSS: resident memory now. VmHWM: the peak. RssAnon: without pages of files."""
        self._check_running()
        status = (self._proc / "status").read_text()
        match = re.search(rf"^{field}:\s*(\d+) kB", status, re.MULTILINE)
        if match is None:
            raise UserError(f"{self._proc}/status has no {field}")
        return int(match[1]) * 1024 / 1e6

    def cpu_seconds(self) -> float:
        self._check_running()
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def wait_until(self, condition: Callable[[], bool], timeout: float, event: str) -> list[float]:
        """Waits for the condition. Returns the memory in MB, sampled once per second."""
        start = time.monotonic()
        samples: list[float] = []
        while not condition():
            samples.append(self.megabytes())
            if time.monotonic() - start > timeout:
                raise UserError(f"{event}: not within {timeout:.0f} s (log of the program: {self.log})")
            time.sleep(max(0.0, start + len(samples) - time.monotonic()))
        return samples

    def observe(self, seconds: float) -> list[float]:
        """Waits. Returns the memory in MB, sampled once per second."""
        end = time.monotonic() + seconds
        return self.wait_until(lambda: time.monotonic() >= end, seconds + 60, "observation")

    def _check_running(self) -> None:
        if self._process.poll() is not None:
            raise UserError(f"{self.name} exited with {self._process.returncode}: {self._log_end()}")

    def _log_end(self) -> str:
        return self.log.read_text(errors="replace").strip()[-500:]
