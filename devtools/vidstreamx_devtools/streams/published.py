"""A published stream, read back from its folder: playlists, segments, every frame and every sound.

Each segment is decoded alone with its init segment, as a player does after a seek.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import av
import m3u8
import numpy as np

from vidstreamx_devtools.streams import boxes
from vidstreamx_devtools.streams.picture import Look, look
from vidstreamx_devtools.streams.audio import Sound

SAME_FRAME = 0.004  # seconds: half of the shortest frame there is, 120 a second


@dataclass
class Segment:
    path: Path
    duration: float  # as the playlist says
    data: bytes
    samples: list[boxes.Sample]
    start: float  # decode time of its first sample, by its tfdt
    decoded: int = 0  # frames, video only
    errors: list[str] = field(default_factory=list)

    @cached_property
    def times(self) -> list[float]:
        """Of presentation, in order."""
        return sorted(sample.time for sample in self.samples)

    @property
    def end(self) -> float:
        return max((sample.time + sample.duration for sample in self.samples), default=self.start)


@dataclass
class Rendition:
    """A media playlist with what it names."""

    playlist_path: Path
    playlist: m3u8.M3U8
    init: bytes
    segments: list[Segment]
    looks: list[Look] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    pixel_aspects: set[Fraction] = field(default_factory=set)
    rotations: set[int] = field(default_factory=set)
    sound: Sound = field(default_factory=Sound)

    @property
    def name(self) -> str:
        return self.playlist_path.parent.name

    @cached_property
    def times(self) -> np.ndarray:
        return np.array(sorted(time for segment in self.segments for time in segment.times))

    @property
    def end(self) -> float:
        return max(segment.end for segment in self.segments)

    @property
    def bytes(self) -> int:
        return sum(len(segment.data) for segment in self.segments)

    @property
    def seconds(self) -> float:
        return sum(segment.duration for segment in self.segments)


@dataclass
class Stream:
    folder: Path
    master: m3u8.M3U8
    report: dict
    videos: dict[str, Rendition]  # by URI in the master playlist
    sounds: dict[str, Rendition]

    def subtitles(self) -> list[m3u8.Media]:
        return [media for media in self.master.media if media.type == "SUBTITLES"]

    def audio_media(self) -> list[m3u8.Media]:
        return [media for media in self.master.media if media.type == "AUDIO"]

    @property
    def home(self) -> Path:
        """The job's own folder."""
        return self.folder / self.report["folder"]

    def rungs(self) -> list[Rendition]:
        """Every rung once, largest first, whatever the variants it is part of."""
        return sorted(self.videos.values(), key=lambda rung: -max(w * h for w, h in rung.sizes or {(0, 0)}))


def address(base: Path, uri: str) -> Path:
    """The file that a playlist in `base` means."""
    return base / unquote(uri.partition("?")[0])


def report(folder: Path) -> dict:
    path = folder / "job.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def read(folder: Path, looks_at: list[float]) -> Stream:
    """`looks_at`: the instants whose frames are looked at closely."""
    master = m3u8.loads((folder / "master.m3u8").read_text())
    videos, sounds = {}, {}
    alone = {media.uri for media in master.media if media.type == "AUDIO"}
    for variant in master.playlists:
        if variant.uri in videos or variant.uri in sounds:
            continue
        rendition = open_rendition(address(folder, variant.uri))
        if variant.uri in alone or not _has_video(rendition):
            _hear(rendition)
            sounds[variant.uri] = rendition
        else:
            _see(rendition, looks_at)
            videos[variant.uri] = rendition
    for uri in alone - set(sounds) - {None}:
        sounds[uri] = open_rendition(address(folder, uri))
        _hear(sounds[uri])
    return Stream(folder, master, report(folder), videos, sounds)


def open_rendition(path: Path) -> Rendition:
    playlist = m3u8.loads(path.read_text())
    init = address(path.parent, playlist.segment_map[0].uri).read_bytes()
    ticks = boxes.timescale(init)
    segments = []
    for entry in playlist.segments:
        file = address(path.parent, entry.uri)
        data = file.read_bytes()
        starts = boxes.decode_times(data)
        start = starts[0] / ticks if starts else float("nan")
        segments.append(Segment(file, entry.duration, data, boxes.samples(init, data), start))
    return Rendition(path, playlist, init, segments)


def _has_video(rendition: Rendition) -> bool:
    return boxes.find(rendition.init, b"vmhd") is not None


def _see(rendition: Rendition, looks_at: list[float]) -> None:
    wanted = list(looks_at)
    for segment in rendition.segments:
        with av.open(io.BytesIO(rendition.init + segment.data), format="mp4") as container:
            video = container.streams.video[0]
            rendition.pixel_aspects.add(video.sample_aspect_ratio or Fraction(1))
            for packet in container.demux(video):
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    segment.errors.append(str(error))
                    continue
                for frame in frames:
                    # Decoders give frames in the order of presentation.
                    time = segment.times[min(segment.decoded, len(segment.times) - 1)]
                    segment.decoded += 1
                    if frame.is_corrupt:
                        segment.errors.append(f"the frame at {time:.3f} s is corrupt")
                    rendition.sizes.add((frame.width, frame.height))
                    rendition.rotations.add(frame.rotation)
                    if wanted and time > wanted[0] - SAME_FRAME:
                        if time < wanted[0] + SAME_FRAME:
                            rendition.looks.append(look(frame, time))
                        wanted = [one for one in wanted if one > time + SAME_FRAME]


def _hear(rendition: Rendition) -> None:
    """As a player does, through all segments: a first frame of AAC needs the one before it."""
    data = rendition.init + b"".join(segment.data for segment in rendition.segments)
    with av.open(io.BytesIO(data), format="mp4") as container:
        for frame in container.decode(audio=0):
            rendition.sound.hear(frame, 0.0)
