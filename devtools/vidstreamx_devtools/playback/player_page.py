"""A browser's tab that plays something, and what it complains about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vidstreamx_devtools.waiting import until

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
class Screen:
    """What a viewer sees."""

    page: object
    complaints: list[str]  # of the browser itself: failed requests, exceptions, console errors

    def state(self) -> dict:
        return self.page.evaluate(_STATE)

    def until(self, condition, within: float) -> dict:
        """The state when the condition holds, playing has failed for good, or time is up."""

        def look():
            state = self.state()
            failed = any(error.startswith("fatal") for error in state["errors"])
            return state if failed or condition(state) else None

        return until(look, within, every=0.1) or self.state()

    def show_level(self, height: int, at: float) -> None:
        """From there on in this quality (hls.js)."""
        self.page.evaluate(
            """([height, at]) => {
              player.currentLevel = player.levels.findIndex((level) => level.height === height);
              video.currentTime = at;
              return video.play();
            }""",
            [height, at],
        )


@contextmanager
def screen(chromium, url: str) -> Iterator[Screen]:
    """A tab of a browser (see browser.chromium) at an address, closed afterwards."""
    page = chromium.new_page(viewport={"width": 1920, "height": 1200})
    shown = Screen(page, [])
    page.on("console", lambda message: message.type == "error" and shown.complaints.append(message.text))
    page.on("pageerror", lambda error: shown.complaints.append(str(error)))
    page.on("response", lambda answer: answer.status >= 400 and shown.complaints.append(
        f"{answer.status} {answer.url}"
    ))  # fmt: skip
    page.goto(url)
    try:
        yield shown
    finally:
        page.close()
