"""The consumer's results as a section for people."""

from __future__ import annotations

from statistics import median

from vidstreamx_devtools.bench import environment as about
from vidstreamx_devtools.bench.report import table

IDLE, IN_FLIGHT = 25, 64  # MB
LAUNCHES, CORE = 20, 0.05
UNLIMITED = 300  # launches per second
# The last quarter of the long run may take this much more memory than the second one. The first is still growing
# into what the most videos in flight and the most calls at once need.
FLAT = 1.05

_TENTHS = 10


def render(results: dict) -> str:
    parts = [
        "## The consumer",
        "One process against SQS, ECS and S3 in memory, and beside it the seed's way: `make bench-consumer`.",
        _how(results),
        "### Targets",
        _verdicts(results),
        "### Beside one message at a time",
        _beside(results),
        "### Memory",
        _memory(results),
        "### Calls",
        _calls(results),
        "### Machine",
        f"{about.sentence(results['about'])} It took {results['minutes']:.0f} minutes.",
        "### Again",
        "```sh\nmake bench-consumer                                # writes this section\n"
        "make bench-consumer BENCH=--quick                  # less of everything, in two minutes; prints instead\n"
        "make bench-consumer BENCH='--only sustained'       # one measurement; prints its figures\n"
        "make bench-consumer BENCH=--render                 # this section again from target/bench/consumer.json\n```",
    ]
    return "\n\n".join(parts) + "\n"


def summary(results: dict) -> str:
    """For the terminal."""
    return "\n".join(f"  {what:<58} {target:<30} {got:<20} {end}" for what, target, got, end in verdicts(results))


def headline(name: str, found: dict | list) -> str:
    """One measurement for the terminal."""
    match name:
        case "idle":
            return f"{found['rss']:.1f} MB"
        case "in_flight":
            return f"{found['holding']:.1f} MB, at most {found['most']:.1f} MB, {found['after']:.1f} MB after their ends"
        case "sustained":
            return f"{found['launches']:.1f} launches/s at {found['core']:.1%} of a core"
        case "long_run":
            return f"{found['videos']:,} videos in {found['seconds']:.0f} s, at most {found['most']:.1f} MB"
        case _:
            return f"{_median(found, 'launches'):.1f} launches/s, {_median(found, 'cpu_ms'):.2f} ms of CPU time each"


def verdicts(results: dict) -> list[tuple[str, str, str, str]]:
    idle, flight, sustained, long = (results[name] for name in ("idle", "in_flight", "sustained", "long_run"))
    unlimited, growth = _median(results["unlimited"], "launches"), _growth(long["rss"])
    # A window cuts a launch off at either end.
    keeps_up = sustained["launches"] >= LAUNCHES - 1 / sustained["window"] * 2
    found = [
        ("a minute of empty long polls", f"under {IDLE} MB", f"{idle['rss']:.1f} MB", idle["rss"] < IDLE),
        (
            f"{flight['videos']:,} videos in flight, from first launch to last end", f"under {IN_FLIGHT} MB",
            f"{flight['most']:.1f} MB", flight["most"] < IN_FLIGHT,
        ),
        (
            f"{LAUNCHES} launches/s for {sustained['window']} s", f"under {CORE:.0%} of a core",
            f"{sustained['core']:.1%} at {sustained['launches']:.1f}/s", keeps_up and sustained["core"] < CORE,
        ),
        ("launch rate lifted", f"at least {UNLIMITED} launches/s", f"{unlimited:.0f}/s", unlimited >= UNLIMITED),
        (
            f"{long['videos']:,} videos, memory of 4th to 2nd quarter", f"at most {FLAT:.2f}x",
            f"{growth:.3f}x", growth <= FLAT,
        ),
    ]  # fmt: skip
    return [(what, target, got, "met" if met else "missed") for what, target, got, met in found]


def _verdicts(results: dict) -> str:
    rows = [[what, target, got, end if end == "met" else f"**{end}**"] for what, target, got, end in verdicts(results)]
    met = sum(row[3] == "met" for row in rows)
    return f"{met} of {len(rows)} met.\n\n" + table(["", "target", "got", ""], rows)


