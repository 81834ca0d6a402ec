"""`make bench-stream`: how soon a stream plays, what an interruption costs, memory and disk at any length.

stream.py [--quick] [--runs N] [--only NAME…]   measures, writes target/bench/stream.json and its section
stream.py --render                              only writes the section again from the results
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

from vidstreamx_devtools.bench import environment as about
from vidstreamx_devtools.bench import task_runs as attempts
from vidstreamx_devtools.bench import report as sections
from vidstreamx_devtools.bench import report_stream as stream_page
from vidstreamx_devtools.bench.task_runs import MASTER, Local, Upload
from vidstreamx_devtools.bench.clips import CLIPS, CORPUS, Clip, gather
from vidstreamx_devtools.settings import REPO
from vidstreamx_devtools.bench.container import Machine
from vidstreamx_devtools.settings import Problem, Settings
from vidstreamx_devtools.bench.long_sources import DEFAULT, HEVC, HEVC_720P, KEYFRAMES, SMALL, SMALL_COPIED, Source, Sources
from vidstreamx_devtools.bench.commands import bare_command, task_command

from vidstreamx_devtools.local import programs

_FOLDER = REPO / "target" / "bench"
_RESULTS = _FOLDER / "stream.json"
_COMMAND = "make bench-stream"
_FFMPEG, _TASK = "ffmpeg", "transcoder-task"
_DONE, _KILLED, _TERMINATED = 0, 137, 143


class Bench:
    def __init__(self, machine: Machine, local: Local, quick: bool, runs: int):
        self.machine, self.local, self.quick = machine, local, quick
        self.runs = 1 if quick else runs
        self.sources = Sources(machine)

    def playable(self) -> list[dict]:
        """From the task's start to the master playlist, for sources of several lengths."""
        lengths = [30, 120] if self.quick else [30, 600, 7200]
        found = []
        for source in (KEYFRAMES, DEFAULT, HEVC):
            for seconds in lengths:
                with self._upload(source, seconds) as upload:
                    runs = [self._until_playable(upload, source) for _ in range(self.runs)]
                found.append({"about": source.about, "seconds": seconds, "bytes": upload.size, "runs": runs})
                self._say(f"{source.about}, {seconds} s", [f"{run['playable']:.2f} s" for run in runs])
        return found

    def _until_playable(self, upload: Upload, source: Source) -> dict[str, float]:
        self.local.clear(upload)
        with self.local.attempt(upload, attempts.new_job()) as attempt:
            planned = attempt.until("planned")
            if bool(planned["copied"]) != source.copied:
                raise Problem(f"{source.about}: copied are the rungs \"{planned['copied']}\", which was not to be so")
            attempt.until("playable")
            published = self.local.published(upload)
            peak = attempt.megabytes()
            return {
                "started": attempt.after("started"),
                "planned": attempt.after("planned"),
                "playable": published[MASTER] - attempt.start,
                "peak": peak,
            }

    def overhead(self) -> list[dict]:
        """Wall time beside that of FFmpeg alone."""
        found = []
        for clip in CLIPS:
            if clip.name in (("copy",) if self.quick else ("copy", "hevc")):
                found.append(self._beside_bare(replace(clip, name=f"{clip.name}-long", times=1 if self.quick else 3)))
        return found

    def _beside_bare(self, clip: Clip) -> dict:
        """The ways take turns, so that what else this machine does meets them all alike."""
        self.machine.clear()
        place, _ = gather(clip, self.machine)
        bare = bare_command(self.machine, place, f"{self.machine.WORK}/shim")
        if not bare:
            raise Problem(f"{clip.name}: the task's FFmpeg command can't be had")
        walls: dict[str, list[float]] = {"bare": [], "files": [], "store": []}
        with self.local.upload(self.machine.path(place)) as upload:
            for turn in range(self.runs):
                out = f"{self.machine.WORK}/{turn}"
                walls["bare"].append(self.machine.measure(_FFMPEG, "bash", "-c", bare)["wall"])
                walls["files"].append(self.machine.measure(_TASK, *task_command(place, out))["wall"])
                walls["store"].append(self._whole(upload))
        seconds = self.machine.seconds(place)
        self._say(clip.about, [f"{way} {median(times):.2f} s" for way, times in walls.items()])
        return {"about": clip.about, "seconds": seconds, "walls": walls}

    def _whole(self, upload: Upload) -> float:
        self.local.clear(upload)
        with self.local.attempt(upload, attempts.new_job()) as attempt:
            return attempt.end(_DONE)

    def interruption(self) -> dict:
        """An attempt that is ended when half of the segments are there, and the next one, beside an undisturbed one."""
        seconds = 24 if self.quick else 60
        turns = []
        with self._upload(HEVC_720P, seconds) as upload:
            for _ in range(self.runs):
                undisturbed = self._whole(upload)
                whole = attempts.rungs(self.local.published(upload))
                turn: dict = {"undisturbed": undisturbed, "rungs": len(whole), "segments": len(next(iter(whole.values())))}
                for name, code in (("SIGKILL", _KILLED), ("SIGTERM", _TERMINATED)):
                    turn[name] = self._interrupted(upload, name, code, whole)
                    both = turn[name]["first"] + turn[name]["second"]
                    self._say(f"{name}, {seconds} s", [f"{both:.2f} s", f"undisturbed {undisturbed:.2f} s"])
                turns.append(turn)
        return {"about": HEVC_720P.about, "seconds": seconds, "turns": turns}

    def _interrupted(
        self, upload: Upload, name: str, code: int, whole: dict[str, dict[str, float]]
    ) -> dict[str, float]:
        self.local.clear(upload)
        job = attempts.new_job()
        half = len(next(iter(whole.values()))) / 2
        with self.local.attempt(upload, job) as attempt:
            deadline = time.monotonic() + 300
            while min(map(len, (there := attempts.rungs(self.local.published(upload))).values()), default=0) < half:
                if time.monotonic() > deadline or not attempt.is_running:
                    raise Problem(f"half of the segments were never there: {attempt.last_words()}")
                time.sleep(0.2)
            if len(there) != len(whole):
                raise Problem(f"the rungs are {', '.join(there)} and not {', '.join(whole)}")
            sent = time.time() - attempt.start
            attempt.signal(name)
            first = attempt.end(code)
        left = _segments(self.local.published(upload))
        with self.local.attempt(upload, job) as attempt:
            second = attempt.end(_DONE)
            resumed = attempt.after("going on where an earlier attempt stopped")
            published = self.local.published(upload)
            made = {path: at for path, at in _segments(published).items() if left.get(path) != at}
            result = {
                "first": first,
                "second": second,
                "ending": first - sent,
                "resumed": resumed,
                "new_segment": min(made.values()) - attempt.start,
            }
        names, expected = ({_below(path) for path in found} for found in (_segments(published), _segments_of(whole)))
        return result | {
            "left": len(left),
            "again": sum(path in left for path in made),
            "lacking": len(expected - names),
            "more": len(names - expected),
        }

    def footprint(self) -> list[dict]:
        """Memory of the task itself, and disk, over whole runs."""
        short, middle, long = (10, 20, 60) if self.quick else (30, 600, 7200)
        wanted = [(SMALL, short), (SMALL, middle), (SMALL, long), (SMALL_COPIED, long)]
        if not self.quick:
            wanted += [(KEYFRAMES, short), (HEVC, short)]
        found = []
        for source, seconds in wanted:
            with self._upload(source, seconds) as upload:
                found.append(self._footprint(source.about, seconds, upload))
        for clip in CLIPS:
            if clip.name == "4k" and not self.quick:
                place, _ = gather(clip, self.machine)
                with self.local.upload(self.machine.path(place)) as upload:
                    found.append(self._footprint(clip.about, self.machine.seconds(place), upload))
        return found

    def _footprint(self, what: str, seconds: float, upload: Upload) -> dict:
        disk = [0.0]
        with self.local.attempt(upload, attempts.new_job(), _TASK) as attempt:
            while attempt.is_running:
                disk.append(attempt.disk_megabytes())
                time.sleep(0.5)
            attempt.end(_DONE)
            measured = json.loads(attempt.said[-1])
        segments = sum(map(len, attempts.rungs(self.local.published(upload)).values()))
        peak = measured[f"peak_kb_{_TASK}"] * 1024 / 1e6
        self._say(f"{what}, {seconds:.0f} s", [f"{peak:.1f} MB", f"disk {max(disk):.1f} MB", f"{measured['wall']:.1f} s"])
        return {
            "about": what, "seconds": seconds, "bytes": upload.size, "wall": measured["wall"], "segments": segments,
            "peak": peak, "disk": max(disk),
        }  # fmt: skip

    @contextmanager
    def _upload(self, source: Source, seconds: int) -> Iterator[Upload]:
        file = self.sources.make(source, seconds)
        with self.local.upload(file) as upload:
            file.unlink()
            yield upload

    @staticmethod
    def _say(what: str, found: list[str]) -> None:
        print(f"    {what}: {', '.join(found)}", flush=True)


