"""Fixtures of the end-to-end tests: the real programs, an ECS task per video, a real browser, IAM enforced.

One stack serves all tests. It is separate from that of `make demo`, and its logs stay in .local/e2e.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

import pytest
from vidstreamx_devtools.e2e.chaos import ChaosRun, run_chaos
from vidstreamx_devtools.e2e.player_pages import OpenStream, player_pages
from vidstreamx_devtools.e2e.scenario import Scenario, run_scenario
from vidstreamx_devtools.e2e.stack_fixture import StackFixture, running_stack
from vidstreamx_devtools.e2e.upload_files import UploadFiles

_tables_key = pytest.StashKey[list[tuple[str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_tables_key] = []
    # SIGTERM raises an exception, so that fixtures clean up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def stack() -> Iterator[StackFixture]:
    with running_stack() as fixture:
        yield fixture


@pytest.fixture(scope="session")
def files(stack: StackFixture) -> UploadFiles:
    return UploadFiles.create(stack.local.settings.state / "files")


@pytest.fixture(scope="session")
def scenario(stack: StackFixture, files: UploadFiles, request: pytest.FixtureRequest) -> Scenario:
    """The finished scenario. Its consumer has exited and the queue is empty."""
    result = run_scenario(stack, files)
    request.config.stash[_tables_key].append(("results of the scenario", result.table()))
    return result


@pytest.fixture(scope="session")
def chaos(
    stack: StackFixture, files: UploadFiles, scenario: Scenario, request: pytest.FixtureRequest
) -> ChaosRun:
    """The finished chaos run. It runs after the scenario, whose tests count all records."""
    seed = int(os.environ.get("VIDSTREAMX_TEST_SEED") or random.randrange(1_000_000))
    print(f"VIDSTREAMX_TEST_SEED={seed}")  # pytest shows it if the run fails
    result = run_chaos(stack, files, seed)
    request.config.stash[_tables_key].append((f"chaos run, VIDSTREAMX_TEST_SEED={seed}", result.table()))
    return result


@pytest.fixture(scope="module")
def open_stream(stack: StackFixture) -> Iterator[OpenStream]:
    """Opens a stream in a browser: `open_stream(address)`, `open_stream(address, "shaka")`."""
    with player_pages(stack) as function:
        yield function


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for title, table in config.stash[_tables_key]:
        terminalreporter.section(title)
        terminalreporter.write_line(table)
