"""Measures decoded frames, independently of their size: means, a thumbnail, combing.

The conversion to normalised planes is implemented here, because the tests check FFmpeg's colour conversion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from vidstreamx_devtools.streams.arrays import Array
from vidstreamx_devtools.streams.hdr_reference import SdrReference, sdr_reference

_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}  # Kr, Kb
BT709 = 1
BT601 = 6
_THUMBNAIL = 16  # pixels on each side
_TOOTH = 0.04  # minimum difference of luma between a line and its neighbours


@dataclass(frozen=True)
class FrameStats:
    """Measurements of one frame."""

    time: float
    width: int
    height: int
    full_range: bool
    matrix: int  # matrix, transfer and primaries are code points of ITU-T H.273
    transfer: int
    primaries: int
    interlaced: bool
    means: tuple[float, float, float]  # Y from 0 to 1, Cb and Cr from -0.5 to 0.5
    colourfulness: float  # mean distance of chroma from grey
    as_sdr: SdrReference | None  # the expected look in SDR, for an HDR picture
    thumbnail: Array  # luma as displayed, from 0 to 1
    chroma_thumbnails: list[Array]  # Cb and Cr
    combing: float  # see `combing`

    def rgb(self, matrix: int | None = None) -> Array:
        """The mean colour from 0 to 255, as coded (not linear)."""
        luma, blue, red = self.means
        return self._to_rgb(luma, blue, red, matrix) * 255

    def contrast(self, matrix: int | None = None) -> float:
        """The contrast of the thumbnail in RGB. The contrast of luma alone depends on the matrix."""
        blue, red = self.chroma_thumbnails or [np.zeros_like(self.thumbnail)] * 2
        return float(self._to_rgb(self.thumbnail, blue, red, matrix).std(axis=(1, 2)).mean())

    def _to_rgb(self, luma: Any, blue: Any, red: Any, matrix: int | None) -> Array:
        kr, kb = _MATRICES.get(self.matrix if matrix is None else matrix, _MATRICES[BT601])
        r = luma + 2 * (1 - kr) * red
        b = luma + 2 * (1 - kb) * blue
        return np.array([r, (luma - kr * r - kb * b) / (1 - kr - kb), b])

    @property
    def has_matrix(self) -> bool:
        return self.matrix in _MATRICES


def normalised_planes(frame: av.VideoFrame) -> list[Array]:
    """Luma from 0 to 1 and chroma from -0.5 to 0.5, for any range and bit depth. One plane for grey."""
    unit = 1 << (frame.format.components[0].bits - 8)
    luma, *chroma = (plane.astype(np.float32) / unit for plane in _coded_planes(frame))
    if _is_full_range(frame):
        return [luma / 255, *((plane - 128) / 255 for plane in chroma)]
    return [(luma - 16) / 219, *((plane - 128) / 224 for plane in chroma)]


def _coded_planes(frame: av.VideoFrame) -> list[Any]:
    planes = []
    for plane, component in zip(frame.planes, frame.format.components, strict=False):
        sample: np.dtype[Any] = np.dtype(np.uint8 if component.bits == 8 else "<u2")
        rows = np.frombuffer(memoryview(plane), sample).reshape(
            plane.height, plane.line_size // sample.itemsize
        )
        planes.append(rows[:, : plane.width])
    return planes


def _is_full_range(frame: av.VideoFrame) -> bool:
    return frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")


def measure_frame(frame: av.VideoFrame, time: float, rotation: int = 0) -> FrameStats:
    """Measures a frame, turned upright by `rotation` (ffprobe's value) degrees counterclockwise."""
    luma, *chroma = normalised_planes(frame)
    has_colour = len(chroma) >= 2
    blue, red = (float(plane.mean()) for plane in chroma) if has_colour else (0.0, 0.0)
    turns = round(rotation / 90)
    return FrameStats(
        time=time,
        width=frame.width,
        height=frame.height,
        full_range=_is_full_range(frame),
        matrix=int(frame.colorspace),
        transfer=int(frame.color_trc),
        primaries=int(frame.color_primaries),
        interlaced=bool(frame.interlaced_frame),
        means=(float(luma.mean()), blue, red),
        colourfulness=float(np.hypot(chroma[0], chroma[1]).mean()) if has_colour else 0.0,
        as_sdr=sdr_reference(luma, chroma, int(frame.color_trc)) if has_colour else None,
        thumbnail=_thumbnail(np.rot90(luma, turns)),
        chroma_thumbnails=[_thumbnail(np.rot90(plane, turns)) for plane in chroma[:2]],
        combing=combing(luma),
    )


def _thumbnail(luma: Array) -> Array:
    """The mean of each block of a grid. The means do not depend on the size of the picture."""
    height, width = luma.shape
    side = _THUMBNAIL
    if height < side or width < side:
        luma = np.repeat(np.repeat(luma, -(-side // height), 0), -(-side // width), 1)
        height, width = luma.shape
    rows = np.linspace(0, height, side + 1).astype(int)[:-1]
    columns = np.linspace(0, width, side + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(luma.astype(np.float64), rows, 0), columns, 1)
    heights = np.diff(np.append(rows, height))[:, None]
    widths = np.diff(np.append(columns, width))[None, :]
    means: Array = sums / (heights * widths)
    return means


def combing(luma: Array) -> float:
    """The share of pixels, per thousand, whose lines alternate between bright and dark.

    Interlaced pictures have such pixels where something moves (8 to 17 in the interlaced clip of the corpus).
    Progressive pictures have few (less than 4, in pictures with small print).
    """
    if luma.shape[0] < 8:
        return 0.0
    above, middle, below = luma[:-2], luma[1:-1], luma[2:]
    peak = (middle - above > _TOOTH) & (middle - below > _TOOTH)
    dip = (above - middle > _TOOTH) & (below - middle > _TOOTH)
    teeth = (peak[:-2] & dip[1:-1] & peak[2:]) | (dip[:-2] & peak[1:-1] & dip[2:])
    return float(teeth.mean()) * 1000


def thumbnail_difference(one: Array, other: Array) -> float:
    """The mean difference of two thumbnails with equalised brightness and contrast. 0 is the same picture."""

    def equalised(thumbnail: Array) -> Array:
        spread = thumbnail.std()
        return (thumbnail - thumbnail.mean()) / spread if spread > 0.02 else np.zeros_like(thumbnail)

    return float(np.abs(equalised(one) - equalised(other)).mean())
