"""Finished streams play in a browser, in every quality that their reports list."""

from __future__ import annotations

import pytest
from vidstreamx_devtools.e2e.player_pages import OpenStream
from vidstreamx_devtools.e2e.scenario import Case, Scenario
from vidstreamx_devtools.playback.player_page import PlayerPage, State


def ladder(case: Case) -> list[tuple[int, int]]:
    renditions = case.report["renditions"]
    return sorted((one["width"], one["height"]) for one in renditions if one["kind"] == "video")


def levels(state: State) -> list[tuple[int, int]]:
    return sorted((level["width"], level["height"]) for level in state["levels"])


def duration(case: Case) -> float:
    return float(case.report["probe"]["duration_seconds"])


def assert_plays_to_its_end(page: PlayerPage, case: Case) -> None:
    started = page.wait_until(lambda state: state["time"] > 0.5, timeout=20)
    assert started["time"] > 0.5, started
    assert levels(started) == ladder(case)
    seconds = duration(case)
    ended = page.wait_until(lambda state: state["ended"], timeout=seconds + 20)
    assert ended["ended"], ended
    assert ended["errors"] == []
    assert page.browser_errors == []
    assert abs(ended["time"] - seconds) < 0.3
    assert (ended["width"], ended["height"]) in ladder(case)
    assert ended["frames"] > seconds * 10
    assert ended["audioBytes"] > 0


def test_1080p_clip_plays_to_its_end_with_all_qualities(open_stream: OpenStream, scenario: Scenario) -> None:
    case = scenario["1080p clip"]
    with open_stream(case.address) as page:
        assert_plays_to_its_end(page, case)


def test_every_quality_can_be_selected_and_has_its_size(open_stream: OpenStream, scenario: Scenario) -> None:
    case = scenario["1080p clip"]
    with open_stream(case.address) as page:
        page.wait_until(lambda state: state["time"] > 0, timeout=20)
        for number, (width, height) in enumerate(ladder(case)):
            # The positions alternate, because without a seek the browser first shows frames that it has
            # decoded already.
            position = (number + 1) % 2 * 5
            page.select_level(height, position)

            def is_shown(state: State, height: int = height, position: int = position) -> bool:
                return bool(state["height"] == height and state["time"] > position + 0.2)

            state = page.wait_until(is_shown, timeout=15)
            assert (state["width"], state["height"]) == (width, height), state
        # hls.js reports the requests that it aborts when the level changes.
        assert [error for error in state["errors"] if error != "networkError: aborted"] == []


@pytest.mark.parametrize("key", ["spaces and marks", "unicode", "leading dots", "1,024 bytes"])
def test_stream_with_an_unusual_key_plays_to_its_end(
    open_stream: OpenStream, scenario: Scenario, key: str
) -> None:
    case = scenario[f"key: {key}"]
    with open_stream(case.address) as page:
        assert_plays_to_its_end(page, case)


def test_shaka_player_plays_a_stream_to_its_end(open_stream: OpenStream, scenario: Scenario) -> None:
    case = scenario["key: quotes and brackets"]
    with open_stream(case.address, "shaka") as page:
        assert_plays_to_its_end(page, case)


def test_replaced_upload_plays_the_new_content(open_stream: OpenStream, scenario: Scenario) -> None:
    case = scenario["the replacement"]
    with open_stream(case.address) as page:
        state = page.wait_until(lambda state: state["time"] > 0.5, timeout=20)
        assert levels(state) == ladder(case)
        assert abs(state["duration"] - duration(case)) < 0.3
