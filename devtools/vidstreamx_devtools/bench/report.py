"""docs/BENCHMARKS.md: one section per benchmark, each written by its own command without touching the others."""

from __future__ import annotations

import re
from pathlib import Path

from vidstreamx_devtools.settings import REPO
from vidstreamx_devtools.settings import Problem

PAGE = REPO / "docs" / "BENCHMARKS.md"


def put(command: str, text: str) -> None:
    """Puts a text between the marks of the command that makes it."""
    marks = re.compile(rf"(<!-- begin: {re.escape(command)} -->\n).*?(<!-- end: {re.escape(command)} -->)", re.DOTALL)
    page, found = marks.subn(lambda marks: f"{marks[1]}\n{text.strip()}\n\n{marks[2]}", PAGE.read_text())
    if found != 1:
        raise Problem(f"{PAGE} has no section of `{command}`: take it back from Git")
    PAGE.write_text(page)


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def shown(path: Path) -> str:
    return str(path.relative_to(REPO))
