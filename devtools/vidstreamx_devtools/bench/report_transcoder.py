"""The task's results as a section for people."""

from __future__ import annotations

from dataclasses import dataclass

from vidstreamx_devtools.bench import environment as about
from vidstreamx_devtools.bench.report import table

SPEED_COPIED, SPEED_ENCODED = 4.0, 2.0
QUALITY = 0.5  # VMAF
BYTES = 1.05
OVERHEAD = 1.05


@dataclass(frozen=True)
class Verdict:
    target: str
    clip: str
    got: str
    missed: str  # by how much; empty when it is met


# Of the run on the page; to be read again after the next one.
_WHY = """\
- **Speed, where a rung is copied.** What is saved is the largest rung. In the short and small clips (portrait, animation) \
the task's fixed half second is a fifth of the whole; in 4K two more large rungs remain to be encoded.
- **Speed, where none is.** Motion graphics are so easy that `medium` hardly takes longer than `veryfast`: decoding, scaling and \
five encoders' fixed work remain. One CRF and one preset for all content cannot use that; looking at the content first could.
- **Quality and bytes.** The settings lie between hard content (park: up to 0.6 VMAF under) and easy content (motion graphics, \
drawings: 5 to 15 % more bytes for 0.5 to 2.7 VMAF more). Beside a copied rung the CRF is lowered by a half, as there are fewer \
keyframes; that is too much for the drawn clip and too little for 720p of park. The 4K clip is 1080p scaled up, \
which no camera makes: in its 1440p and 1080p rungs `medium`'s better search tells most.
- **Overhead.** Reading the header, reading every rendition back and making the storyboard take about 0.4 s whatever the \
length, and the pipes and files take the rest: over 5 % of tasks that take under ten seconds. A \
minute of the first clip took 1.01 times as long as the bare command (39.9 s, once)."""


def render(results: dict) -> str:
    programs = results["about"]
    parts = [
        "## The transcoder task",
        "The naive way against this one, on the same machine in the same run: `make bench`.",
        _how(results),
        "### Targets",
        _verdicts(results),
        "### Why some are missed",
        _WHY,
        "### Clips",
        _overview(results),
        *(_clip(clip) for clip in results["clips"]),
        "### Machine",
        f"{about.sentence(programs)} FFmpeg {programs['ffmpeg']}, x264 {programs['x264']} (the image's), VMAF model"
        f" {programs['vmaf']}. It took {results['minutes']:.0f} minutes.",
        "### Again",
        "```sh\nmake bench                                         # all clips; writes this section\n"
        "make bench BENCH=--quick                           # two clips, once; prints instead\n"
        "make bench BENCH='--clip hevc 4k --runs 5'         # some of them\n"
        "make bench BENCH=--render                          # this section again from target/bench/results.json\n```\n\n"
        "Clips come from `../shared/corpus` (elsewhere: `VIDSTREAMX_CORPUS`). Where they are not there, clips made"
        " by FFmpeg's `testsrc2` stand in; they are easy to encode and say little about quality.",
    ]
    return "\n\n".join(parts) + "\n"


def summary(results: dict) -> str:
    """For the terminal."""
    return "\n".join(
        f"  {v.clip:<12} {v.target:<28} {v.got:<18} {'missed by ' + v.missed if v.missed else 'met'}"
        for v in verdicts(results)
    )


def _how(results: dict) -> str:
    runs = results["runs"]
    return (
        "**Naive** is what a competent person writes at first: copy the file to the machine, one `ffmpeg` run per rung"
        " in sequence (`-c:v libx264 -preset medium -crf 23`, keyframes every 4 s, AAC 128 kbit/s, HLS with fragmented"
        " MP4), copy the result away. It makes the rungs that the task makes, so no rung is upscaled in either way."
        " **Task** is `transcoder-task --input FILE --output DIR`. **Bare** is the FFmpeg command that the task runs,"
        " alone, with its pipes led to `/dev/null`.\n\n"
        "All run in one container of the transcoder's image and are timed from within, so starting a container counts"
        f" for none of them. Times are the median of {runs} alternating runs{'' if runs > 1 else ' (one: not to be trusted)'}."
        " Bytes are those of the video packets. VMAF is the mean over every third frame (paired by number), the rung scaled up to the size of"
        " the largest rung (bicubic) and compared with the source."
    )


def verdicts(results: dict) -> list[Verdict]:
    found = []
    for clip in results["clips"]:
        name, rungs, ways = clip["name"], clip["rungs"], clip["ways"]
        wanted = SPEED_COPIED if any(rung["copied"] for rung in rungs) else SPEED_ENCODED
        speed = ways["naive"]["wall"] / ways["task"]["wall"]
        found.append(_verdict(f"at least {wanted:.0f}x faster", name, f"{speed:.2f}x", wanted - speed, "x"))
        encoded = [rung for rung in rungs if not rung["copied"]]
        if encoded:
            worst = min(encoded, key=_difference)
            got = f"{_difference(worst):+.2f} ({worst['name']})"
            found.append(_verdict("VMAF at most 0.5 under", name, got, -QUALITY - _difference(worst), ""))
            ratio = _ratio(encoded)
            found.append(_verdict("encoded bytes at most 1.05x", name, f"{ratio:.3f}x", ratio - BYTES, "x"))
        if "bare" in ways:
            over = ways["task"]["wall"] / ways["bare"]["wall"]
            found.append(_verdict("wall at most 1.05x of bare", name, f"{over:.3f}x", over - OVERHEAD, "x"))
    return found


