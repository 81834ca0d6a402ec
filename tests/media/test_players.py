"""Streams of every category play to their end in a browser, with their quality switched on the way."""

from vidstreamx_devtools.media import uploads as corpus
import pytest
from vidstreamx_devtools.media import play_selection as streams_to_play
from vidstreamx_devtools.playback.runner import PLAYERS, play_all
from vidstreamx_devtools.media.transcode import OUTPUTS

_SWITCHABLE = 3.0  # seconds; a shorter stream is over before a player has switched
# A switch shows where the next segment begins, so that down and up again take three of them behind the first, which
# may be short.
_BOTH_WAYS = 10.0  # seconds
_END = 0.15  # seconds by which players' clocks and durations may differ
# hls.js says so, and goes on, when its clock stands for a quarter of a second, as it may where several tabs play at four
# times their speed (never seen of one tab alone); what is watched here are longer stalls.
_NOTICES = {"mediaError: bufferStalledError"}


@pytest.fixture(scope="module")
def played(binary):
    plays = streams_to_play.plays(binary)
    return {(play.file, play.player): (play, seen) for play, seen in play_all(plays, OUTPUTS).items()}


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("name", [upload.name for upload in streams_to_play.chosen()])
def test_a_stream_plays_to_its_end(played, name, player):
    play, seen = played[name, player]
    watched, told = seen.watched, f"{play}: {seen}"
    assert set(seen.errors) <= _NOTICES and not seen.complaints, told
    assert watched["done"], told
    assert not watched["stalls"] and not watched["gaps"] and not watched["jumped"], told
    assert abs(watched["duration"] - play.seconds) <= _END, told
    assert watched["duration"] - watched["time"] <= _END, told
    if len(play.heights) > 1 and play.segments > 1 and play.seconds >= _SWITCHABLE:
        steps = [after - before for before, after in zip(watched["sizes"], watched["sizes"][1:])]
        assert steps, told
        if play.segments > 3 and play.seconds >= _BOTH_WAYS:
            assert any(step < 0 for step in steps) and any(step > 0 for step in steps), told


def test_every_category_that_gives_a_stream_is_played():
    covered = set().union(*map(corpus.letters, streams_to_play.chosen()))
    assert covered >= set().union(*map(corpus.letters, corpus.uploads())) - {"u"}
