"""Streams of every category play to their end in a browser, with quality switches on the way."""

from __future__ import annotations

import pytest
from vidstreamx_devtools.media import play_selection
from vidstreamx_devtools.media.media_files import UNUSABLE, media_files
from vidstreamx_devtools.media.transcode import OUTPUTS, Transcoder
from vidstreamx_devtools.playback.runner import PLAYERS, Observation, Play, play_all

Played = dict[tuple[str, str], tuple[Play, Observation]]

_SWITCHABLE = 3.0  # seconds; a shorter stream ends before a player has switched
# A switch takes effect at the next segment or the one after it.
_SEGMENTS_UNTIL_SWITCH = 2
_END_TOLERANCE = 0.15  # seconds between the clock of a player and its duration
_LAST_FRAME = (
    0.6  # seconds from the last picture to the end: it is repeated twice a second if it stands still
)
# hls.js reports these when its clock stands still for a second, and continues. It happens when several tabs
# play at four times their speed, or while it refills what a switch removed. watch_playback.js detects
# stalls that are not the machine's, and holes that a viewer notices.
_HARMLESS = {
    "mediaError: bufferStalledError",
    "mediaError: bufferNudgeOnStall",
    "mediaError: bufferSeekOverHole",
}


@pytest.fixture(scope="module")
def played(transcoder: Transcoder) -> Played:
    plays = play_selection.plays(transcoder)
    return {
        (play.file, play.player): (play, observation)
        for play, observation in play_all(plays, OUTPUTS).items()
    }


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("name", play_selection.played_names())
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
    if play.is_still:
        assert playback["duration"] - playback["lastFrame"] <= _LAST_FRAME, details
    if play.has_audio:
        assert playback["audioBytes"] > 0, details
    if len(play.heights) > 1 and play.segments > 1 and play.seconds >= _SWITCHABLE:
        assert playback["requests"], details
        in_time = play.seconds - _SEGMENTS_UNTIL_SWITCH * play.longest
        assert playback["shown"] >= sum(time <= in_time for time in playback["requests"]), details


def test_selection_covers_every_usable_category() -> None:
    covered = frozenset[str]().union(*(file.categories for file in play_selection.selected()))
    assert covered >= frozenset[str]().union(*(file.categories for file in media_files())) - {UNUSABLE}
