"""`make bench-consumer`: memory, CPU time and launches of the consumer, with SQS, ECS and S3 in memory."""

from __future__ import annotations

import json
import os
import resource
import time
import urllib.request
from argparse import Namespace
from pathlib import Path
from statistics import median
from typing import Any

from vidstreamx_devtools.bench import environment, report_consumer
from vidstreamx_devtools.bench.process_monitor import (
    IS_PINNED,
    MEASURED_CORES,
    OTHER_CORES,
    MonitoredProcess,
)
from vidstreamx_devtools.bench.program import FOLDER, Benchmark, Results
from vidstreamx_devtools.generate import ffmpeg
from vidstreamx_devtools.local import programs
from vidstreamx_devtools.settings import UserError

_BENCHMARK = Benchmark(
    "make bench-consumer", "consumer.json", report_consumer.render, report_consumer.targets
)
_VIDEO = FOLDER / "upload.mp4"
_MEASUREMENTS = ["idle", "in_flight", "sustained", "unlimited", "long_run", "sequential", "library"]

_LATENCY_MS = 50
_UNLIMITED = 100_000  # launches per second


class Endpoints(MonitoredProcess):
    """SQS, ECS and S3 in memory. At the start the queue holds this number of upload events, and the buckets
    hold a library of this number of videos."""

    def __init__(
        self,
        binaries: Path,
        uploads: int,
        task_seconds: float,
        latency_ms: int = _LATENCY_MS,
        library: int = 0,
    ) -> None:
        command = [binaries / "bench-endpoints", "--uploads", uploads, "--task-seconds", task_seconds]
        command += ["--latency-ms", latency_ms, "--library", library, "--video", _VIDEO]
        super().__init__("bench-endpoints", command, {}, OTHER_CORES)
        self.url = f"http://{self.read_line()}"

    def __enter__(self) -> Endpoints:
        return self

    def counts(self) -> dict[str, Any]:
        return self._request("GET", "counts")

    def done_count(self) -> int:
        """The number of records with the state done."""
        return int(self._request("GET", "done")["done"])

    def end_tasks(self) -> None:
        self._request("POST", "end-tasks")

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "VIDSTREAMX_QUEUE_URL": f"{self.url}/123456789012/uploads",
            "VIDSTREAMX_BACK_FILL_QUEUE_URL": f"{self.url}/123456789012/uploads-back-fill",
            "VIDSTREAMX_DEAD_LETTER_QUEUE_URL": f"{self.url}/123456789012/uploads-failed",
            "VIDSTREAMX_CLUSTER": "vidstreamx",
            "VIDSTREAMX_TASK_DEFINITION": "vidstreamx-transcoder",
            "VIDSTREAMX_SUBNETS": "subnet-0123456789abcdef0",
            "VIDSTREAMX_SECURITY_GROUPS": "sg-0123456789abcdef0",
            "VIDSTREAMX_ASSIGN_PUBLIC_IP": "true",
            "VIDSTREAMX_UPLOAD_BUCKET": "uploads",
            "VIDSTREAMX_OUTPUT_BUCKET": "streams",
        }

    def _request(self, method: str, path: str) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/-/{path}", method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            content: dict[str, Any] = json.load(response)
            return content


