"""Decoded audio as numbers: where it begins and ends, how loud it is, and its waveform for comparing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import av
import numpy as np

RATE = 8000  # of the waveform, in Hz: enough to tell sounds apart
_WINDOW = 2.0  # seconds that are compared at each end
_LARGEST_SHIFT = 0.5  # seconds either way that is looked for


@dataclass
class Sound:
    """One audio track as it is heard; times in seconds from the file's common start."""

    start: float = math.nan
    end: float = math.nan
    channels: int = 0
    _power: float = 0.0
    _samples: int = 0
    _pieces: list[tuple[int, np.ndarray]] = field(default_factory=list)
    _resampler: av.AudioResampler | None = None

    def hear(self, frame: av.AudioFrame, origin: float) -> None:
        start = float(frame.pts * frame.time_base) - origin
        if math.isnan(self.start):
            self.start = start
            self.channels = frame.layout.nb_channels
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        self.end = start + frame.samples / frame.sample_rate
        self._measure(frame)
        assert self._resampler is not None
        for piece in self._resampler.resample(frame):
            at = float(piece.pts * piece.time_base) - origin
            self._pieces.append((round(at * RATE), piece.to_ndarray()[0]))

    def _measure(self, frame: av.AudioFrame) -> None:
        samples = frame.to_ndarray()
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
        """RMS over all channels, relative to full scale, as if all that is heard were heard in so many seconds."""
        longer = self.seconds / seconds if seconds else 1.0
        return 10 * math.log10(max(self._power / max(self._samples, 1) * longer, 1e-12))

    def loudness(self, begin: float, until: float) -> float:
        """RMS of a part in dB; silence where there is none of it."""
        part = self.waveform()[max(0, int(begin * RATE)) : max(0, int(until * RATE))]
        return 10 * math.log10(max(float(np.mean(np.square(part, dtype=np.float64))), 1e-12)) if part.size else -120.0

    def waveform(self) -> np.ndarray:
        """From the common start on, mono; what lies before it is left out."""
        if not self._pieces:
            return np.zeros(0, np.float32)
        length = max(0, max(at + len(piece) for at, piece in self._pieces))
        wave = np.zeros(length, np.float32)
        for at, piece in self._pieces:
            skipped = max(0, -at)
            wave[at + skipped : at + len(piece)] = piece[skipped:]
        return wave


def delays(source: Sound, other: Sound) -> list[float]:
    """By how many seconds `other` lags behind `source` at its beginning and at its end.

    Empty where it is too quiet, too short or too uniform to tell.
    """
    one, two = source.waveform(), other.waveform()
    length = min(len(one), len(two))
    window = int(_WINDOW * RATE)
    first = max(0, int(source.start * RATE))
    starts = {first, max(first, length - window)} if length - first >= RATE // 4 else set()
    found = (_delay(one, two, start, min(window, length - start)) for start in sorted(starts))
    return [delay for delay in found if delay is not None]


def _delay(one: np.ndarray, two: np.ndarray, start: int, length: int) -> float | None:
    """The shift at which a window of `one` fits best into `two`; None unless it fits clearly better there."""
    margin = int(_LARGEST_SHIFT * RATE)
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
    fit = np.abs(fit[: len(norms)]) / (norms[: len(fit)] * np.sqrt(np.sum(np.square(needle, dtype=np.float64))))
    best = int(np.argmax(fit))
    elsewhere = np.delete(fit, slice(max(0, best - RATE // 20), best + RATE // 20))
    if fit[best] < 0.6 or (elsewhere.size and elsewhere.max() > 0.9 * fit[best]):
        return None
    return (best - margin) / RATE
