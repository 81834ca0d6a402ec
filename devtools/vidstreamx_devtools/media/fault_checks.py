"""Checks a stream against its row in the table of faults."""

from __future__ import annotations

import html
import io
import re
import subprocess
import traceback
from dataclasses import dataclass
from pathlib import Path

import av
import m3u8
import numpy as np

from vidstreamx_devtools.media.fault_cases import Bars, Case, Expected, Point
from vidstreamx_devtools.media.transcode import Transcoder, TranscodeRun, transcode
from vidstreamx_devtools.streams import published, webvtt
from vidstreamx_devtools.streams.arrays import Array
from vidstreamx_devtools.streams.audio import RATE, DecodedAudio
from vidstreamx_devtools.streams.findings import Difference, Findings
from vidstreamx_devtools.streams.picture import measure_frame, normalised_planes, thumbnail_difference
from vidstreamx_devtools.streams.published import Rendition, Stream

_REJECTED = 65
_TICK = 0.0015  # seconds: rounding of clocks and of the decimals of a playlist
_DURATION = 0.12  # seconds: two frames, or two packets of AAC with the encoder's delay
_HEARD = 0.1
_AUDIBLE = -50.0  # dB
_WINDOW = 0.02  # seconds
_SILENCE = 0.25  # seconds without sound inside of it
_SAME_PICTURE = 3.0  # of 255: an encoder refines a still picture
_LIKE_SOURCE = 0.3  # see thumbnail_difference
_DARK = 40  # of 255: black of an encoder at low quality
_BAR = 0.02
_SHAPE = 2.0  # pixels by which a rung's width may differ from its shape


@dataclass(frozen=True)
class Row:
    """The result of one case with one transcoder."""

    file: str
    kind: str
    got: str
    differences: list[Difference]


def check(transcoder: Transcoder, file: Path, case: Case) -> Row:
    findings = Findings()
    got = ""
    try:
        av.logging.set_level(av.logging.PANIC)
        run = transcode(transcoder, file)
        report = published.read_report(run.folder)
        got = f"exit {run.exit_code}: {report.get('reason') or '; '.join(report.get('warnings', []))}"
        if not (case.expected.may_reject and run.exit_code == _REJECTED) and findings.equal(
            "exit code", 0, run.exit_code
        ):
            _check_stream(file, run, case.expected, findings)
    except Exception:
        # An exception is reported as a difference of this file, so the other files are still checked.
        findings.expect(
            False, "reading the stream", "no exception", " ".join(traceback.format_exc(limit=-3).split())
        )
    return Row(case.file, case.kind, got, list(findings))


def _check_stream(file: Path, run: TranscodeRun, expected: Expected, findings: Findings) -> None:
    stream = published.read(run.folder, [])
    warnings = "; ".join(stream.report.get("warnings", []))
    is_damaged = re.search("damaged|missing", warnings)
    if expected.warning:
        findings.expect(
            re.search(expected.warning, warnings), "warnings", expected.warning, warnings or "none"
        )
    elif not expected.may_be_damaged:
        findings.expect(not is_damaged, "warnings", "none of damage", warnings)
    may_be_shorter = expected.may_warn_instead and re.search(expected.may_warn_instead, warnings)
    for rendition in stream.renditions:
        _check_times(rendition, None if may_be_shorter else expected.seconds, findings)
    _check_sizes(stream, expected, findings)
    _check_sounds(stream, expected, bool(may_be_shorter), findings)
    if expected.is_copied is not None:
        copied = [
            one["name"] for one in stream.report["renditions"] if one["kind"] == "video" and one.get("copied")
        ]
        findings.equal("copied rungs", expected.is_copied, bool(copied))
    for rung in stream.rungs():
        _check_pictures(file, rung, expected, findings)
    if expected.cues is not None:
        _check_cues(stream, expected.cues, findings)
    ids = tuple(sorted(media.instream_id for media in stream.master.media if media.type == "CLOSED-CAPTIONS"))
    findings.equal("closed captions", expected.captions, ids)
    if expected.codecs:
        announced = max(
            stream.master.playlists, key=lambda variant: variant.stream_info.bandwidth
        ).stream_info.codecs
        findings.equal("CODECS", expected.codecs, announced.split(",")[0])
    if expected.frame_distance:
        _check_ffmpeg_pass(run.folder, findings)


def _check_times(rendition: Rendition, seconds: float | None, findings: Findings) -> None:
    """Every segment lasts as long as its samples, and ends where the next one begins."""
    name = rendition.name
    worst = 0.0
    for segment, after in zip(rendition.segments, [*rendition.segments[1:], None], strict=True):
        lasts = sum(sample.duration for sample in segment.samples)
        worst = max(worst, abs(lasts - segment.duration))
        if after:
            worst = max(worst, abs(segment.start + lasts - after.start))
    findings.expect(worst <= _TICK, f"{name}: hole or overlap", f"at most {_TICK} s", f"{worst:.3f} s")
    if seconds is not None:
        findings.near(f"{name}: duration", seconds, rendition.end, _DURATION)
        findings.near(f"{name}: start", 0.0, float(rendition.times[0]), _DURATION)


