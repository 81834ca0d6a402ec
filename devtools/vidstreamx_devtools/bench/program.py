"""Common to the benchmark programs: arguments, results file, section of docs/BENCHMARKS.md, exit codes."""

from __future__ import annotations

import json
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vidstreamx_devtools.bench import report
from vidstreamx_devtools.bench.report import Target
from vidstreamx_devtools.settings import REPO, UserError

Results = dict[str, Any]

FOLDER = REPO / "target" / "bench"


@dataclass(frozen=True)
class Benchmark:
    command: str  # the make target, which also marks the section
    results_file: str
    render: Callable[[Results], str]
    targets: Callable[[Results], list[Target]]

    def argument_parser(self) -> ArgumentParser:
        parser = ArgumentParser(
            prog=f"{self.command} BENCH=…",
            description=f"Writes target/bench/{self.results_file} and a section of docs/BENCHMARKS.md.",
        )
        parser.add_argument("--quick", action="store_true", help="measure less, and only print the section")
        parser.add_argument(
            "--render", action="store_true", help="measure nothing: write the section from the last results"
        )
        return parser

    def main(
        self, parser: ArgumentParser, measure: Callable[[Namespace], tuple[Results, bool] | None]
    ) -> None:
        """Runs the program and exits.

        `measure` returns the results and whether they are complete. Incomplete results are only printed. It
        returns None if nothing remains to print.
        """
        # SIGTERM raises an exception, so that containers and processes are stopped.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        flags = parser.parse_args()
        try:
            if flags.render:
                report.write_section(self.command, self.render(self._load()))
                return
            measured = measure(flags)
            if measured is None:
                return
            results, is_complete = measured
            if not is_complete:
                print(self.render(results))
                return
            FOLDER.mkdir(parents=True, exist_ok=True)
            (FOLDER / self.results_file).write_text(json.dumps(results, indent=1))
            report.write_section(self.command, self.render(results))
            print(report.summary(self.targets(results)))
            print(f"\n  Written: {report.PAGE.relative_to(REPO)}")
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)

    def _load(self) -> Results:
        path = FOLDER / self.results_file
        if not path.exists():
            raise UserError(f"there is no {path}: measure first")
        results: Results = json.loads(path.read_text())
        return results
