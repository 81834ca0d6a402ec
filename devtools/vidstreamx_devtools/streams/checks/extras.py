"""Extras: subtitles, chapters, poster and storyboard."""

from __future__ import annotations

import html
import re
from itertools import pairwise
from pathlib import Path

import av
import m3u8

from vidstreamx_devtools.streams import webvtt
from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.picture import normalised_planes
from vidstreamx_devtools.streams.published import Stream, resolve
from vidstreamx_devtools.streams.source import Cue, Source, VideoTrack

_BLACK = 0.06  # mean luma
_CUE_ROUNDING = 0.05  # seconds
_TILE = re.compile(r"^(storyboard-\d+\.jpg)#xywh=(\d+),(\d+),(\d+),(\d+)$")


def check(source: Source, stream: Stream, findings: Findings) -> None:
    _check_subtitles(source, stream, findings)
    _check_chapters(source, stream, findings)
    if source.video is not None:
        _check_poster(source.video, stream, findings)
        _check_storyboard(source.video, source.end, stream, findings)


def _check_subtitles(source: Source, stream: Stream, findings: Findings) -> None:
    media = stream.subtitles()
    expected = [cues for cues in source.subtitles if cues]
    if not findings.equal("subtitle renditions", len(expected), len(media)):
        return
    for cues, rendition in zip(expected, media, strict=True):
        label = f"subtitles {rendition.name}"
        path = resolve(stream.folder, rendition.uri)
        playlist = m3u8.loads(path.read_text())
        findings.expect(playlist.is_endlist, label, "ENDLIST", "none")
        seconds = sum(segment.duration for segment in playlist.segments)
        findings.near(f"{label}: duration of the playlist", source.announced_seconds, seconds, 1.0)
        in_segments: dict[tuple[float, str], Cue] = {}
        for segment in playlist.segments:
            for cue in _read_cues(resolve(path.parent, segment.uri), findings):
                in_segments[cue.start, cue.text] = cue
        ordered = sorted(in_segments.values(), key=lambda cue: cue.start)
        _check_cues(f"{label}, segments", cues, ordered, findings)
        in_file = _read_cues(path.parent / "subtitles.vtt", findings)
        _check_cues(f"{label}, subtitles.vtt", cues, in_file, findings)


def _read_cues(path: Path, findings: Findings) -> list[Cue]:
    try:
        return webvtt.parse(path.read_text())
    except (OSError, UnicodeError, webvtt.WebVttError) as error:
        findings.expect(False, path.name, "WebVTT", error)
        return []


def _check_cues(label: str, expected: list[Cue], got: list[Cue], findings: Findings) -> None:
    if not findings.equal(f"{label}: cues", len(expected), len(got)):
        return
    for one, other in zip(expected, got, strict=True):
        same_times = max(abs(one.start - other.start), abs(one.end - other.end)) <= _CUE_ROUNDING
        findings.expect(same_times and _plain(other.text) == _plain(one.text), label, one, other)


def _plain(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", text)).split())


def _check_chapters(source: Source, stream: Stream, findings: Findings) -> None:
    got = [
        (round(chapter["start_seconds"], 2), round(chapter["end_seconds"], 2), chapter.get("title") or "")
        for chapter in stream.report.get("probe", {}).get("chapters", [])
    ]
    expected = [(round(start, 2), round(end, 2), title) for start, end, title in source.chapters]
    findings.equal("chapters", expected, got)


def _check_poster(video: VideoTrack, stream: Stream, findings: Findings) -> None:
    picture = _read_picture(stream.output_folder / "images" / "poster.jpg", "poster", findings)
    if picture is None:
        return
    width, height = video.display_size
    aspect = width / height
    findings.near("poster: aspect ratio", aspect, picture.width / picture.height, 0.02 * aspect + 0.02)
    brightest = max(frame.means[0] for frame in video.sampled_frames)
    least = min(_BLACK, max(0.0, brightest / 2 - 0.02))
    luma = float(normalised_planes(picture)[0].mean())
    findings.expect(luma >= least, "poster: mean luma", f"at least {least:.2f}", f"{luma:.2f}")


def _check_storyboard(video: VideoTrack, until: float, stream: Stream, findings: Findings) -> None:
    """`until`: the end of the source's last track."""
    folder = stream.output_folder / "images"
    cues = _read_cues(folder / "storyboard.vtt", findings)
    if not cues:
        return
    tolerance = max(0.05, video.last_duration)
    findings.near("storyboard: first cue", 0.0, cues[0].start, 0.01)
    findings.expect(
        video.end - tolerance <= cues[-1].end <= until + tolerance,
        "storyboard: end of the last cue",
        f"{video.end:.3f}" + (f" to {until:.3f}" if until > video.end + 0.01 else ""),
        f"{cues[-1].end:.3f}",
    )
    for cue, following in pairwise(cues):
        findings.near("storyboard: end of a cue and start of the next", following.start, cue.end, 0.002)
    sheets: dict[str, av.VideoFrame | None] = {}
    for cue in cues:
        tile = _TILE.match(cue.text)
        if tile is None:
            findings.expect(False, "storyboard: a cue", "storyboard-0.jpg#xywh=…", cue.text)
            continue
        name, (x, y, width, height) = tile[1], map(int, tile.groups()[1:])
        if name not in sheets:
            sheets[name] = _read_picture(folder / name, name, findings)
        sheet = sheets[name]
        if sheet is None:
            continue
        inside = x + width <= sheet.width and y + height <= sheet.height and width > 0 and height > 0
        findings.expect(inside, f"storyboard: {cue.text}", f"within {sheet.width}x{sheet.height}", "outside")
        aspect = video.display_size[0] / video.display_size[1]
        label = f"storyboard: aspect ratio of {cue.text}"
        findings.near(label, aspect, width / max(height, 1), 0.03 * aspect + 0.03)


def _read_picture(path: Path, label: str, findings: Findings) -> av.VideoFrame | None:
    try:
        with av.open(str(path)) as container:
            return next(container.decode(video=0))
    except (av.FFmpegError, StopIteration, OSError) as error:
        findings.expect(False, label, "a picture", error)
        return None