def _how(results: dict) -> str:
    where = (
        "The endpoints have one core for themselves, what is measured has the others"
        if results["pinned"]
        else "There is but one core, which the endpoints share with what is measured"
    )
    return (
        "The endpoints (`bench/endpoints`) keep what the services keep (visibility, conditions, tokens) and answer every"
        " call after 50 ms; tasks of theirs run for a set time and end well. Messages, receipt handles, descriptions of"
        f" tasks and reports are as long as AWS's. {where}. Connections are plain HTTP: TLS is not in these figures."
        " Memory is resident memory and contains some 13 MB of the program's own file, CPU time is user and system time, both"
        " as Linux tells them. The log is written to a file at its usual level.\n\n"
        "**One at a time** is the seed's way with the same SDK: receive one message, start its task, delete the message, and"
        " take the next. It keeps no record, watches no task and repeats nothing."
    )


def _beside(results: dict) -> str:
    ways = [
        ("one at a time", results["rival"], _median(results["rival"], "rss")),
        ("consumer, launch rate lifted", results["unlimited"], _median(results["unlimited"], "rss")),
        (f"consumer, {LAUNCHES} launches/s", [results["sustained"]], results["sustained"]["rss"]),
    ]
    rows = [
        [
            name, f"{_median(runs, 'launches'):.1f}", f"{_median(runs, 'cpu_ms'):.2f}", f"{_median(runs, 'core'):.1%}",
            f"{rss:.1f} MB", f"{sum(median(run['calls'].get(c, 0) for run in runs) for c in _names(runs)):.1f}",
        ]
        for name, runs, rss in ways
    ]  # fmt: skip
    header = ["", "launches/s", "CPU ms per launch", "of a core", "memory", "calls per launch"]
    runs = len(results["unlimited"])
    note = f"\n\nMedians of {runs} runs, but for the last row." if runs > 1 else ""
    return table(header, rows) + note


def _memory(results: dict) -> str:
    flight, long, idle = results["in_flight"], results["long_run"], results["idle"]
    length = max(len(long["rss"]) // _TENTHS, 1)
    starts = range(0, min(length * _TENTHS, len(long["rss"])), length)
    tenths = [f"{median(long['rss'][start : start + length]):.1f}" for start in starts]
    rows = [
        ["idle", f"{idle['rss']:.1f} MB, {idle['anonymous']:.1f} MB of it its own data"],
        [
            f"while {flight['videos']:,} videos are launched, in {flight['launching_seconds']:.0f} s",
            f"up to {flight['launching']:.1f} MB",
        ],
        ["while they run", f"{flight['holding']:.1f} MB (median), at {flight['holding_core']:.1%} of a core"],
        [f"while all are settled at once, in {flight['settling_seconds']:.0f} s", f"up to {flight['settling']:.1f} MB"],
        ["25 s later", f"{flight['after']:.1f} MB"],
    ]
    return (
        f"{table(['', 'memory'], rows)}\n\n{long['videos']:,} videos through one process took {long['seconds']:.0f} s"
        f" ({long['videos'] / long['seconds']:.0f} a second, {long['cpu_ms']:.2f} ms of CPU time each; tasks of a second,"
        " answers after 5 ms, 1,000 in flight). Memory by tenths of that time, in MB (medians of a sample per second):"
        f" {', '.join(tenths)}; at most {long['most']:.1f}."
    )


def _calls(results: dict) -> str:
    sustained, unlimited = [results["sustained"]], results["unlimited"]
    names = _names(sustained + unlimited)
    rows = [
        [name, *(f"{median(run['calls'].get(name, 0) for run in runs):.2f}" for runs in (sustained, unlimited))]
        for name in names
    ]
    return "Per launch:\n\n" + table(["", f"{LAUNCHES} launches/s", "launch rate lifted"], rows)


def _names(runs: list[dict]) -> list[str]:
    return sorted({name for run in runs for name in run["calls"]})


def _median(runs: list[dict], field: str) -> float:
    return median(run[field] for run in runs)


def _growth(samples: list[float]) -> float:
    quarter = max(len(samples) // 4, 1)
    return median(samples[-quarter:]) / median(samples[quarter : 2 * quarter] or samples)
