"""Playlists by RFC 8216 and Apple's authoring rules, held against what the segments are."""

from __future__ import annotations

import io

import av
import m3u8

from vidstreamx_devtools.streams import boxes
from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.published import Rendition, Stream, address

_RATE = 0.10  # share by which a bandwidth may be off
_VERSIONS = range(6, 14)  # EXT-X-MAP outside of I-frame playlists needs 6


def check(stream: Stream, found: Findings) -> None:
    master = stream.master
    found.expect(master.version in _VERSIONS, "master: version", "6 or newer", master.version)
    found.expect(master.is_independent_segments, "master", "INDEPENDENT-SEGMENTS", "not")
    found.expect(bool(master.playlists), "master: variants", "some", "none")
    for variant in master.playlists:
        if variant.uri in stream.videos or variant.uri in stream.sounds:
            _variant(stream, variant, found)
    for rendition in [*stream.videos.values(), *stream.sounds.values()]:
        _media(rendition, found)
    if stream.videos:
        _keyframe_playlists(stream, found)


def _variant(stream: Stream, variant: m3u8.Playlist, found: Findings) -> None:
    info = variant.stream_info
    picture = stream.videos.get(variant.uri)
    sounds = _group(stream, variant) or ([stream.sounds[variant.uri]] if picture is None else [])
    label = f"variant {variant.uri.rpartition('/')[0].rpartition('/')[2]}"
    if info.audio:
        label += f" with {info.audio}"
        found.expect(bool(sounds), f"{label}: AUDIO", "a group with playlists", f"no group {info.audio!r}")
    elif picture is not None:
        found.equal(f"{label}: AUDIO (there is sound)", 0, len(stream.sounds))
    if info.subtitles:
        groups = {media.group_id for media in stream.subtitles()}
        found.expect(info.subtitles in groups, f"{label}: SUBTITLES", groups, info.subtitles)
    elif stream.subtitles():
        found.expect(False, f"{label}: SUBTITLES", "the group", "none")
    parts = [*([picture] if picture else []), *sounds[:1]]
    wanted = {boxes.codecs(one.init).lower() for one in [*([picture] if picture else []), *sounds]}
    got = {one.strip().lower() for one in (info.codecs or "").split(",")}
    found.equal(f"{label}: CODECS", sorted(wanted), sorted(got))
    if picture is not None:
        found.expect({info.resolution} == picture.sizes, f"{label}: RESOLUTION", picture.sizes, info.resolution)
        _frame_rate(label, picture, info.frame_rate, found)
    _rates(label, picture, sounds, info, found)
    assert parts


def _group(stream: Stream, variant: m3u8.Playlist) -> list[Rendition]:
    group = variant.stream_info.audio
    return [
        stream.sounds[media.uri]
        for media in stream.audio_media()
        if media.group_id == group and media.uri in stream.sounds
    ]


def _frame_rate(label: str, picture: Rendition, got: float | None, found: Findings) -> None:
    """RFC 8216: the highest there is. With a variable rate the average is what people put there."""
    times = picture.times
    span = picture.end - float(times[0]) if len(times) else 0.0
    if not found.expect(got is not None, f"{label}: FRAME-RATE", "a number", "none") or span <= 0:
        return
    average = len(times) / span
    steps = times[1:] - times[:-1]
    highest = 1 / max(float(steps.min()), 1e-3) if len(steps) else average
    found.expect(
        average * 0.98 - 0.01 <= got <= max(highest, average) * 1.02 + 0.01,
        f"{label}: FRAME-RATE",
        f"{average:.3f}" + (f" to {highest:.3f}" if highest > average * 1.02 else ""),
        got,
    )


def _rates(label: str, picture: Rendition | None, sounds: list[Rendition], info, found: Findings) -> None:
    parts = [[picture]] if picture else []
    if sounds:
        parts.append(sounds)
    low_peak = sum(max(_peak(one) for one in choice) for choice in parts)
    high_peak = sum(max(_busiest(one) for one in choice) for choice in parts)
    average = sum(max(one.bytes * 8 / one.seconds for one in choice) for choice in parts)
    with_init = sum(max((one.bytes + len(one.init)) * 8 / one.seconds for one in choice) for choice in parts)
    found.expect(
        low_peak * (1 - _RATE) <= info.bandwidth <= max(high_peak, with_init) * (1 + _RATE),
        f"{label}: BANDWIDTH",
        f"{low_peak:.0f}" + (f" to {high_peak:.0f}" if high_peak > low_peak * 1.01 else "") + " ± 10 %",
        info.bandwidth,
    )
    if found.expect(info.average_bandwidth is not None, f"{label}: AVERAGE-BANDWIDTH", "a number", "none"):
        found.expect(
            average * (1 - _RATE) <= info.average_bandwidth <= with_init * (1 + _RATE),
            f"{label}: AVERAGE-BANDWIDTH",
            f"{average:.0f} ± 10 %",
            info.average_bandwidth,
        )
        found.expect(
            info.bandwidth >= info.average_bandwidth,
            f"{label}: BANDWIDTH",
            f"at least the average, {info.average_bandwidth}",
            info.bandwidth,
        )


