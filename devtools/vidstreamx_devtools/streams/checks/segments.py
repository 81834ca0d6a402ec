"""Segments: the same boundaries in every rung, decodable alone, with the durations of the playlist."""

from __future__ import annotations

import math

from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.published import Rendition, Stream

_SAME_INSTANT = 0.002  # seconds
_CLOCK_ROUNDING = 0.005


def check(stream: Stream, findings: Findings) -> None:
    rungs = stream.rungs()
    for rung in rungs:
        _check_decodable_alone(rung, findings)
        _check_durations(rung, findings)
    for rendition in stream.audios.values():
        _check_durations(rendition, findings)
    for rung in rungs[1:]:
        _check_same_boundaries(rungs[0], rung, findings)


def _check_decodable_alone(rung: Rendition, findings: Findings) -> None:
    for segment in rung.segments:
        label = f"{rung.name}/{segment.path.name}"
        starts_with_keyframe = segment.samples and segment.samples[0].is_sync
        findings.expect(starts_with_keyframe, label, "begins with a keyframe", "does not")
        findings.equal(f"{label}: errors when decoded alone", [], segment.errors)
        findings.equal(f"{label}: frames decoded alone", len(segment.samples), segment.decoded)


def _check_durations(rendition: Rendition, findings: Findings) -> None:
    target = rendition.playlist.target_duration or 0
    # Compares presentation times, because decode times differ from them if frames are reordered.
    last = max((sample.duration for sample in rendition.segments[-1].samples), default=0.0)
    starts = _starts(rendition)
    ends = [*starts[1:], rendition.end]
    count = sum(len(segment.samples) for segment in rendition.segments)
    average = (rendition.end - starts[0]) / max(count, 1)
    for segment, start, end in zip(rendition.segments, starts, ends, strict=True):
        label = f"{rendition.name}/{segment.path.name}"
        rounded = int(segment.duration + 0.5)
        findings.expect(
            rounded <= target, f"{label}: EXTINF", f"rounds to at most {target}", segment.duration
        )
        tolerance = _CLOCK_ROUNDING + (last if segment is rendition.segments[-1] else average)
        findings.near(f"{label}: EXTINF", end - start, segment.duration, tolerance)


def _check_same_boundaries(first: Rendition, other: Rendition, findings: Findings) -> None:
    expected, got = _starts(first), _starts(other)
    same = len(expected) == len(got) and all(
        abs(one - two) <= _SAME_INSTANT for one, two in zip(expected, got, strict=True)
    )
    label = f"{other.name}: segment boundaries"
    findings.expect(same, label, f"{_format(expected)} ({first.name})", _format(got))


def _starts(rung: Rendition) -> list[float]:
    return [segment.times[0] if segment.times else math.nan for segment in rung.segments]


def _format(times: list[float]) -> str:
    return " ".join(f"{time:.3f}" for time in times[:12]) + (" …" if len(times) > 12 else "")
