"""Results as Markdown tables of file, expected and got, and as summaries for the terminal."""

from __future__ import annotations

from pathlib import Path

from vidstreamx_devtools.media.fault_checks import Row
from vidstreamx_devtools.media.verdict import Verdict

_MAX_CELL = 160


def write(verdicts: list[Verdict], path: Path) -> None:
    wrong = [verdict for verdict in verdicts if verdict.differences]
    count = sum(len(verdict.differences) for verdict in wrong)
    lines = [
        f"{len(verdicts)} files, {len(verdicts) - len(wrong)} as expected, {count} differences in the rest.",
        "",
        "| file | categories | aspect | expected | got |",
        "|---|---|---|---|---|",
    ]
    for verdict in verdicts:
        state = f"{len(verdict.differences)} differences" if verdict.differences else "ok"
        lines.append(_row(verdict.file, verdict.categories, state, verdict.expected, verdict.got))
        lines += [_row(verdict.file, "", one.aspect, one.expected, one.got) for one in verdict.differences]
    path.write_text("\n".join(lines) + "\n")


def summary(verdicts: list[Verdict]) -> str:
    """One line per file, those with differences first."""
    width = max(len(verdict.file) for verdict in verdicts)
    lines = []
    for verdict in sorted(verdicts, key=lambda verdict: -len(verdict.differences)):
        state = f"{len(verdict.differences)} differ" if verdict.differences else "ok"
        line = f"{verdict.file:{width}}  {verdict.categories:7}  {state:10}  {_shorten(verdict.got)}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def write_faults(rows: dict[str, list[Row]], path: Path) -> None:
    """Writes the table of faults. `rows`: the results by version of FFmpeg."""
    lines = ["| kind | file | FFmpeg | aspect | expected | got |", "|---|---|---|---|---|---|"]
    for version, listed in rows.items():
        for row in listed:
            state = f"{len(row.differences)} differences" if row.differences else "ok"
            lines.append(_row(row.kind, row.file, version, state, "", row.got))
            lines += [
                _row("", row.file, version, one.aspect, one.expected, one.got) for one in row.differences
            ]
    path.write_text("\n".join(lines) + "\n")


def fault_summary(rows: dict[str, list[Row]]) -> str:
    """One line per file, with a column for each version of FFmpeg."""
    width = max(len(row.file) for listed in rows.values() for row in listed)
    lines = [f"{'':4}{'':{width}}  {'  '.join(f'{version:22}' for version in rows)}".rstrip()]
    for same in zip(*rows.values(), strict=True):
        states = (f"{len(row.differences)} differ" if row.differences else "ok" for row in same)
        columns = "  ".join(f"{state:22}" for state in states)
        lines.append(f"{same[0].kind:4}{same[0].file:{width}}  {columns}".rstrip())
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return "| " + " | ".join(_shorten(cell) for cell in cells) + " |"


def _shorten(text: str) -> str:
    plain = text.replace("\n", " ").replace("|", "\\|")
    return plain if len(plain) <= _MAX_CELL else plain[: _MAX_CELL - 1] + "…"