def _busiest(rendition: Rendition) -> float:
    return max(len(segment.data) * 8 / segment.duration for segment in rendition.segments)


def _peak(rendition: Rendition) -> float:
    parts = [(len(segment.data), segment.duration) for segment in rendition.segments]
    return _peak_rate(parts, rendition.playlist.target_duration or 1)


def _peak_rate(parts: list[tuple[int, float]], target: float) -> float:
    """RFC 8216, 4.3.4.2: of any run of segments that lasts half to one and a half target durations."""
    best = 0.0
    for first in range(len(parts)):
        size, seconds = 0, 0.0
        for length, duration in parts[first:]:
            size, seconds = size + length, seconds + duration
            if seconds > 1.5 * target:
                break
            if seconds >= 0.5 * target:
                best = max(best, size * 8 / seconds)
    return best or sum(size for size, _ in parts) * 8 / sum(duration for _, duration in parts)


def _media(rendition: Rendition, found: Findings) -> None:
    playlist = rendition.playlist
    label = f"playlist of {rendition.name}"
    found.expect(playlist.version in _VERSIONS, f"{label}: version", "6 or newer", playlist.version)
    found.expect(playlist.is_endlist, label, "ENDLIST", "none")
    found.equal(f"{label}: type", "vod", (playlist.playlist_type or "").lower())
    found.expect(bool(playlist.segments), f"{label}: segments", "some", "none")
    target = playlist.target_duration or 0
    found.expect(target <= 12, f"{label}: TARGETDURATION", "at most 12", target)


def _keyframe_playlists(stream: Stream, found: Findings) -> None:
    entries = stream.master.iframe_playlists
    if not found.expect(bool(entries), "master: I-frame playlists", "at least one", "none"):
        return
    by_folder = {rung.playlist_path.parent: rung for rung in stream.videos.values()}
    for entry in entries:
        path = address(stream.folder, entry.uri)
        label = f"I-frames of {path.parent.name}"
        info = entry.iframe_stream_info
        rung = by_folder.get(path.parent)
        if not found.expect(path.is_file() and rung is not None, label, "a playlist beside its rung's", path.name):
            continue
        found.equal(f"{label}: CODECS", boxes.codecs(rung.init), info.codecs)
        found.expect({_pair(info.resolution)} == rung.sizes, f"{label}: RESOLUTION", rung.sizes, info.resolution)
        _keyframes(label, path, rung, info.bandwidth, found)


def _pair(resolution) -> tuple[int, int] | None:
    if isinstance(resolution, str):
        width, _, height = resolution.partition("x")
        return int(width), int(height)
    return resolution


def _keyframes(label: str, path, rung: Rendition, bandwidth: int, found: Findings) -> None:
    playlist = m3u8.loads(path.read_text())
    found.expect(playlist.is_i_frames_only, label, "I-FRAMES-ONLY", "not")
    found.expect(playlist.is_endlist, label, "ENDLIST", "none")
    found.expect((playlist.version or 0) >= 4, f"{label}: version", "4 or newer", playlist.version)
    found.expect(len(playlist.segments) >= len(rung.segments), f"{label}: entries", f"at least {len(rung.segments)}",
                 len(playlist.segments))  # fmt: skip
    found.near(f"{label}: duration", rung.seconds, sum(one.duration for one in playlist.segments), 0.1)
    parts: list[tuple[int, float]] = []
    offset = 0
    for entry in playlist.segments:
        target = playlist.target_duration or 0
        found.expect(int(entry.duration + 0.5) <= target, f"{label}: EXTINF", f"at most {target}", entry.duration)
        whole = address(path.parent, entry.uri).read_bytes()
        length = len(whole)
        if entry.byterange:
            size, _, at = entry.byterange.partition("@")
            length, offset = int(size), int(at) if at else offset
            whole = whole[offset : offset + length]
            offset += length
        found.equal(f"{label}: bytes of {entry.uri} {entry.byterange}", length, len(whole))
        frames = _decoded(rung.init + whole)
        found.equal(f"{label}: {entry.uri} {entry.byterange} decodes to", "1 frame, a keyframe", frames)
        parts.append((length, entry.duration))
    rate = _peak_rate(parts, playlist.target_duration or 1) if parts else 0.0
    found.expect(bandwidth >= rate * (1 - _RATE), f"{label}: BANDWIDTH", f"at least {rate:.0f}", bandwidth)


def _decoded(data: bytes) -> str:
    try:
        with av.open(io.BytesIO(data), format="mp4") as container:
            frames = list(container.decode(video=0))
    except av.FFmpegError as error:
        return str(error)
    plural = "" if len(frames) == 1 else "s"
    return f"{len(frames)} frame{plural}" + (", a keyframe" if frames and frames[0].key_frame else "")
