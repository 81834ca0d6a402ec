"""`make bench-stream`: time to first playback, cost of an interruption, memory and disk."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any

from vidstreamx_devtools.bench import environment, report_stream
from vidstreamx_devtools.bench.clips import Clip, clip, provide
from vidstreamx_devtools.bench.commands import bare_command, task_command
from vidstreamx_devtools.bench.container import BenchContainer
from vidstreamx_devtools.bench.long_sources import (
    DEFAULT,
    HEVC,
    HEVC_720P,
    KEYFRAMES,
    SMALL,
    SMALL_COPIED,
    LongSource,
    LongSourceMaker,
)
from vidstreamx_devtools.bench.program import FOLDER, Benchmark, Results
from vidstreamx_devtools.bench.task_runs import (
    MASTER,
    Buckets,
    Published,
    new_job_id,
    segments_by_rung,
    temporary_buckets,
)
from vidstreamx_devtools.local import programs
from vidstreamx_devtools.local.stack import Upload
from vidstreamx_devtools.settings import Settings, UserError

_BENCHMARK = Benchmark("make bench-stream", "stream.json", report_stream.render, report_stream.targets)
_MEASUREMENTS = ["playable", "overhead", "interruption", "footprint"]
_FFMPEG, _TASK = "ffmpeg", "transcoder-task"
_DONE, _KILLED, _TERMINATED = 0, 137, 143  # exit codes


class Measurements:
    """Each public method is one measurement."""

    def __init__(self, container: BenchContainer, buckets: Buckets, quick: bool, runs: int) -> None:
        self._container, self._buckets, self._quick = container, buckets, quick
        self.runs = 1 if quick else runs
        self._sources = LongSourceMaker(container)

    def playable(self) -> list[dict[str, Any]]:
        """Time from the task's start to the master playlist, for sources of different lengths."""
        rows = []
        for source in (KEYFRAMES, DEFAULT, HEVC):
            for seconds in [30, 120] if self._quick else [30, 600, 7200]:
                with self._upload(source, seconds) as upload:
                    runs = [self._time_to_playable(upload, source) for _ in range(self.runs)]
                rows.append(
                    {
                        "description": source.description,
                        "seconds": seconds,
                        "bytes": upload.size,
                        "runs": runs,
                    }
                )
                _print_row(f"{source.description}, {seconds} s", [f"{run['playable']:.2f} s" for run in runs])
        return rows

    def _time_to_playable(self, upload: Upload, source: LongSource) -> dict[str, float]:
        self._buckets.clear(upload)
        with self._buckets.start_task(upload, new_job_id()) as task:
            planned = task.wait_for("planned")
            if bool(planned["copied"]) != source.is_copied:
                raise UserError(f'{source.description}: unexpected copied rungs "{planned["copied"]}"')
            task.wait_for("playable")
            published = self._buckets.published(upload)
            peak = task.peak_megabytes()
            return {
                "started": task.seconds_to("started"),
                "planned": task.seconds_to("planned"),
                "playable": published[MASTER] - task.start,
                "peak": peak,
            }

    def overhead(self) -> list[dict[str, Any]]:
        """Wall time relative to FFmpeg alone."""
        names = ["copy"] if self._quick else ["copy", "hevc"]
        repeats = 1 if self._quick else 3
        return [
            self._compare_with_bare(replace(clip(name), name=f"{name}-long", repeats=repeats))
            for name in names
        ]

    def _compare_with_bare(self, clip: Clip) -> dict[str, Any]:
        """Compares the wall times. The commands alternate, so that other load affects all of them."""
        self._container.clear()
        path, _ = provide(clip, self._container)
        bare = bare_command(self._container, path, f"{self._container.WORK}/shim")
        if not bare:
            raise UserError(f"{clip.name}: the task's FFmpeg commands could not be recorded")
        walls: dict[str, list[float]] = {"bare": [], "files": [], "store": []}
        with self._buckets.upload(self._container.path(path)) as upload:
            for number in range(self.runs):
                output = f"{self._container.WORK}/{number}"
                walls["bare"].append(self._container.measure(_FFMPEG, "bash", "-c", bare)["wall"])
                walls["files"].append(self._container.measure(_TASK, *task_command(path, output))["wall"])
                walls["store"].append(self._run_task(upload))
        seconds = self._container.duration(path)
        _print_row(clip.description, [f"{name} {median(times):.2f} s" for name, times in walls.items()])
        return {"description": clip.description, "seconds": seconds, "walls": walls}

    def _run_task(self, upload: Upload) -> float:
        self._buckets.clear(upload)
        with self._buckets.start_task(upload, new_job_id()) as task:
            return task.wait(_DONE)

    def interruption(self) -> dict[str, Any]:
        """An attempt that is stopped when half of the segments are published, and the next attempt."""
        seconds = 24 if self._quick else 60
        runs = []
        with self._upload(HEVC_720P, seconds) as upload:
            for _ in range(self.runs):
                undisturbed = self._run_task(upload)
                whole = segments_by_rung(self._buckets.published(upload))
                run: dict[str, Any] = {
                    "undisturbed": undisturbed,
                    "rungs": len(whole),
                    "segments": len(next(iter(whole.values()))),
                }
                for signal, code in (("SIGKILL", _KILLED), ("SIGTERM", _TERMINATED)):
                    run[signal] = self._interrupt(upload, signal, code, whole)
                    both = run[signal]["first"] + run[signal]["second"]
                    _print_row(
                        f"{signal}, {seconds} s", [f"{both:.2f} s", f"undisturbed {undisturbed:.2f} s"]
                    )
                runs.append(run)
        return {"description": HEVC_720P.description, "seconds": seconds, "runs": runs}

    def _interrupt(
        self, upload: Upload, signal: str, code: int, whole: dict[str, Published]
    ) -> dict[str, float]:
        self._buckets.clear(upload)
        job_id = new_job_id()
        half = len(next(iter(whole.values()))) / 2
        with self._buckets.start_task(upload, job_id) as task:
            deadline = time.monotonic() + 300
            while min(map(len, (rungs := self._published_rungs(upload)).values()), default=0) < half:
                if time.monotonic() > deadline or not task.is_running:
                    raise UserError(f"half of the segments were never published: {task.log_end()}")
                time.sleep(0.2)
            if len(rungs) != len(whole):
                raise UserError(f"the rungs are {', '.join(rungs)} instead of {', '.join(whole)}")
            sent_at = time.time() - task.start
            task.signal(signal)
            first = task.wait(code)
        left = _flatten(self._published_rungs(upload))
        with self._buckets.start_task(upload, job_id) as task:
            second = task.wait(_DONE)
            resumed = task.seconds_to("resuming after an earlier attempt")
            published = _flatten(self._published_rungs(upload))
            made = {path: at for path, at in published.items() if left.get(path) != at}
            new_segment = min(made.values()) - task.start
        names, expected = (
            {_without_folders(path) for path in paths} for paths in (published, _flatten(whole))
        )
        return {
            "first": first,
            "second": second,
            "exit_seconds": first - sent_at,
            "resumed": resumed,
            "new_segment": new_segment,
            "left": len(left),
            "repeated": sum(path in left for path in made),
            "missing": len(expected - names),
            "extra": len(names - expected),
        }

    def _published_rungs(self, upload: Upload) -> dict[str, Published]:
        return segments_by_rung(self._buckets.published(upload))

    def footprint(self) -> list[dict[str, Any]]:
        """Measures the memory of the task's own process and the size of its temporary files in whole runs."""
        short, medium, long = (10, 20, 60) if self._quick else (30, 600, 7200)
        cases = [(SMALL, short), (SMALL, medium), (SMALL, long), (SMALL_COPIED, long)]
        if not self._quick:
            cases += [(KEYFRAMES, short), (HEVC, short)]
        rows = []
        for source, seconds in cases:
            with self._upload(source, seconds) as upload:
                rows.append(self._measure_footprint(source.description, seconds, upload))
        if not self._quick:
            path, _ = provide(clip("4k"), self._container)
            with self._buckets.upload(self._container.path(path)) as upload:
                seconds_4k = self._container.duration(path)
                rows.append(self._measure_footprint(clip("4k").description, seconds_4k, upload))
        return rows

    def _measure_footprint(self, description: str, seconds: float, upload: Upload) -> dict[str, Any]:
        disk = [0.0]
        with self._buckets.start_task(upload, new_job_id(), _TASK) as task:
            while task.is_running:
                disk.append(task.disk_megabytes())
                time.sleep(0.5)
            task.wait(_DONE)
            measured = json.loads(task.lines[-1])
        peak = measured[f"peak_kb_{_TASK}"] * 1024 / 1e6
        _print_row(
            f"{description}, {seconds:.0f} s",
            [f"{peak:.1f} MB", f"disk {max(disk):.1f} MB", f"{measured['wall']:.1f} s"],
        )
        return {
            "description": description,
            "seconds": seconds,
            "bytes": upload.size,
            "wall": measured["wall"],
            "segments": len(_flatten(self._published_rungs(upload))),
            "peak": peak,
            "disk": max(disk),
        }

    @contextmanager
    def _upload(self, source: LongSource, seconds: int) -> Iterator[Upload]:
        file = self._sources.make(source, seconds)
        with self._buckets.upload(file) as upload:
            file.unlink()
            yield upload


