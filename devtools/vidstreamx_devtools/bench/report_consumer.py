"""Formats the results of `make bench-consumer`."""

from __future__ import annotations

from statistics import median
from typing import Any

from vidstreamx_devtools.bench import environment
from vidstreamx_devtools.bench.report import Target, median_of, table, targets_table

IDLE, IN_FLIGHT = 25, 64  # MB
LAUNCHES, CORE = 20, 0.05
UNLIMITED = 300  # launches per second
# Memory of the last quarter of the long run, relative to the second quarter. In the first quarter memory
# still grows with the number of videos in flight and parallel calls.
FLAT = 1.05

HISTORY_SECONDS, HISTORY = 1.0, 40  # s, MB

_TENTHS = 10

Row = dict[str, Any]


def render(results: Row) -> str:
    parts = [
        "## The consumer",
        "One process with SQS, ECS and S3 in memory, compared with sequential processing: `make bench-consumer`.",
        _method(results),
        "### Targets",
        targets_table("", targets(results)),
        "### Compared with sequential processing",
        _comparison(results),
        "### Memory",
        _memory(results),
        "### A library",
        _library(results),
        "### Calls",
        _calls(results),
        "### Machine",
        f"{environment.sentence(results['environment'])} The run took {results['minutes']:.0f} minutes.",
        "### How to run it",
        "```sh\nmake bench-consumer                                # writes this section\n"
        "make bench-consumer BENCH=--quick                  # measures less, in two minutes; prints only\n"
        "make bench-consumer BENCH='--only sustained'       # one measurement; prints its figures\n"
        "make bench-consumer BENCH=--render                 # writes this section from target/bench/consumer.json\n"
        "```",
    ]
    return "\n\n".join(parts) + "\n"


def headline(name: str, measured: Any) -> str:
    """One measurement for the terminal."""
    match name:
        case "idle":
            return f"{measured['rss']:.1f} MB"
        case "in_flight":
            holding, peak, after = (measured[field] for field in ("holding", "peak", "after"))
            return f"{holding:.1f} MB, peak {peak:.1f} MB, {after:.1f} MB after all ended"
        case "sustained":
            return f"{measured['launches']:.1f} launches/s at {measured['core']:.1%} of a core"
        case "long_run":
            return f"{measured['videos']:,} videos in {measured['seconds']:.0f} s, peak {measured['peak']:.1f} MB"
        case "library":
            rows = measured["commands"].items()
            return ", ".join(f"{name}: {row['seconds']:.2f} s, {row['peak']:.1f} MB" for name, row in rows)
        case _:
            launches, cpu_ms = median_of(measured, "launches"), median_of(measured, "cpu_ms")
            return f"{launches:.1f} launches/s, {cpu_ms:.2f} ms of CPU time each"


def targets(results: Row) -> list[Target]:
    idle, flight, sustained, long_run = (
        results[name] for name in ("idle", "in_flight", "sustained", "long_run")
    )
    unlimited, growth = median_of(results["unlimited"], "launches"), _growth(long_run["rss"])
    videos, history = results["library"]["videos"], results["library"]["commands"]["history"]
    # The window can cut off one launch at each end.
    keeps_up = sustained["launches"] >= LAUNCHES - 1 / sustained["window"] * 2
    return [
        Target(
            "one minute of empty long polls", f"below {IDLE} MB", f"{idle['rss']:.1f} MB", idle["rss"] < IDLE
        ),
        Target(
            f"{flight['videos']:,} videos in flight, from first launch to last end",
            f"below {IN_FLIGHT} MB",
            f"{flight['peak']:.1f} MB",
            flight["peak"] < IN_FLIGHT,
        ),
        Target(
            f"{LAUNCHES} launches/s for {sustained['window']} s",
            f"below {CORE:.0%} of a core",
            f"{sustained['core']:.1%} at {sustained['launches']:.1f}/s",
            keeps_up and sustained["core"] < CORE,
        ),
        Target(
            "no launch rate", f"at least {UNLIMITED} launches/s", f"{unlimited:.0f}/s", unlimited >= UNLIMITED
        ),
        Target(
            f"{long_run['videos']:,} videos, memory of the 4th relative to the 2nd quarter",
            f"at most {FLAT:.2f}x",
            f"{growth:.3f}x",
            growth <= FLAT,
        ),
        Target(
            f"`history` of a day, {videos // 100:,} of {videos:,} videos",
            f"at most {HISTORY_SECONDS:.0f} s and {HISTORY} MB",
            f"{history['seconds']:.2f} s, {history['peak']:.1f} MB",
            history["seconds"] <= HISTORY_SECONDS and history["peak"] <= HISTORY,
        ),
    ]


