"""Formats the results of `make bench-stream`."""

from __future__ import annotations

from statistics import median
from typing import Any

from vidstreamx_devtools.bench import environment
from vidstreamx_devtools.bench.report import Target, duration, median_of, table, targets_table

PLAYABLE = 3.0  # seconds
OVERHEAD = 1.05
# Seconds, in addition to the time for one segment of every rung.
INTERRUPTION = 5.0
EXIT = 20.0  # seconds after SIGTERM
MEMORY, DISK = 64, 300  # MB

_SIGNALS = ("SIGKILL", "SIGTERM")

Row = dict[str, Any]


def render(results: Row) -> str:
    parts = [
        "## The stream",
        "Time to first playback, cost of an interruption, and the effect of the length: `make bench-stream`.",
        _method(results),
        "### Targets",
        targets_table("", targets(results)),
        "### Time to first playback",
        _playable(results),
        "### Compared with FFmpeg alone",
        _overhead(results),
        "### Interruptions",
        _interruption(results),
        "### Memory and disk",
        _footprint(results),
        "### Machine",
        f"{environment.sentence(results['environment'])} The run took {results['minutes']:.0f} minutes.",
        "### How to run it",
        "```sh\nmake bench-stream                                  # writes this section\n"
        "make bench-stream BENCH=--quick                    # short sources, one run; prints only\n"
        "make bench-stream BENCH='--only interruption'      # one measurement; prints its figures\n"
        "make bench-stream BENCH=--render                   # writes this section from target/bench/stream.json\n"
        "```\n\n"
        "The clip comes from `../shared/corpus` (`VIDSTREAMX_CORPUS` selects another folder). Without the corpus, it is"
        " generated with FFmpeg's `testsrc2`. The local AWS keeps uploads in memory, so the longest sources need some"
        " 6 GB of memory. Generating them needs 3 GB of disk.",
    ]
    return "\n\n".join(parts) + "\n"


def targets(results: Row) -> list[Target]:
    found = []
    for row in results["playable"]:
        seconds = median_of(row["runs"], "playable")
        label = f"time to first playback: {_label(row)}"
        found.append(Target(label, f"at most {PLAYABLE:.0f} s", f"{seconds:.2f} s", seconds <= PLAYABLE))
    for row in results["overhead"]:
        for name, label in (("files", "files"), ("store", "S3")):
            ratio = _ratio(row, name)
            # Targets have two digits, so the ratio is rounded to two digits.
            is_met = ratio < OVERHEAD + 0.005
            limit = f"at most {OVERHEAD:.2f}x of bare"
            found.append(Target(f"wall time, {label}: {_label(row)}", limit, f"{ratio:.3f}x", is_met))
    runs = results["interruption"]["runs"]
    for signal in _SIGNALS:
        cost = median(_cost(run, signal) for run in runs)
        most = median(_segment_seconds(run) for run in runs) + INTERRUPTION
        found.append(
            Target(f"cost of {signal} half-way", f"at most {most:.2f} s", f"{cost:.2f} s", cost <= most)
        )
    seconds = median(run["SIGTERM"]["exit_seconds"] for run in runs)
    found.append(Target("exit after SIGTERM", f"at most {EXIT:.0f} s", f"{seconds:.2f} s", seconds <= EXIT))
    for row in results["footprint"]:
        peak = row["peak"]
        found.append(Target(f"memory: {_label(row)}", f"below {MEMORY} MB", f"{peak:.1f} MB", peak < MEMORY))
    disk = max(row["disk"] for row in results["footprint"])
    found.append(Target("disk, all of these", f"below {DISK} MB", f"{disk:.1f} MB", disk < DISK))
    return found


def _method(results: Row) -> str:
    runs = results["runs"]
    count = f"medians of {runs} runs" if runs > 1 else "of one run only"
    return (
        "Each task runs as on ECS: in a container of the transcoder's image with a read-only root file system, its job in"
        " the environment, and the credentials of its own role. S3 is that of the local stack (ministack, IAM enforced),"
        " on the same cores. Only *files* and *bare* below read and write plain files instead. Times count from the start"
        " of the process, not of the container. Each source is ten seconds of a natural 1080p clip with audio, encoded as"
        " listed, and then repeated to its length without encoding it again. Its sample index is at the end of the file."
        f" Times are {count}; memory and disk are peaks of one run."
    )


def _playable(results: Row) -> str:
    header = ["source", "length", "size", "started", "planned", "playable", "single runs", "memory so far"]
    rows = [
        [
            row["description"],
            duration(row["seconds"]),
            f"{row['bytes'] / 1e6:,.0f} MB",
            *(f"{median_of(row['runs'], name):.2f} s" for name in ("started", "planned", "playable")),
            ", ".join(f"{run['playable']:.2f}" for run in row["runs"]),
            f"{max(run['peak'] for run in row['runs']):.1f} MB",
        ]
        for row in results["playable"]
    ]
    return (
        "*Started*: seconds until the task has its credentials and has found its source. *Planned*: seconds until it has"
        " analysed the source and has a plan. *Playable*: seconds until the master playlist is published, with the first"
        f" segment of every rung, by the store's clock. Then the task is killed.\n\n{table(header, rows)}"
    )


