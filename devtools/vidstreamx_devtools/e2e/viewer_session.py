"""A viewer who watches a growing stream. The session records everything that a viewer would notice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vidstreamx_devtools.e2e.playlist_monitor import StreamMonitor
from vidstreamx_devtools.playback.player_page import PlayerPage, State

# Records what polls can miss: events of the video element, and frames that are older than the frame before.
_RECORD = """() => {
  const video = document.getElementById("video");
  const recorded = window.recorded = { last: null, backwards: [], events: [] };
  const onFrame = (_, { mediaTime }) => {
    const { last, backwards } = recorded;
    if (last !== null && mediaTime < last) backwards.push([last, mediaTime]);
    recorded.last = mediaTime;
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
  for (const name of ["playing", "waiting", "seeking", "emptied", "ended", "error"]) {
    video.addEventListener(name, () => {
      if (recorded.last !== null) recorded.events.push([name, video.currentTime]);
    });
  }
}"""
_RECORDED = """() => {
  const list = (ranges) => Array.from(ranges, (_, index) => [ranges.start(index), ranges.end(index)]);
  return { ...window.recorded, played: list(video.played), buffered: list(video.buffered) };
}"""


@dataclass
class ViewerSession:
    """Polls the player page and the stream alternately."""

    page: PlayerPage
    stream: StreamMonitor
    longest_stall: float = 0.0  # seconds without progress although segments were available
    _progress: tuple[float, float] = field(
        default=(0.0, 0.0)
    )  # the player's time, and the clock at its last change

    def __post_init__(self) -> None:
        self.page.page.evaluate(_RECORD)
        self._progress = (-1.0, time.monotonic())

    def wait_until(self, condition: Callable[[State], bool], timeout: float) -> State:
        """Waits until the condition holds, the player fails, or the timeout. Returns the player's state."""

        def poll(state: State) -> bool:
            self.stream.poll()
            now = time.monotonic()
            last_time, changed_at = self._progress
            next_segment_end = state["time"] + self.stream.longest_segment
            is_starved = next_segment_end > self.stream.seconds and not self.stream.is_final
            if state["time"] != last_time or is_starved or state["ended"]:
                changed_at = now
                self._progress = (state["time"], now)
            self.longest_stall = max(self.longest_stall, now - changed_at)
            return condition(state)

        return self.page.wait_until(poll, timeout)

    @property
    def recorded(self) -> dict[str, Any]:
        recorded: dict[str, Any] = self.page.page.evaluate(_RECORDED)
        return recorded

    def set_rate(self, rate: float) -> None:
        self.page.page.evaluate("(rate) => { video.playbackRate = rate; }", rate)
