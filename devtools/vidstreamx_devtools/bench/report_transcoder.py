"""Formats the results of `make bench`."""

from __future__ import annotations

from typing import Any

from vidstreamx_devtools.bench import environment
from vidstreamx_devtools.bench.report import Target, table, targets_table

SPEED_COPIED, SPEED_ENCODED = 4.0, 2.0
QUALITY = 0.5  # VMAF
BYTES = 1.05
OVERHEAD = 1.05

Row = dict[str, Any]


def render(results: Row) -> str:
    programs = results["environment"]
    parts = [
        "## The transcoder task",
        "The task compared with a naive implementation, in one run on the same machine: `make bench`.",
        _method(results),
        "### Targets",
        targets_table("clip", targets(results)),
        "### Clips",
        _overview(results),
        *(_clip(clip) for clip in results["clips"]),
        "### Machine",
        f"{environment.sentence(programs)} VMAF model {programs['vmaf']}."
        f" The run took {results['minutes']:.0f} minutes.",
        "### How to run it",
        "```sh\nmake bench                                         # all clips; writes this section\n"
        "make bench BENCH=--quick                           # two clips, one run; prints only\n"
        "make bench BENCH='--clip hevc 4k --runs 5'         # some clips; prints only\n"
        "make bench BENCH=--render                          # writes this section from target/bench/results.json\n"
        "```\n\n"
        "The clips come from `../shared/corpus` (`VIDSTREAMX_CORPUS` selects another folder). Without the corpus, clips"
        " are generated with FFmpeg's `testsrc2`. They are easy to encode, so their VMAF says little.",
    ]
    return "\n\n".join(parts) + "\n"


def _method(results: Row) -> str:
    runs = results["runs"]
    count = f"Times are medians of {runs} alternating runs." if runs > 1 else "Times are of one run only."
    return (
        "**Naive** is a straightforward first implementation. It copies the file to the machine, runs `ffmpeg` once per"
        " rung in sequence (`-c:v libx264 -preset medium -crf 23`, keyframes every 4 s, AAC 128 kbit/s, HLS with"
        " fragmented MP4), and copies the result away. It encodes the same rungs as the task, and neither upscales."
        " **Task** is `transcoder-task --input FILE --output DIR`. **Bare** runs the task's FFmpeg commands without the"
        " task and discards their outputs.\n\n"
        "All commands run in one container of the transcoder's image and are measured inside it, so the start of the"
        f" container is not measured. {count} Bytes are the bytes of the video packets. VMAF is the mean over every"
        " third frame: each rung is scaled to the size of the largest rung (bicubic), and each frame is compared with the"
        " frame of the same number in the source."
    )


def targets(results: Row) -> list[Target]:
    found = []
    for clip in results["clips"]:
        name, rungs, commands = clip["name"], clip["rungs"], clip["commands"]
        speed_target = SPEED_COPIED if any(rung["copied"] for rung in rungs) else SPEED_ENCODED
        speed = commands["naive"]["wall"] / commands["task"]["wall"]
        limit = f"at least {speed_target:.0f}x faster"
        found.append(_target(name, limit, f"{speed:.2f}x", speed_target - speed, "x"))
        encoded = [rung for rung in rungs if not rung["copied"]]
        if encoded:
            worst = min(encoded, key=_vmaf_difference)
            difference = _vmaf_difference(worst)
            got = f"{difference:+.2f} ({worst['name']})"
            found.append(_target(name, "VMAF at most 0.5 lower", got, -QUALITY - difference, ""))
            ratio = _bytes(encoded, "task") / _bytes(encoded, "naive")
            found.append(_target(name, "encoded bytes at most 1.05x", f"{ratio:.3f}x", ratio - BYTES, "x"))
        if "bare" in commands:
            overhead = commands["task"]["wall"] / commands["bare"]["wall"]
            limit = "wall time at most 1.05x of bare"
            found.append(_target(name, limit, f"{overhead:.3f}x", overhead - OVERHEAD, "x"))
    return found


