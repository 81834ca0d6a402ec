"""Streams of the local stack in a real browser, through the page that `make demo` prints."""

from __future__ import annotations

from contextlib import contextmanager

from vidstreamx_devtools.playback import browser
from vidstreamx_devtools.local import viewer
from vidstreamx_devtools.playback.player_page import screen
from vidstreamx_devtools.e2e.stack_fixture import World


@contextmanager
def screens(world: World):
    """Opens pages that play a stream: `open(stem)`, `open(stem, "shaka")`."""
    settings = world.stack.settings
    with browser.chromium(settings) as chromium:

        def open_one(stem: str, player: str = ""):
            return screen(chromium, viewer.page_url(settings, f"{stem}/master.m3u8", player))

        yield open_one
