"""Tests of what the transcoder makes: of every file of the corpus, and of how it plays.

Outputs stay under target/media and are made again when the program or the file is newer.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from vidstreamx_devtools.media import uploads as corpus
from vidstreamx_devtools.local import programs
from vidstreamx_devtools.media import table
from vidstreamx_devtools.media import verdict
from vidstreamx_devtools.media.transcode import OUTPUTS

_verdicts = pytest.StashKey[list]()


@pytest.fixture(scope="session")
def binary() -> Path:
    given = os.environ.get("VIDSTREAMX_BINARY")
    return Path(given) if given else programs.build() / programs.TRANSCODER


@pytest.fixture(scope="session")
def verdicts(binary, request) -> dict[str, verdict.Verdict]:
    """Every file put through the program and checked, as many at a time as there are cores."""
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    files = [(upload, upload.path(OUTPUTS / "made")) for upload in corpus.uploads()]
    files.sort(key=lambda pair: -pair[1].stat().st_size)  # the long ones first, so that they don't end alone
    # A process of its own each: decoding holds Python's lock. Not forked, as pytest has threads.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        judged = [
            pool.submit(verdict.judge, binary, path, upload.categories, OUTPUTS) for upload, path in files
        ]
        found = sorted((one.result() for one in judged), key=lambda one: one.file)
    request.config.stash[_verdicts] = found
    table.write(found, OUTPUTS / "table.md")
    return {one.file: one for one in found}


def pytest_terminal_summary(terminalreporter, config) -> None:
    found = config.stash.get(_verdicts, None)
    if found:
        terminalreporter.section("what was expected of each file, and what came out: target/media/table.md")
        terminalreporter.write_line(table.short(found))