def _segments(published: dict[str, float]) -> dict[str, float]:
    return _segments_of(attempts.rungs(published))


def _segments_of(rungs: dict[str, dict[str, float]]) -> dict[str, float]:
    return {path: at for segments in rungs.values() for path, at in segments.items()}


def _below(path: str) -> str:
    """Without the folders of the job and its plan."""
    return path.partition("/video/")[2]


def main() -> int:
    names = ["playable", "overhead", "interruption", "footprint"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, once; the section is only printed")
    parser.add_argument("--runs", type=int, default=3, help="of everything but memory and disk; the median counts")
    parser.add_argument("--only", nargs="+", choices=names, help="only these; their figures are only printed")
    parser.add_argument("--render", action="store_true", help="no measuring: the section from the last results")
    flags = parser.parse_args()
    if flags.render:
        if not _RESULTS.exists():
            raise Problem(f"there is no {_RESULTS}: measure first")
        sections.put(_COMMAND, stream_page.render(json.loads(_RESULTS.read_text())))
        return 0

    settings = Settings.from_environment()
    programs.build_image(settings, programs.build())
    results = measure(settings, flags.only or names, flags.quick, flags.runs)
    if flags.only:
        return 0
    text = stream_page.render(results)
    if flags.quick:
        print(text)
        return 0
    _RESULTS.write_text(json.dumps(results, indent=1))
    sections.put(_COMMAND, text)
    print(stream_page.summary(results))
    print(f"\n  Written: {sections.shown(sections.PAGE)}")
    return 0


def measure(settings: Settings, names: list[str], quick: bool, runs: int) -> dict:
    start = time.monotonic()
    with (
        Machine(settings.image, _FOLDER, CORPUS) as machine,
        attempts.local(settings, _FOLDER / "stack") as local,
    ):
        bench = Bench(machine, local, quick, runs)
        results = {"about": about.machine() | about.programs(machine), "runs": bench.runs}
        for name in names:
            begun, found = time.monotonic(), getattr(bench, name)
            print(f"  {found.__doc__}", flush=True)
            results[name] = found()
            print(f"    ({time.monotonic() - begun:.0f} s)", flush=True)
        machine.clear()
    return results | {"minutes": (time.monotonic() - start) / 60}


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
