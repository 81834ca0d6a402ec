"""HLS playlists by RFC 8216 and Apple's authoring rules, compared with their segments."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import m3u8

from vidstreamx_devtools.streams import boxes
from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.published import Rendition, Stream, resolve

_RATE_TOLERANCE = 0.10  # share
_VERSIONS = range(6, 14)  # EXT-X-MAP outside of I-frame playlists needs version 6


def check(stream: Stream, findings: Findings) -> None:
    master = stream.master
    findings.expect(master.version in _VERSIONS, "master: version", "6 or newer", master.version)
    findings.expect(master.is_independent_segments, "master", "INDEPENDENT-SEGMENTS", "none")
    findings.expect(master.playlists, "master: variants", "some", "none")
    for variant in master.playlists:
        if variant.uri in stream.videos or variant.uri in stream.audios:
            _check_variant(stream, variant, findings)
    for rendition in stream.renditions:
        _check_media_playlist(rendition, findings)
    if stream.videos:
        _check_iframe_playlists(stream, findings)


def _check_variant(stream: Stream, variant: m3u8.Playlist, findings: Findings) -> None:
    info = variant.stream_info
    video = stream.videos.get(variant.uri)
    audios = _audio_group(stream, variant) or ([stream.audios[variant.uri]] if video is None else [])
    label = f"variant {variant.uri.rpartition('/')[0].rpartition('/')[2]}"
    if info.audio:
        label += f" with {info.audio}"
        findings.expect(audios, f"{label}: AUDIO", "a group with playlists", f"no group {info.audio!r}")
    elif video is not None:
        findings.equal(f"{label}: audio renditions without an AUDIO group", 0, len(stream.audios))
    if info.subtitles:
        groups = {media.group_id for media in stream.subtitles()}
        findings.expect(info.subtitles in groups, f"{label}: SUBTITLES", groups, info.subtitles)
    elif stream.subtitles():
        findings.expect(False, f"{label}: SUBTITLES", "the group", "none")
    expected = {boxes.codecs(one.init).lower() for one in [*([video] if video else []), *audios]}
    got = {codec.strip().lower() for codec in (info.codecs or "").split(",")}
    findings.equal(f"{label}: CODECS", sorted(expected), sorted(got))
    if video is not None:
        findings.expect(
            {info.resolution} == video.sizes, f"{label}: RESOLUTION", video.sizes, info.resolution
        )
        _check_frame_rate(label, video, info.frame_rate, findings)
    _check_bandwidth(label, video, audios, info, findings)


def _audio_group(stream: Stream, variant: m3u8.Playlist) -> list[Rendition]:
    group = variant.stream_info.audio
    return [
        stream.audios[media.uri]
        for media in stream.audio_media()
        if media.group_id == group and media.uri in stream.audios
    ]


def _check_frame_rate(label: str, video: Rendition, got: float | None, findings: Findings) -> None:
    """RFC 8216 asks for the highest frame rate. For variable frame rates the average is also common."""
    times = video.times
    findings.expect(got is not None, f"{label}: FRAME-RATE", "a number", "none")
    if got is None or video.seconds <= 0:
        return
    average = len(times) / video.seconds
    steps = times[1:] - times[:-1]
    highest = 1 / max(float(steps.min()), 1e-3) if len(steps) else average
    findings.expect(
        average * 0.98 - 0.01 <= got <= max(highest, average) * 1.02 + 0.01,
        f"{label}: FRAME-RATE",
        f"{average:.3f}" + (f" to {highest:.3f}" if highest > average * 1.02 else ""),
        got,
    )


def _check_bandwidth(
    label: str, video: Rendition | None, audios: list[Rendition], info: Any, findings: Findings
) -> None:
    # A player plays one rendition of each kind, so the rates of the largest ones are added.
    kinds = [kind for kind in ([video] if video else [], audios) if kind]
    peak = sum(max(map(_peak_rate, kind)) for kind in kinds)
    largest_segment = sum(max(map(_largest_segment_rate, kind)) for kind in kinds)
    average = sum(max(one.bytes * 8 / one.seconds for one in kind) for kind in kinds)
    with_init = sum(max((one.bytes + len(one.init)) * 8 / one.seconds for one in kind) for kind in kinds)
    low, high = 1 - _RATE_TOLERANCE, 1 + _RATE_TOLERANCE
    up_to = f" to {largest_segment:.0f}" if largest_segment > peak * 1.01 else ""
    findings.expect(
        peak * low <= info.bandwidth <= max(largest_segment, with_init) * high,
        f"{label}: BANDWIDTH",
        f"{peak:.0f}{up_to} ± 10 %",
        info.bandwidth,
    )
    got = info.average_bandwidth
    label_average = f"{label}: AVERAGE-BANDWIDTH"
    if findings.expect(got is not None, label_average, "a number", "none"):
        in_range = average * low <= got <= with_init * high
        findings.expect(in_range, label_average, f"{average:.0f} ± 10 %", got)
        expected = f"at least the average, {got}"
        findings.expect(info.bandwidth >= got, f"{label}: BANDWIDTH", expected, info.bandwidth)


def _largest_segment_rate(rendition: Rendition) -> float:
    return max(len(segment.data) * 8 / segment.duration for segment in rendition.segments)


def _peak_rate(rendition: Rendition) -> float:
    parts = [(len(segment.data), segment.duration) for segment in rendition.segments]
    return _peak_rate_of(parts, rendition.playlist.target_duration or 1)


def _peak_rate_of(parts: list[tuple[int, float]], target: float) -> float:
    """RFC 8216, 4.3.4.2: the highest rate of a run of segments that lasts 0.5 to 1.5 target durations."""
    highest = 0.0
    for first in range(len(parts)):
        size, seconds = 0, 0.0
        for part_size, duration in parts[first:]:
            size, seconds = size + part_size, seconds + duration
            if seconds > 1.5 * target:
                break
            if seconds >= 0.5 * target:
                highest = max(highest, size * 8 / seconds)
    return highest or sum(size for size, _ in parts) * 8 / sum(duration for _, duration in parts)


def _check_media_playlist(rendition: Rendition, findings: Findings) -> None:
    playlist = rendition.playlist
    label = f"playlist of {rendition.name}"
    findings.expect(playlist.version in _VERSIONS, f"{label}: version", "6 or newer", playlist.version)
    findings.expect(playlist.is_endlist, label, "ENDLIST", "none")
    findings.equal(f"{label}: type", "vod", (playlist.playlist_type or "").lower())
    findings.expect(playlist.segments, f"{label}: segments", "some", "none")
    target = playlist.target_duration or 0
    findings.expect(target <= 12, f"{label}: TARGETDURATION", "at most 12", target)


def _check_iframe_playlists(stream: Stream, findings: Findings) -> None:
    entries = stream.master.iframe_playlists
    if not findings.expect(entries, "master: I-frame playlists", "at least one", "none"):
        return
    by_folder = {rung.playlist_path.parent: rung for rung in stream.videos.values()}
    for entry in entries:
        path = resolve(stream.folder, entry.uri)
        label = f"I-frames of {path.parent.name}"
        info = entry.iframe_stream_info
        rung = by_folder.get(path.parent)
        if rung is None or not path.is_file():
            findings.expect(False, label, "a playlist in the folder of its rung", path.name)
            continue
        findings.equal(f"{label}: CODECS", boxes.codecs(rung.init), info.codecs)
        resolution = _resolution(info.resolution)
        findings.expect({resolution} == rung.sizes, f"{label}: RESOLUTION", rung.sizes, info.resolution)
        _check_iframe_playlist(label, path, rung, info.bandwidth, findings)


def _resolution(value: str | tuple[int, int] | None) -> tuple[int, int] | None:
    if isinstance(value, str):
        width, _, height = value.partition("x")
        return int(width), int(height)
    return value


def _check_iframe_playlist(
    label: str, path: Path, rung: Rendition, bandwidth: int, findings: Findings
) -> None:
    playlist = m3u8.loads(path.read_text())
    target = playlist.target_duration or 0
    findings.expect(playlist.is_i_frames_only, label, "I-FRAMES-ONLY", "none")
    findings.expect(playlist.is_endlist, label, "ENDLIST", "none")
    findings.expect((playlist.version or 0) >= 4, f"{label}: version", "4 or newer", playlist.version)
    count, least = len(playlist.segments), len(rung.segments)
    findings.expect(count >= least, f"{label}: entries", f"at least {least}", count)
    seconds = sum(entry.duration for entry in playlist.segments)
    findings.near(f"{label}: duration", rung.seconds, seconds, 0.1)
    parts: list[tuple[int, float]] = []
    offset = 0
    for entry in playlist.segments:
        rounded = int(entry.duration + 0.5)
        findings.expect(rounded <= target, f"{label}: EXTINF", f"at most {target}", entry.duration)
        data = resolve(path.parent, entry.uri).read_bytes()
        length = len(data)
        if entry.byterange:
            size, _, start = entry.byterange.partition("@")
            length, offset = int(size), int(start) if start else offset
            data = data[offset : offset + length]
            offset += length
        entry_label = f"{label}: {entry.uri} {entry.byterange}"
        findings.equal(f"{entry_label}: bytes", length, len(data))
        findings.equal(f"{entry_label}: decoded frames", "1 frame, a keyframe", _decode(rung.init + data))
        parts.append((length, entry.duration))
    rate = _peak_rate_of(parts, target or 1) if parts else 0.0
    least_rate = rate * (1 - _RATE_TOLERANCE)
    findings.expect(bandwidth >= least_rate, f"{label}: BANDWIDTH", f"at least {rate:.0f}", bandwidth)


def _decode(data: bytes) -> str:
    try:
        with av.open(io.BytesIO(data), "r", format="mp4") as container:
            frames = list(container.decode(video=0))
    except av.FFmpegError as error:
        return str(error)
    plural = "" if len(frames) == 1 else "s"
    return f"{len(frames)} frame{plural}" + (", a keyframe" if frames and frames[0].key_frame else "")
