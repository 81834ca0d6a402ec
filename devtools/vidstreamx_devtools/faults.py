"""The folder with uploads of which earlier versions made wrong streams, beside the generated clips."""

from __future__ import annotations

import os
from pathlib import Path

from vidstreamx_devtools import corpus

FOLDER = Path(os.environ.get("VIDSTREAMX_FAULTS") or corpus.FOLDER.parent / "faults")
PASSING_SCRIPT = FOLDER / "make_passing.sh"
