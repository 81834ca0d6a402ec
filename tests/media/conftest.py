"""Fixtures of the media tests. They transcode all kinds of files, and check and play the streams.

Outputs stay in target/media. A file is transcoded again if it or the program has changed.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from vidstreamx_devtools.local import programs
from vidstreamx_devtools.media import table
from vidstreamx_devtools.media.media_files import media_files
from vidstreamx_devtools.media.transcode import OUTPUTS
from vidstreamx_devtools.media.verdict import Verdict, judge

_verdicts_key = pytest.StashKey[list[Verdict]]()


@pytest.fixture(scope="session")
def binary() -> Path:
    """The transcoder: VIDSTREAMX_BINARY, or a release build."""
    given = os.environ.get("VIDSTREAMX_BINARY")
    return Path(given) if given else programs.build() / programs.TRANSCODER


@pytest.fixture(scope="session")
def verdicts(binary: Path, request: pytest.FixtureRequest) -> dict[str, Verdict]:
    """The verdict on every file by name. As many files are processed in parallel as there are cores."""
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    files = [(file.path(), ",".join(sorted(file.categories))) for file in media_files()]
    files.sort(key=lambda file: -file[0].stat().st_size)  # a large file at the end would run alone
    # Uses processes instead of threads, because decoding holds the GIL. Spawns them, because a fork of a
    # process with threads, such as pytest's, is not safe.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        pending = [pool.submit(judge, binary, path, categories) for path, categories in files]
        judged = sorted((future.result() for future in pending), key=lambda verdict: verdict.file)
    request.config.stash[_verdicts_key] = judged
    table.write(judged, OUTPUTS / "table.md")
    return {verdict.file: verdict for verdict in judged}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    verdicts = config.stash.get(_verdicts_key, None)
    if verdicts:
        terminalreporter.section("verdicts by file, with expected and got values in target/media/table.md")
        terminalreporter.write_line(table.summary(verdicts))
