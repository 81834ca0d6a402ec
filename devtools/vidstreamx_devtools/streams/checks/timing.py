"""Time: every frame once and at its own instant, sound where it belongs."""

from __future__ import annotations

import numpy as np

from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.audio import delays
from vidstreamx_devtools.streams.source import AudioTrack, Source, VideoTrack
from vidstreamx_devtools.streams.published import Rendition, Stream

_SAME_INSTANT = 0.002  # seconds
_IN_SYNC = 0.040
_LEAST_TOLERANCE = 0.050
_SILENCE = -50.0  # dB: what filters and encoders leave of a sound that has ended


def check(source: Source, stream: Stream, pairs: list[tuple[AudioTrack, Rendition]], found: Findings) -> None:
    if source.video is not None:
        for rung in stream.rungs():
            _frames(source.video, rung, found)
    for track, rendition in pairs:
        _sound(track, rendition, source.video.end if source.video else 0.0, found)


def _frames(video: VideoTrack, rung: Rendition, found: Findings) -> None:
    found.equal(f"{rung.name}: frames", len(video.times), len(rung.times))
    if not len(rung.times):
        return
    if len(rung.times) == len(video.times):
        apart = np.abs(rung.times - video.times)
        worst = int(apart.argmax())
        found.expect(
            apart[worst] <= _SAME_INSTANT,
            f"{rung.name}: times of frames",
            f"frame {worst} at {video.times[worst]:.3f} s",
            f"{rung.times[worst]:.3f} s",
        )
    else:
        missing = [time for time in video.times if np.abs(rung.times - time).min() > _SAME_INSTANT]
        extra = [time for time in rung.times if np.abs(video.times - time).min() > _SAME_INSTANT]
        found.expect(not missing, f"{rung.name}: frames lost", "none", _instants(missing))
        found.expect(not extra, f"{rung.name}: frames too many", "none", _instants(extra))
    average = (video.end - float(video.times[0])) / len(video.times)
    found.near(
        f"{rung.name}: duration",
        video.end - float(video.times[0]),
        rung.end - float(rung.times[0]),
        max(_LEAST_TOLERANCE, average, video.last_duration) + 0.001,
    )


def _sound(track: AudioTrack, rendition: Rendition, shown_until: float, found: Findings) -> None:
    """Silence may fill up what the picture is longer, at both ends; nothing may be moved or lost for it."""
    label = f"audio {rendition.name}"
    start, end = rendition.sound.start, rendition.sound.end
    at_the_latest = track.sound.start + _IN_SYNC
    if not found.expect(start <= at_the_latest, f"{label}: start", f"by {at_the_latest:.3f}", f"{start:.3f}"):
        return
    # The container may cut the last frame short, which decoders do not.
    first, last = sorted((track.end, track.sound.end))
    latest = max(last, shown_until) + _IN_SYNC
    found.expect(first - _IN_SYNC <= end <= latest, f"{label}: end", f"{first:.3f} to {latest:.3f}", f"{end:.3f}")
    found.expect(start >= -_IN_SYNC, f"{label}: start", "not before the picture's", f"{start:.3f}")
    for where, begin, until in (("before", start, track.sound.start), ("behind", last, end)):
        loudness = rendition.sound.loudness(begin + _IN_SYNC, until - _IN_SYNC)
        found.expect(loudness < _SILENCE, f"{label}: what is {where} the source's", "silence", f"{loudness:.1f} dB")
    for where, delay in zip(("beginning", "end"), delays(track.sound, rendition.sound)):
        found.near(f"{label}: lag of what is heard at its {where}", 0.0, delay, _IN_SYNC)


def _instants(times: list[float]) -> str:
    shown = ", ".join(f"{time:.3f}" for time in times[:5])
    return f"{len(times)}: at {shown}{', …' if len(times) > 5 else ''}"
