"""Picture: the same content in the same orientation and colours, with BT.709 tags, and progressive."""

from __future__ import annotations

from statistics import fmean

from vidstreamx_devtools.streams.arrays import Array
from vidstreamx_devtools.streams.findings import Findings
from vidstreamx_devtools.streams.picture import BT601, BT709, FrameStats, thumbnail_difference
from vidstreamx_devtools.streams.published import SAME_FRAME, Rendition, Stream
from vidstreamx_devtools.streams.source import VideoTrack

# Thumbnails differ by at least 0.5 if a picture is rotated or replaced, and by less than 0.15 if it is only
# encoded.
_MAX_DIFFERENCE = 0.35
_MAX_DIFFERENCE_HDR = 0.6  # larger, because tone mapping changes bright and colourful parts most
_COLOUR_TOLERANCE = 3.0  # maximum difference of the mean colour, on a scale of 255
_CONTRAST_TOLERANCE = 0.06
_FLAT = 0.03  # contrast below which pictures are not compared
_LUMA_TOLERANCE_HDR = 0.12  # tone mapping has no single right result
_COLOURFULNESS = (0.6, 1.6)
_COMBING_LEFT = 0.25  # share of the source's combing that may remain

FramePair = tuple[FrameStats, FrameStats]  # frame of the source, frame of the rung


def check(video: VideoTrack, stream: Stream, findings: Findings) -> None:
    copied = {entry["name"] for entry in stream.report.get("renditions", []) if entry.get("copied")}
    for rung in stream.rungs():
        pairs = _pairs(video, rung)
        label = f"{rung.name}: frames to compare"
        if not findings.expect(pairs, label, "some", "none at the times of the source"):
            continue
        _check_content(pairs, _MAX_DIFFERENCE_HDR if video.is_hdr else _MAX_DIFFERENCE, rung, findings)
        if rung.name not in copied:
            _check_tags(rung, findings)
        if video.is_hdr:
            _check_tone_mapping(pairs, rung, findings)
        else:
            _check_colours(pairs, rung, findings)
            _check_contrast(pairs, rung, findings)
        _check_progressive(video, pairs, rung, findings)


def _pairs(video: VideoTrack, rung: Rendition) -> list[FramePair]:
    return [
        (source, encoded)
        for source in video.sampled_frames
        for encoded in rung.sampled_frames
        if abs(source.time - encoded.time) <= SAME_FRAME
    ]


def _check_content(pairs: list[FramePair], most: float, rung: Rendition, findings: Findings) -> None:
    worst = max(thumbnail_difference(source.thumbnail, encoded.thumbnail) for source, encoded in pairs)
    findings.expect(
        worst <= most, f"{rung.name}: difference to the source", f"at most {most}", f"{worst:.2f}"
    )


def _check_tags(rung: Rendition, findings: Findings) -> None:
    tags = {
        (frame.primaries, frame.transfer, frame.matrix, "full" if frame.full_range else "limited")
        for frame in rung.sampled_frames
    }
    findings.equal(f"{rung.name}: primaries, transfer, matrix, range", {(1, 1, 1, "limited")}, tags)


def _check_colours(pairs: list[FramePair], rung: Rendition, findings: Findings) -> None:
    matrices = _possible_matrices(pairs)

    def difference(pair: FramePair, matrix: int | None) -> float:
        source, encoded = pair
        return float(abs(source.rgb(matrix) - encoded.rgb()).max())

    worst = min(max(difference(pair, matrix) for pair in pairs) for matrix in matrices)
    source, encoded = max(pairs, key=lambda pair: difference(pair, matrices[0]))
    findings.expect(
        worst <= _COLOUR_TOLERANCE,
        f"{rung.name}: mean colour",
        f"{_format(source.rgb(matrices[0]))} ± {_COLOUR_TOLERANCE:.0f}",
        f"{_format(encoded.rgb())} at {source.time:.2f} s",
    )


def _check_contrast(pairs: list[FramePair], rung: Rendition, findings: Findings) -> None:
    """Full range interpreted as limited range, or the reverse, changes the contrast by a seventh."""
    after = fmean(encoded.contrast() for _, encoded in pairs)
    if after <= _FLAT:
        return
    ratios = [
        after / max(fmean(source.contrast(matrix) for source, _ in pairs), 1e-6)
        for matrix in _possible_matrices(pairs)
    ]
    ratio = min(ratios, key=lambda ratio: abs(ratio - 1))
    findings.near(f"{rung.name}: contrast relative to the source", 1.0, ratio, _CONTRAST_TOLERANCE)


def _possible_matrices(pairs: list[FramePair]) -> list[int | None]:
    """Both matrices for an untagged source: players choose one by the size of the picture."""
    return [None] if pairs[0][0].has_matrix else [BT709, BT601]


def _check_tone_mapping(pairs: list[FramePair], rung: Rendition, findings: Findings) -> None:
    """PQ or HLG shown as SDR without tone mapping is too light in the shadows, and pale."""
    references = [source.as_sdr for source, _ in pairs if source.as_sdr]
    if not references:
        return
    luma = fmean(reference.luma for reference in references)
    encoded_luma = fmean(encoded.means[0] for _, encoded in pairs)
    findings.near(f"{rung.name}: mean luma", luma, encoded_luma, _LUMA_TOLERANCE_HDR)
    expected = fmean(reference.colourfulness for reference in references)
    low, high = (expected * factor for factor in _COLOURFULNESS)
    got = fmean(encoded.colourfulness for _, encoded in pairs)
    in_range = low - 0.005 <= got <= high + 0.005
    findings.expect(in_range, f"{rung.name}: colourfulness", f"{low:.3f} to {high:.3f}", f"{got:.3f}")


def _check_progressive(
    video: VideoTrack, pairs: list[FramePair], rung: Rendition, findings: Findings
) -> None:
    is_progressive = not any(frame.interlaced for frame in rung.sampled_frames)
    findings.expect(is_progressive, f"{rung.name}: frames", "progressive", "interlaced")
    if video.interlaced:
        before = fmean(source.combing for source, _ in pairs)
        after = fmean(encoded.combing for _, encoded in pairs)
        most = max(before * _COMBING_LEFT, 0.5)
        findings.expect(
            after <= most, f"{rung.name}: combing", f"at most {most:.1f} of {before:.1f}", f"{after:.1f}"
        )


def _format(colour: Array) -> str:
    return "/".join(f"{value:.0f}" for value in colour)
