"""What a decoded frame looks like, in numbers that survive scaling: means, a thumbnail, combing.

Nothing here goes through FFmpeg's own colour conversion, which is what is being tested.
"""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np

from vidstreamx_devtools.streams.hdr_reference import Reference, reference

_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}  # Kr, Kb
BT709 = 1
BT601 = 6
_UNSPECIFIED = 2
_THUMBNAIL = 16  # pixels on each side
_TOOTH = 0.04  # luma between a line and its neighbours


@dataclass(frozen=True)
class Look:
    """One frame."""

    time: float
    width: int
    height: int
    full_range: bool
    matrix: int  # ITU-T H.273
    transfer: int
    primaries: int
    interlaced: bool
    means: tuple[float, float, float]  # Y, Cb, Cr from 0 to 1 and -0.5 to 0.5
    colourfulness: float  # mean distance of chroma from grey
    as_sdr: Reference | None  # of an HDR picture: what it should come out as
    thumbnail: np.ndarray  # of luma, as displayed, from 0 to 1
    chroma_thumbnails: list[np.ndarray]  # Cb and Cr
    darkest: float  # luma, 1st and 99th percentile
    brightest: float
    combing: float  # see there

    def rgb(self, matrix: int | None = None) -> np.ndarray:
        """The mean colour from 0 to 255, as coded (not linear)."""
        return self._to_rgb(*self.means, matrix) * 255

    def contrast(self, matrix: int | None = None) -> float:
        """Of the thumbnail in colour: luma's alone depends on the matrix."""
        chroma = self.chroma_thumbnails or [np.zeros_like(self.thumbnail)] * 2
        return float(self._to_rgb(self.thumbnail, *chroma, matrix).std(axis=(1, 2)).mean())

    def _to_rgb(self, luma, blue, red, matrix: int | None) -> np.ndarray:
        kr, kb = _MATRICES.get(self.matrix if matrix is None else matrix, _MATRICES[BT601])
        r = luma + 2 * (1 - kr) * red
        b = luma + 2 * (1 - kb) * blue
        return np.array([r, (luma - kr * r - kb * b) / (1 - kr - kb), b])

    @property
    def has_matrix(self) -> bool:
        return self.matrix in _MATRICES


def planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """Y, Cb and Cr as they are coded; one plane for grey."""
    found = []
    for plane, component in zip(frame.planes, frame.format.components):
        kind = np.uint8 if component.bits == 8 else np.dtype("<u2")
        rows = np.frombuffer(plane, kind).reshape(plane.height, plane.line_size // np.dtype(kind).itemsize)
        found.append(rows[:, : plane.width])
    return found


def is_full_range(frame: av.VideoFrame) -> bool:
    return frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")


def normalised(frame: av.VideoFrame) -> list[np.ndarray]:
    """Luma from 0 to 1 and chroma from -0.5 to 0.5, whatever range and depth the frame has."""
    bits = frame.format.components[0].bits
    unit = 1 << (bits - 8)
    luma, *chroma = (plane.astype(np.float32) / unit for plane in planes(frame))
    if is_full_range(frame):
        return [luma / 255, *((plane - 128) / 255 for plane in chroma)]
    return [(luma - 16) / 219, *((plane - 128) / 224 for plane in chroma)]


def look(frame: av.VideoFrame, time: float, rotation: int = 0) -> Look:
    """`rotation` is what ffprobe says: degrees anticlockwise that bring the picture upright when negated."""
    luma, *chroma = normalised(frame)
    blue, red = (float(plane.mean()) for plane in chroma) if len(chroma) >= 2 else (0.0, 0.0)
    darkest, brightest = np.percentile(luma[::4, ::4], [1, 99])
    return Look(
        time=time,
        width=frame.width,
        height=frame.height,
        full_range=is_full_range(frame),
        matrix=int(frame.colorspace),
        transfer=int(frame.color_trc),
        primaries=int(frame.color_primaries),
        interlaced=bool(frame.interlaced_frame),
        means=(float(luma.mean()), blue, red),
        colourfulness=colourfulness(chroma),
        as_sdr=reference(luma, chroma, int(frame.color_trc)) if len(chroma) >= 2 else None,
        thumbnail=_thumbnail(np.rot90(luma, round(rotation / 90))),
        chroma_thumbnails=[_thumbnail(np.rot90(plane, round(rotation / 90))) for plane in chroma[:2]],
        darkest=float(darkest),
        brightest=float(brightest),
        combing=combing(luma),
    )


def colourfulness(chroma: list[np.ndarray]) -> float:
    return float(np.hypot(chroma[0], chroma[1]).mean()) if len(chroma) >= 2 else 0.0


def _thumbnail(luma: np.ndarray) -> np.ndarray:
    """Means of a grid of blocks: the same for every size of the same picture."""
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
    return sums / (heights * widths)


def combing(luma: np.ndarray) -> float:
    """Teeth: how many in a thousand pixels stand in a column of lines that alternate between bright and dark.

    Two fields of different instants woven together have them wherever something moves (8 to 17 in the corpus's
    interlaced clip); progressive pictures have next to none (under 4, in screens full of fine print).
    """
    if luma.shape[0] < 8:
        return 0.0
    above, middle, below = luma[:-2], luma[1:-1], luma[2:]
    peak = (middle - above > _TOOTH) & (middle - below > _TOOTH)
    dip = (above - middle > _TOOTH) & (below - middle > _TOOTH)
    teeth = (peak[:-2] & dip[1:-1] & peak[2:]) | (dip[:-2] & peak[1:-1] & dip[2:])
    return float(teeth.mean()) * 1000


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of two thumbnails after taking out brightness and contrast; 0 is the same picture."""

    def plain(thumbnail: np.ndarray) -> np.ndarray:
        spread = thumbnail.std()
        return (thumbnail - thumbnail.mean()) / spread if spread > 0.02 else np.zeros_like(thumbnail)

    return float(np.abs(plain(one) - plain(other)).mean())
