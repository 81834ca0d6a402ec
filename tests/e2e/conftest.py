"""The end-to-end tests: the real programs, a real ECS task per video, a real browser, IAM enforced.

One stack for all of them, beside the one of `make demo` and gone afterwards; logs stay in .local/e2e.
"""

from __future__ import annotations

import os
import random
import signal

import pytest

from vidstreamx_devtools.e2e import chaos as ordeals
from vidstreamx_devtools.e2e import scenario as stories
from vidstreamx_devtools.e2e import stack_fixture as worlds
from vidstreamx_devtools.e2e.upload_files import Clips

_tables = pytest.StashKey[list[tuple[str, str]]]()


def pytest_configure(config) -> None:
    config.stash[_tables] = []
    # Being told to end means tidying up first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def world():
    with worlds.world() as here:
        yield here


@pytest.fixture(scope="session")
def clips(world):
    return Clips.gather(world.stack.settings.state / "clips")


@pytest.fixture(scope="session")
def story(world, clips, request):
    told = stories.tell(world, clips)
    request.config.stash[_tables].append(("where everything ended", told.table()))
    return told


@pytest.fixture(scope="session")
def ordeal(world, clips, story, request):
    """After the story, whose tests count what there is."""
    seed = int(os.environ.get("VIDSTREAMX_TEST_SEED") or random.randrange(1_000_000))
    print(f"VIDSTREAMX_TEST_SEED={seed}")  # shown where this fails
    endured = ordeals.endure(world, clips, seed)
    request.config.stash[_tables].append((f"what was killed, VIDSTREAMX_TEST_SEED={seed}", endured.table()))
    return endured


def pytest_terminal_summary(terminalreporter, config) -> None:
    for title, table in config.stash[_tables]:
        terminalreporter.section(title)
        terminalreporter.write_line(table)
