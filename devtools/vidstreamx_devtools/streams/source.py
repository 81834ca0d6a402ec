"""Reads an upload with ffprobe and PyAV, without the tested code.

ffprobe reports what the file claims, and PyAV decodes every frame. Times are in seconds from the file's
common start: FFmpeg shifts a file so that its earliest track begins at 0.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer

from vidstreamx_devtools.streams import boxes
from vidstreamx_devtools.streams.arrays import Array
from vidstreamx_devtools.streams.audio import DecodedAudio
from vidstreamx_devtools.streams.picture import FrameStats, measure_frame

ProbeFacts = dict[str, Any]

_SAMPLED_FRAMES = 9
_NOTABLE_SECONDS = 0.5
_NOTABLE_SHARE = 0.02


@dataclass
class VideoTrack:
    width: int  # coded width
    height: int
    pixel_aspect: Fraction
    rotation: int  # as reported by ffprobe
    interlaced: bool
    times: Array  # presentation times of all frames, in order
    last_duration: float
    sampled_frames: list[FrameStats]

    @property
    def end(self) -> float:
        return float(self.times[-1]) + self.last_duration

    @property
    def display_size(self) -> tuple[float, float]:
        """Width and height in square pixels, upright."""
        size = float(self.width * self.pixel_aspect), float(self.height)
        return (size[1], size[0]) if self.rotation % 180 else size

    @property
    def is_hdr(self) -> bool:
        return bool(self.sampled_frames) and self.sampled_frames[0].transfer in (16, 18)  # PQ, HLG


@dataclass
class AudioTrack:
    channels: int
    language: str | None
    title: str | None
    end: float  # end of the track in seconds, according to the container
    audio: DecodedAudio


@dataclass(frozen=True)
class Cue:
    start: float
    end: float
    text: str


@dataclass
class Source:
    path: Path
    video: VideoTrack | None = None
    audio: list[AudioTrack] = field(default_factory=list)
    subtitles: list[list[Cue]] = field(default_factory=list)
    chapters: list[tuple[float, float, str]] = field(default_factory=list)
    announced_seconds: float = 0.0
    rejection: str | None = None  # the reason why the file can't be transcoded

    @property
    def end(self) -> float:
        """The end of the last track, as far as it can be decoded."""
        ends = [track.audio.end for track in self.audio] + ([self.video.end] if self.video else [])
        return max(ends, default=0.0)

    @property
    def decodable_share(self) -> float:
        """The part of the announced duration that can be decoded, from 0 to 1."""
        return self.end / self.announced_seconds if self.announced_seconds else 1.0

    @property
    def is_damaged(self) -> bool:
        """Whether the report must warn of missing media. Small differences are rounding of the container."""
        missing = self.announced_seconds - self.end
        return missing > _NOTABLE_SECONDS and missing > _NOTABLE_SHARE * self.announced_seconds


def read(path: Path) -> Source:
    source = Source(path)
    facts = _ffprobe(path)
    streams = facts.get("streams", [])
    source.announced_seconds = float(facts.get("format", {}).get("duration", 0) or 0)
    source.chapters = [
        (float(chapter["start_time"]), float(chapter["end_time"]), chapter.get("tags", {}).get("title", ""))
        for chapter in facts.get("chapters", [])
    ]
    usable = [stream for stream in streams if stream["codec_type"] in ("video", "audio")]
    if not usable:
        source.rejection = "no stream that FFmpeg can read"
    elif not any(stream.get("codec_name", "unknown") != "unknown" for stream in usable):
        source.rejection = "no codec that this FFmpeg can decode"
    elif boxes.is_encrypted(path.read_bytes()):
        source.rejection = "encrypted"
    else:
        with contextlib.suppress(av.FFmpegError), av.open(str(path)) as container:
            _decode(source, container, streams)
        if source.video is None and not source.audio:
            source.rejection = "no frame can be decoded"
    return source


def _ffprobe(path: Path) -> ProbeFacts:
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-show_format", "-show_chapters"]
    completed = subprocess.run([*command, str(path)], capture_output=True, timeout=30)
    facts: ProbeFacts = json.loads(completed.stdout or b"{}")
    return facts


def _decode(source: Source, container: InputContainer, streams: list[ProbeFacts]) -> None:
    origin = (container.start_time or 0) / 1e6
    facts = {stream["index"]: stream for stream in streams}
    pictures = [stream for stream in container.streams.video if not _is_cover(facts.get(stream.index, {}))]
    video = pictures[0] if pictures else None
    frames = _VideoFrames(origin, source.announced_seconds, facts.get(video.index, {}) if video else {})
    audio = {stream.index: DecodedAudio() for stream in container.streams.audio}
    cues: dict[int, list[Cue]] = {
        stream.index: [] for stream in container.streams.subtitles if stream.codec_context.name == "mov_text"
    }
    wanted: list[Any] = [video] if video else []
    wanted += container.streams.audio
    wanted += [container.streams[index] for index in cues]
    packets = container.demux(wanted)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            break
        index = packet.stream.index
        if index in cues:
            cue = _cue(packet, origin)
            if cue:
                cues[index].append(cue)
            continue
        if video and index == video.index:
            frames.add_packet(packet)
        try:
            decoded: list[Any] = list(packet.decode())
        except av.FFmpegError:
            continue
        for frame in decoded:
            if isinstance(frame, av.VideoFrame):
                frames.add(frame)
            else:
                audio[index].add(frame, origin)
    source.subtitles = list(cues.values())
    if frames.times:
        source.video = frames.track()
    for stream in container.streams.audio:
        if audio[stream.index].channels:
            track = _audio_track(facts.get(stream.index, {}), audio[stream.index], origin)
            source.audio.append(track)


class _VideoFrames:
    """Collects the frames of a video track: the times of all, and measurements of a few."""

    def __init__(self, origin: float, seconds: float, facts: ProbeFacts) -> None:
        self.times: list[float] = []
        self._durations: dict[int, float] = {}
        self._sampled: list[FrameStats] = []
        self._origin = origin
        self._sample_interval = seconds / _SAMPLED_FRAMES
        self._facts = facts
        self._size = (0, 0)
        self._last_pts = 0

    def add_packet(self, packet: av.Packet[Any]) -> None:
        if packet.pts is not None and packet.duration:
            self._durations[packet.pts] = float(packet.duration * packet.time_base)

    def add(self, frame: av.VideoFrame) -> None:
        if frame.pts is None or frame.time_base is None:
            return
        time = float(frame.pts * frame.time_base) - self._origin
        if not self.times or time >= len(self._sampled) * self._sample_interval:
            self._sampled.append(measure_frame(frame, time, self._rotation))
        self.times.append(time)
        self._last_pts = frame.pts
        self._size = (frame.width, frame.height)

    @property
    def _rotation(self) -> int:
        side_data = self._facts.get("side_data_list", [])
        return int(next((entry["rotation"] for entry in side_data if "rotation" in entry), 0))

    def track(self) -> VideoTrack:
        aspect = self._facts.get("sample_aspect_ratio", "1:1")
        width, height = (int(part) for part in aspect.split(":")) if ":" in aspect else (1, 1)
        return VideoTrack(
            width=self._size[0],
            height=self._size[1],
            pixel_aspect=Fraction(width, height) if width and height else Fraction(1),
            rotation=self._rotation,
            interlaced=self._facts.get("field_order") in ("tt", "bb", "tb", "bt"),
            times=np.array(sorted(self.times)),
            last_duration=self._durations.get(self._last_pts, 0.0),
            sampled_frames=self._sampled,
        )


def _is_cover(facts: ProbeFacts) -> bool:
    return bool(facts.get("disposition", {}).get("attached_pic"))


def _audio_track(facts: ProbeFacts, audio: DecodedAudio, origin: float) -> AudioTrack:
    tags = facts.get("tags", {})
    language = tags.get("language")
    end = float(facts.get("start_time", 0) or 0) + float(facts.get("duration", 0) or 0) - origin
    return AudioTrack(
        channels=audio.channels,
        language=language if language != "und" else None,
        title=tags.get("title"),
        end=end,
        audio=audio,
    )


def _cue(packet: av.Packet[Any], origin: float) -> Cue | None:
    """Parses a mov_text sample (3GPP TS 26.245): its length in two bytes, then UTF-8."""
    data = bytes(packet)
    if packet.pts is None or len(data) < 3:
        return None
    text = data[2 : 2 + int.from_bytes(data[:2], "big")].decode(errors="replace").strip()
    start = float(packet.pts * packet.time_base) - origin
    return Cue(start, start + float((packet.duration or 0) * packet.time_base), text) if text else None
