"""The end-to-end tests: the real programs, a real ECS task per video, a real browser, IAM enforced.

One stack for all of them, beside the one of `make demo` and gone afterwards; logs stay in .local/e2e.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO / "infra" / "local"), str(REPO / "tests" / "common")]
sys.dont_write_bytecode = True

import story as stories  # noqa: E402
import world as worlds  # noqa: E402
from clips import Clips  # noqa: E402

_told = pytest.StashKey[stories.Story]()


def pytest_configure() -> None:
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
    told = request.config.stash[_told] = stories.tell(world, clips)
    return told


def pytest_terminal_summary(terminalreporter, config) -> None:
    told = config.stash.get(_told, None)
    if told:
        terminalreporter.section("where everything ended")
        terminalreporter.write_line(told.table())