def _check_sizes(stream: Stream, expected: Expected, findings: Findings) -> None:
    rungs = stream.rungs()
    sizes = [sorted(rung.sizes) for rung in rungs]
    if expected.size is None:
        findings.equal("rungs", [], sizes)
        return
    if not findings.expect(all(len(one) == 1 for one in sizes), "sizes of each rung", "one", sizes):
        return
    flat = [one[0] for one in sizes]
    turned = expected.size[::-1] if expected.may_be_turned else expected.size
    findings.expect(flat and flat[0] in (expected.size, turned), "largest rung", expected.size, flat)
    findings.equal("rungs", expected.rungs, tuple(min(size) for size in flat))
    shape = flat[0][0] / flat[0][1] if flat else 1.0
    wrong = [size for size in flat if abs(size[0] - size[1] * shape) > _SHAPE]
    findings.equal("rungs of another shape", [], wrong)
    findings.equal("rotation left to the player", {0}, set().union(*(rung.rotations for rung in rungs)))


def _check_sounds(stream: Stream, expected: Expected, may_be_shorter: bool, findings: Findings) -> None:
    if not expected.heard:
        return
    if not findings.expect(stream.audios, "audio", "at least one track", "none"):
        return
    for rendition in stream.audios.values():
        first, last, silence = _heard(rendition.audio)
        findings.near(f"{rendition.name}: first sound", expected.heard[0], first, _HEARD)
        if not may_be_shorter:
            findings.near(f"{rendition.name}: last sound", expected.heard[1], last, _HEARD)
        findings.near(f"{rendition.name}: silence inside", expected.silence, silence, _SILENCE)
    if expected.sounds:
        described = "public.accessibility.describes-video"
        got = {
            (media.language, media.default == "YES", described in (media.characteristics or ""))
            for media in stream.audio_media()
        }
        wanted = {(one.language, one.is_default, one.is_described) for one in expected.sounds}
        findings.equal(
            "audio tracks: language, default, described", sorted(wanted, key=str), sorted(got, key=str)
        )


