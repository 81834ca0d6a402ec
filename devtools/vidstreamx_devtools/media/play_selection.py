"""The fewest files that have every category among them, and what the players will find in their streams."""

from __future__ import annotations

from pathlib import Path

from vidstreamx_devtools.media import uploads as corpus
from vidstreamx_devtools.media import transcode as runs
from vidstreamx_devtools.streams import published as streams
from vidstreamx_devtools.playback.runner import PLAYERS, Play
from vidstreamx_devtools.media.transcode import OUTPUTS


def chosen() -> list[corpus.Upload]:
    """Greedily, and of equals the smaller file: it is the sooner transcoded. Unusable files give no stream."""
    usable = [upload for upload in corpus.uploads() if "u" not in corpus.letters(upload)]
    missing = set().union(*map(corpus.letters, usable))
    found = []
    while missing:
        best = max(usable, key=lambda upload: (len(corpus.letters(upload) & missing), -_size(upload)))
        found.append(best)
        missing -= corpus.letters(best)
    heaviest = max(usable, key=_size)  # many rungs and segments, which small files have not
    return found if heaviest in found else [*found, heaviest]


def _size(upload: corpus.Upload) -> int:
    path = corpus.FOLDER / upload.name
    return path.stat().st_size if path.is_file() else 0


def plays(binary: Path) -> list[Play]:
    found = []
    for upload in chosen():
        runs.transcoded(binary, upload.path(OUTPUTS / "made"), OUTPUTS)
        report = streams.report(OUTPUTS / upload.name)
        rungs = [one for one in report.get("renditions", []) if one["kind"] == "video"]
        every = [one for one in report.get("renditions", []) if one["kind"] in ("video", "audio")]
        found += [
            Play(
                file=upload.name,
                player=player,
                seconds=_seconds(OUTPUTS / upload.name),
                heights=tuple(one["height"] for one in rungs),
                pixels=max((one["width"] * one["height"] for one in rungs), default=0),
                segments=max((one["segments"] for one in every), default=0),
            )
            for player in PLAYERS
        ]
    return found


def _seconds(folder: Path) -> float:
    """When the last sample of any rendition ends, by the segments themselves."""
    home = folder / streams.report(folder).get("folder", "")
    playlists = [*home.glob("video/*/index.m3u8"), *home.glob("audio/*/index.m3u8")]
    return max((streams.open_rendition(path).end for path in playlists), default=0.0)
