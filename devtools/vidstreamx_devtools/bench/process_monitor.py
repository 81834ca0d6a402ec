"""Programs of this machine, each on cores of its own, watched from outside through /proc."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from vidstreamx_devtools.settings import REPO
from vidstreamx_devtools.settings import Problem

_CORES = sorted(os.sched_getaffinity(0))
# The endpoints and this program get the last core, what is measured all others.
PINNED = len(_CORES) > 1
MEASURED_CORES = set(_CORES[:-1]) if PINNED else set(_CORES)
OTHER_CORES = {_CORES[-1]}

_TICKS = os.sysconf("SC_CLK_TCK")


class Watched:
    """A program that runs until the end of its `with`."""

    def __init__(self, name: str, command: list, environment: dict[str, str], cores: set[int]):
        self.name = name
        self.log = REPO / "target" / "bench" / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [str(part) for part in command],
            # Of this environment nothing but where programs are: no settings and no credentials of anybody.
            env={"PATH": os.environ["PATH"], **environment},
            cwd=self.log.parent,  # where no .env of anybody's is
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log.open("wb"),
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        self._proc = Path("/proc") / str(self._process.pid)

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def line(self) -> str:
        """The next line that it says."""
        line = self._process.stdout.readline().decode().strip()
        if not line:
            raise Problem(f"{self.name} ended: {self._last_words()}")
        return line

    def megabytes(self, field: str = "VmRSS") -> float:
        """VmRSS: in memory now. VmHWM: the most so far. RssAnon: without the program's own file."""
        self._check()
        found = re.search(rf"^{field}:\s*(\d+) kB", (self._proc / "status").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 / 1e6

    def cpu_seconds(self) -> float:
        self._check()
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def until(self, reached: Callable[[], bool], seconds: float, what: str) -> list[float]:
        """Waits, and gives the memory in MB at every second of it."""
        start, samples = time.monotonic(), []
        while not reached():
            samples.append(self.megabytes())
            if time.monotonic() - start > seconds:
                raise Problem(f"{what}: not within {seconds:.0f} s (log of the program: {self.log})")
            time.sleep(max(0.0, start + len(samples) - time.monotonic()))
        return samples

    def rest(self, seconds: float) -> list[float]:
        end = time.monotonic() + seconds
        return self.until(lambda: time.monotonic() >= end, seconds + 60, "waiting")

    def _check(self) -> None:
        if self._process.poll() is not None:
            raise Problem(f"{self.name} ended with {self._process.returncode}: {self._last_words()}")

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace").strip()[-500:]
