"""What comes beside picture and sound: subtitles, chapters, poster, storyboard."""

from __future__ import annotations

import html
import re
from pathlib import Path

import av
import m3u8

from vidstreamx_devtools.streams import webvtt
from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.picture import normalised
from vidstreamx_devtools.streams.source import Cue, Source, VideoTrack
from vidstreamx_devtools.streams.published import Stream, address

_BLACK = 0.06  # mean luma
_CUE_ROUNDING = 0.05  # seconds
_TILE = re.compile(r"^(storyboard-\d+\.jpg)#xywh=(\d+),(\d+),(\d+),(\d+)$")


def check(source: Source, stream: Stream, found: Findings) -> None:
    _subtitles(source, stream, found)
    _chapters(source, stream, found)
    if source.video is not None:
        _poster(source.video, stream, found)
        _storyboard(source.video, source.end, stream, found)


def _subtitles(source: Source, stream: Stream, found: Findings) -> None:
    media = stream.subtitles()
    expected = [cues for cues in source.subtitles if cues]
    if not found.equal("subtitle renditions", len(expected), len(media)):
        return
    for cues, one in zip(expected, media):
        label = f"subtitles {one.name}"
        path = address(stream.folder, one.uri)
        playlist = m3u8.loads(path.read_text())
        found.expect(playlist.is_endlist, label, "ENDLIST", "none")
        found.near(f"{label}: how long its playlist is", source.announced_seconds,
                   sum(segment.duration for segment in playlist.segments), 1.0)  # fmt: skip
        seen: dict[tuple[float, str], Cue] = {}
        for segment in playlist.segments:
            for cue in _cues(address(path.parent, segment.uri), found):
                seen[cue.start, cue.text] = cue
        _same_cues(f"{label}, segments", cues, sorted(seen.values(), key=lambda cue: cue.start), found)
        _same_cues(f"{label}, subtitles.vtt", cues, _cues(path.parent / "subtitles.vtt", found), found)


def _cues(path: Path, found: Findings) -> list[Cue]:
    try:
        return webvtt.parse(path.read_text())
    except (OSError, UnicodeError, webvtt.NotWebVtt) as error:
        found.expect(False, path.name, "WebVTT", error)
        return []


def _same_cues(label: str, expected: list[Cue], got: list[Cue], found: Findings) -> None:
    if not found.equal(f"{label}: cues", len(expected), len(got)):
        return
    for mine, theirs in zip(expected, got):
        same = abs(mine.start - theirs.start) <= _CUE_ROUNDING and abs(mine.end - theirs.end) <= _CUE_ROUNDING
        found.expect(same and _plain(theirs.text) == _plain(mine.text), label, mine, theirs)


def _plain(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", text)).split())


def _chapters(source: Source, stream: Stream, found: Findings) -> None:
    got = [
        (round(one["start_seconds"], 2), round(one["end_seconds"], 2), one.get("title") or "")
        for one in stream.report.get("probe", {}).get("chapters", [])
    ]
    expected = [(round(start, 2), round(end, 2), title) for start, end, title in source.chapters]
    found.equal("chapters", expected, got)


def _poster(video: VideoTrack, stream: Stream, found: Findings) -> None:
    picture = _picture(stream.home / "images" / "poster.jpg", "poster", found)
    if picture is None:
        return
    width, height = video.display
    found.near("poster: shape", width / height, picture.width / picture.height, 0.02 * width / height + 0.02)
    brightest = max(one.means[0] for one in video.looks)
    least = min(_BLACK, max(0.0, brightest / 2 - 0.02))
    luma = float(normalised(picture)[0].mean())
    found.expect(luma >= least, "poster: mean luma", f"at least {least:.2f}", f"{luma:.2f}")


def _storyboard(video: VideoTrack, until: float, stream: Stream, found: Findings) -> None:
    folder = stream.home / "images"
    cues = _cues(folder / "storyboard.vtt", found)
    if not cues:
        return
    tolerance = max(0.05, video.last_duration)
    found.near("storyboard: first cue", 0.0, cues[0].start, 0.01)
    found.expect(
        video.end - tolerance <= cues[-1].end <= until + tolerance,
        "storyboard: end of the last cue",
        f"{video.end:.3f}" + (f" to {until:.3f}" if until > video.end + 0.01 else ""),
        f"{cues[-1].end:.3f}",
    )
    for one, following in zip(cues, cues[1:]):
        found.near("storyboard: a cue's end is the next one's start", following.start, one.end, 0.002)
    sheets: dict[str, av.VideoFrame | None] = {}
    for cue in cues:
        tile = _TILE.match(cue.text)
        if not found.expect(tile is not None, "storyboard: a cue", "storyboard-0.jpg#xywh=…", cue.text):
            continue
        name, (x, y, width, height) = tile[1], map(int, tile.groups()[1:])
        if name not in sheets:
            sheets[name] = _picture(folder / name, name, found)
        sheet = sheets[name]
        if sheet is None:
            continue
        inside = x + width <= sheet.width and y + height <= sheet.height and width > 0 and height > 0
        found.expect(inside, f"storyboard: {cue.text}", f"within {sheet.width}x{sheet.height}", "outside")
        shown = video.display[0] / video.display[1]
        found.near(f"storyboard: shape of {cue.text}", shown, width / max(height, 1), 0.03 * shown + 0.03)


def _picture(path: Path, label: str, found: Findings) -> av.VideoFrame | None:
    try:
        with av.open(str(path)) as container:
            return next(container.decode(video=0))
    except (av.FFmpegError, StopIteration, OSError) as error:
        found.expect(False, label, "a picture", error)
        return None
