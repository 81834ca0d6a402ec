"""Streams of every category play to their end in a browser, with quality switches on the way."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from vidstreamx_devtools.media import play_selection
from vidstreamx_devtools.media.media_files import UNUSABLE, media_files
from vidstreamx_devtools.media.transcode import OUTPUTS
from vidstreamx_devtools.playback.runner import PLAYERS, Observation, Play, play_all

Played = dict[tuple[str, str], tuple[Play, Observation]]

_SWITCHABLE = 3.0  # seconds; a shorter stream ends before a player has switched
# A switch takes effect at the next segment. Switches in both directions need three segments after the first
# one, which can be short.
_BOTH_DIRECTIONS = 10.0  # seconds
_END_TOLERANCE = 0.15  # seconds between the clock of a player and its duration
# hls.js reports this when its clock stands still for a quarter of a second, and continues. It happens when
# several tabs play at four times their speed, and was not seen with a single tab. watch_playback.js detects
# longer stalls.
_HARMLESS = {"mediaError: bufferStalledError"}


@pytest.fixture(scope="module")
def played(binary: Path) -> Played:
    plays = play_selection.plays(binary)
    return {
        (play.file, play.player): (play, observation)
        for play, observation in play_all(plays, OUTPUTS).items()
    }


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("name", [file.name for file in play_selection.selected()])
def test_stream_plays_to_its_end(played: Played, name: str, player: str) -> None:
    play, observation = played[name, player]
    playback, details = observation.playback, f"{play}: {observation}"
    assert set(observation.errors) <= _HARMLESS, details
    assert not observation.browser_errors, details
    assert playback["done"], details
    assert not playback["stalls"], details
    assert not playback["gaps"], details
    assert not playback["jumps"], details
    assert abs(playback["duration"] - play.seconds) <= _END_TOLERANCE, details
    assert playback["duration"] - playback["time"] <= _END_TOLERANCE, details
    if len(play.heights) > 1 and play.segments > 1 and play.seconds >= _SWITCHABLE:
        steps = [after - before for before, after in pairwise(playback["heights"])]
        assert steps, details
        if play.segments > 3 and play.seconds >= _BOTH_DIRECTIONS:
            assert any(step < 0 for step in steps), details
            assert any(step > 0 for step in steps), details


def test_selection_covers_every_usable_category() -> None:
    covered = frozenset[str]().union(*(file.categories for file in play_selection.selected()))
    assert covered >= frozenset[str]().union(*(file.categories for file in media_files())) - {UNUSABLE}
