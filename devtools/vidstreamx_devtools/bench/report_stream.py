"""What the stream's measurements say, as a section for people."""

from __future__ import annotations

from statistics import median

from vidstreamx_devtools.bench import environment as about
from vidstreamx_devtools.bench.report import table

PLAYABLE = 3.0  # seconds
OVERHEAD = 1.05
# Beside the time that a segment of every rung takes.
INTERRUPTION = 5.0  # seconds
ENDING = 20.0  # seconds, from SIGTERM
MEMORY, DISK = 64, 300  # MB

_SIGNALS = ("SIGKILL", "SIGTERM")
_WHY = """\
- **Until it plays.** The encoders: the source is found, opened and planned in 0.1 to 0.3 s whatever its length. The first segment has 15 frames, and the small rungs' encoders look 40 frames ahead (by which one CRF fits easy and hard content), so that some 60 frames are decoded, scaled and encoded before the last rung has its first segment. Two cores do that in two to three seconds, as the machine goes: on another day, all that is HEVC here took 3.1 s. Where the largest rung is copied and the source's first keyframes are far apart, what is in front of the second is encoded as well, or one cut would have to wait for ten seconds of every other rung. A profile with `rc-lookahead=20` in its small rungs gains some 0.4 s.
- **Interruptions.** What the next attempt does again is the segments that were open, and what its encoders look ahead. Single turns differ by more than that: the three parts of one turn run one behind the other, on cores that others use as well."""


def render(results: dict) -> str:
    programs = results["about"]
    parts = [
        "## The stream",
        "How soon it plays, what an interruption costs, and whether length matters: `make bench-stream`.",
        _how(results),
        "### Targets",
        _verdicts(results),
        "### What decides",
        _WHY,
        "### Until it plays",
        _playable(results),
        "### Beside FFmpeg alone",
        _overhead(results),
        "### Interrupted",
        _interruption(results),
        "### Memory and disk",
        _footprint(results),
        "### Machine",
        f"{about.sentence(programs)} FFmpeg {programs['ffmpeg']}, x264 {programs['x264']} (the image's). It took"
        f" {results['minutes']:.0f} minutes.",
        "### Again",
        "```sh\nmake bench-stream                                  # writes this section\n"
        "make bench-stream BENCH=--quick                    # short sources, once; prints instead\n"
        "make bench-stream BENCH='--only interruption'      # one measurement; prints its figures\n"
        "make bench-stream BENCH=--render                   # this section again from target/bench/stream.json\n```\n\n"
        "The clip comes from `../shared/corpus` (elsewhere: `VIDSTREAMX_CORPUS`); where it is not there, one made by FFmpeg's"
        " `testsrc2` stands in. The local AWS keeps what is uploaded in memory: the longest sources need some 6 GB of it, and"
        " 3 GB of disk while they are made.",
    ]
    return "\n\n".join(parts) + "\n"


def summary(results: dict) -> str:
    """For the terminal."""
    return "\n".join(f"  {what:<90} {target:<22} {got:<14} {end}" for what, target, got, end in verdicts(results))


def verdicts(results: dict) -> list[tuple[str, str, str, str]]:
    found = []
    for row in results["playable"]:
        seconds = _median(row["runs"], "playable")
        what = f"first playable: {row['about']}, {_length(row['seconds'])}"
        found.append((what, f"at most {PLAYABLE:.0f} s", f"{seconds:.2f} s", seconds <= PLAYABLE))
    for row in results["overhead"]:
        for way, where in (("files", "files"), ("store", "S3")):
            ratio = _ratio(row, way)
            what = f"wall time, {where}: {row['about']}, {_length(row['seconds'])}"
            # What is written with two digits is judged by them.
            met = ratio < OVERHEAD + 0.005
            found.append((what, f"at most {OVERHEAD:.2f}x of bare", f"{ratio:.3f}x", met))
    turns = results["interruption"]["turns"]
    for name in _SIGNALS:
        cost, most = median(_cost(turn, name) for turn in turns), median(_segment(turn) for turn in turns) + INTERRUPTION
        found.append((f"{name} half-way, cost", f"at most {most:.2f} s", f"{cost:.2f} s", cost <= most))
    ending = median(turn["SIGTERM"]["ending"] for turn in turns)
    found.append(("gone after SIGTERM", f"at most {ENDING:.0f} s", f"{ending:.2f} s", ending <= ENDING))
    for row in results["footprint"]:
        what = f"memory: {row['about']}, {_length(row['seconds'])}"
        found.append((what, f"under {MEMORY} MB", f"{row['peak']:.1f} MB", row["peak"] < MEMORY))
    disk = max(row["disk"] for row in results["footprint"])
    found.append(("disk, all of these", f"under {DISK} MB", f"{disk:.1f} MB", disk < DISK))
    return [(what, target, got, "met" if met else "missed") for what, target, got, met in found]


def _verdicts(results: dict) -> str:
    rows = [[what, target, got, end if end == "met" else f"**{end}**"] for what, target, got, end in verdicts(results)]
    met = sum(row[3] == "met" for row in rows)
    return f"{met} of {len(rows)} met.\n\n" + table(["", "target", "got", ""], rows)


def _how(results: dict) -> str:
    runs = results["runs"]
    return (
        "Every task runs as ECS starts it: in a container of the transcoder's image with a read-only root file system, with a"
        " job in its environment and its own role's credentials, from and to the S3 of the local stack (ministack, IAM"
        " enforced), which shares this machine's cores with it. Only what is called *files* or *bare* below reads and writes"
        " plain files. Times count from the process's start, not from the container's. Sources are ten seconds of a natural"
        " 1080p clip with sound, encoded as it says and then repeated without encoding, index at the end. Times are the"
        f" median of {runs} run{'s' if runs > 1 else ' (not to be trusted)'}; memory and disk are the most that one run had."
    )