def _verdict(target: str, clip: str, got: str, missed: float, unit: str) -> Verdict:
    # What is written with two digits is judged by them.
    return Verdict(target, clip, got, f"{missed:.2f}{unit}" if missed >= 0.005 else "")


def _verdicts(results: dict) -> str:
    rows = [[v.clip, v.target, v.got, f"**missed** by {v.missed}" if v.missed else "met"] for v in verdicts(results)]
    met = sum(row[3] == "met" for row in rows)
    return f"{met} of {len(rows)} met.\n\n" + table(["clip", "target", "got", ""], rows)


def _overview(results: dict) -> str:
    header = ["clip", "naive s", "task s", "bare s", "faster", "naive CPU s", "task CPU s"]
    header += ["FFmpeg peak, naive", "task's", "transcoder-task peak"]
    rows = []
    for clip in results["clips"]:
        naive, task, bare = (clip["ways"].get(way) for way in ("naive", "task", "bare"))
        rows.append(
            [
                clip["name"], f"{naive['wall']:.2f}", f"{task['wall']:.2f}",
                f"{bare['wall']:.2f}" if bare else "not measured",
                f"{naive['wall'] / task['wall']:.2f}x", f"{_cpu(naive):.1f}", f"{_cpu(task):.1f}",
                _megabytes(naive["peak_kb_ffmpeg"]), _megabytes(task["peak_kb_ffmpeg"]),
                _megabytes(task["peak_kb_transcoder-task"]),
            ]
        )  # fmt: skip
    return table(header, rows)


def _clip(clip: dict) -> str:
    source = f"`{clip['file']}`" if clip["file"] else "a generated stand-in, as the corpus is not there"
    times = f", {clip['times']} times over" if clip["times"] > 1 else ""
    rows = []
    for rung in clip["rungs"]:
        naive, task = rung["naive"], rung["task"]
        rows.append(
            [
                rung["name"] + (" (copied)" if rung["copied"] else ""), f"{rung['width']}x{rung['height']}",
                f"{naive['bytes']:,}", f"{task['bytes']:,}", f"{task['bytes'] / naive['bytes']:.3f}",
                f"{naive['vmaf']:.2f}", f"{task['vmaf']:.2f}", f"{_difference(rung):+.2f}",
            ]
        )  # fmt: skip
    for label, chosen in _sums(clip["rungs"]):
        naive, task = (sum(rung[way]["bytes"] for rung in chosen) for way in ("naive", "task"))
        rows.append([label, "", f"{naive:,}", f"{task:,}", f"{task / naive:.3f}", "", "", ""])
    walls = "; ".join(
        f"{way} {', '.join(f'{wall:.2f}' for wall in times['walls'])}" for way, times in clip["ways"].items()
    )
    header = ["rung", "size", "naive bytes", "task bytes", "ratio", "naive VMAF", "task VMAF", "difference"]
    return (
        f"#### {clip['name']}\n\n{clip['about']}: {source}{times}, {clip['seconds']:.1f} s.\n\n{table(header, rows)}\n\n"
        f"Wall seconds of each run: {walls}.{_lost_frames(clip)}"
    )


def _lost_frames(clip: dict) -> str:
    """VMAF pairs frames by number, so it says nothing where one is missing."""
    wrong = [
        f"{way} {rung['name']} has {rung[way]['frames']}"
        for rung in clip["rungs"]
        for way in ("naive", "task")
        if rung[way]["frames"] != clip["frames"]
    ]
    return f" **Its VMAF means nothing**: of {clip['frames']} frames {', '.join(wrong)}." if wrong else ""


def _sums(rungs: list[dict]) -> list[tuple[str, list[dict]]]:
    encoded = [rung for rung in rungs if not rung["copied"]]
    if not encoded or len(encoded) == len(rungs):
        return [("all", rungs)]
    return [("encoded", encoded), ("all", rungs)]


def _ratio(rungs: list[dict]) -> float:
    return sum(rung["task"]["bytes"] for rung in rungs) / sum(rung["naive"]["bytes"] for rung in rungs)


def _difference(rung: dict) -> float:
    return rung["task"]["vmaf"] - rung["naive"]["vmaf"]


def _cpu(way: dict) -> float:
    return way["user"] + way["system"]


def _megabytes(kilobytes: float) -> str:
    return f"{kilobytes * 1.024 / 1000:.0f} MB"
