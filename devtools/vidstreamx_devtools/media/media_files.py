"""The files that the media tests transcode: generated clips, and the corpus if it exists.

A category is a letter of the corpus's manifest (c: rotated, f: variable frame rate, u: unusable, …).
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vidstreamx_devtools import corpus
from vidstreamx_devtools.media import generated_clips
from vidstreamx_devtools.media.transcode import GENERATED

UNUSABLE = "u"


@dataclass(frozen=True)
class MediaFile:
    name: str
    categories: frozenset[str]
    _generate: Callable[[Path], object] | None = None  # None for a file of the corpus

    @property
    def is_generated(self) -> bool:
        return self._generate is not None

    def path(self) -> Path:
        """The path of the file. A generated clip is made if it does not exist yet."""
        if self._generate is None:
            return corpus.FOLDER / self.name
        path = GENERATED / self.name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._generate(path)
        return path


def media_files() -> list[MediaFile]:
    generated = [
        MediaFile(name, frozenset(categories.split(",")), generate)
        for name, (categories, generate) in generated_clips.CLIPS.items()
    ]
    if not corpus.MANIFEST.is_file():
        return generated
    with corpus.MANIFEST.open(newline="") as manifest:
        rows = csv.DictReader(manifest, delimiter="\t", quoting=csv.QUOTE_NONE)
        real = [MediaFile(row["file"], frozenset(row["categories"].split(","))) for row in rows]
    return [*generated, *real]