def _heard(audio: DecodedAudio) -> tuple[float, float, float]:
    """Seconds of the first and the last sound, and the longest silence between them."""
    wave, size = audio.waveform(), int(_WINDOW * RATE)
    windows = wave[: len(wave) // size * size].reshape(-1, size)
    power = np.square(windows, dtype=np.float64).mean(axis=1)
    loud = np.flatnonzero(10 * np.log10(np.maximum(power, 1e-12)) > _AUDIBLE)
    if not loud.size:
        return float("nan"), float("nan"), 0.0
    longest = float(np.diff(loud).max() - 1) if loud.size > 1 else 0.0
    return float(loud[0]) * _WINDOW, float(loud[-1] + 1) * _WINDOW, longest * _WINDOW


def _check_pictures(file: Path, rung: Rendition, expected: Expected, findings: Findings) -> None:
    if expected.frame_distance:
        edges = [*rung.times, rung.end]
        distance = float(np.diff(edges).max())
        most = expected.frame_distance
        findings.expect(
            distance <= most, f"{rung.name}: distance of frames", f"at most {most}", f"{distance:.2f} s"
        )
    times = {point.time for point in expected.points} | {bars.time for bars in expected.bars}
    times |= {time for pair in expected.held for time in pair} | set(expected.like_source)
    if expected.combing is not None:
        times |= {float(time) for time in rung.times[:: max(1, len(rung.times) // 8)]}
    pictures = _pictures(rung, sorted(times)) if times else {}
    if not findings.equal(f"{rung.name}: times without a picture", [], sorted(times - set(pictures))):
        return
    for point in expected.points:
        _check_point(rung, pictures[point.time], point, findings)
    for bars in expected.bars:
        _check_bars(rung, pictures[bars.time], bars, findings)
    for one, other in expected.held:
        difference = float(np.abs(pictures[one].rgb - pictures[other].rgb).mean())
        label = f"{rung.name}: change from {one} to {other} s"
        findings.expect(difference <= _SAME_PICTURE, label, f"at most {_SAME_PICTURE}", f"{difference:.1f}")
    if expected.like_source:
        _check_like_source(file, rung, {time: pictures[time] for time in expected.like_source}, findings)
    if expected.combing is not None:
        worst = max(picture.combing for picture in pictures.values())
        label = f"{rung.name}: combs"
        findings.expect(worst <= expected.combing, label, f"at most {expected.combing}", f"{worst:.1f}")


@dataclass(frozen=True)
class _Picture:
    rgb: Array  # height, width, 3; from 0 to 255
    combing: float
    thumbnail: Array


def _pictures(rung: Rendition, times: list[float]) -> dict[float, _Picture]:
    """The pictures that are shown at these times."""
    found: dict[float, _Picture] = {}
    for segment in rung.segments:
        wanted = [time for time in times if segment.times[0] <= time < segment.end]
        if not wanted:
            continue
        with av.open(io.BytesIO(rung.init + segment.data), "r", format="mp4") as container:
            frames = container.decode(video=0)
            # Decoders return frames in presentation order.
            for number, (start, frame) in enumerate(zip(segment.times, frames, strict=False)):
                until = segment.times[number + 1] if number + 1 < len(segment.times) else segment.end
                shown = [time for time in wanted if start <= time < until]
                if shown:
                    stats = measure_frame(frame, start)
                    picture = _Picture(_rgb(frame), stats.combing, stats.thumbnail)
                    found.update(dict.fromkeys(shown, picture))
    return found


def _check_like_source(
    file: Path, rung: Rendition, pictures: dict[float, _Picture], findings: Findings
) -> None:
    """Each picture is that of the source, or turned as a whole if its sides are swapped."""
    [(width, height)] = rung.sizes
    remaining = sorted(pictures)
    with av.open(str(file)) as container:
        for frame in container.decode(video=0):
            if not remaining or frame.time is None or frame.time + _TICK < remaining[0]:
                continue
            picture = pictures[remaining.pop(0)]
            is_turned = (width > height) != (frame.width > frame.height)
            worst = min(
                thumbnail_difference(measure_frame(frame, 0, turn).thumbnail, picture.thumbnail)
                for turn in ((90, -90) if is_turned else (0,))
            )
            label = f"{rung.name}: difference to the source at {frame.time:.2f} s"
            findings.expect(worst <= _LIKE_SOURCE, label, f"at most {_LIKE_SOURCE}", f"{worst:.2f}")


def _rgb(frame: av.VideoFrame) -> Array:
    """BT.709, the colours of all encoded rungs."""
    luma, *chroma = normalised_planes(frame)
    blue, red = (
        np.repeat(np.repeat(plane, 2, 0), 2, 1)[: luma.shape[0], : luma.shape[1]] for plane in chroma
    )
    r, b = luma + 1.5748 * red, luma + 1.8556 * blue
    g = (luma - 0.2126 * r - 0.0722 * b) / 0.7152
    rgb: Array = np.clip(np.stack([r, g, b], axis=-1), 0, 1) * 255
    return rgb


def _check_point(rung: Rendition, picture: _Picture, point: Point, findings: Findings) -> None:
    height, width = picture.rgb.shape[:2]
    y, x = int(point.y * height), int(point.x * width)
    colour = picture.rgb[y - 2 : y + 3, x - 2 : x + 3].mean(axis=(0, 1))
    label = f"{rung.name}: colour at {point.time} s, {point.x} {point.y}"
    worst = float(np.abs(colour - np.array(point.rgb)).max())
    findings.expect(
        worst <= point.tolerance, label, point.rgb, tuple(round(float(value)) for value in colour)
    )


def _check_bars(rung: Rendition, picture: _Picture, bars: Bars, findings: Findings) -> None:
    lit = picture.rgb.max(axis=2) > _DARK
    for axis, label, expected in ((0, "sides", bars.sides), (1, "above and below", bars.above)):
        content = np.flatnonzero(lit.any(axis=axis))
        size = lit.shape[1 - axis]
        shares = (content[0] / size, 1 - (content[-1] + 1) / size) if content.size else (1.0, 1.0)
        is_right = all(abs(share - expected) <= _BAR for share in shares)
        got = " and ".join(f"{share:.3f}" for share in shares)
        findings.expect(is_right, f"{rung.name}: bars at {bars.time} s, {label}", expected, got)


def _check_cues(stream: Stream, expected: tuple[str, ...], findings: Findings) -> None:
    [media] = stream.subtitles() or [None]
    if not findings.expect(media, "subtitle tracks", 1, 0) or media is None:
        return
    path = published.resolve(stream.folder, media.uri)
    texts = [
        html.unescape(cue.text)
        for segment in m3u8.loads(path.read_text()).segments
        for cue in webvtt.parse(published.resolve(path.parent, segment.uri).read_text())
    ]
    findings.equal("cues", expected, tuple(dict.fromkeys(texts)))


def _check_ffmpeg_pass(folder: Path, findings: Findings) -> None:
    """Players that use FFmpeg get packets and frames in order."""
    decoded = ["-map", "0", "-fps_mode", "passthrough", "-enc_time_base", "-1", "-f", "null", "-"]
    copied = ["-map", "0", "-c", "copy", "-f", "null", "-"]
    command = ["ffmpeg", "-nostdin", "-v", "warning", "-i", str(folder / "master.m3u8"), *decoded, *copied]
    messages = subprocess.run(command, capture_output=True, text=True, timeout=120).stderr
    disorder = [line for line in messages.splitlines() if re.search("monoton|DTS", line)]
    findings.equal("FFmpeg's messages about times", [], disorder[:2])
