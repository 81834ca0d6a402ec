"""A browser tab with the player page: its state, and the errors that the browser reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Response

from vidstreamx_devtools.waiting import wait_until

State = dict[str, Any]

_STATE = """() => {
  const video = document.getElementById("video");
  const quality = video.getVideoPlaybackQuality();
  return {
    time: video.currentTime, duration: video.duration, ended: video.ended, errors: window.errors,
    width: video.videoWidth, height: video.videoHeight, frames: quality.totalVideoFrames,
    audioBytes: video.webkitAudioDecodedByteCount,
    levels: window.levels().map(({ width, height, codecs }) => ({ width, height, codecs })),
  };
}"""


@dataclass
class PlayerPage:
    page: Page
    browser_errors: list[str] = field(default_factory=list)  # failed requests, exceptions, console errors

    def state(self) -> State:
        state: State = self.page.evaluate(_STATE)
        return state

    def wait_until(self, condition: Callable[[State], bool], timeout: float) -> State:
        """Waits for the condition, a fatal error of the player, or the timeout. Returns the state."""

        def poll() -> State | None:
            state = self.state()
            failed = any(error.startswith("fatal") for error in state["errors"])
            return state if failed or condition(state) else None

        return wait_until(poll, timeout, interval=0.1) or self.state()

    def select_level(self, height: int, at: float) -> None:
        """Selects the rung of this height, seeks to `at` and plays (hls.js only)."""
        self.page.evaluate(
            """([height, at]) => {
              player.currentLevel = player.levels.findIndex((level) => level.height === height);
              video.currentTime = at;
              return video.play();
            }""",
            [height, at],
        )


@contextmanager
def open_page(chromium: Browser, url: str) -> Iterator[PlayerPage]:
    """Opens a tab of the browser at a URL and closes it at the end of the block."""
    page = chromium.new_page(viewport={"width": 1920, "height": 1200})
    player_page = PlayerPage(page)
    errors = player_page.browser_errors

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    def on_response(response: Response) -> None:
        if response.status >= 400:
            errors.append(f"{response.status} {response.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", on_response)
    page.goto(url)
    try:
        yield player_page
    finally:
        page.close()
