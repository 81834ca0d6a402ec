"""Selects the streams to play in a browser: as few files as possible that cover every category.

The generated clips and the corpus are covered separately, so that the clips are played on every machine.
From the table of faults, streams are added whose picture stands still or begins late.
"""

from __future__ import annotations

from pathlib import Path

from vidstreamx_devtools import corpus
from vidstreamx_devtools.media import fault_cases
from vidstreamx_devtools.media.media_files import UNUSABLE, MediaFile, media_files
from vidstreamx_devtools.media.transcode import Transcoder, transcode
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


def plays(transcoder: Transcoder) -> list[Play]:
    """Transcodes the selection. Returns each stream once for each player."""
    files = [(file.path(), False) for file in selected()]
    files += [(case.path(), True) for case in fault_cases.cases() if case.expected.is_played]
    return [play for file, is_still in files for play in _plays_of(transcoder, file, is_still)]


def played_names() -> list[str]:
    """The names of the files that are played."""
    faults = [case.file for case in fault_cases.cases() if case.expected.is_played]
    return [*(file.name for file in selected()), *faults]


def _plays_of(transcoder: Transcoder, file: Path, is_still: bool) -> list[Play]:
    folder = transcode(transcoder, file).folder
    renditions = published.read_report(folder).get("renditions", [])
    rungs = [rendition for rendition in renditions if rendition["kind"] == "video"]
    read = _renditions(folder)
    return [
        Play(
            file=file.name,
            player=player,
            # The end of the last sample of any rendition, read from the segments.
            seconds=max((one.end for one in read), default=0.0),
            heights=tuple(rung["height"] for rung in rungs),
            pixels=max((rung["width"] * rung["height"] for rung in rungs), default=0),
            segments=max((len(one.segments) for one in read), default=0),
            longest=max((segment.duration for one in read for segment in one.segments), default=0.0),
            has_audio=any(rendition["kind"] == "audio" for rendition in renditions),
            is_still=is_still,
        )
        for player in PLAYERS
    ]


def _renditions(folder: Path) -> list[published.Rendition]:
    output_folder = folder / published.read_report(folder).get("folder", "")
    playlists = [*output_folder.glob("video/*/index.m3u8"), *output_folder.glob("audio/*/index.m3u8")]
    return [published.open_rendition(path) for path in playlists]
