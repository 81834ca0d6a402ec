"""The result as a table of file, expected, got."""

from __future__ import annotations

from pathlib import Path

from vidstreamx_devtools.media.verdict import Verdict

_WIDEST = 160


def write(verdicts: list[Verdict], path: Path) -> None:
    wrong = [verdict for verdict in verdicts if verdict.differences]
    count = sum(len(verdict.differences) for verdict in wrong)
    lines = [
        f"{len(verdicts)} files, {len(verdicts) - len(wrong)} as expected, {count} differences in the others.",
        "",
        "| file | categories | aspect | expected | got |",
        "|---|---|---|---|---|",
    ]
    for verdict in verdicts:
        state = f"{len(verdict.differences)} differences" if verdict.differences else "ok"
        lines.append(_row(verdict.file, verdict.categories, state, verdict.expected, verdict.got))
        lines += [_row(verdict.file, "", one.what, one.expected, one.got) for one in verdict.differences]
    path.write_text("\n".join(lines) + "\n")


def short(verdicts: list[Verdict]) -> str:
    """A line per file, for a terminal."""
    width = max(len(verdict.file) for verdict in verdicts)
    lines = []
    for verdict in sorted(verdicts, key=lambda one: -len(one.differences)):
        state = f"{len(verdict.differences)} differ" if verdict.differences else "ok"
        lines.append(f"{verdict.file:{width}}  {verdict.categories:7}  {state:10}  {_cut(verdict.got)}".rstrip())
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return "| " + " | ".join(_cut(cell) for cell in cells) + " |"


def _cut(text: str) -> str:
    plain = text.replace("\n", " ").replace("|", "\\|")
    return plain if len(plain) <= _WIDEST else plain[: _WIDEST - 1] + "…"
