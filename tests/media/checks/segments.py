"""Segments: the same cuts in every rung, each playable alone, none longer than promised.

A rung that is the source's own picture may have one long segment at the beginning beside several of the others.
"""

from __future__ import annotations

from differences import Findings
from stream import Rendition, Stream

_SAME_INSTANT = 0.002  # seconds
_CLOCK_ROUNDING = 0.005
_OPENING = 21.0  # seconds: twice the longest segment


def check(stream: Stream, found: Findings) -> None:
    rungs = stream.rungs()
    for rung in rungs:
        _alone(rung, found)
        _lengths(rung, found)
    for rendition in stream.sounds.values():
        _lengths(rendition, found)
    copied = {one["name"] for one in stream.report.get("renditions", []) if one["kind"] == "video" and one.get("copied")}
    shape = next((rung for rung in rungs if rung.name not in copied), None)
    for rung in rungs:
        if shape and rung is not shape:
            _same_cuts(shape, rung, found, rung.name in copied)


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


def _same_cuts(shape: Rendition, other: Rendition, found: Findings, may_be_long: bool) -> None:
    ours, theirs = _cuts(shape), _cuts(other)
    if may_be_long:
        # What it lacks lies in one of its segments, and that is one of the first.
        lacking = [place for place, time in enumerate(ours) if not _has(theirs, time)]
        if lacking and len(lacking) == lacking[-1] - lacking[0] + 1 and lacking[0] > 0 and ours[lacking[-1]] < _OPENING:
            ours = [time for time in ours if _has(theirs, time)]
    same = len(ours) == len(theirs) and all(abs(a - b) <= _SAME_INSTANT for a, b in zip(ours, theirs))
    found.expect(same, f"{other.name}: where segments begin", f"{_show(ours)} ({shape.name})", _show(theirs))


def _has(times: list[float], wanted: float) -> bool:
    return any(abs(time - wanted) <= _SAME_INSTANT for time in times)


def _cuts(rung: Rendition) -> list[float]:
    return [segment.times[0] if segment.times else float("nan") for segment in rung.segments]


def _show(times: list[float]) -> str:
    return " ".join(f"{time:.3f}" for time in times[:12]) + (" …" if len(times) > 12 else "")
