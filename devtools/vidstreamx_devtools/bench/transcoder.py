"""`make bench`: compares the transcoder task with a naive implementation, in one run on the same machine."""

from __future__ import annotations

import time
from argparse import Namespace
from statistics import median
from typing import Any

from vidstreamx_devtools.bench import environment, report_transcoder
from vidstreamx_devtools.bench.clips import CLIPS, Clip, provide
from vidstreamx_devtools.bench.commands import Rung, bare_command, naive_script, read_rungs, task_command
from vidstreamx_devtools.bench.container import BenchContainer
from vidstreamx_devtools.bench.program import FOLDER, Benchmark, Results
from vidstreamx_devtools.bench.quality import MODEL, is_full_range, video_packets, vmaf
from vidstreamx_devtools.local import programs
from vidstreamx_devtools.settings import Settings

_BENCHMARK = Benchmark("make bench", "results.json", report_transcoder.render, report_transcoder.targets)
_FFMPEG, _TASK = "ffmpeg", "transcoder-task"


def measure(flags: Namespace) -> tuple[Results, bool]:
    if flags.clip:
        clips = [clip for clip in CLIPS if clip.name in flags.clip]
    else:
        clips = [clip for clip in CLIPS if clip.is_quick or not flags.quick]
    runs = 1 if flags.quick else flags.runs
    settings = Settings.from_environment()
    programs.build_image(settings, programs.build())
    start = time.monotonic()
    with BenchContainer(settings.image, FOLDER) as container:
        results: Results = {
            "environment": environment.machine() | environment.image_programs(container) | {"vmaf": MODEL},
            "runs": runs,
            "clips": [_measure_clip(clip, container, runs) for clip in clips],
        }
    results["minutes"] = (time.monotonic() - start) / 60
    return results, len(clips) == len(CLIPS)


def _measure_clip(clip: Clip, container: BenchContainer, runs: int) -> dict[str, Any]:
    """Measures a clip. The commands alternate, so that other load on the machine affects all of them."""
    print(f"  {clip.name}: {clip.description}", flush=True)
    container.clear()
    path, is_from_corpus = provide(clip, container)
    measured: dict[str, list[dict[str, float]]] = {"naive": [], "task": [], "bare": []}

    # The task runs once before the measurement, to find the rungs that the naive implementation has to make.
    output = f"{container.WORK}/first"
    container.run(*task_command(path, output))
    rungs = read_rungs(container.path(output))
    bare = bare_command(container, path, f"{container.WORK}/shim")
    for number in range(runs):
        output = f"{container.WORK}/{number}"
        naive = naive_script(path, rungs, f"{output}/naive")
        measured["naive"].append(container.measure(_FFMPEG, "bash", "-c", naive))
        task = task_command(path, f"{output}/task")
        measured["task"].append(container.measure(f"{_FFMPEG},{_TASK}", *task))
        if bare:
            measured["bare"].append(container.measure(_FFMPEG, "bash", "-c", bare))
        print(
            "   ",
            *(f"{name} {times[-1]['wall']:.2f} s" for name, times in measured.items() if times),
            flush=True,
        )

    output = f"{container.WORK}/0"
    return {
        "name": clip.name,
        "description": clip.description,
        "file": clip.file if is_from_corpus else None,
        "repeats": clip.repeats if is_from_corpus else 1,
        "seconds": container.duration(path),
        "commands": {name: _medians(times) for name, times in measured.items() if times},
        "frames": video_packets(container, path)["frames"],
        "rungs": _compare_rungs(container, rungs, path, f"{output}/naive/uploaded", f"{output}/task"),
    }


def _medians(runs: list[dict[str, float]]) -> dict[str, Any]:
    medians: dict[str, Any] = {name: median(run[name] for run in runs) for name in runs[0]}
    return medians | {"walls": [run["wall"] for run in runs]}


def _compare_rungs(
    container: BenchContainer, rungs: list[Rung], clip: str, naive: str, task: str
) -> list[dict[str, Any]]:
    rows = []
    width, height, full_range = rungs[0].width, rungs[0].height, is_full_range(container, clip)
    for rung in rungs:
        row: dict[str, Any] = {"name": rung.name, "width": rung.width, "height": rung.height}
        row["copied"] = rung.is_copied
        for name, folder in (("naive", f"{naive}/{rung.name}"), ("task", f"{task}/{rung.folder}")):
            playlist = f"{folder}/index.m3u8"
            score = vmaf(container.path(playlist), container.path(clip), width, height, full_range)
            row[name] = video_packets(container, playlist) | {"vmaf": score}
        rows.append(row)
    return rows


def main() -> None:
    parser = _BENCHMARK.argument_parser()
    parser.add_argument("--runs", type=int, default=3, help="number of runs of each command (3)")
    parser.add_argument(
        "--clip", nargs="+", choices=[clip.name for clip in CLIPS], help="measure these clips only"
    )
    _BENCHMARK.main(parser, measure)


if __name__ == "__main__":
    main()
