"""One file from start to end: what it is, what was made of it, and where the two do not agree."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

import av

from vidstreamx_devtools.media import transcode as runs
from vidstreamx_devtools.streams import source as sources
from vidstreamx_devtools.streams import published as streams
from vidstreamx_devtools.streams.checks import dash, extras, audio as hearing, hls, picture as looks, rejection as refusal, segments, sizes, timing
from vidstreamx_devtools.streams.findings import Difference, Findings
from vidstreamx_devtools.streams.source import Source
from vidstreamx_devtools.streams.published import Stream

_HALF = 0.5
_ABOUT_HALF = 0.05


@dataclass(frozen=True)
class Verdict:
    file: str
    categories: str
    expected: str
    got: str
    differences: list[Difference]
    plays: bool


def judge(binary: Path, file: Path, categories: str, under: Path) -> Verdict:
    found = Findings()
    expected = got = ""
    plays = False
    try:
        av.logging.set_level(av.logging.PANIC)
        run = runs.transcoded(binary, file, under)
        source = sources.read(file)
        report = streams.report(run.folder)
        may_be_refused = source.refused is not None or source.share_left < _HALF + _ABOUT_HALF
        must_be_refused = source.refused is not None or source.share_left < _HALF - _ABOUT_HALF
        if must_be_refused or may_be_refused and run.exit_code == refusal.UNUSABLE:
            expected = f"exit 65: {source.refused or f'{source.share_left:.0%} of it left'}"
            refusal.check(run, report, found)
            got = f"exit {run.exit_code}: {report.get('reason', '')}"
        else:
            expected = _of_source(source)
            got = f"exit {run.exit_code}: {report.get('reason', '')}"
            if found.equal("exit code", 0, run.exit_code):
                stream = streams.read(run.folder, [one.time for one in source.video.looks] if source.video else [])
                _compare(source, stream, found)
                got = _of_stream(stream)
                plays = True
    except Exception:
        # What cannot even be read is a difference like any other, and the other files go on.
        found.expect(False, "reading it back", "no exception", " ".join(traceback.format_exc(limit=-3).split()))
    return Verdict(file.name, categories, expected, got, list(found), plays)


def _compare(source: Source, stream: Stream, found: Findings) -> None:
    if source.is_damaged:
        found.expect(bool(stream.report.get("warnings")), "job.json: warnings", "the damage", "none")
    found.equal("job.json: outcome", "complete", stream.report.get("outcome"))
    if source.video is not None:
        sizes.check(source.video, stream, found)
        looks.check(source.video, stream, found)
    timing.check(source, stream, hearing.pairs(source, stream), found)
    hearing.check(source, stream, found)
    segments.check(stream, found)
    extras.check(source, stream, found)
    hls.check(stream, found)
    dash.check(source, stream, found)


def _of_source(source: Source) -> str:
    parts = []
    if source.video is not None:
        rungs = " ".join(f"{round(w)}x{round(h)}" for w, h in sizes.expected_rungs(source.video))
        parts.append(f"{rungs}, {len(source.video.times)} frames to {source.video.end:.2f} s")
    parts += [f"{track.language or 'und'} {track.channels} ch to {track.sound.end:.2f} s" for track in source.audio]
    return "; ".join(parts)


def _of_stream(stream: Stream) -> str:
    parts = []
    rungs = stream.rungs()
    if rungs:
        names = " ".join(f"{w}x{h}" for rung in rungs for w, h in rung.sizes)
        parts.append(f"{names}, {len(rungs[0].times)} frames to {rungs[0].end:.2f} s")
    parts += [f"{one.name} {one.sound.channels} ch to {one.end:.2f} s" for one in stream.sounds.values()]
    return "; ".join(parts)