class Measurements:
    """Each public method is one measurement."""

    def __init__(self, binaries: Path, quick: bool, videos: int) -> None:
        self._binaries, self._quick, self._videos = binaries, quick, videos

    def _consumer(self, endpoints: Endpoints, max_tasks: int, launches_per_second: int) -> MonitoredProcess:
        command = [self._binaries / programs.CONSUMER, "run", "--max-tasks", max_tasks]
        command += ["--launches-per-second", launches_per_second]
        return MonitoredProcess(programs.CONSUMER, command, endpoints.environment(), MEASURED_CORES)

    def idle(self) -> dict[str, Any]:
        """An empty queue: the consumer only polls."""
        with Endpoints(self._binaries, 0, 60) as endpoints, self._consumer(endpoints, 10, 20) as consumer:
            consumer.observe(15 if self._quick else 60)
            return {"rss": consumer.megabytes(), "anonymous": consumer.megabytes("RssAnon")}

    def in_flight(self) -> dict[str, Any]:
        """Launches the maximum number of tasks, lets them run for a while, and ends them together."""
        videos = 2_000 if self._quick else 10_000
        with (
            Endpoints(self._binaries, videos, 86_400) as endpoints,
            self._consumer(endpoints, videos, _UNLIMITED) as consumer,
        ):
            start = time.monotonic()
            launching = consumer.wait_until(lambda: endpoints.counts()["running"] == videos, 300, "launching")
            launching_seconds = time.monotonic() - start
            start, cpu = time.monotonic(), consumer.cpu_seconds()
            holding = consumer.observe(15 if self._quick else 30)
            holding_core = (consumer.cpu_seconds() - cpu) / (time.monotonic() - start)
            endpoints.end_tasks()
            start = time.monotonic()
            settling = consumer.wait_until(lambda: endpoints.counts()["deleted"] == videos, 300, "settling")
            settling_seconds = time.monotonic() - start
            after = consumer.observe(25)  # longer than a long poll
            _check_all_done(endpoints, videos)
            return {
                "videos": videos,
                "launching_seconds": launching_seconds,
                "settling_seconds": settling_seconds,
                "launching": max(launching),
                "holding": median(holding),
                "holding_core": holding_core,
                "settling": max(settling),
                "peak": consumer.megabytes("VmHWM"),
                "after": after[-1],
                "anonymous_after": consumer.megabytes("RssAnon"),
            }

    def sustained(self) -> dict[str, Any]:
        """20 launches per second from a backlog, measured when as many tasks end as start."""
        rate, task_seconds, window = 20, 10 if self._quick else 30, 15 if self._quick else 60
        max_tasks = 1_000
        uploads = max_tasks + rate * (task_seconds + window) * 2  # the consumer receives messages ahead
        with (
            Endpoints(self._binaries, uploads, task_seconds) as endpoints,
            self._consumer(endpoints, max_tasks, rate) as consumer,
        ):
            warm_up = rate * (task_seconds + 5)
            consumer.wait_until(
                lambda: endpoints.counts()["started"] >= warm_up, warm_up, "20 launches per second"
            )
            return _measure_window(endpoints, consumer, window) | {"rate": rate, "window": window}

    def unlimited(self) -> list[dict[str, Any]]:
        """Launches without a rate limit."""
        runs = []
        for _ in range(1 if self._quick else 3):
            with (
                Endpoints(self._binaries, 20_000, 5) as endpoints,
                self._consumer(endpoints, 5_000, _UNLIMITED) as consumer,
            ):
                # The window begins when the first video has ended, so it contains both launches and ends.
                consumer.wait_until(lambda: endpoints.counts()["deleted"] > 0, 60, "the first ended video")
                runs.append(_measure_window(endpoints, consumer, 10 if self._quick else 15))
        return runs

    def long_run(self) -> dict[str, Any]:
        """Many videos in one process."""
        videos = self._videos
        with (
            Endpoints(self._binaries, videos, 1, latency_ms=5) as endpoints,
            self._consumer(endpoints, 1_000, _UNLIMITED) as consumer,
        ):
            start, cpu = time.monotonic(), consumer.cpu_seconds()
            rss = consumer.wait_until(lambda: endpoints.counts()["deleted"] == videos, 1_200, "all videos")
            seconds = time.monotonic() - start
            cpu = consumer.cpu_seconds() - cpu
            _check_all_done(endpoints, videos)
            return {
                "videos": videos,
                "seconds": seconds,
                "cpu_ms": cpu / videos * 1e3,
                "rss": rss,
                "peak": consumer.megabytes("VmHWM"),
                "calls": endpoints.counts()["calls"],
            }

    def sequential(self) -> list[dict[str, Any]]:
        """The sequential consumer: receives a message, starts its task, deletes the message."""
        runs = []
        for _ in range(1 if self._quick else 3):
            with Endpoints(self._binaries, 20_000, 5) as endpoints:
                name = "bench-sequential"
                variables = endpoints.environment()
                with MonitoredProcess(name, [self._binaries / name], variables, MEASURED_CORES) as program:
                    program.wait_until(lambda: endpoints.counts()["deleted"] > 0, 30, "the first video")
                    runs.append(_measure_window(endpoints, program, 10))
        return runs

    def library(self) -> dict[str, Any]:
        """The commands that list, with a library of many videos. One per cent of them are of the last day."""
        videos = 10_000 if self._quick else 100_000
        key = "library/001/film-00001234.mp4"
        commands = {
            "history": (["history"], f"{videos // 100} videos since"),
            "history KEY": (["history", key], "state     done"),
            "submit --dry-run": (
                ["submit", "s3://uploads/library/", "--dry-run"],
                f"{videos} objects would be submitted",
            ),
        }
        count = 1 if self._quick else 5
        rows = {}
        for name, (words, expected) in commands.items():
            with Endpoints(self._binaries, 0, 1, library=videos) as endpoints:
                runs = [self._run_command(endpoints, words, expected) for _ in range(count)]
                calls = sum(endpoints.counts()["calls"].values()) / len(runs)
            seconds, cpu_seconds, peaks = zip(*runs, strict=True)
            rows[name] = {
                "seconds": median(seconds),
                "cpu_seconds": median(cpu_seconds),
                "peak": median(peaks),
                "calls": calls,
            }
        return {"videos": videos, "runs": count, "commands": rows}

    def _run_command(
        self, endpoints: Endpoints, words: list[str], expected: str
    ) -> tuple[float, float, float]:
        """Runs a command to its end. Returns its seconds, its CPU seconds and its peak memory in MB."""
        command = [self._binaries / programs.CONSUMER, *words]
        path = FOLDER / "command-output.txt"
        with path.open("wb") as output:
            before = _cpu_of_ended_processes()
            with MonitoredProcess(
                programs.CONSUMER, command, endpoints.environment(), MEASURED_CORES, output
            ) as program:
                seconds, peak = program.run_to_end(120)
            cpu_seconds = _cpu_of_ended_processes() - before
        if expected not in path.read_text():
            raise UserError(f"{' '.join(words)}: its output in {path} has no line with: {expected}")
        return seconds, cpu_seconds, peak


