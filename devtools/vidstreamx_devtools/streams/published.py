"""Reads a published stream from its folder: playlists, segments, every frame and all audio.

Each video segment is decoded alone with its init segment, as a player does after a seek.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import av
import m3u8
import numpy as np

from vidstreamx_devtools.streams import boxes
from vidstreamx_devtools.streams.arrays import Array
from vidstreamx_devtools.streams.audio import DecodedAudio
from vidstreamx_devtools.streams.picture import FrameStats, measure_frame

SAME_FRAME = 0.004  # seconds: half of the shortest frame duration, at 120 frames a second


@dataclass
class Segment:
    path: Path
    duration: float  # according to the playlist
    data: bytes
    samples: list[boxes.Sample]
    start: float  # decode time of the first sample (tfdt), in seconds
    decoded: int = 0  # number of frames, video only
    errors: list[str] = field(default_factory=list)

    @cached_property
    def times(self) -> list[float]:
        """Presentation times in order."""
        return sorted(sample.time for sample in self.samples)

    @property
    def end(self) -> float:
        return max((sample.time + sample.duration for sample in self.samples), default=self.start)


@dataclass
class Rendition:
    """A media playlist and its segments."""

    playlist_path: Path
    playlist: m3u8.M3U8
    init: bytes
    segments: list[Segment]
    sampled_frames: list[FrameStats] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    pixel_aspects: set[Fraction] = field(default_factory=set)
    rotations: set[int] = field(default_factory=set)
    audio: DecodedAudio = field(default_factory=DecodedAudio)

    @property
    def name(self) -> str:
        return self.playlist_path.parent.name

    @cached_property
    def times(self) -> Array:
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
    report: dict[str, Any]
    videos: dict[str, Rendition]  # by URI in the master playlist
    audios: dict[str, Rendition]

    @property
    def renditions(self) -> list[Rendition]:
        return [*self.videos.values(), *self.audios.values()]

    def subtitles(self) -> list[m3u8.Media]:
        return [media for media in self.master.media if media.type == "SUBTITLES"]

    def audio_media(self) -> list[m3u8.Media]:
        return [media for media in self.master.media if media.type == "AUDIO"]

    @property
    def output_folder(self) -> Path:
        """The folder with the segments and images: `<job id>/<plan id>`."""
        return self.folder / str(self.report["folder"])

    def rungs(self) -> list[Rendition]:
        """Every rung once, largest first."""

        def largest_picture(rung: Rendition) -> int:
            return max((width * height for width, height in rung.sizes), default=0)

        return sorted(self.videos.values(), key=largest_picture, reverse=True)


def resolve(base: Path, uri: str) -> Path:
    """The file for a URI of a playlist in the folder `base`."""
    return base / unquote(uri.partition("?")[0])


def read_report(folder: Path) -> dict[str, Any]:
    path = folder / "job.json"
    report: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return report


def read(folder: Path, sample_times: list[float]) -> Stream:
    """Reads and decodes a stream. Frames at `sample_times` are measured."""
    master = m3u8.loads((folder / "master.m3u8").read_text())
    videos: dict[str, Rendition] = {}
    audios: dict[str, Rendition] = {}
    audio_uris = {media.uri for media in master.media if media.type == "AUDIO"}
    for variant in master.playlists:
        if variant.uri in videos or variant.uri in audios:
            continue
        rendition = open_rendition(resolve(folder, variant.uri))
        if variant.uri in audio_uris or not _has_video(rendition):
            _decode_audio(rendition)
            audios[variant.uri] = rendition
        else:
            _decode_video(rendition, sample_times)
            videos[variant.uri] = rendition
    for uri in audio_uris - set(audios) - {None}:
        audios[uri] = open_rendition(resolve(folder, uri))
        _decode_audio(audios[uri])
    return Stream(folder, master, read_report(folder), videos, audios)


def open_rendition(path: Path) -> Rendition:
    """Reads a media playlist and its segments without decoding them."""
    playlist = m3u8.loads(path.read_text())
    init = resolve(path.parent, playlist.segment_map[0].uri).read_bytes()
    ticks = boxes.timescale(init)
    segments = []
    for entry in playlist.segments:
        file = resolve(path.parent, entry.uri)
        data = file.read_bytes()
        starts = boxes.decode_times(data)
        start = starts[0] / ticks if starts else float("nan")
        segments.append(Segment(file, entry.duration, data, boxes.samples(init, data), start))
    return Rendition(path, playlist, init, segments)


def _has_video(rendition: Rendition) -> bool:
    return boxes.find(rendition.init, b"vmhd") is not None


def _decode_video(rendition: Rendition, sample_times: list[float]) -> None:
    remaining = list(sample_times)
    for segment in rendition.segments:
        with av.open(io.BytesIO(rendition.init + segment.data), "r", format="mp4") as container:
            video = container.streams.video[0]
            rendition.pixel_aspects.add(video.sample_aspect_ratio or Fraction(1))
            for packet in container.demux(video):
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    segment.errors.append(str(error))
                    continue
                for frame in frames:
                    # Decoders return frames in presentation order.
                    time = segment.times[min(segment.decoded, len(segment.times) - 1)]
                    segment.decoded += 1
                    if frame.is_corrupt:
                        segment.errors.append(f"the frame at {time:.3f} s is corrupt")
                    rendition.sizes.add((frame.width, frame.height))
                    rendition.rotations.add(frame.rotation)
                    if remaining and time > remaining[0] - SAME_FRAME:
                        if time < remaining[0] + SAME_FRAME:
                            rendition.sampled_frames.append(measure_frame(frame, time))
                        remaining = [other for other in remaining if other > time + SAME_FRAME]


def _decode_audio(rendition: Rendition) -> None:
    """Decodes all segments together, because the first frame of an AAC segment needs the frame before it."""
    data = rendition.init + b"".join(segment.data for segment in rendition.segments)
    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        for frame in container.decode(audio=0):
            rendition.audio.add(frame, 0.0)