def _target(clip: str, limit: str, got: str, missed_by: float, unit: str) -> Target:
    # Targets have two digits, so the difference is rounded to two digits.
    return Target(clip, limit, got, missed_by < 0.005, f"{missed_by:.2f}{unit}")


def _overview(results: Row) -> str:
    header = ["clip", "naive s", "task s", "bare s", "faster", "naive CPU s", "task CPU s"]
    header += ["FFmpeg peak memory, naive", "FFmpeg peak memory, task", "transcoder-task peak memory"]
    rows = []
    for clip in results["clips"]:
        naive, task, bare = (clip["commands"].get(name) for name in ("naive", "task", "bare"))
        rows.append(
            [
                clip["name"],
                f"{naive['wall']:.2f}",
                f"{task['wall']:.2f}",
                f"{bare['wall']:.2f}" if bare else "not measured",
                f"{naive['wall'] / task['wall']:.2f}x",
                f"{naive['user'] + naive['system']:.1f}",
                f"{task['user'] + task['system']:.1f}",
                _megabytes(naive["peak_kb_ffmpeg"]),
                _megabytes(task["peak_kb_ffmpeg"]),
                _megabytes(task["peak_kb_transcoder-task"]),
            ]
        )
    return table(header, rows)


def _clip(clip: Row) -> str:
    source = f"`{clip['file']}`" if clip["file"] else "generated, because the corpus is missing"
    repeats = f", repeated {clip['repeats']} times" if clip["repeats"] > 1 else ""
    rows = []
    for rung in clip["rungs"]:
        naive, task = rung["naive"], rung["task"]
        rows.append(
            [
                rung["name"] + (" (copied)" if rung["copied"] else ""),
                f"{rung['width']}x{rung['height']}",
                f"{naive['bytes']:,}",
                f"{task['bytes']:,}",
                f"{task['bytes'] / naive['bytes']:.3f}",
                f"{naive['vmaf']:.2f}",
                f"{task['vmaf']:.2f}",
                f"{_vmaf_difference(rung):+.2f}",
            ]
        )
    for label, rungs in _sums(clip["rungs"]):
        naive_bytes, task_bytes = _bytes(rungs, "naive"), _bytes(rungs, "task")
        ratio = f"{task_bytes / naive_bytes:.3f}"
        rows.append([label, "", f"{naive_bytes:,}", f"{task_bytes:,}", ratio, "", "", ""])
    walls = "; ".join(
        f"{name} {', '.join(f'{wall:.2f}' for wall in times['walls'])}"
        for name, times in clip["commands"].items()
    )
    header = ["rung", "size", "naive bytes", "task bytes", "ratio", "naive VMAF", "task VMAF", "difference"]
    return (
        f"#### {clip['name']}\n\n"
        f"{clip['description']}: {source}{repeats}, {clip['seconds']:.1f} s.\n\n"
        f"{table(header, rows)}\n\n"
        f"Wall seconds of each run: {walls}.{_frame_count_warning(clip)}"
    )


def _frame_count_warning(clip: Row) -> str:
    """VMAF pairs frames by number, so it is meaningless if a frame is missing."""
    wrong = [
        f"{name} {rung['name']} has {rung[name]['frames']}"
        for rung in clip["rungs"]
        for name in ("naive", "task")
        if rung[name]["frames"] != clip["frames"]
    ]
    return (
        f" **The VMAF values are invalid**: of {clip['frames']} frames {', '.join(wrong)}." if wrong else ""
    )


def _sums(rungs: list[Row]) -> list[tuple[str, list[Row]]]:
    encoded = [rung for rung in rungs if not rung["copied"]]
    if not encoded or len(encoded) == len(rungs):
        return [("all", rungs)]
    return [("encoded", encoded), ("all", rungs)]


def _bytes(rungs: list[Row], name: str) -> int:
    return sum(rung[name]["bytes"] for rung in rungs)


def _vmaf_difference(rung: Row) -> float:
    return float(rung["task"]["vmaf"] - rung["naive"]["vmaf"])


def _megabytes(kilobytes: float) -> str:
    return f"{kilobytes * 1.024 / 1000:.0f} MB"
