"""Terminal output of the commands: one line per step with its duration, a progress line, and tables."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator

_WIDTH = 52


class ProgressLine:
    """A line that is redrawn in place. Without a terminal it prints a new line every few seconds."""

    def __init__(self, label: str, every_seconds: float = 5) -> None:
        self._label = label
        self._every = every_seconds
        self._start = self._printed = time.monotonic()
        self._redraws = sys.stdout.isatty()
        if self._redraws:
            _write(f"  {label} …")

    def update(self, text: str) -> None:
        now = time.monotonic()
        if self._redraws:
            columns = shutil.get_terminal_size().columns
            _write("\r\033[K" + f"  {self._label} {text}"[: columns - 1])
        elif now - self._printed >= self._every:
            self._printed = now
            _write(f"  {self._label} {text}\n")

    def end(self, text: str = "") -> None:
        seconds = time.monotonic() - self._start
        label = f"{self._label} {text}".strip()
        _write(("\r\033[K" if self._redraws else "") + f"  {label:<{_WIDTH}}{seconds:4.0f} s\n")

    def clear(self) -> None:
        if self._redraws:
            _write("\r\033[K")


@contextlib.contextmanager
def timed_step(label: str) -> Iterator[None]:
    """Prints a line with the step's duration. Steps under half a second print nothing."""
    line = ProgressLine(label)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        line.clear()
        raise
    if time.monotonic() - start >= 0.5:
        line.end()
    else:
        line.clear()


def table(rows: list[list[str]], header: list[str]) -> str:
    """A table with columns of minimal width: the first aligned left, the others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  " + "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()

    return "\n".join([line(header), line(["─" * width for width in widths]), *map(line, rows)])


def left_aligned_table(rows: list[list[str]]) -> str:
    """All columns aligned left; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def bit_rate(bits: float) -> str:
    return f"{bits / 1e6:.2f} Mb/s" if bits >= 1e6 else f"{bits / 1e3:.0f} kb/s"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
