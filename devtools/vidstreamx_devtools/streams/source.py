"""What an upload shows and sounds like, found out without the code that is tested.

ffprobe says what the file claims, PyAV decodes every frame of it. Times are in seconds from the file's common
start: FFmpeg shifts a file so that its earliest track begins at 0.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidstreamx_devtools.streams import boxes
from vidstreamx_devtools.streams.picture import Look, look
from vidstreamx_devtools.streams.audio import Sound

_LOOKS = 9  # frames of a video that are looked at closely
_NOTABLE_SECONDS = 0.5
_NOTABLE_SHARE = 0.02


@dataclass
class VideoTrack:
    width: int  # as coded
    height: int
    pixel_aspect: Fraction
    rotation: int  # as ffprobe says it
    interlaced: bool
    codec: str
    announced: int  # frames, by the container
    times: np.ndarray  # of every presented frame, in order
    last_duration: float
    looks: list[Look]

    @property
    def end(self) -> float:
        return float(self.times[-1]) + self.last_duration

    @property
    def display(self) -> tuple[float, float]:
        """Width and height in square pixels, upright."""
        size = float(self.width * self.pixel_aspect), float(self.height)
        return (size[1], size[0]) if self.rotation % 180 else size

    @property
    def longest_frame(self) -> float:
        steps = np.diff(self.times)
        return float(max(steps.max(initial=0.0), self.last_duration))

    @property
    def is_hdr(self) -> bool:
        return bool(self.looks) and self.looks[0].transfer in (16, 18)  # PQ, HLG


@dataclass
class AudioTrack:
    index: int
    codec: str
    channels: int
    language: str | None
    title: str | None
    end: float  # as the container says
    sound: Sound


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
    refused: str | None = None  # why nothing can be made of it
    decode_errors: int = 0

    @property
    def end(self) -> float:
        """Of what can be decoded."""
        return max([track.sound.end for track in self.audio] + ([self.video.end] if self.video else []), default=0.0)

    @property
    def share_left(self) -> float:
        """How much of what the container announces can be decoded, from 0 to 1."""
        return self.end / self.announced_seconds if self.announced_seconds else 1.0

    @property
    def is_damaged(self) -> bool:
        """Whether so much is missing that people should be told; containers round durations."""
        missing = self.announced_seconds - self.end
        return missing > _NOTABLE_SECONDS and missing > _NOTABLE_SHARE * self.announced_seconds


def read(path: Path) -> Source:
    source = Source(path)
    facts = _ffprobe(path)
    streams = facts.get("streams", [])
    source.announced_seconds = float(facts.get("format", {}).get("duration", 0) or 0)
    source.chapters = [
        (float(one["start_time"]), float(one["end_time"]), one.get("tags", {}).get("title", ""))
        for one in facts.get("chapters", [])
    ]
    usable = [one for one in streams if one["codec_type"] in ("video", "audio")]
    if not usable:
        source.refused = "no stream that FFmpeg can read"
    elif not any(one.get("codec_name", "unknown") != "unknown" for one in usable):
        source.refused = "no codec that this FFmpeg has"
    elif boxes.is_encrypted(path.read_bytes()):
        source.refused = "encrypted"
    else:
        with contextlib.suppress(av.FFmpegError), av.open(str(path)) as container:
            _decode(source, container, streams)
        if source.video is None and not source.audio:
            source.refused = "nothing in it can be decoded"
    return source


def _ffprobe(path: Path) -> dict:
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-show_format", "-show_chapters"]
    done = subprocess.run([*command, str(path)], capture_output=True, timeout=30)
    return json.loads(done.stdout or b"{}")


def _decode(source: Source, container: av.container.InputContainer, facts: list[dict]) -> None:
    origin = (container.start_time or 0) / 1e6
    by_index = {one["index"]: one for one in facts}
    pictures = [stream for stream in container.streams.video if not _is_cover(by_index.get(stream.index, {}))]
    video = pictures[0] if pictures else None
    sounds = {stream.index: Sound() for stream in container.streams.audio}
    texts: dict[int, list[Cue]] = {
        stream.index: [] for stream in container.streams.subtitles if stream.codec_context.name == "mov_text"
    }
    watched = _Watch(origin, source.announced_seconds, by_index.get(video.index, {}) if video else {})
    wanted = [video] if video else []
    wanted += list(container.streams.audio)
    wanted += [container.streams[index] for index in texts]
    packets = container.demux(wanted)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.FFmpegError:
            source.decode_errors += 1
            break
        if packet.stream.index in texts:
            cue = _cue(packet, origin)
            if cue:
                texts[packet.stream.index].append(cue)
            continue
        if video and packet.stream.index == video.index:
            watched.expect(packet)
        try:
            frames = packet.decode()
        except av.FFmpegError:
            source.decode_errors += 1
            continue
        for frame in frames:
            if isinstance(frame, av.VideoFrame):
                watched.see(frame)
            else:
                sounds[packet.stream.index].hear(frame, origin)
    source.subtitles = list(texts.values())
    if video and watched.times:
        source.video = watched.track(video)
    for stream in container.streams.audio:
        sound = sounds[stream.index]
        if sound.channels:
            source.audio.append(_audio_track(stream, by_index.get(stream.index, {}), sound, origin))


class _Watch:
    """Collects a video track's frames: the times of all, the looks of a few."""

    def __init__(self, origin: float, seconds: float, facts: dict):
        self.times: list[float] = []
        self._durations: dict[int, float] = {}
        self._looks: list[Look] = []
        self._origin = origin
        self._step = seconds / _LOOKS
        self._facts = facts
        self._size = (0, 0)

    def expect(self, packet: av.Packet) -> None:
        if packet.pts is not None and packet.duration:
            self._durations[packet.pts] = float(packet.duration * packet.time_base)

    def see(self, frame: av.VideoFrame) -> None:
        if frame.pts is None:
            return
        time = float(frame.pts * frame.time_base) - self._origin
        if not self.times or time >= len(self._looks) * self._step:
            self._looks.append(look(frame, time, self._rotation))
        self.times.append(time)
        self._last = frame.pts
        self._size = (frame.width, frame.height)

    @property
    def _rotation(self) -> int:
        sides = self._facts.get("side_data_list", [])
        return int(next((one["rotation"] for one in sides if "rotation" in one), 0))

    def track(self, stream: av.video.stream.VideoStream) -> VideoTrack:
        aspect = self._facts.get("sample_aspect_ratio", "1:1")
        over, under = (int(part) for part in aspect.split(":")) if ":" in aspect else (1, 1)
        return VideoTrack(
            width=self._size[0],
            height=self._size[1],
            pixel_aspect=Fraction(over, under) if over and under else Fraction(1),
            rotation=self._rotation,
            interlaced=self._facts.get("field_order") in ("tt", "bb", "tb", "bt"),
            codec=stream.codec_context.name,
            announced=stream.frames,
            times=np.array(sorted(self.times)),
            last_duration=self._durations.get(self._last, 0.0),
            looks=self._looks,
        )


def _is_cover(facts: dict) -> bool:
    return bool(facts.get("disposition", {}).get("attached_pic"))


def _audio_track(stream, facts: dict, sound: Sound, origin: float) -> AudioTrack:
    tags = facts.get("tags", {})
    language = tags.get("language")
    end = float(facts.get("start_time", 0) or 0) + float(facts.get("duration", 0) or 0) - origin
    return AudioTrack(
        index=stream.index,
        codec=stream.codec_context.name,
        channels=sound.channels,
        language=language if language != "und" else None,
        title=tags.get("title"),
        end=end,
        sound=sound,
    )


def _cue(packet: av.Packet, origin: float) -> Cue | None:
    """A mov_text sample (3GPP TS 26.245): its length in two bytes, then UTF-8."""
    data = bytes(packet)
    if packet.pts is None or len(data) < 3:
        return None
    text = data[2 : 2 + int.from_bytes(data[:2], "big")].decode(errors="replace").strip()
    start = float(packet.pts * packet.time_base) - origin
    return Cue(start, start + float((packet.duration or 0) * packet.time_base), text) if text else None
