"""The verdict on one file: reads it, transcodes it, reads the stream, and lists the differences."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

import av

from vidstreamx_devtools.media.transcode import Transcoder, transcode
from vidstreamx_devtools.streams import published
from vidstreamx_devtools.streams import source as sources
from vidstreamx_devtools.streams.checks import (
    audio,
    dash,
    extras,
    hls,
    picture,
    rejection,
    segments,
    sizes,
    timing,
)
from vidstreamx_devtools.streams.findings import Difference, Findings
from vidstreamx_devtools.streams.published import Stream
from vidstreamx_devtools.streams.source import Source

# A file is rejected if less than half of it can be decoded. Near that limit both results are right.
_HALF = 0.5
_HALF_TOLERANCE = 0.05


@dataclass(frozen=True)
class Verdict:
    file: str
    categories: str
    expected: str
    got: str
    differences: list[Difference]


def judge(transcoder: Transcoder, file: Path, categories: str) -> Verdict:
    findings = Findings()
    expected = got = ""
    try:
        av.logging.set_level(av.logging.PANIC)
        run = transcode(transcoder, file)
        source = sources.read(file)
        report = published.read_report(run.folder)
        got = f"exit {run.exit_code}: {report.get('reason', '')}"
        is_unreadable = source.rejection is not None
        may_reject = is_unreadable or source.decodable_share < _HALF + _HALF_TOLERANCE
        must_reject = is_unreadable or source.decodable_share < _HALF - _HALF_TOLERANCE
        if must_reject or (may_reject and run.exit_code == rejection.UNUSABLE):
            decodable = f"{source.decodable_share:.0%} of the file can be decoded"
            expected = f"exit 65: {source.rejection or decodable}"
            rejection.check(run, report, findings)
        else:
            expected = _summarise_source(source)
            if findings.equal("exit code", 0, run.exit_code):
                frames = source.video.sampled_frames if source.video else []
                stream = published.read(run.folder, [frame.time for frame in frames])
                _check(source, stream, findings)
                got = _summarise_stream(stream)
    except Exception:
        # An exception is reported as a difference of this file, so the other files are still checked.
        message = " ".join(traceback.format_exc(limit=-3).split())
        findings.expect(False, "reading the stream", "no exception", message)
    return Verdict(file.name, categories, expected, got, list(findings))


def _check(source: Source, stream: Stream, findings: Findings) -> None:
    if source.is_damaged:
        findings.expect(stream.report.get("warnings"), "job.json: warnings", "the damage", "none")
    findings.equal("job.json: outcome", "complete", stream.report.get("outcome"))
    if source.video is not None:
        sizes.check(source.video, stream, findings)
        picture.check(source.video, stream, findings)
    timing.check(source, stream, audio.pairs(source, stream), findings)
    audio.check(source, stream, findings)
    segments.check(stream, findings)
    extras.check(source, stream, findings)
    hls.check(stream, findings)
    dash.check(source, stream, findings)


def _summarise_source(source: Source) -> str:
    parts = []
    if source.video is not None:
        rungs = " ".join(f"{round(w)}x{round(h)}" for w, h in sizes.expected_rungs(source.video))
        parts.append(f"{rungs}, {len(source.video.times)} frames to {source.video.end:.2f} s")
    parts += [
        f"{track.language or 'und'} {track.channels} ch to {track.audio.end:.2f} s" for track in source.audio
    ]
    return "; ".join(parts)


def _summarise_stream(stream: Stream) -> str:
    parts = []
    rungs = stream.rungs()
    if rungs:
        names = " ".join(f"{w}x{h}" for rung in rungs for w, h in rung.sizes)
        parts.append(f"{names}, {len(rungs[0].times)} frames to {rungs[0].end:.2f} s")
    parts += [f"{one.name} {one.audio.channels} ch to {one.end:.2f} s" for one in stream.audios.values()]
    return "; ".join(parts)
