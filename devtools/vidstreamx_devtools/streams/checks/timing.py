"""Timing: every frame appears at its time, no other one where the source moves, and audio is in sync."""

from __future__ import annotations

import numpy as np

from vidstreamx_devtools.streams.audio import delays
from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.published import Rendition, Stream
from vidstreamx_devtools.streams.source import AudioTrack, Source, VideoTrack

_SAME_INSTANT = 0.002  # seconds
_REPEATED_FROM = 0.2  # seconds between two frames of the source; shorter gaps are left as they are
_IN_SYNC = 0.040
_MIN_TOLERANCE = 0.050
_SILENCE = -50.0  # dB: filters and encoders ring on after the end of a signal


def check(
    source: Source, stream: Stream, pairs: list[tuple[AudioTrack, Rendition]], findings: Findings
) -> None:
    """`pairs`: each audio track of the source, with one of its renditions."""
    if source.video is not None:
        for rung in stream.rungs():
            _check_frames(source.video, rung, source.end, findings)
    for track, rendition in pairs:
        _check_audio(track, rendition, source.video.end if source.video else 0.0, findings)


def _check_frames(video: VideoTrack, rung: Rendition, source_end: float, findings: Findings) -> None:
    """Each frame of the source is at its time. Others repeat a frame where the source shows nothing new."""
    if not findings.expect(len(rung.times), f"{rung.name}: frames", len(video.times), 0):
        return
    missing = [time for time in video.times if np.abs(rung.times - time).min() > _SAME_INSTANT]
    findings.expect(not missing, f"{rung.name}: missing frames", "none", _format(missing))
    edges = np.concatenate([[-np.inf], video.times, [np.inf]])
    added = [time for time in rung.times if np.abs(video.times - time).min() > _SAME_INSTANT]
    after = np.searchsorted(edges, added)
    extra = [
        time
        for time, gap in zip(added, edges[after] - edges[after - 1], strict=True)
        if gap < _REPEATED_FROM - _SAME_INSTANT
    ]
    findings.expect(not extra, f"{rung.name}: extra frames", "none", _format(extra))
    count = len(video.times) + len(added) - len(missing)
    findings.equal(f"{rung.name}: frames", count, len(rung.times))
    average = (video.end - float(video.times[0])) / len(video.times)
    tolerance = max(_MIN_TOLERANCE, average, video.last_duration) + 0.001
    end = min(max(rung.end, video.end), max(video.end, source_end))
    findings.near(f"{rung.name}: end", end, rung.end, tolerance)


def _check_audio(track: AudioTrack, rendition: Rendition, video_end: float, findings: Findings) -> None:
    """Silence may extend the audio to the length of the picture, at both ends. The signal must not move."""
    label = f"audio {rendition.name}"
    start, end = rendition.audio.start, rendition.audio.end
    latest_start = track.audio.start + _IN_SYNC
    if not findings.expect(
        start <= latest_start, f"{label}: start", f"by {latest_start:.3f}", f"{start:.3f}"
    ):
        return
    # The container may shorten the last frame, decoders do not.
    first, last = sorted((track.end, track.audio.end))
    latest = max(last, video_end) + _IN_SYNC
    in_range = first - _IN_SYNC <= end <= latest
    findings.expect(in_range, f"{label}: end", f"{first:.3f} to {latest:.3f}", f"{end:.3f}")
    findings.expect(start >= -_IN_SYNC, f"{label}: start", "not before the picture", f"{start:.3f}")
    for position, begin, until in (("before", start, track.audio.start), ("after", last, end)):
        loudness = rendition.audio.loudness(begin + _IN_SYNC, until - _IN_SYNC)
        aspect = f"{label}: audio {position} that of the source"
        findings.expect(loudness < _SILENCE, aspect, "silence", f"{loudness:.1f} dB")
    for position, delay in zip(("beginning", "end"), delays(track.audio, rendition.audio), strict=False):
        findings.near(f"{label}: delay at the {position}", 0.0, delay, _IN_SYNC)


def _format(times: list[float]) -> str:
    listed = ", ".join(f"{time:.3f}" for time in times[:5])
    return f"{len(times)}: at {listed}{', …' if len(times) > 5 else ''}"