def _playable(results: dict) -> str:
    header = ["source", "length", "size", "started", "planned", "playable", "of each run", "memory by then"]
    rows = []
    for row in results["playable"]:
        runs = row["runs"]
        rows.append(
            [
                row["about"], _length(row["seconds"]), f"{row['bytes'] / 1e6:,.0f} MB",
                *(f"{_median(runs, name):.2f} s" for name in ("started", "planned", "playable")),
                ", ".join(f"{run['playable']:.2f}" for run in runs), f"{max(run['peak'] for run in runs):.1f} MB",
            ]
        )  # fmt: skip
    return (
        "Seconds until the task has its credentials and has found its source, until it knows the source and what is to be made"
        " of it, and until the master playlist is there, with the first segment of every rung behind it, by the store's own clock."
        f" The task is killed then.\n\n{table(header, rows)}"
    )


def _overhead(results: dict) -> str:
    header = ["source", "length", "bare s", "files s", "of bare", "S3 s", "of bare"]
    rows, each = [], []
    for row in results["overhead"]:
        bare, files, store = (median(row["walls"][way]) for way in ("bare", "files", "store"))
        rows.append(
            [
                row["about"], _length(row["seconds"]), f"{bare:.2f}", f"{files:.2f}", f"{_ratio(row, 'files'):.3f}x",
                f"{store:.2f}", f"{_ratio(row, 'store'):.3f}x",
            ]
        )  # fmt: skip
        walls = "; ".join(f"{way} {', '.join(f'{wall:.2f}' for wall in walls)}" for way, walls in row["walls"].items())
        each.append(f"{row['about']}: {walls}.")
    return (
        "**Bare** are the FFmpeg commands that the task runs, at once, from a file, their pipes led to `/dev/null`. **Files** is the"
        " task from a file into a folder, **S3** the task from bucket to bucket; the store's own CPU time is then part of the"
        f" wall time, as it runs on the same cores.\n\n{table(header, rows)}\n\nWall seconds of each run: {' '.join(each)}"
    )


def _interruption(results: dict) -> str:
    found = results["interruption"]
    turns = found["turns"]
    undisturbed = median(turn["undisturbed"] for turn in turns)
    header = ["", "first attempt", "second attempt", "cost", "to its end", "goes on after", "new segment after",
              "segments left", "made again", "cost of each run"]  # fmt: skip
    rows = []
    for name in _SIGNALS:
        ended = [turn[name] for turn in turns]
        rows.append(
            [
                name, *(f"{_median(ended, part):.2f} s" for part in ("first", "second")),
                f"{median(_cost(turn, name) for turn in turns):.2f} s",
                *(f"{_median(ended, part):.2f} s" for part in ("ending", "resumed", "new_segment")),
                *(f"{_median(ended, part):.0f}" for part in ("left", "again")),
                ", ".join(f"{_cost(turn, name):.2f}" for turn in turns),
            ]
        )  # fmt: skip
    first = turns[0]
    return (
        f"{found['about']}, {_length(found['seconds'])}, {first['rungs']} rungs of {first['segments']} segments."
        f" Undisturbed it takes {undisturbed:.2f} s, so a segment of every rung takes"
        f" {median(_segment(turn) for turn in turns):.2f} s. An attempt gets the signal when half of the segments of every rung"
        " are in the store (SIGKILL meets FFmpeg and everything else in its container, too); the next one runs to its end. Cost"
        " is the time of both without the undisturbed one's of the same turn; how long ECS takes to start a task is not in it."
        " *Goes on* is when the second attempt has found out where; *made again* are segments of all rungs that were in the"
        " store already.\n\n"
        f"{table(header, rows)}{_other_segments(turns)}"
    )


def _other_segments(turns: list[dict]) -> str:
    """What is cheap but not the same stream is worth nothing."""
    ended = [turn[name] for turn in turns for name in _SIGNALS]
    lacking, more = (sum(attempt[what] for attempt in ended) for what in ("lacking", "more"))
    if not lacking and not more:
        return ""
    return (
        f"\n\n**They are not the same streams**: beside the undisturbed ones, the interrupted ones lack {lacking} segments"
        f" and have {more} others."
    )


def _footprint(results: dict) -> str:
    header = ["source", "length", "size", "took", "video segments", "memory", "disk"]
    rows = [
        [
            row["about"], _length(row["seconds"]), f"{row['bytes'] / 1e6:,.0f} MB", f"{row['wall']:.0f} s",
            f"{row['segments']:,}", f"{row['peak']:.1f} MB", f"{row['disk']:.1f} MB",
        ]
        for row in results["footprint"]
    ]  # fmt: skip
    return (
        "The most resident memory (VmHWM) that `transcoder-task` itself had, without FFmpeg, and the most that was in its"
        f" folder for temporary files, looked at twice a second; it can write nowhere else.\n\n{table(header, rows)}"
    )


def _cost(turn: dict, name: str) -> float:
    return turn[name]["first"] + turn[name]["second"] - turn["undisturbed"]


def _segment(turn: dict) -> float:
    """Seconds that a segment of every rung takes."""
    return turn["undisturbed"] / turn["segments"]


def _ratio(row: dict, way: str) -> float:
    return median(row["walls"][way]) / median(row["walls"]["bare"])


def _median(runs: list[dict], field: str) -> float:
    return median(run[field] for run in runs)


def _length(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"
