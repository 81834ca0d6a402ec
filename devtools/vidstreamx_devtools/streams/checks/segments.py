"""Segments: the same cuts in every rung, each playable alone, none longer than promised."""

from __future__ import annotations

from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.published import Rendition, Stream

_SAME_INSTANT = 0.002  # seconds
_CLOCK_ROUNDING = 0.005


def check(stream: Stream, found: Findings) -> None:
    rungs = stream.rungs()
    for rung in rungs:
        _alone(rung, found)
        _lengths(rung, found)
    for rendition in stream.sounds.values():
        _lengths(rendition, found)
    for rung in rungs[1:]:
        _same_cuts(rungs[0], rung, found)


def _alone(rung: Rendition, found: Findings) -> None:
    for segment in rung.segments:
        label = f"{rung.name}/{segment.path.name}"
        found.expect(segment.samples[:1] and segment.samples[0].is_sync, label, "begins with a keyframe", "does not")
        found.equal(f"{label}: errors when decoded alone", [], segment.errors)
        found.equal(f"{label}: frames decoded alone", len(segment.samples), segment.decoded)


def _lengths(rendition: Rendition, found: Findings) -> None:
    target = rendition.playlist.target_duration or 0
    # Presentation's times: decoding may begin and end elsewhere, by as much as frames are reordered.
    last = max((sample.duration for sample in rendition.segments[-1].samples), default=0.0)
    starts = _cuts(rendition)
    ends = [*starts[1:], rendition.end]
    count = sum(len(segment.samples) for segment in rendition.segments)
    average = (rendition.end - starts[0]) / max(count, 1)
    for segment, start, end in zip(rendition.segments, starts, ends):
        label = f"{rendition.name}/{segment.path.name}"
        found.expect(
            int(segment.duration + 0.5) <= target, f"{label}: EXTINF", f"rounds to at most {target}", segment.duration
        )
        tolerance = _CLOCK_ROUNDING + (last if segment is rendition.segments[-1] else average)
        found.near(f"{label}: EXTINF", end - start, segment.duration, tolerance)


def _same_cuts(first: Rendition, other: Rendition, found: Findings) -> None:
    ours, theirs = _cuts(first), _cuts(other)
    same = len(ours) == len(theirs) and all(abs(a - b) <= _SAME_INSTANT for a, b in zip(ours, theirs))
    found.expect(same, f"{other.name}: where segments begin", f"{_show(ours)} ({first.name})", _show(theirs))


def _cuts(rung: Rendition) -> list[float]:
    return [segment.times[0] if segment.times else float("nan") for segment in rung.segments]


def _show(times: list[float]) -> str:
    return " ".join(f"{time:.3f}" for time in times[:12]) + (" …" if len(times) > 12 else "")
