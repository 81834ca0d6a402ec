"""Fixtures of the media tests. They transcode all kinds of files, and check and play the streams.

Outputs stay in target/media. A file is transcoded again if it or the program has changed.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from vidstreamx_devtools.local import engine, programs
from vidstreamx_devtools.media import fault_cases, table
from vidstreamx_devtools.media.fault_checks import Row, check
from vidstreamx_devtools.media.media_files import media_files
from vidstreamx_devtools.media.transcode import OUTPUTS, Transcoder
from vidstreamx_devtools.media.verdict import Verdict, judge
from vidstreamx_devtools.settings import Settings

_verdicts_key = pytest.StashKey[list[Verdict]]()
_faults_key = pytest.StashKey[dict[str, list[Row]]]()


@pytest.fixture(scope="session")
def transcoder() -> Transcoder:
    """VIDSTREAMX_BINARY, or a release build."""
    given = os.environ.get("VIDSTREAMX_BINARY")
    return Transcoder(Path(given) if given else programs.build() / programs.TRANSCODER)


@pytest.fixture(scope="session")
def image_transcoder(transcoder: Transcoder) -> Transcoder:
    """The same program in the task's image, which has another version of FFmpeg."""
    settings = Settings.from_environment()
    engine.build_image(settings, transcoder.binary)
    return Transcoder(transcoder.binary, settings.image)


@pytest.fixture(scope="session")
def verdicts(transcoder: Transcoder, request: pytest.FixtureRequest) -> dict[str, Verdict]:
    """The verdict on every file by name. As many files are processed in parallel as there are cores."""
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    files = [(file.path(), ",".join(sorted(file.categories))) for file in media_files()]
    files.sort(key=lambda file: -file[0].stat().st_size)  # a large file at the end would run alone
    with _processes() as pool:
        pending = [pool.submit(judge, transcoder, path, categories) for path, categories in files]
        judged = sorted((future.result() for future in pending), key=lambda verdict: verdict.file)
    request.config.stash[_verdicts_key] = judged
    table.write(judged, OUTPUTS / "table.md")
    return {verdict.file: verdict for verdict in judged}


@pytest.fixture(scope="session")
def fault_rows(
    transcoder: Transcoder, image_transcoder: Transcoder, request: pytest.FixtureRequest
) -> dict[tuple[str, str], Row]:
    """The results of the table of faults by version of FFmpeg and file."""
    fault_cases.make_passing()
    files = [(case, case.path()) for case in fault_cases.cases()]
    with _processes() as pool:
        pending = {
            version: [pool.submit(check, one, path, case) for case, path in files]
            for version, one in zip(fault_cases.VERSIONS, (transcoder, image_transcoder), strict=True)
        }
        rows = {version: [future.result() for future in futures] for version, futures in pending.items()}
    request.config.stash[_faults_key] = rows
    table.write_faults(rows, OUTPUTS / "faults.md")
    return {(version, row.file): row for version, listed in rows.items() for row in listed}


def _processes() -> ProcessPoolExecutor:
    # Uses processes instead of threads, because decoding holds the GIL. Spawns them, because a fork of a
    # process with threads, such as pytest's, is not safe.
    return ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    verdicts = config.stash.get(_verdicts_key, None)
    if verdicts:
        terminalreporter.section("verdicts by file, with expected and got values in target/media/table.md")
        terminalreporter.write_line(table.summary(verdicts))
    rows = config.stash.get(_faults_key, None)
    if rows:
        terminalreporter.section("table of faults, with expected and got values in target/media/faults.md")
        terminalreporter.write_line(table.fault_summary(rows))
