"""Sizes: no rung is upscaled, aspect ratios are kept, pixels are square, and sides are even."""

from __future__ import annotations

from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.published import Stream
from vidstreamx_devtools.streams.source import VideoTrack

LADDER = (2160, 1440, 1080, 720, 480, 360, 240)  # pixels of the shorter side


def expected_rungs(video: VideoTrack) -> list[tuple[float, float]]:
    """Exact sizes, not rounded to even numbers."""
    width, height = video.display_size
    short = min(width, height)
    chosen = [size for size in LADDER if size <= round(short)]
    return [(width * size / short, height * size / short) for size in chosen] or [(width, height)]


def check(video: VideoTrack, stream: Stream, findings: Findings) -> None:
    expected = expected_rungs(video)
    rungs = stream.rungs()
    got = [sorted(rung.sizes) for rung in rungs]
    one_size_each = len(got) == len(expected) and all(len(sizes) == 1 for sizes in got)
    if not findings.expect(one_size_each, "rungs", _format(expected), got):
        return
    for rung, exact_size, ((width, height),) in zip(rungs, expected, got, strict=True):
        for side, exact, pixels in (("width", exact_size[0], width), ("height", exact_size[1], height)):
            is_allowed = pixels in _allowed(exact)
            findings.expect(
                is_allowed, f"{rung.name}: {side}", f"the even number next to {exact:.1f}", pixels
            )
        distortion = max(abs(float(aspect) - 1) for aspect in rung.pixel_aspects) * width
        label = f"{rung.name}: pixel aspect ratio"
        findings.expect(distortion < 1, label, "1, within a pixel of the width", rung.pixel_aspects)
        findings.equal(f"{rung.name}: rotation left to the player", {0}, rung.rotations)


def _allowed(exact: float) -> set[int]:
    """The nearest even number, or the one below: the nearest can be larger than the source."""
    below = max(2, int((exact + 1e-6) // 2) * 2)
    return {below} | {even for even in (below, below + 2) if abs(even - exact) <= 1 + 1e-6}


def _format(sizes: list[tuple[float, float]]) -> str:
    return ", ".join(f"{width:.0f}x{height:.0f}" for width, height in sizes)
