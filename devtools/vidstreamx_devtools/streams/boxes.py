"""The few MP4 boxes whose numbers no demuxer hands out: clocks, times of fragments, codec configurations."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_CONTAINERS = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"sinf", b"schi"}
# Bytes between a sample entry's header and its own boxes.
_SAMPLE_ENTRIES = {
    **dict.fromkeys((b"avc1", b"avc3", b"hvc1", b"hev1", b"av01", b"vp09", b"encv"), 78),
    **dict.fromkeys((b"mp4a", b"ac-3", b"ec-3", b"Opus", b"enca"), 28),
}


def walk(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, bytes]]:
    """Every box and its content, depth first. Stops quietly where the file does."""
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
    """The content of the first box of this name."""
    return next((body for found, body in walk(data) if found == name), None)


def timescale(init: bytes) -> int:
    """Ticks per second of an init segment's only track."""
    body = find(init, b"mdhd")
    assert body, "the init segment has no mdhd box"
    return struct.unpack_from(">I", body, 20 if body[0] == 1 else 12)[0]


def decode_times(segment: bytes) -> list[int]:
    """When each fragment's first sample is decoded, in ticks (tfdt)."""
    return [
        struct.unpack_from(">Q" if body[0] == 1 else ">I", body, 4)[0]
        for name, body in walk(segment)
        if name == b"tfdt"
    ]


@dataclass(frozen=True)
class Sample:
    time: float  # of presentation, in seconds
    duration: float
    is_sync: bool


def samples(init: bytes, segment: bytes) -> list[Sample]:
    """The samples of a segment's only track in decoding order, by ISO 14496-12 and nothing else.

    FFmpeg's demuxer is of no use here: it delays what follows a negative composition offset by that offset,
    which browsers do not.
    """
    ticks, shift = timescale(init), _media_time(init)
    defaults = struct.unpack_from(">IIII", find(init, b"trex") or bytes(24), 8)
    duration, flags = defaults[0], defaults[2]
    found: list[Sample] = []
    time = 0
    for name, body in walk(segment):
        if name == b"tfhd":
            duration, flags = _fragment_defaults(body, defaults[0], defaults[2])
        elif name == b"tfdt":
            time = struct.unpack_from(">Q" if body[0] == 1 else ">I", body, 4)[0]
        elif name == b"trun":
            for length, sync, offset in _run(body, duration, flags):
                found.append(Sample((time + offset - shift) / ticks, length / ticks, sync))
                time += length
    return found


def _media_time(init: bytes) -> int:
    """Where presentation begins in the track's own time, by its edit list (0 without one)."""
    body = find(init, b"elst")
    if body is None or struct.unpack_from(">I", body, 4)[0] == 0:
        return 0
    return max(0, struct.unpack_from(">q", body, 16)[0] if body[0] == 1 else struct.unpack_from(">i", body, 12)[0])


def _fragment_defaults(tfhd: bytes, duration: int, flags: int) -> tuple[int, int]:
    given = int.from_bytes(tfhd[1:4], "big")
    position = 8 + (8 if given & 0x1 else 0) + (4 if given & 0x2 else 0)
    if given & 0x8:
        duration = struct.unpack_from(">I", tfhd, position)[0]
        position += 4
    if given & 0x10:
        position += 4
    if given & 0x20:
        flags = struct.unpack_from(">I", tfhd, position)[0]
    return duration, flags


def _run(trun: bytes, duration: int, flags: int) -> Iterator[tuple[int, bool, int]]:
    """Duration, whether it is a sync sample, and composition offset of each sample."""
    given = int.from_bytes(trun[1:4], "big")
    count = struct.unpack_from(">I", trun, 4)[0]
    position = 8 + (4 if given & 0x1 else 0)
    first = None
    if given & 0x4:
        first = struct.unpack_from(">I", trun, position)[0]
        position += 4
    fields = [bit for bit in (0x100, 0x200, 0x400, 0x800) if given & bit]
    for number in range(count):
        values = dict(zip(fields, struct.unpack_from(f">{len(fields)}I", trun, position)))
        position += 4 * len(fields)
        mine = values.get(0x400, first if number == 0 and first is not None else flags)
        offset = values.get(0x800, 0)
        signed = offset - (1 << 32) if trun[0] == 1 and offset >= 1 << 31 else offset
        yield values.get(0x100, duration), not mine & 0x10000, signed


def is_encrypted(data: bytes) -> bool:
    """Whether a track says that it needs a key."""
    return any(name in (b"encv", b"enca") for name, _ in walk(data))


def codecs(init: bytes) -> str:
    """The RFC 6381 string of an init segment's only track, from its own codec configuration."""
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
    """From the decoder-specific info (ISO 14496-3): its first five bits."""
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
        if tag == 3:  # ES descriptor: its id, then flags that announce what follows
            flags = esds[position + 2]
            position += 3 + (2 if flags & 0x80 else 0) + (2 if flags & 0x20 else 0)
            if flags & 0x40:
                position += 1 + esds[position]
        elif tag == 4:  # decoder configuration: what it holds follows 13 bytes on
            position += 13
        elif tag == 5:
            return esds[position] >> 3
        else:
            position += length
    return 0


def _hevc(configuration: bytes) -> str:
    """ISO 14496-15, annex E."""
    space = ["", "A", "B", "C"][configuration[1] >> 6]
    tier = "H" if configuration[1] & 0x20 else "L"
    compatible = int(f"{struct.unpack_from('>I', configuration, 2)[0]:032b}"[::-1], 2)
    constraints = configuration[6:12].rstrip(b"\0")
    parts = [f"hvc1.{space}{configuration[1] & 0x1F}", f"{compatible:X}", f"{tier}{configuration[12]}"]
    return ".".join(parts + [f"{byte:X}" for byte in constraints])


def _av1(configuration: bytes) -> str:
    """The AV1 ISO media binding, section 5: profile, level and tier, bit depth."""
    profile, level = configuration[1] >> 5, configuration[1] & 0x1F
    tier = "H" if configuration[2] & 0x80 else "M"
    depth = 10 if configuration[2] & 0x40 else 8
    return f"av01.{profile}.{level:02d}{tier}.{depth:02d}"
