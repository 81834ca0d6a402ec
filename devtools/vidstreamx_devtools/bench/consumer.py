"""`make bench-consumer`: memory, CPU time and launches of the consumer against SQS, ECS and S3 in memory.

consumer.py [--quick] [--only NAME…] [--videos N]   measures, writes target/bench/consumer.json and its section
consumer.py --render                                only writes the section again from the results
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median

from vidstreamx_devtools.bench import environment as about
from vidstreamx_devtools.bench import report_consumer as consumer_page
from vidstreamx_devtools.bench import report as sections
from vidstreamx_devtools.settings import REPO
from vidstreamx_devtools.settings import Problem
from vidstreamx_devtools.bench.process_monitor import MEASURED_CORES, OTHER_CORES, PINNED, Watched

from vidstreamx_devtools.local import programs

_FOLDER = REPO / "target" / "bench"
_RESULTS = _FOLDER / "consumer.json"
_VIDEO = _FOLDER / "upload.mp4"
_COMMAND = "make bench-consumer"

_LATENCY_MS = 50
_UNLIMITED = 100_000  # launches per second


class Endpoints(Watched):
    """SQS, ECS and S3, with as many uploads waiting in the queue as are asked for."""

    def __init__(self, binaries: Path, uploads: int, task_seconds: float, latency_ms: int = _LATENCY_MS):
        flags = ["--uploads", uploads, "--task-seconds", task_seconds, "--latency-ms", latency_ms, "--video", _VIDEO]
        super().__init__("bench-endpoints", [binaries / "bench-endpoints", *flags], {}, OTHER_CORES)
        self.url = f"http://{self.line()}"

    def counts(self) -> dict:
        return self._ask("GET", "counts")

    def done(self) -> int:
        """Records that say so."""
        return self._ask("GET", "ends")["done"]

    def end_tasks(self) -> None:
        self._ask("POST", "end-tasks")

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "VIDSTREAMX_QUEUE_URL": f"{self.url}/123456789012/uploads",
            "VIDSTREAMX_DEAD_LETTER_QUEUE_URL": f"{self.url}/123456789012/uploads-failed",
            "VIDSTREAMX_CLUSTER": "vidstreamx",
            "VIDSTREAMX_TASK_DEFINITION": "vidstreamx-transcoder",
            "VIDSTREAMX_SUBNETS": "subnet-0123456789abcdef0",
            "VIDSTREAMX_SECURITY_GROUPS": "sg-0123456789abcdef0",
            "VIDSTREAMX_ASSIGN_PUBLIC_IP": "true",
            "VIDSTREAMX_UPLOAD_BUCKET": "uploads",
            "VIDSTREAMX_OUTPUT_BUCKET": "streams",
        }

    def _ask(self, method: str, question: str) -> dict:
        request = urllib.request.Request(f"{self.url}/-/{question}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


class Bench:
    def __init__(self, binaries: Path, quick: bool, videos: int):
        self.binaries, self.quick, self.videos = binaries, quick, videos

    def _consumer(self, endpoints: Endpoints, max_tasks: int, launches_per_second: int) -> Watched:
        flags = ["run", "--max-tasks", max_tasks, "--launches-per-second", launches_per_second]
        command = [self.binaries / programs.CONSUMER, *flags]
        return Watched(programs.CONSUMER, command, endpoints.environment(), MEASURED_CORES)

    def idle(self) -> dict:
        """An empty queue: long polls and nothing else."""
        with Endpoints(self.binaries, 0, 60) as endpoints, self._consumer(endpoints, 10, 20) as consumer:
            consumer.rest(15 if self.quick else 60)
            return {"rss": consumer.megabytes(), "anonymous": consumer.megabytes("RssAnon")}

    def in_flight(self) -> dict:
        """As many tasks as may run, held over a round of heartbeats and of looks at all tasks, then ended."""
        videos = 2_000 if self.quick else 10_000
        with (
            Endpoints(self.binaries, videos, 86_400) as endpoints,
            self._consumer(endpoints, videos, _UNLIMITED) as consumer,
        ):
            start = time.monotonic()
            launching = consumer.until(lambda: endpoints.counts()["running"] == videos, 300, "launching")
            launched = time.monotonic() - start
            start, cpu = time.monotonic(), consumer.cpu_seconds()
            holding = consumer.rest(15 if self.quick else 30)
            core = (consumer.cpu_seconds() - cpu) / (time.monotonic() - start)
            endpoints.end_tasks()
            start = time.monotonic()
            settling = consumer.until(lambda: endpoints.counts()["deleted"] == videos, 300, "settling")
            settled = time.monotonic() - start
            # Longer than a long poll.
            after = consumer.rest(25)
            self._all_done(endpoints, videos)
            return {
                "videos": videos, "launching_seconds": launched, "settling_seconds": settled,
                "launching": max(launching), "holding": median(holding), "holding_core": core, "settling": max(settling),
                "most": consumer.megabytes("VmHWM"), "after": after[-1],
                "anonymous_after": consumer.megabytes("RssAnon"),
            }  # fmt: skip

    def sustained(self) -> dict:
        """20 launches a second out of a backlog, once as many tasks end as begin."""
        rate, run_time, window = 20, 10 if self.quick else 30, 15 if self.quick else 60
        uploads = rate * (run_time + window) * 2
        with (
            Endpoints(self.binaries, uploads, run_time) as endpoints,
            self._consumer(endpoints, 1_000, rate) as consumer,
        ):
            ramp = rate * (run_time + 5)
            consumer.until(lambda: endpoints.counts()["started"] >= ramp, ramp, "20 launches a second")
            found = _over(endpoints, consumer, window)
            return found | {"rate": rate, "window": window}

    def unlimited(self) -> list[dict]:
        """Without a launch rate."""
        window = 10 if self.quick else 15
        found = []
        for _ in range(1 if self.quick else 3):
            with (
                Endpoints(self.binaries, 20_000, 5) as endpoints,
                self._consumer(endpoints, 5_000, _UNLIMITED) as consumer,
            ):
                # Until the first tasks end, so that launches and ends share the program.
                consumer.until(lambda: endpoints.counts()["deleted"] > 0, 60, "the first video's end")
                found.append(_over(endpoints, consumer, window))
        return found

    def long_run(self) -> dict:
        """Very many videos, one after the other, through one process."""
        videos = self.videos
        with (
            Endpoints(self.binaries, videos, 1, latency_ms=5) as endpoints,
            self._consumer(endpoints, 1_000, _UNLIMITED) as consumer,
        ):
            start, cpu = time.monotonic(), consumer.cpu_seconds()
            rss = consumer.until(lambda: endpoints.counts()["deleted"] == videos, 1_200, "all videos")
            wall = time.monotonic() - start
            cpu = consumer.cpu_seconds() - cpu
            self._all_done(endpoints, videos)
            return {
                "videos": videos, "seconds": wall, "cpu_ms": cpu / videos * 1e3, "rss": rss,
                "most": consumer.megabytes("VmHWM"), "calls": endpoints.counts()["calls"],
            }  # fmt: skip

    def rival(self) -> list[dict]:
        """One message at a time: receive, run, delete, in sequence."""
        found = []
        for _ in range(1 if self.quick else 3):
            with Endpoints(self.binaries, 20_000, 5) as endpoints:
                command = [self.binaries / "bench-one-at-a-time"]
                with Watched("bench-one-at-a-time", command, endpoints.environment(), MEASURED_CORES) as rival:
                    rival.until(lambda: endpoints.counts()["deleted"] > 0, 30, "the rival's first video")
                    found.append(_over(endpoints, rival, 10))
        return found

    @staticmethod
    def _all_done(endpoints: Endpoints, videos: int) -> None:
        counts = endpoints.counts() | {"done": endpoints.done()}
        if (counts["done"], counts["started"], counts["dead_letters"]) != (videos, videos, 0):
            raise Problem(f"{videos} videos should have had one task each and be done: {counts}")


def _over(endpoints: Endpoints, program: Watched, seconds: float) -> dict:
    """What happens within some time, in which the queue must not run empty."""
    start, first, cpu = time.monotonic(), endpoints.counts(), program.cpu_seconds()
    program.rest(seconds)
    wall, last, cpu = time.monotonic() - start, endpoints.counts(), program.cpu_seconds() - cpu
    if last["waiting"] == 0:
        raise Problem("the queue ran empty while launches were counted")
    launches = last["started"] - first["started"]
    calls = {name: count - first["calls"].get(name, 0) for name, count in last["calls"].items()}
    return {
        "launches": launches / wall, "core": cpu / wall, "cpu_ms": cpu / launches * 1e3,
        "calls": {name: count / launches for name, count in calls.items() if count},
        "running": last["running"], "rss": program.megabytes(),
    }  # fmt: skip


def _make_video() -> None:
    """Three and a half minutes of 1080p with sound, whose movie header takes about 64 KiB."""
    if _VIDEO.exists():
        return
    _FOLDER.mkdir(parents=True, exist_ok=True)
    unfinished = _VIDEO.with_suffix(".unfinished.mp4")
    command = [
        "ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "color=size=1920x1080:rate=5",
        "-f", "lavfi", "-i", "anullsrc=sample_rate=48000", "-t", "210",
        "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-movflags", "+faststart",
        str(unfinished),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=300)
    unfinished.rename(_VIDEO)


def main() -> int:
    names = ["idle", "in_flight", "sustained", "unlimited", "long_run", "rival"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything; the section is only printed")
    parser.add_argument("--only", nargs="+", choices=names, help="only these; their figures are only printed")
    parser.add_argument("--videos", type=int, help="that one process settles in the long run")
    parser.add_argument("--render", action="store_true", help="no measuring: the section from the last results")
    flags = parser.parse_args()
    if flags.render:
        if not _RESULTS.exists():
            raise Problem(f"there is no {_RESULTS}: measure first")
        sections.put(_COMMAND, consumer_page.render(json.loads(_RESULTS.read_text())))
        return 0

    binaries = programs.build("--workspace")
    _make_video()
    os.sched_setaffinity(0, OTHER_CORES)
    bench = Bench(binaries, flags.quick, flags.videos or (5_000 if flags.quick else 100_000))
    results = {"about": about.machine(), "pinned": PINNED}
    start = time.monotonic()
    for name in flags.only or names:
        measure = getattr(bench, name)
        begun = time.monotonic()
        print(f"  {measure.__doc__}", flush=True)
        results[name] = measure()
        told = json.dumps(results[name] if flags.only else consumer_page.headline(name, results[name]))
        print(f"    {told} ({time.monotonic() - begun:.0f} s)", flush=True)
    results["minutes"] = (time.monotonic() - start) / 60
    if flags.only:
        return 0
    text = consumer_page.render(results)
    if flags.quick or flags.videos:
        print(text)
        return 0
    _RESULTS.write_text(json.dumps(results, indent=1))
    sections.put(_COMMAND, text)
    print(consumer_page.summary(results))
    print(f"\n  Written: {sections.shown(sections.PAGE)}")
    return 0


if __name__ == "__main__":
    # As an exception, so that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"bench: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