def _print_row(label: str, values: list[str]) -> None:
    print(f"    {label}: {', '.join(values)}", flush=True)


def _flatten(rungs: dict[str, Published]) -> Published:
    return {path: at for segments in rungs.values() for path, at in segments.items()}


def _without_folders(path: str) -> str:
    """The path without the folders of the job and its plan."""
    return path.partition("/video/")[2]


def measure(flags: Namespace) -> tuple[Results, bool] | None:
    settings = Settings.from_environment()
    programs.build_image(settings, programs.build())
    start = time.monotonic()
    with (
        BenchContainer(settings.image, FOLDER) as container,
        temporary_buckets(settings, FOLDER / "stack") as buckets,
    ):
        measurements = Measurements(container, buckets, flags.quick, flags.runs)
        results: Results = {
            "environment": environment.machine() | environment.image_programs(container),
            "runs": measurements.runs,
        }
        for name in flags.only or _MEASUREMENTS:
            begin, function = time.monotonic(), getattr(measurements, name)
            print(f"  {function.__doc__}", flush=True)
            results[name] = function()
            print(f"    ({time.monotonic() - begin:.0f} s)", flush=True)
        container.clear()
    if flags.only:
        return None
    results["minutes"] = (time.monotonic() - start) / 60
    return results, not flags.quick


def main() -> None:
    parser = _BENCHMARK.argument_parser()
    parser.add_argument("--runs", type=int, default=3, help="number of runs, except for memory and disk (3)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=_MEASUREMENTS,
        help="make these measurements only, and print their figures",
    )
    _BENCHMARK.main(parser, measure)


if __name__ == "__main__":
    main()
