"""The expected look of an HDR picture in SDR, computed without FFmpeg: the reference for the tone mapping
checks.

Light is computed as in ITU-R BT.2100. Reference white at 203 cd/m² (BT.2408) becomes SDR white, and BT.2020
colours become BT.709. Tone mapping has no single right result, so the reference consists of means to compare
with a tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidstreamx_devtools.streams.arrays import Array

_PQ, _HLG = 16, 18  # transfer characteristics, ITU-T H.273
_WHITE = 203.0  # cd/m²
_HLG_PEAK = 1000.0
_STRIDE = 4  # every fourth pixel in both directions is enough for a mean
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
_BT2020 = np.array([0.2627, 0.6780, 0.0593])
_BT709 = np.array([0.2126, 0.7152, 0.0722])


@dataclass(frozen=True)
class SdrReference:
    luma: float  # mean, from 0 to 1
    colourfulness: float  # as in picture.FrameStats


def sdr_reference(luma: Array, chroma: list[Array], transfer: int) -> SdrReference | None:
    """The reference for a picture with the BT.2020 matrix. None if the transfer is neither PQ nor HLG."""
    if transfer not in (_PQ, _HLG):
        return None
    step = luma.shape[0] // chroma[0].shape[0], luma.shape[1] // chroma[0].shape[1]
    y = luma[:: _STRIDE * step[0], :: _STRIDE * step[1]]
    blue, red = (plane[::_STRIDE, ::_STRIDE][: y.shape[0], : y.shape[1]] for plane in chroma[:2])
    kr, _, kb = _BT2020
    r, b = y + 2 * (1 - kr) * red, y + 2 * (1 - kb) * blue
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    coded = np.clip(np.stack([r, g, b], -1), 0, 1).astype(np.float64)
    light = _pq(coded) if transfer == _PQ else _hlg(coded)
    sdr = np.clip(_shoulder(light / _WHITE) @ _TO_BT709.T, 0, 1) ** (1 / 2.4)
    y709 = sdr @ _BT709
    cb = (sdr[..., 2] - y709) / (2 * (1 - _BT709[2]))
    cr = (sdr[..., 0] - y709) / (2 * (1 - _BT709[0]))
    return SdrReference(float(y709.mean()), float(np.hypot(cb, cr).mean()))


def _pq(coded: Array) -> Array:
    """Converts SMPTE ST 2084 values to cd/m²."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = coded ** (1 / m2)
    light: Array = 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    return light


def _hlg(coded: Array) -> Array:
    """Converts ARIB STD-B67 values to cd/m², with the system gamma of 1.2 for 1,000 cd/m²."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)
    light: Array = _HLG_PEAK * scene * np.maximum(scene @ _BT2020, 1e-6)[..., None] ** 0.2
    return light


def _shoulder(light: Array) -> Array:
    """Linear up to three quarters of white, then compressed. All channels scale by the brightest one."""
    knee = 0.75
    peak = np.maximum(light.max(-1, keepdims=True), 1e-6)
    over = np.maximum(peak - knee, 0)
    compressed = np.where(peak > knee, knee + (1 - knee) * over / (over + (1 - knee)), peak)
    mapped: Array = light * compressed / peak
    return mapped
