"""Where the corpus of real test videos is. Tests and benchmarks generate clips where it is missing."""

from __future__ import annotations

import os
from pathlib import Path

from vidstreamx_devtools.settings import REPO

FOLDER = Path(os.environ.get("VIDSTREAMX_CORPUS") or REPO.parent / "shared" / "corpus")
