"""Selects the streams to play in a browser: as few files as possible that cover every category.

The generated clips and the corpus are covered separately, so that the clips are played on every machine.
"""

from __future__ import annotations

from pathlib import Path

from vidstreamx_devtools import corpus
from vidstreamx_devtools.media.media_files import UNUSABLE, MediaFile, media_files
from vidstreamx_devtools.media.transcode import transcode
from vidstreamx_devtools.playback.runner import PLAYERS, Play
from vidstreamx_devtools.streams import published


def selected() -> list[MediaFile]:
    usable = [file for file in media_files() if UNUSABLE not in file.categories]
    generated = [file for file in usable if file.is_generated]
    real = [file for file in usable if not file.is_generated]
    return [*_select(generated), *_select(real)]


def _select(usable: list[MediaFile]) -> list[MediaFile]:
    """Selects greedily. Of equal candidates it takes the smallest file, which is transcoded fastest."""
    if not usable:
        return []
    uncovered = frozenset[str]().union(*(file.categories for file in usable))
    selection: list[MediaFile] = []
    while uncovered:
        best = max(usable, key=lambda file: (len(file.categories & uncovered), -_size(file)))
        selection.append(best)
        uncovered -= best.categories
    largest = max(usable, key=_size)  # it has more rungs and segments than the small files
    return selection if largest in selection else [*selection, largest]


def _size(file: MediaFile) -> int:
    path = corpus.find(file.name)
    return path.stat().st_size if path else 0


def plays(binary: Path) -> list[Play]:
    """Transcodes the selection. Returns each stream once for each player."""
    listed = []
    for file in selected():
        folder = transcode(binary, file.path()).folder
        renditions = published.read_report(folder).get("renditions", [])
        rungs = [rendition for rendition in renditions if rendition["kind"] == "video"]
        segments = [
            rendition["segments"] for rendition in renditions if rendition["kind"] in ("video", "audio")
        ]
        seconds = _seconds(folder)
        listed += [
            Play(
                file=file.name,
                player=player,
                seconds=seconds,
                heights=tuple(rung["height"] for rung in rungs),
                pixels=max((rung["width"] * rung["height"] for rung in rungs), default=0),
                segments=max(segments, default=0),
            )
            for player in PLAYERS
        ]
    return listed


def _seconds(folder: Path) -> float:
    """The end of the last sample of any rendition, read from the segments."""
    output_folder = folder / published.read_report(folder).get("folder", "")
    playlists = [*output_folder.glob("video/*/index.m3u8"), *output_folder.glob("audio/*/index.m3u8")]
    return max((published.open_rendition(path).end for path in playlists), default=0.0)
