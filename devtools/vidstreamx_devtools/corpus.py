"""The folder with the corpus of real test videos.

Tests use it in addition to generated clips. Benchmarks use it, and generate clips where it is missing.
"""

from __future__ import annotations

import os
from pathlib import Path

from vidstreamx_devtools.settings import REPO

FOLDER = Path(os.environ.get("VIDSTREAMX_CORPUS") or REPO.parent / "shared" / "corpus")
MANIFEST = FOLDER / "MANIFEST.tsv"


def find(name: str) -> Path | None:
    """The corpus file with this name, if it exists."""
    path = FOLDER / name
    return path if path.is_file() else None
