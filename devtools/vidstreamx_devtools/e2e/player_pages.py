"""Opens streams of the local stack in a browser, through the page that `make demo` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from vidstreamx_devtools.e2e.stack_fixture import StackFixture
from vidstreamx_devtools.local import viewer
from vidstreamx_devtools.playback.browser import chromium
from vidstreamx_devtools.playback.player_page import PlayerPage, open_page

OpenStream = Callable[..., AbstractContextManager[PlayerPage]]


@contextmanager
def player_pages(stack: StackFixture) -> Iterator[OpenStream]:
    """Yields a function that opens a stream: `open_stream(address)`, `open_stream(address, "shaka")`."""
    settings = stack.local.settings
    with chromium(settings) as browser:

        def open_stream(address: str, player: str = "") -> AbstractContextManager[PlayerPage]:
            return open_page(browser, viewer.page_url(settings, f"{address}/master.m3u8", player))

        yield open_stream