def _cpu_of_ended_processes() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _check_all_done(endpoints: Endpoints, videos: int) -> None:
    counts = endpoints.counts() | {"done": endpoints.done_count()}
    if (counts["done"], counts["started"], counts["dead_letters"]) != (videos, videos, 0):
        raise UserError(f"{videos} videos should have one task each and be done: {counts}")


def _measure_window(endpoints: Endpoints, program: MonitoredProcess, seconds: float) -> dict[str, Any]:
    """Launches, CPU time and calls within a time window. The queue must not run empty."""
    start, first, cpu = time.monotonic(), endpoints.counts(), program.cpu_seconds()
    program.observe(seconds)
    wall, last, cpu = time.monotonic() - start, endpoints.counts(), program.cpu_seconds() - cpu
    if last["visible"] == 0:
        raise UserError("the queue ran empty while launches were counted")
    launches = last["started"] - first["started"]
    calls = {name: count - first["calls"].get(name, 0) for name, count in last["calls"].items()}
    return {
        "launches": launches / wall,
        "core": cpu / wall,
        "cpu_ms": cpu / launches * 1e3,
        "calls": {name: count / launches for name, count in calls.items() if count},
        "running": last["running"],
        "rss": program.megabytes(),
    }


def _make_video() -> None:
    """Three and a half minutes of 1080p with audio, with a movie header of about 64 KiB."""
    if _VIDEO.exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    ffmpeg(
        _VIDEO,
        *(
            "-f",
            "lavfi",
            "-i",
            "color=size=1920x1080:rate=5",
            "-f",
            "lavfi",
            "-i",
            "anullsrc=sample_rate=48000",
        ),
        *("-t", "210", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"),
        *("-movflags", "+faststart"),
        timeout=300,
    )


def measure(flags: Namespace) -> tuple[Results, bool] | None:
    results: Results = {"environment": environment.machine(), "pinned": IS_PINNED}
    binaries = programs.build("--workspace")
    _make_video()
    os.sched_setaffinity(0, OTHER_CORES)
    measurements = Measurements(binaries, flags.quick, flags.videos or (5_000 if flags.quick else 100_000))
    start = time.monotonic()
    for name in flags.only or _MEASUREMENTS:
        function = getattr(measurements, name)
        begin = time.monotonic()
        print(f"  {function.__doc__}", flush=True)
        results[name] = function()
        text = json.dumps(results[name]) if flags.only else report_consumer.headline(name, results[name])
        print(f"    {text} ({time.monotonic() - begin:.0f} s)", flush=True)
    if flags.only:
        return None
    results["minutes"] = (time.monotonic() - start) / 60
    return results, not (flags.quick or flags.videos)


def main() -> None:
    parser = _BENCHMARK.argument_parser()
    parser.add_argument(
        "--only",
        nargs="+",
        choices=_MEASUREMENTS,
        help="make these measurements only, and print their figures",
    )
    parser.add_argument("--videos", type=int, help="number of videos in the long run")
    _BENCHMARK.main(parser, measure)


if __name__ == "__main__":
    main()
