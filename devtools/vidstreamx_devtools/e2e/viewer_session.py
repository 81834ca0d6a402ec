"""Somebody who watches a stream that is still being made, and what that person would notice."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from vidstreamx_devtools.e2e.playlist_monitor import Growing
from vidstreamx_devtools.playback.player_page import Screen

# Notes what happens between two looks: a frame that is older than the one before, a player that begins anew.
_NOTE = """() => {
  const video = document.getElementById("video");
  const noted = window.noted = { last: null, back: [], events: [] };
  const note = (_, { mediaTime }) => {
    if (noted.last !== null && mediaTime < noted.last) noted.back.push([noted.last, mediaTime]);
    noted.last = mediaTime;
    video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback(note);
  for (const name of ["playing", "waiting", "seeking", "emptied", "ended", "error"]) {
    video.addEventListener(name, () => noted.last !== null && noted.events.push([name, video.currentTime]));
  }
}"""
_NOTED = """() => {
  const list = (ranges) => Array.from(ranges, (_, index) => [ranges.start(index), ranges.end(index)]);
  return { ...window.noted, played: list(video.played), buffered: list(video.buffered) };
}"""


@dataclass
class Watching:
    """Looks at the screen and at the stream by turns."""

    screen: Screen
    stream: Growing
    longest_stuck: float = 0.0  # seconds in which nothing moved, although there was something to play
    _moved: tuple[float, float] = field(default=(0.0, 0.0))  # the player's time, and when it was last seen to change

    def __post_init__(self):
        self.screen.page.evaluate(_NOTE)
        self._moved = (-1.0, time.monotonic())

    def until(self, condition, within: float) -> dict:
        """The player's state when the condition holds for it, or playing has failed for good, or time is up."""

        def look(state: dict) -> bool:
            self.stream.look()
            now = time.monotonic()
            at, since = self._moved
            is_starved = state["time"] + self._segment_seconds > self.stream.seconds and not self.stream.is_final
            if state["time"] != at or is_starved or state["ended"]:
                self._moved = (state["time"], now)
            self.longest_stuck = max(self.longest_stuck, now - self._moved[1])
            return condition(state)

        return self.screen.until(look, within)

    @property
    def _segment_seconds(self) -> float:
        return max(seconds for rendition in self.stream.renditions for _, seconds in rendition.listed)

    @property
    def noted(self) -> dict:
        return self.screen.page.evaluate(_NOTED)

    def at_rate(self, rate: float) -> None:
        self.screen.page.evaluate("(rate) => { video.playbackRate = rate; }", rate)
