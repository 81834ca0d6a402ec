"""Reads the MP4 boxes that no demuxer exposes: timescales, fragment times and codec configurations.

It does not use the reader of the tested programs, so that it detects errors in that reader.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_CONTAINERS = {
    b"moov",
    b"trak",
    b"edts",
    b"mdia",
    b"minf",
    b"stbl",
    b"moof",
    b"traf",
    b"mvex",
    b"sinf",
    b"schi",
}
# Bytes between the header of a sample entry and its child boxes.
_SAMPLE_ENTRIES = {
    **dict.fromkeys((b"avc1", b"avc3", b"hvc1", b"hev1", b"av01", b"vp09", b"encv"), 78),
    **dict.fromkeys((b"mp4a", b"ac-3", b"ec-3", b"Opus", b"enca"), 28),
}


def walk(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, bytes]]:
    """Yields name and content of every box, depth first. A truncated box ends the walk without an error."""
    position, end = start, len(data) if end is None else end
    while position + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, position)
        header = 8
        if size == 1 and position + 16 <= end:
            size, header = struct.unpack_from(">Q", data, position + 8)[0], 16
        elif size == 0:
            size = end - position
        if size < header:
            return
        body, stop = position + header, min(position + size, end)
        yield name, data[body:stop]
        if name in _CONTAINERS:
            yield from walk(data, body, stop)
        elif name == b"stsd":
            yield from walk(data, body + 8, stop)
        elif name in _SAMPLE_ENTRIES:
            yield from walk(data, body + _SAMPLE_ENTRIES[name], stop)
        position += size


def find(data: bytes, name: bytes) -> bytes | None:
    """The content of the first box with this name."""
    return next((body for box, body in walk(data) if box == name), None)


def timescale(init: bytes) -> int:
    """Ticks per second of the only track of an init segment."""
    body = find(init, b"mdhd")
    assert body, "the init segment has no mdhd box"
    return _u32(body, 20 if body[0] == 1 else 12)


def decode_times(segment: bytes) -> list[int]:
    """The decode time of the first sample of each fragment (tfdt), in ticks."""
    return [_decode_time(body) for name, body in walk(segment) if name == b"tfdt"]


def _decode_time(tfdt: bytes) -> int:
    return _u64(tfdt, 4) if tfdt[0] == 1 else _u32(tfdt, 4)


def _u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "big")


def _u64(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], "big")


@dataclass(frozen=True)
class Sample:
    time: float  # presentation time in seconds
    duration: float
    is_sync: bool


def samples(init: bytes, segment: bytes) -> list[Sample]:
    """The samples of the only track of a segment in decode order, as defined by ISO 14496-12.

    FFmpeg's demuxer can't be used: it delays all samples after a negative composition offset by that offset,
    and browsers do not.
    """
    ticks, shift = timescale(init), _media_time(init)
    trex = find(init, b"trex") or bytes(24)
    default_duration, default_flags = _u32(trex, 12), _u32(trex, 20)
    duration, flags = default_duration, default_flags
    read: list[Sample] = []
    time = 0
    for name, body in walk(segment):
        if name == b"tfhd":
            duration, flags = _fragment_defaults(body, default_duration, default_flags)
        elif name == b"tfdt":
            time = _decode_time(body)
        elif name == b"trun":
            for length, is_sync, offset in _run(body, duration, flags):
                read.append(Sample((time + offset - shift) / ticks, length / ticks, is_sync))
                time += length
    return read


def _media_time(init: bytes) -> int:
    """The media time at which the presentation starts, from the edit list; 0 if there is none."""
    body = find(init, b"elst")
    if body is None or _u32(body, 4) == 0:
        return 0
    if body[0] == 1:
        return max(0, int.from_bytes(body[16:24], "big", signed=True))
    return max(0, int.from_bytes(body[12:16], "big", signed=True))


def _fragment_defaults(tfhd: bytes, duration: int, flags: int) -> tuple[int, int]:
    present = int.from_bytes(tfhd[1:4], "big")
    position = 8 + (8 if present & 0x1 else 0) + (4 if present & 0x2 else 0)
    if present & 0x8:
        duration = _u32(tfhd, position)
        position += 4
    if present & 0x10:
        position += 4
    if present & 0x20:
        flags = _u32(tfhd, position)
    return duration, flags


def _run(trun: bytes, duration: int, flags: int) -> Iterator[tuple[int, bool, int]]:
    """Yields the duration, whether it is a sync sample, and the composition offset of each sample."""
    present = int.from_bytes(trun[1:4], "big")
    count = _u32(trun, 4)
    position = 8 + (4 if present & 0x1 else 0)
    first_flags = None
    if present & 0x4:
        first_flags = _u32(trun, position)
        position += 4
    fields = [bit for bit in (0x100, 0x200, 0x400, 0x800) if present & bit]
    for number in range(count):
        values = {field: _u32(trun, position + 4 * index) for index, field in enumerate(fields)}
        position += 4 * len(fields)
        default = first_flags if number == 0 and first_flags is not None else flags
        sample_flags = values.get(0x400, default)
        offset = values.get(0x800, 0)
        signed = offset - (1 << 32) if trun[0] == 1 and offset >= 1 << 31 else offset
        yield values.get(0x100, duration), not sample_flags & 0x10000, signed


def is_encrypted(data: bytes) -> bool:
    """Whether a track is marked as encrypted."""
    return any(name in (b"encv", b"enca") for name, _ in walk(data))


def codecs(init: bytes) -> str:
    """The RFC 6381 string of the only track of an init segment, from its codec configuration."""
    for name, body in walk(init):
        if name == b"avcC":
            return f"avc1.{body[1]:02x}{body[2]:02x}{body[3]:02x}"
        if name == b"esds":
            return f"mp4a.40.{_audio_object_type(body)}"
        if name in (b"dac3", b"dec3"):
            return {b"dac3": "ac-3", b"dec3": "ec-3"}[name]
        if name == b"hvcC":
            return _hevc(body)
        if name == b"av1C":
            return _av1(body)
    return "unknown"


def _audio_object_type(esds: bytes) -> int:
    """The first five bits of the decoder-specific info (ISO 14496-3)."""
    position = 4
    while position < len(esds):
        tag = esds[position]
        position += 1
        length = 0
        while True:
            byte = esds[position]
            position += 1
            length = length << 7 | byte & 0x7F
            if not byte & 0x80:
                break
        if tag == 3:  # ES descriptor: its id, then flags for optional fields
            flags = esds[position + 2]
            position += 3 + (2 if flags & 0x80 else 0) + (2 if flags & 0x20 else 0)
            if flags & 0x40:
                position += 1 + esds[position]
        elif tag == 4:  # decoder configuration: 13 bytes, then the descriptors inside it
            position += 13
        elif tag == 5:
            return esds[position] >> 3
        else:
            position += length
    return 0


def _hevc(configuration: bytes) -> str:
    """The string by ISO 14496-15, annex E."""
    space = ["", "A", "B", "C"][configuration[1] >> 6]
    tier = "H" if configuration[1] & 0x20 else "L"
    compatible = int(f"{_u32(configuration, 2):032b}"[::-1], 2)
    constraints = [f"{byte:X}" for byte in configuration[6:12].rstrip(b"\0")]
    profile = f"hvc1.{space}{configuration[1] & 0x1F}"
    return ".".join([profile, f"{compatible:X}", f"{tier}{configuration[12]}", *constraints])


def _av1(configuration: bytes) -> str:
    """Profile, level, tier and bit depth by section 5 of the AV1 ISO media binding."""
    profile, level = configuration[1] >> 5, configuration[1] & 0x1F
    tier = "H" if configuration[2] & 0x80 else "M"
    depth = 10 if configuration[2] & 0x40 else 8
    return f"av01.{profile}.{level:02d}{tier}.{depth:02d}"