def _overhead(results: Row) -> str:
    header = ["source", "length", "bare s", "files s", "files / bare", "S3 s", "S3 / bare"]
    rows, each = [], []
    for row in results["overhead"]:
        bare, files, store = (median(row["walls"][name]) for name in ("bare", "files", "store"))
        rows.append(
            [
                row["description"],
                duration(row["seconds"]),
                f"{bare:.2f}",
                f"{files:.2f}",
                f"{_ratio(row, 'files'):.3f}x",
                f"{store:.2f}",
                f"{_ratio(row, 'store'):.3f}x",
            ]
        )
        walls = "; ".join(
            f"{'S3' if name == 'store' else name} {', '.join(f'{wall:.2f}' for wall in values)}"
            for name, values in row["walls"].items()
        )
        each.append(f"{row['description']}: {walls}.")
    return (
        "**Bare** runs the task's FFmpeg commands in parallel on a file and discards their outputs. **Files** is the"
        " task from a file into a folder, **S3** is the task from bucket to bucket. The store runs on the same cores, so"
        f" its CPU time is part of the wall time.\n\n{table(header, rows)}\n\n"
        f"Wall seconds of each run: {' '.join(each)}"
    )


def _interruption(results: Row) -> str:
    measured = results["interruption"]
    runs = measured["runs"]
    undisturbed = median(run["undisturbed"] for run in runs)
    header = ["", "first attempt", "second attempt", "cost", "exit", "resumed", "new segment"]
    header += ["segments left", "segments repeated", "cost of each run"]
    rows = []
    for signal in _SIGNALS:
        attempts = [run[signal] for run in runs]
        rows.append(
            [
                signal,
                *(f"{median_of(attempts, name):.2f} s" for name in ("first", "second")),
                f"{median(_cost(run, signal) for run in runs):.2f} s",
                *(
                    f"{median_of(attempts, name):.2f} s"
                    for name in ("exit_seconds", "resumed", "new_segment")
                ),
                *(f"{median_of(attempts, name):.0f}" for name in ("left", "repeated")),
                ", ".join(f"{_cost(run, signal):.2f}" for run in runs),
            ]
        )
    first = runs[0]
    return (
        f"{measured['description']}, {duration(measured['seconds'])}, {first['rungs']} rungs of {first['segments']}"
        f" segments. An undisturbed task takes {undisturbed:.2f} s, so one segment of every rung takes"
        f" {median(_segment_seconds(run) for run in runs):.2f} s. An attempt gets the signal when half of the segments of"
        " every rung are published (SIGKILL also ends FFmpeg and everything else in the container). The next attempt"
        " runs to its end. *Cost* is the time of both attempts minus that of the undisturbed task in the same run; the"
        " time that ECS needs to start a task is not included. *Exit* is the time from the signal to the first attempt's"
        " exit. *Resumed* and *new segment* are the times until the second attempt knows its resume point and publishes"
        f" its first segment. *Repeated* segments were published before.\n\n{table(header, rows)}{_difference_warning(runs)}"
    )


def _difference_warning(runs: list[Row]) -> str:
    """A resumed stream must have the same segments as an undisturbed one."""
    attempts = [run[signal] for run in runs for signal in _SIGNALS]
    missing, extra = (sum(attempt[name] for attempt in attempts) for name in ("missing", "extra"))
    if not missing and not extra:
        return ""
    return (
        f"\n\n**The streams differ**: the interrupted ones lack {missing} segments and have {extra} others."
    )


def _footprint(results: Row) -> str:
    header = ["source", "length", "size", "took", "video segments", "memory", "disk"]
    rows = [
        [
            row["description"],
            duration(row["seconds"]),
            f"{row['bytes'] / 1e6:,.0f} MB",
            f"{row['wall']:.0f} s",
            f"{row['segments']:,}",
            f"{row['peak']:.1f} MB",
            f"{row['disk']:.1f} MB",
        ]
        for row in results["footprint"]
    ]
    return (
        "Peak resident memory (VmHWM) of `transcoder-task` itself, without FFmpeg, and the peak size of its folder for"
        f" temporary files, sampled twice per second. It can write nowhere else.\n\n{table(header, rows)}"
    )


def _label(row: Row) -> str:
    return f"{row['description']}, {duration(row['seconds'])}"


def _cost(run: Row, signal: str) -> float:
    return float(run[signal]["first"] + run[signal]["second"] - run["undisturbed"])


def _segment_seconds(run: Row) -> float:
    """The time for one segment of every rung."""
    return float(run["undisturbed"] / run["segments"])


def _ratio(row: Row, name: str) -> float:
    return float(median(row["walls"][name]) / median(row["walls"]["bare"]))
