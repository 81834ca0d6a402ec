"""Plays many streams in parallel, one browser tab each. Returns the problems that a viewer would notice."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from vidstreamx_devtools.playback import web_server
from vidstreamx_devtools.playback.browser import chromium
from vidstreamx_devtools.playback.file_server import serve_folder
from vidstreamx_devtools.playback.player_page import PlayerPage, open_page
from vidstreamx_devtools.settings import Settings

_TABS = 4  # two cores cannot decode more streams in time
_PATIENCE = 45  # seconds that a stream may stand still
_SCRIPT = Path(__file__).with_name("watch_playback.js").read_text()
_LONG = 30.0  # seconds; of longer streams that move, only the beginning and the end are played
_ENDING = 6.0
_FAST = 4.0  # playback rate for small pictures, which a busy machine decodes in time
_FAST_PIXELS = 640 * 480
_MODERATE = 1.5
_SHORT = 10.0  # seconds; shorter streams play at normal rate to leave time for quality switches

# hls.js reports a request that it aborts when the level changes.
_HARMLESS = {"networkError: aborted"}

PLAYERS = {
    "hls.js HLS": ("", "master.m3u8"),
    "Shaka HLS": ("shaka", "master.m3u8"),
    "Shaka DASH": ("shaka", "manifest.mpd"),
}


@dataclass(frozen=True)
class Play:
    """A stream and how to play it."""

    file: str
    player: str  # a key of PLAYERS
    seconds: float  # duration of the stream
    heights: tuple[int, ...]  # heights of its rungs
    pixels: int  # width times height of the largest rung
    segments: int
    longest: float  # seconds of the longest segment
    has_audio: bool
    is_still: bool  # whether the picture stands still for long, which costs little to decode

    @property
    def path(self) -> str:
        player, name = PLAYERS[self.player]
        return web_server.play_path(f"{self.file}/{name}", player, is_adaptive=False)

    @property
    def script_arguments(self) -> dict[str, Any]:
        rate = _FAST if self.pixels <= _FAST_PIXELS or self.is_still else _MODERATE
        return {
            "rate": rate if self.seconds > _SHORT else 1.0,
            "skipTo": self.seconds - _ENDING if self.seconds > _LONG and not self.is_still else None,
            "segments": self.segments,
        }


@dataclass
class Observation:
    playback: dict[str, Any] = field(default_factory=dict)  # window.playback of watch_playback.js
    errors: list[str] = field(default_factory=list)
    browser_errors: list[str] = field(default_factory=list)


def play_all(plays: list[Play], folder: Path) -> dict[Play, Observation]:
    """Plays the streams in the folder, the longest first."""
    settings = Settings.from_environment()
    observed: dict[Play, Observation] = {}
    waiting = sorted(plays, key=lambda play: play.seconds)
    with serve_folder(folder, settings.tools) as url, chromium(settings) as browser:
        running: dict[Play, _Tab] = {}
        while waiting or running:
            while waiting and len(running) < _TABS:
                play = waiting.pop()
                running[play] = _Tab(browser, url + play.path, play)
            for play, tab in list(running.items()):
                observation = tab.observe()
                failed = any(error.startswith(("fatal", "shaka", "video:")) for error in observation.errors)
                if observation.playback.get("done") or failed or tab.stands_still:
                    observed[play] = observation
                    tab.close()
                    del running[play]
            time.sleep(0.1)
    return observed


class _Tab:
    """A tab that plays a stream."""

    def __init__(self, browser: Browser, url: str, play: Play) -> None:
        self._stack = ExitStack()
        self._page: PlayerPage = self._stack.enter_context(open_page(browser, url))
        self._page.page.evaluate(_SCRIPT, play.script_arguments)
        self._time = -1.0
        self._changed_at = time.monotonic()

    def observe(self) -> Observation:
        playback, errors = self._page.page.evaluate("() => [window.playback, window.errors]")
        if playback["time"] != self._time:
            self._time, self._changed_at = playback["time"], time.monotonic()
        return Observation(
            playback, [error for error in errors if error not in _HARMLESS], list(self._page.browser_errors)
        )

    @property
    def stands_still(self) -> bool:
        return time.monotonic() > self._changed_at + _PATIENCE

    def close(self) -> None:
        self._stack.close()
