"""What is seen: the same picture the same way up, in the same colours, as tagged, and progressive."""

from __future__ import annotations

from statistics import fmean

from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.picture import BT601, BT709, Look, likeness
from vidstreamx_devtools.streams.source import VideoTrack
from vidstreamx_devtools.streams.published import SAME_FRAME, Rendition, Stream

_UNLIKE = 0.35  # of thumbnails; turned or foreign pictures are at 0.5 and more, recoded ones under 0.15
_UNLIKE_HDR = 0.6  # tone mapping moves bright and colourful parts against the others
_COLOUR = 3.0  # of 255, in the mean
_CONTRAST = 0.06
_FLAT = 0.03  # of luma: a picture with less contrast has none to compare
_TONE = 0.12  # of luma, tone mapping being a matter of taste
_COLOURFULNESS = (0.6, 1.6)
_TEETH = 0.25  # of the source's combing


def check(video: VideoTrack, stream: Stream, found: Findings) -> None:
    copied = {one["name"] for one in stream.report.get("renditions", []) if one.get("copied")}
    for rung in stream.rungs():
        pairs = _pairs(video, rung)
        if not found.expect(bool(pairs), f"{rung.name}: frames to look at", "some", "none at the source's times"):
            continue
        _picture(pairs, _UNLIKE_HDR if video.is_hdr else _UNLIKE, rung, found)
        if rung.name not in copied:
            _tags(rung, found)
        if video.is_hdr:
            _tone(pairs, rung, found)
        else:
            _colours(pairs, rung, found)
            _contrast(pairs, rung, found)
        _progressive(video, pairs, rung, found)


def _pairs(video: VideoTrack, rung: Rendition) -> list[tuple[Look, Look]]:
    return [
        (mine, theirs) for mine in video.looks for theirs in rung.looks if abs(mine.time - theirs.time) <= SAME_FRAME
    ]


def _picture(pairs: list[tuple[Look, Look]], most: float, rung: Rendition, found: Findings) -> None:
    unlike = max(likeness(mine.thumbnail, theirs.thumbnail) for mine, theirs in pairs)
    found.expect(unlike <= most, f"{rung.name}: pictures", f"the source's, to within {most}", f"{unlike:.2f}")


def _tags(rung: Rendition, found: Findings) -> None:
    tags = {
        (one.primaries, one.transfer, one.matrix, "full" if one.full_range else "limited") for one in rung.looks
    }
    found.equal(f"{rung.name}: primaries, transfer, matrix, range", {(1, 1, 1, "limited")}, tags)


def _colours(pairs: list[tuple[Look, Look]], rung: Rendition, found: Findings) -> None:
    def apart(matrix: int | None) -> float:
        return max(float(abs(mine.rgb(matrix) - theirs.rgb()).max()) for mine, theirs in pairs)

    choices = _choices(pairs)
    worst = min(map(apart, choices))
    mine, theirs = max(pairs, key=lambda pair: float(abs(pair[0].rgb(choices[0]) - pair[1].rgb()).max()))
    found.expect(
        worst <= _COLOUR,
        f"{rung.name}: mean colour",
        f"{_rgb(mine.rgb(choices[0]))} ± {_COLOUR:.0f}",
        f"{_rgb(theirs.rgb())} at {mine.time:.2f} s",
    )


def _contrast(pairs: list[tuple[Look, Look]], rung: Rendition, found: Findings) -> None:
    """Full range taken for limited, or the other way round, changes it by a seventh."""
    after = fmean(theirs.contrast() for _, theirs in pairs)
    changes = [after / max(fmean(mine.contrast(matrix) for mine, _ in pairs), 1e-6) for matrix in _choices(pairs)]
    if after > _FLAT:
        change = min(changes, key=lambda one: abs(one - 1))
        found.near(f"{rung.name}: contrast against the source's", 1.0, change, _CONTRAST)


def _choices(pairs: list[tuple[Look, Look]]) -> list[int | None]:
    """Untagged sources may be taken for either matrix, as players do by size."""
    return [None] if pairs[0][0].has_matrix else [BT709, BT601]


def _tone(pairs: list[tuple[Look, Look]], rung: Rendition, found: Findings) -> None:
    """Washed out is what PQ or HLG shown as SDR is: too light in the shadows, and pale."""
    references = [mine.as_sdr for mine, _ in pairs if mine.as_sdr]
    if not references:
        return
    wanted = fmean(one.luma for one in references)
    found.near(f"{rung.name}: mean luma", wanted, fmean(theirs.means[0] for _, theirs in pairs), _TONE)
    colourful = fmean(one.colourfulness for one in references)
    low, high = (colourful * factor for factor in _COLOURFULNESS)
    got = fmean(theirs.colourfulness for _, theirs in pairs)
    holds = low - 0.005 <= got <= high + 0.005
    found.expect(holds, f"{rung.name}: colourfulness", f"{low:.3f} to {high:.3f}", f"{got:.3f}")


def _progressive(video: VideoTrack, pairs: list[tuple[Look, Look]], rung: Rendition, found: Findings) -> None:
    found.expect(not any(one.interlaced for one in rung.looks), f"{rung.name}: frames", "progressive", "interlaced")
    if video.interlaced:
        before = fmean(mine.combing for mine, _ in pairs)
        after = fmean(theirs.combing for _, theirs in pairs)
        most = max(before * _TEETH, 0.5)
        found.expect(after <= most, f"{rung.name}: combing", f"at most {most:.1f} of {before:.1f}", f"{after:.1f}")


def _rgb(colour) -> str:
    return "/".join(f"{value:.0f}" for value in colour)
