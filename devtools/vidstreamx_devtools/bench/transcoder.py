"""`make bench`: the naive way against the task, on this machine in one run.

bench.py [--quick] [--runs N] [--clip NAME…]   measures, writes target/bench/results.json and its section
bench.py --render                              only writes the section again from the results
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import median

from vidstreamx_devtools.bench import environment as about
from vidstreamx_devtools.bench import report_transcoder as page
from vidstreamx_devtools.bench import report as sections
from vidstreamx_devtools.bench.clips import CLIPS, CORPUS, Clip, gather
from vidstreamx_devtools.settings import REPO
from vidstreamx_devtools.bench.container import Machine
from vidstreamx_devtools.settings import Problem, Settings
from vidstreamx_devtools.bench.quality import MODEL, is_full_range, picture, vmaf
from vidstreamx_devtools.bench.commands import Rung, bare_command, naive_script, read_rungs, task_command

from vidstreamx_devtools.local import programs

_FOLDER = REPO / "target" / "bench"
_RESULTS = _FOLDER / "results.json"
_COMMAND = "make bench"
_FFMPEG, _TASK = "ffmpeg", "transcoder-task"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two clips, once; the section is only printed")
    parser.add_argument("--runs", type=int, default=3, help="of each way; the median counts")
    parser.add_argument("--clip", nargs="+", choices=[clip.name for clip in CLIPS], help="only these")
    parser.add_argument("--render", action="store_true", help="no measuring: the section from the last results")
    flags = parser.parse_args()
    if flags.render:
        if not _RESULTS.exists():
            raise Problem(f"there is no {_RESULTS}: measure first")
        sections.put(_COMMAND, page.render(json.loads(_RESULTS.read_text())))
        return 0

    chosen = [c for c in CLIPS if (c.name in flags.clip if flags.clip else c.quick or not flags.quick)]
    whole = len(chosen) == len(CLIPS)
    settings = Settings.from_environment()
    programs.build_image(settings, programs.build())
    start = time.monotonic()
    with Machine(settings.image, _FOLDER, CORPUS) as machine:
        found = about.machine() | about.programs(machine) | {"vmaf": MODEL}
        results = {"about": found, "runs": 1 if flags.quick else flags.runs}
        results["clips"] = [_measure(clip, machine, results["runs"]) for clip in chosen]
    results["minutes"] = (time.monotonic() - start) / 60
    (_RESULTS if whole else _FOLDER / "part.json").write_text(json.dumps(results, indent=1))
    text = page.render(results)
    if whole:
        sections.put(_COMMAND, text)
        print(page.summary(results))
        print(f"\n  Written: {sections.shown(sections.PAGE)}")
    else:
        print(text)
    return 0


def _measure(clip: Clip, machine: Machine, runs: int) -> dict:
    """All about one clip. The ways take turns, so that what else this machine does meets them all alike."""
    print(f"  {clip.name}: {clip.about}", flush=True)
    machine.clear()
    place, real = gather(clip, machine)
    found = {"naive": [], "task": [], "bare": []}

    # Once beforehand: what the task makes is what the naive way is asked for.
    out = f"{machine.WORK}/first"
    machine.run(*task_command(place, out))
    rungs = read_rungs(machine.path(out))
    bare = bare_command(machine, place, f"{machine.WORK}/shim")
    for turn in range(runs):
        out = f"{machine.WORK}/{turn}"
        naive = naive_script(place, rungs, f"{out}/naive")
        found["naive"].append(machine.measure(_FFMPEG, "bash", "-c", naive))
        found["task"].append(machine.measure(f"{_FFMPEG},{_TASK}", *task_command(place, f"{out}/task")))
        if bare:
            found["bare"].append(machine.measure(_FFMPEG, "bash", "-c", bare))
        print("   ", *(f"{way} {times[-1]['wall']:.2f} s" for way, times in found.items() if times), flush=True)

    out = f"{machine.WORK}/0"
    return {
        "name": clip.name,
        "about": clip.about,
        "file": clip.file if real else None,
        "times": clip.times if real else 1,
        "seconds": machine.seconds(place),
        "ways": {way: _median(times) for way, times in found.items() if times},
        "frames": picture(machine, place)["frames"],
        "rungs": _rungs(machine, rungs, place, f"{out}/naive/uploaded", f"{out}/task"),
    }


def _median(times: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(run[name] for run in times) for name in times[0]} | {
        "walls": [run["wall"] for run in times]
    }


def _rungs(machine: Machine, rungs: list[Rung], clip: str, naive: str, task: str) -> list[dict]:
    rows = []
    width, height, full_range = rungs[0].width, rungs[0].height, is_full_range(machine, clip)
    for rung in rungs:
        row = {"name": rung.name, "width": rung.width, "height": rung.height, "copied": rung.copied}
        for way, folder in (("naive", f"{naive}/{rung.name}"), ("task", f"{task}/{rung.folder}")):
            playlist = f"{folder}/index.m3u8"
            score = vmaf(machine.path(playlist), machine.path(clip), width, height, full_range)
            row[way] = picture(machine, playlist) | {"vmaf": score}
        rows.append(row)
    return rows


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"bench: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