def _method(results: Row) -> str:
    cores = (
        "The endpoints have their own core, and the measured program has the others"
        if results["pinned"]
        else "There is only one core, so the endpoints and the measured program share it"
    )
    return (
        "The endpoints (`bench/endpoints`) implement visibility, conditional writes and client tokens as the services do,"
        " and answer each call after 50 ms. Every simulated task runs for a fixed time and succeeds. Messages,"
        f" receipt handles, task descriptions and reports have the same lengths as on AWS. {cores}. Connections are"
        " plain HTTP, so TLS is not measured. Memory is resident memory, which includes some 13 MB of the program's own"
        " file. CPU time is user and system time. The log is written to a file at its default level.\n\n"
        "**Sequential** is a loop with the same SDK that receives one message, starts its task and deletes the message."
        " It keeps no records, watches no tasks and retries no call."
    )


def _comparison(results: Row) -> str:
    programs = [
        ("sequential", results["sequential"]),
        ("consumer, no launch rate", results["unlimited"]),
        (f"consumer, {LAUNCHES} launches/s", [results["sustained"]]),
    ]
    rows = []
    for name, runs in programs:
        calls = sum(median(run["calls"].get(call, 0) for run in runs) for call in _call_names(runs))
        rows.append(
            [
                name,
                f"{median_of(runs, 'launches'):.1f}",
                f"{median_of(runs, 'cpu_ms'):.2f}",
                f"{median_of(runs, 'core'):.1%}",
                f"{median_of(runs, 'rss'):.1f} MB",
                f"{calls:.1f}",
            ]
        )
    header = ["", "launches/s", "CPU ms per launch", "share of a core", "memory", "calls per launch"]
    count = len(results["unlimited"])
    note = f"\n\nMedians of {count} runs, except for the last row." if count > 1 else ""
    return table(header, rows) + note


def _memory(results: Row) -> str:
    flight, long_run, idle = results["in_flight"], results["long_run"], results["idle"]
    rss = long_run["rss"]
    length = max(len(rss) // _TENTHS, 1)
    starts = range(0, min(length * _TENTHS, len(rss)), length)
    tenths = ", ".join(f"{median(rss[start : start + length]):.1f}" for start in starts)
    rows = [
        ["idle", f"{idle['rss']:.1f} MB, of which {idle['anonymous']:.1f} MB are its own data"],
        [
            f"while {flight['videos']:,} tasks are launched, in {flight['launching_seconds']:.0f} s",
            f"up to {flight['launching']:.1f} MB",
        ],
        ["while they run", f"{flight['holding']:.1f} MB (median), at {flight['holding_core']:.1%} of a core"],
        [
            f"while all are settled at once, in {flight['settling_seconds']:.0f} s",
            f"up to {flight['settling']:.1f} MB",
        ],
        ["25 s later", f"{flight['after']:.1f} MB"],
    ]
    rate = long_run["videos"] / long_run["seconds"]
    return (
        f"{table(['', 'memory'], rows)}\n\n"
        f"{long_run['videos']:,} videos through one process took {long_run['seconds']:.0f} s ({rate:.0f} per second,"
        f" {long_run['cpu_ms']:.2f} ms of CPU time each; tasks of one second, answers after 5 ms, 1,000 in flight)."
        f" Memory by tenths of that time, in MB (medians of one sample per second): {tenths}; peak"
        f" {long_run['peak']:.1f}."
    )


def _library(results: Row) -> str:
    library = results["library"]
    videos = library["videos"]
    rows = [
        [
            f"`{name}`",
            f"{row['seconds']:.2f} s",
            f"{row['cpu_seconds']:.2f} s",
            f"{row['peak']:.1f} MB",
            f"{row['calls']:,.0f}",
        ]
        for name, row in library["commands"].items()
    ]
    return (
        f"Commands beside the records and uploads of {videos:,} videos, of which {videos // 100:,} are of the last"
        f" day (medians of {library['runs']} runs; peak memory, sampled every 5 ms). `history` lists all records and reads those of"
        " the day, and its CPU time is mostly that of parsing the listing. `submit` lists all uploads page by"
        " page.\n\n" + table(["", "time", "CPU time", "memory", "calls"], rows)
    )


def _calls(results: Row) -> str:
    columns = [[results["sustained"]], results["unlimited"]]
    rows = [
        [name, *(f"{median(run['calls'].get(name, 0) for run in runs):.2f}" for runs in columns)]
        for name in _call_names([run for runs in columns for run in runs])
    ]
    return "Per launch:\n\n" + table(["", f"{LAUNCHES} launches/s", "no launch rate"], rows)


def _call_names(runs: list[Row]) -> list[str]:
    return sorted({name for run in runs for name in run["calls"]})


def _growth(samples: list[float]) -> float:
    quarter = max(len(samples) // 4, 1)
    return median(samples[-quarter:]) / median(samples[quarter : 2 * quarter] or samples)
