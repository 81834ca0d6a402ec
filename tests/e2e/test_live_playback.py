"""A growing stream plays, even if its task is killed.

The tests were tried with the following faults, and failed for each. If the page starts at the default
position of players, a late viewer misses the beginning. With an unchanged hls.js, a viewer who has played all
segments sees the last seconds again. If playlists drop listed segments, or an attempt does not resume the
previous one, listed segments are missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from vidstreamx_devtools.e2e.player_pages import OpenStream
from vidstreamx_devtools.e2e.playlist_monitor import StreamMonitor
from vidstreamx_devtools.e2e.stack_fixture import Consumer, StackFixture
from vidstreamx_devtools.e2e.upload_files import LONG_SECONDS, UploadFiles
from vidstreamx_devtools.e2e.viewer_session import ViewerSession
from vidstreamx_devtools.local.stack import JsonObject, Upload
from vidstreamx_devtools.waiting import wait_until

# These tests run after the scenario, whose consumer leaves the queue empty.
pytestmark = pytest.mark.usefixtures("scenario")

FRAME = 1 / 30  # seconds
# A busy machine encodes more slowly than the video plays.
TIMEOUT = 240
# By default hls.js starts three target durations before the end. In a stream of this length, that is after
# the beginning.
LATE = 20
# Players poll once per target duration, which is 4 s here, and a busy machine decodes late.
MAX_STALL = 15
# hls.js reports this when it has played all segments, or when the machine is busy. It continues by itself.
HARMLESS = {"mediaError: bufferStalledError"}


@pytest.fixture(scope="module")
def consumer(stack: StackFixture) -> Iterator[Consumer]:
    stack.wait_for_open_polls()
    running = stack.start_consumer("run")
    yield running
    assert running.terminate(timeout=15) == 0, running.output


def wait_for_stream(stack: StackFixture, upload: Upload, consumer: Consumer) -> StreamMonitor:
    stream = wait_until(lambda: StreamMonitor.find(stack, upload), timeout=60, interval=0.1)
    assert stream, consumer.output
    return stream


def running_task(stack: StackFixture, upload: Upload) -> JsonObject:
    task = stack.running_task(upload)
    assert task
    return task


def is_growing(stream: StreamMonitor) -> bool:
    return stream.report is None and not any(playlist.is_final for playlist in stream.playlists)


def assert_played_to_its_end(session: ViewerSession) -> None:
    ended = session.wait_until(lambda state: state["ended"], timeout=TIMEOUT)
    recorded = session.recorded
    assert ended["ended"], (ended, recorded)
    assert set(ended["errors"]) <= HARMLESS
    assert session.page.browser_errors == []
    assert session.longest_stall < MAX_STALL
    # The player did not restart, jump, or repeat a frame.
    assert abs(ended["duration"] - LONG_SECONDS) < 2 * FRAME
    assert ended["time"] == ended["duration"]
    assert recorded["last"] > LONG_SECONDS - 1
    assert recorded["backwards"] == []
    assert {name for name, _ in recorded["events"]} <= {"playing", "waiting", "ended"}, recorded
    for ranges in (recorded["played"], recorded["buffered"]):
        [[begin, end]] = ranges
        assert begin < 2 * FRAME, recorded
        assert abs(end - LONG_SECONDS) < 2 * FRAME, recorded
    assert ended["audioBytes"] > 0


def assert_complete(stream: StreamMonitor) -> dict[str, Any]:
    """Asserts that the stream is final and complete, and that no segment has changed. Returns the report."""
    response = wait_until(lambda: stream.report, timeout=30)
    assert response
    assert stream.is_final
    for playlist in stream.playlists:
        assert abs(playlist.seconds - LONG_SECONDS) < 2 * FRAME, playlist.url
    # Segments are immutable, so caches keep the first version of each.
    assert stream.changed_segments() == []
    report: dict[str, Any] = json.loads(response.text)
    return report


@pytest.mark.parametrize("name", ["long", "far_keyframes"])
def test_stream_plays_to_its_end_as_soon_as_it_appears(
    stack: StackFixture, files: UploadFiles, consumer: Consumer, open_stream: OpenStream, name: str
) -> None:
    upload = stack.upload(f"live/{name}.mp4", getattr(files, name))
    stream = wait_for_stream(stack, upload, consumer)
    with open_stream(upload.key) as page:
        session = ViewerSession(page, stream)
        # The paused task simulates an encoder that is slower than playback: the segments run out.
        with stack.paused(running_task(stack, upload)):
            started = session.wait_until(lambda state: state["time"] > 0, timeout=30)
            assert started["time"] > 0, started
            assert is_growing(stream), started
            waiting = session.wait_until(lambda state: state["time"] > stream.seconds - 0.2, timeout=60)
            available = stream.seconds
            assert available - 0.2 < waiting["time"] < LONG_SECONDS / 2, waiting
            assert is_growing(stream), waiting
        continued = session.wait_until(lambda state: state["time"] > available + 1, timeout=TIMEOUT)
        assert continued["time"] > available + 1, continued
        session.wait_until(lambda state: stream.is_final, timeout=TIMEOUT)
        assert stream.is_final, stream
        session.set_rate(4)
        assert_played_to_its_end(session)
    timings = assert_complete(stream)["timings"]
    assert timings["first_playable_seconds"] < timings["total_seconds"] / 2


def test_open_page_continues_when_the_task_is_killed(
    stack: StackFixture, files: UploadFiles, consumer: Consumer, open_stream: OpenStream
) -> None:
    upload = stack.upload("live/interrupted.mp4", files.long)
    stream = wait_for_stream(stack, upload, consumer)

    def is_late() -> bool:
        stream.poll()
        return stream.seconds >= LATE

    # A late viewer sees the beginning, although players would by default start near the end.
    assert wait_until(is_late, timeout=TIMEOUT), stream
    with open_stream(upload.key) as page:
        session = ViewerSession(page, stream)
        task = running_task(stack, upload)
        with stack.paused(task):
            started = session.wait_until(lambda state: state["time"] > 0, timeout=30)
            assert 0 < started["time"] < LATE / 4, started
            assert is_growing(stream), started
        assert stack.kill(task)
        session.set_rate(2)  # to play all segments before the next attempt resumes
        assert_played_to_its_end(session)
    assert_complete(stream)

    def ended_record() -> JsonObject | None:
        record = stack.record(upload)
        return record if record and record["state"] != "running" else None

    record = wait_until(ended_record, timeout=30)
    assert record, consumer.output
    assert [attempt["exit_code"] for attempt in record["attempts"]] == [137, 0]
    last = record["attempts"][-1]["task_arn"]
    assert any("resuming after an earlier attempt" in line for line in stack.task_log(last))
