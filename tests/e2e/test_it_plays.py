"""What comes out plays in a browser, in every quality that the report promises."""

from vidstreamx_devtools.e2e import player_pages as player
import pytest


@pytest.fixture(scope="module")
def open_screen(world):
    with player.screens(world) as open_one:
        yield open_one


def ladder(case) -> list[tuple[int, int]]:
    return sorted((one["width"], one["height"]) for one in case.report["renditions"] if one["kind"] == "video")


def levels(state) -> list[tuple[int, int]]:
    return sorted((level["width"], level["height"]) for level in state["levels"])


def plays_to_its_end(screen, case) -> None:
    begun = screen.until(lambda state: state["time"] > 0.5, within=20)
    assert begun["time"] > 0.5, begun
    assert levels(begun) == ladder(case)
    length = case.report["probe"]["duration_seconds"]
    ended = screen.until(lambda state: state["ended"], within=length + 20)
    assert ended["ended"], ended
    assert ended["errors"] == [] and screen.complaints == []
    assert abs(ended["time"] - length) < 0.3
    assert (ended["width"], ended["height"]) in ladder(case)
    assert ended["frames"] > length * 10
    assert ended["audioBytes"] > 0


def test_the_1080p_clip_plays_to_its_end_with_the_ladders_qualities(open_screen, story):
    case = story["1080p clip"]
    with open_screen(case.stem) as screen:
        plays_to_its_end(screen, case)


def test_every_quality_can_be_chosen_and_shows_its_size(open_screen, story):
    case = story["1080p clip"]
    with open_screen(case.stem) as screen:
        screen.until(lambda state: state["time"] > 0, within=20)
        for turn, (width, height) in enumerate(ladder(case)):
            # To and fro, as a browser shows what it has decoded until it has to seek.
            at = (turn + 1) % 2 * 5
            screen.show_level(height, at)
            shown = screen.until(lambda state: state["height"] == height and state["time"] > at + 0.2, within=15)
            assert (shown["width"], shown["height"]) == (width, height), shown
        # What is on its way when the level changes is given up, which hls.js calls an error.
        assert [error for error in shown["errors"] if error != "networkError: aborted"] == []


@pytest.mark.parametrize("key", ["spaces and marks", "unicode", "leading dots", "1,024 bytes"])
def test_a_stream_with_an_odd_key_plays_to_its_end(open_screen, story, key):
    case = story[f"key: {key}"]
    with open_screen(case.stem) as screen:
        plays_to_its_end(screen, case)


def test_shaka_player_plays_it_as_well(open_screen, story):
    case = story["key: quotes and brackets"]
    with open_screen(case.stem, "shaka") as screen:
        plays_to_its_end(screen, case)


def test_a_replaced_upload_shows_its_new_content(open_screen, story):
    case = story["its replacement"]
    with open_screen(case.stem) as screen:
        shown = screen.until(lambda state: state["time"] > 0.5, within=20)
        assert levels(shown) == ladder(case)
        assert abs(shown["duration"] - case.report["probe"]["duration_seconds"]) < 0.3
