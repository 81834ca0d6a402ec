"""Nobody waits for a video to be finished: it plays while it is made, also when the task that makes it is killed.

Seen to fail: with a page that begins where players do by themselves, who comes late misses the beginning; with hls.js
as it is, who has seen all there is so far sees the last seconds again; with playlists that leave out what they had
already announced, or an attempt that knows nothing of the one before, segments are gone that players were told of.
"""

import json

from vidstreamx_devtools.e2e import player_pages as player
import pytest
from vidstreamx_devtools.e2e.upload_files import LONG_SECONDS
from vidstreamx_devtools.e2e.playlist_monitor import Growing
from vidstreamx_devtools.waiting import until
from vidstreamx_devtools.e2e.viewer_session import Watching

pytestmark = pytest.mark.usefixtures("story")  # whose consumer has ended, and left the queue empty

FRAME = 1 / 30  # seconds
# A busy machine makes the video at less than its speed.
PATIENCE = 240
# Three target durations behind the end, which is where hls.js would begin, is not the beginning.
LATE = 20
# Players look again once per target duration, which is 4 s here; a busy machine decodes late.
MOST_STUCK = 15
# hls.js says so when it has played all there is, or the machine is busy. It goes on by itself.
WAITING = {"mediaError: bufferStalledError"}


@pytest.fixture(scope="module")
def open_screen(world):
    with player.screens(world) as open_one:
        yield open_one


@pytest.fixture(scope="module")
def consumer(world):
    world.until_no_poll_is_left()
    running = world.consumer("run")
    yield running
    assert running.terminate(within=15) == 0, running.output


def appears(world, upload, consumer) -> Growing:
    stream = until(lambda: Growing.appearing(world, upload), within=60, every=0.1)
    assert stream, consumer.output
    return stream


def is_not_complete(stream) -> bool:
    return stream.report is None and not any(rendition.is_final for rendition in stream.renditions)


def assert_it_played_to_its_end(watching) -> None:
    ended = watching.until(lambda state: state["ended"], within=PATIENCE)
    noted = watching.noted
    assert ended["ended"], (ended, noted)
    assert set(ended["errors"]) <= WAITING and watching.screen.complaints == []
    assert watching.longest_stuck < MOST_STUCK
    # All of it, at once: nobody began anew, jumped, or saw a frame again.
    assert abs(ended["duration"] - LONG_SECONDS) < 2 * FRAME and ended["time"] == ended["duration"]
    assert noted["last"] > LONG_SECONDS - 1
    assert noted["back"] == [] and {name for name, _ in noted["events"]} <= {"playing", "waiting", "ended"}, noted
    for what in ("played", "buffered"):
        [[begin, end]] = noted[what]
        assert begin < 2 * FRAME and abs(end - LONG_SECONDS) < 2 * FRAME, noted
    assert ended["audioBytes"] > 0


def assert_it_is_finished(stream) -> dict:
    """Gives the report."""
    report = until(lambda: stream.report, within=30)
    assert report and stream.is_final
    for rendition in stream.renditions:
        assert abs(rendition.seconds - LONG_SECONDS) < 2 * FRAME, rendition.url
    # For ever means for ever: what a cache has kept is what manifests speak of.
    assert stream.changed() == []
    return json.loads(report.text)


@pytest.mark.parametrize("clip", ["long", "far_apart"])
def test_a_stream_plays_to_its_end_from_the_moment_it_appears(world, clips, consumer, open_screen, clip):
    upload = world.upload(f"growing/{clip}.mp4", getattr(clips, clip))
    stream = appears(world, upload, consumer)
    with open_screen(upload.key) as screen:
        watching = Watching(screen, stream)
        with world.frozen(world.running_task(upload)):
            begun = watching.until(lambda state: state["time"] > 0, within=30)
            assert begun["time"] > 0 and is_not_complete(stream), begun
            # As with an encoder that is slower than the video: for now there is no more to play.
            waits = watching.until(lambda state: state["time"] > stream.seconds - 0.2, within=60)
            known = stream.seconds
            assert known - 0.2 < waits["time"] < LONG_SECONDS / 2 and is_not_complete(stream), waits
        further = watching.until(lambda state: state["time"] > known + 1, within=PATIENCE)
        assert further["time"] > known + 1, further
        watching.until(lambda state: stream.is_final, within=PATIENCE)
        assert stream.is_final, stream
        watching.at_rate(4)
        assert_it_played_to_its_end(watching)
    report = assert_it_is_finished(stream)
    assert report["timings"]["first_playable_seconds"] < report["timings"]["total_seconds"] / 2


def test_a_page_that_is_open_plays_on_when_the_task_is_killed(world, clips, consumer, open_screen):
    upload = world.upload("growing/interrupted.mp4", clips.long)
    stream = appears(world, upload, consumer)
    # Who comes later, when players would begin close to the end, sees the beginning as well.
    assert until(lambda: stream.look() or stream.seconds >= LATE, within=PATIENCE), stream
    with open_screen(upload.key) as screen:
        watching = Watching(screen, stream)
        task = world.running_task(upload)
        with world.frozen(task):
            begun = watching.until(lambda state: state["time"] > 0, within=30)
            assert 0 < begun["time"] < LATE / 4 and is_not_complete(stream), begun
        assert world.kill(task)
        watching.at_rate(2)  # to be at the end of what there is before the next attempt goes on
        assert_it_played_to_its_end(watching)
    assert_it_is_finished(stream)
    record = until(lambda: (found := world.record(upload))["state"] != "running" and found, within=30)
    assert record, consumer.output
    assert [attempt["exit_code"] for attempt in record["attempts"]] == [137, 0]
    last = record["attempts"][-1]["task_arn"]
    assert any("going on where an earlier attempt stopped" in line for line in world.task_log(last))
