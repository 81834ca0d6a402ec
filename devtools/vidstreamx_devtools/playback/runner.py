"""Plays many streams at a time, one tab each, and gives what every tab's viewer noticed."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from vidstreamx_devtools.playback import browser
from vidstreamx_devtools.playback import web_server as pages
from vidstreamx_devtools.playback import file_server as shelf
from vidstreamx_devtools.playback.player_page import Screen, screen
from vidstreamx_devtools.settings import Settings

_TABS = 4  # more would wait for each other's decoders on two cores
_PATIENCE = 45  # seconds for one play
_WATCH = (Path(__file__).parent / "watch_playback.js").read_text()
_LONG = 30.0  # seconds; of what is longer, the beginning and the end are played
_ENDING = 6.0
_QUICK = 4.0  # times normal speed, for pictures that a busy machine decodes at that speed
_QUICK_PIXELS = 640 * 480
_NOT_SO_QUICK = 1.5
_SHORT = 10.0  # seconds; what is shorter plays at its own speed, to leave time for switching

# hls.js tells of a request that is given up because the level changes.
_HARMLESS = {"networkError: aborted"}

PLAYERS = {
    "hls.js HLS": ("", "master.m3u8"),
    "Shaka HLS": ("shaka", "master.m3u8"),
    "Shaka DASH": ("shaka", "manifest.mpd"),
}


@dataclass(frozen=True)
class Play:
    """A stream and the way it is played."""

    file: str
    player: str  # of PLAYERS
    seconds: float  # of the stream
    heights: tuple[int, ...]  # of its rungs
    pixels: int  # of the largest
    segments: int

    @property
    def url(self) -> str:
        player, name = PLAYERS[self.player]
        return pages.play_path(f"{self.file}/{name}", player)

    @property
    def directions(self) -> dict:
        quick = _QUICK if self.pixels <= _QUICK_PIXELS else _NOT_SO_QUICK
        return {
            "rate": quick if self.seconds > _SHORT else 1.0,
            "skipTo": self.seconds - _ENDING if self.seconds > _LONG else None,
            "segments": self.segments,
        }


@dataclass
class Seen:
    watched: dict = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def play_all(plays: list[Play], folder: Path) -> dict[Play, Seen]:
    settings = Settings.from_environment()
    seen: dict[Play, Seen] = {}
    waiting = sorted(plays, key=lambda play: play.seconds)
    with shelf.serving(folder, settings.tools) as address, browser.chromium(settings) as chromium:
        running: dict[Play, tuple[Screen, ExitStack, float]] = {}
        while waiting or running:
            while waiting and len(running) < _TABS:
                play = waiting.pop()
                running[play] = (*_open(chromium, address + play.url, play), time.monotonic() + _PATIENCE)
            for play, (shown, tab, deadline) in list(running.items()):
                state = _state(shown)
                failed = any(error.startswith(("fatal", "shaka", "video:")) for error in state.errors)
                if state.watched.get("done") or failed or time.monotonic() > deadline:
                    seen[play] = state
                    tab.close()
                    del running[play]
            time.sleep(0.1)
    return seen


def _open(chromium, url: str, play: Play) -> tuple[Screen, ExitStack]:
    tab = ExitStack()
    shown = tab.enter_context(screen(chromium, url))
    shown.page.evaluate(_WATCH, play.directions)
    return shown, tab


def _state(shown: Screen) -> Seen:
    watched, errors = shown.page.evaluate("() => [window.watched, window.errors]")
    return Seen(watched, [error for error in errors if error not in _HARMLESS], list(shown.complaints))
