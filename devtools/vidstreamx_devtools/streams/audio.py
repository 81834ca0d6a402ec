"""Measures decoded audio: start and end, loudness, and a waveform for comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np

from vidstreamx_devtools.streams.arrays import Array

RATE = 8000  # Hz, sample rate of the waveform: enough to compare signals
_SAMPLES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}
_WINDOW = 2.0  # seconds that are compared at each end
_MAX_SHIFT = 0.5  # seconds in both directions


@dataclass
class DecodedAudio:
    """One audio track. Times are in seconds from the file's common start."""

    start: float = math.nan
    end: float = math.nan
    channels: int = 0
    _power: float = 0.0
    _samples: int = 0
    _pieces: list[tuple[int, Array]] = field(default_factory=list)
    _resampler: av.AudioResampler | None = None

    def add(self, frame: av.AudioFrame, origin: float) -> None:
        """Adds a frame. `origin` is the file's common start in seconds."""
        start = _seconds(frame) - origin
        if self._resampler is None:
            self.start = start
            self.channels = frame.layout.nb_channels
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        self.end = start + frame.samples / frame.sample_rate
        self._measure(frame)
        for piece in self._resampler.resample(frame):
            position = _seconds(piece) - origin
            self._pieces.append((round(position * RATE), piece.to_ndarray()[0]))

    def _measure(self, frame: av.AudioFrame) -> None:
        samples: Any = _samples(frame)
        if samples.dtype.kind == "i":
            samples = samples / float(np.iinfo(samples.dtype).max)
        elif samples.dtype.kind == "u":
            samples = (samples.astype(np.float32) - 128) / 128
        self._power += float(np.square(samples, dtype=np.float64).sum())
        self._samples += samples.size

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def decibels(self, seconds: float | None = None) -> float:
        """RMS over all channels in dB of full scale, as if the audio lasted this many seconds."""
        stretch = self.seconds / seconds if seconds else 1.0
        return 10 * math.log10(max(self._power / max(self._samples, 1) * stretch, 1e-12))

    def loudness(self, begin: float, until: float) -> float:
        """RMS of a part in dB; -120 if the part is empty."""
        part = self.waveform()[max(0, int(begin * RATE)) : max(0, int(until * RATE))]
        if not part.size:
            return -120.0
        return 10 * math.log10(max(float(np.mean(np.square(part, dtype=np.float64))), 1e-12))

    def waveform(self) -> Array:
        """The mono signal from the common start. Samples before it are left out."""
        if not self._pieces:
            return np.zeros(0, np.float32)
        length = max(0, *(position + len(piece) for position, piece in self._pieces))
        wave = np.zeros(length, np.float32)
        for position, piece in self._pieces:
            skipped = max(0, -position)
            wave[position + skipped : position + len(piece)] = piece[skipped:]
        return wave


def _samples(frame: av.AudioFrame) -> Any:
    """All samples in any order of channels.

    PyAV's `to_ndarray` reads a ninth plane of a planar frame with eight channels, and crashes.
    """
    if frame.format.is_planar:
        planes = list(frame.planes)[: frame.layout.nb_channels]
        kind = _SAMPLES[frame.format.name.removesuffix("p")]
        return np.concatenate([np.frombuffer(memoryview(plane), kind)[: frame.samples] for plane in planes])
    return frame.to_ndarray()


def _seconds(frame: av.AudioFrame) -> float:
    assert frame.pts is not None
    assert frame.time_base is not None
    return float(frame.pts * frame.time_base)


def delays(source: DecodedAudio, other: DecodedAudio) -> list[float]:
    """The delays of `other` against `source` at the beginning and at the end, in seconds.

    Empty if the audio is too quiet, too short or too uniform to tell.
    """
    one, two = source.waveform(), other.waveform()
    length = min(len(one), len(two))
    window = int(_WINDOW * RATE)
    first = max(0, int(source.start * RATE))
    starts = {first, max(first, length - window)} if length - first >= RATE // 4 else set()
    found = (_delay(one, two, start, min(window, length - start)) for start in sorted(starts))
    return [delay for delay in found if delay is not None]


def _delay(one: Array, two: Array, start: int, length: int) -> float | None:
    """The shift at which a window of `one` fits `two` best. None if no shift is clearly the best."""
    margin = int(_MAX_SHIFT * RATE)
    padded = np.pad(two, margin)
    needle = one[start : start + length]
    hay = padded[start : start + length + 2 * margin]
    if len(hay) < len(needle) or np.sqrt(np.mean(np.square(needle))) < 0.003:
        return None
    size = 1 << (len(hay) + len(needle)).bit_length()
    spectrum = np.fft.rfft(hay, size) * np.conj(np.fft.rfft(needle, size))
    fit = np.fft.irfft(spectrum, size)[: len(hay) - len(needle) + 1]
    energy = np.cumsum(np.concatenate([[0.0], np.square(hay, dtype=np.float64)]))
    norms = np.sqrt(np.maximum(energy[len(needle) :] - energy[: len(hay) - len(needle) + 1], 1e-9))
    fit = np.abs(fit[: len(norms)]) / (
        norms[: len(fit)] * np.sqrt(np.sum(np.square(needle, dtype=np.float64)))
    )
    best = int(np.argmax(fit))
    elsewhere = np.delete(fit, slice(max(0, best - RATE // 20), best + RATE // 20))
    if fit[best] < 0.6 or (elsewhere.size and elsewhere.max() > 0.9 * fit[best]):
        return None
    return (best - margin) / RATE
