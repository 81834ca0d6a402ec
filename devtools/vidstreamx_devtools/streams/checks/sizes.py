"""Sizes: nothing is upscaled, shapes stay, pixels are square, sides are even."""

from __future__ import annotations

from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.source import VideoTrack
from vidstreamx_devtools.streams.published import Stream

LADDER = (2160, 1440, 1080, 720, 480, 360, 240)  # shorter sides


def expected_rungs(video: VideoTrack) -> list[tuple[float, float]]:
    """Exact sizes, before rounding to even numbers."""
    width, height = video.display
    short = min(width, height)
    chosen = [size for size in LADDER if size <= round(short)]
    return [(width * size / short, height * size / short) for size in chosen] or [(width, height)]


def check(video: VideoTrack, stream: Stream, found: Findings) -> None:
    expected = expected_rungs(video)
    rungs = stream.rungs()
    got = [sorted(rung.sizes) for rung in rungs]
    if not found.expect(
        len(got) == len(expected) and all(len(sizes) == 1 for sizes in got), "rungs", _show(expected), got
    ):
        return
    for rung, ideal, ((width, height),) in zip(rungs, expected, got):
        for side, pixels in (("width", width), ("height", height)):
            exact = ideal[0] if side == "width" else ideal[1]
            found.expect(
                pixels in _allowed(exact), f"{rung.name}: {side}", f"even, as near to {exact:.1f} as can be", pixels
            )
        bent = max(abs(float(aspect) - 1) for aspect in rung.pixel_aspects) * width
        found.expect(bent < 1, f"{rung.name}: pixels", "square, to less than a pixel of the width", rung.pixel_aspects)
        found.equal(f"{rung.name}: rotation left to the player", {0}, rung.rotations)


def _allowed(exact: float) -> set[int]:
    """The nearest even number, or the one below where the nearest is larger than the source."""
    below = max(2, int((exact + 1e-6) // 2) * 2)
    return {below} | {even for even in (below, below + 2) if abs(even - exact) <= 1 + 1e-6}


def _show(sizes: list[tuple[float, float]]) -> str:
    return ", ".join(f"{width:.0f}x{height:.0f}" for width, height in sizes)
