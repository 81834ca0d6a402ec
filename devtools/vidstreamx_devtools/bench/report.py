"""Writes docs/BENCHMARKS.md: one section per benchmark, with tables and targets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from vidstreamx_devtools.settings import REPO, UserError
from vidstreamx_devtools.terminal import left_aligned_table

PAGE = REPO / "docs" / "BENCHMARKS.md"


@dataclass(frozen=True)
class Target:
    subject: str
    limit: str
    got: str
    is_met: bool
    missed_by: str = ""


def write_section(command: str, text: str) -> None:
    """Replaces the text between the marks of the command."""
    name = re.escape(command)
    marks = re.compile(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
    page, count = marks.subn(lambda match: f"{match[1]}\n{text.strip()}\n\n{match[2]}", PAGE.read_text())
    if count != 1:
        raise UserError(f"{PAGE} has no section for `{command}`: restore it from Git")
    PAGE.write_text(page)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def targets_table(subject: str, targets: Sequence[Target]) -> str:
    """A table with the number of met targets above it. `subject` is the header of the first column."""
    rows = []
    for target in targets:
        missed = "**missed**" + (f" by {target.missed_by}" if target.missed_by else "")
        rows.append([target.subject, target.limit, target.got, "met" if target.is_met else missed])
    met = sum(target.is_met for target in targets)
    return f"{met} of {len(targets)} met.\n\n" + table([subject, "target", "got", ""], rows)


def summary(targets: Sequence[Target]) -> str:
    """The targets for the terminal."""
    rows = [
        ["  " + target.subject, target.limit, target.got, "met" if target.is_met else "missed"]
        for target in targets
    ]
    return left_aligned_table(rows)


def median_of(runs: Sequence[dict[str, Any]], field: str) -> float:
    return float(median(run[field] for run in runs))


def duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"
