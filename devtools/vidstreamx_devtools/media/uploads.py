"""Which files are put through the transcoder: the corpus where it is there, else clips made on the spot.

A category is a letter of the corpus's manifest (c: rotated, f: variable frame rate, u: unusable, …).
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vidstreamx_devtools.media import generated_clips as made
from vidstreamx_devtools import corpus

FOLDER = corpus.FOLDER
_MANIFEST = FOLDER / "MANIFEST.tsv"


@dataclass(frozen=True)
class Upload:
    name: str
    categories: str  # "c,f"
    _make: Callable[[Path], None] | None = None

    def path(self, under: Path) -> Path:
        """The file; made under this folder if it is not of the corpus."""
        if self._make is None:
            return FOLDER / self.name
        path = under / self.name
        if not path.is_file():
            under.mkdir(parents=True, exist_ok=True)
            self._make(path)
        return path


def uploads() -> list[Upload]:
    if not _MANIFEST.is_file():
        return [Upload(name, categories, make) for name, (categories, make) in made.CLIPS.items()]
    with _MANIFEST.open(newline="") as manifest:
        rows = csv.DictReader(manifest, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [Upload(row["file"], row["categories"]) for row in rows]


def letters(upload: Upload) -> set[str]:
    return set(upload.categories.split(","))
