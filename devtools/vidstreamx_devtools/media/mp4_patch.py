"""Changes boxes of MP4 files in place, to make files that no encoder writes.

It changes only fields, never the length of a box, so all offsets stay right.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

_CONTAINERS = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex"}
_Box = tuple[bytes, int]  # name, and offset of the content


def patch(path: Path, change: Callable[[bytearray, list[_Box]], None]) -> None:
    """Calls `change` with the file's bytes and all its boxes, depth first, and writes the bytes back."""
    data = bytearray(path.read_bytes())
    change(data, list(_walk(data, 0, len(data))))
    path.write_bytes(data)


def offsets(boxes: list[_Box], name: bytes) -> list[int]:
    """The offsets of the contents of all boxes with this name."""
    return [offset for box, offset in boxes if box == name]


def later_fragments(path: Path, seconds: int, timescales: list[int]) -> None:
    """Moves all fragments. `timescales`: ticks per second of each track, by its position in a fragment."""

    def change(data: bytearray, boxes: list[_Box]) -> None:
        track = 0
        for name, offset in boxes:
            if name == b"tfhd":
                track = struct.unpack_from(">I", data, offset + 4)[0]
            elif name == b"tfdt":
                (time,) = struct.unpack_from(">Q", data, offset + 4)
                struct.pack_into(">Q", data, offset + 4, time + seconds * timescales[track - 1])

    patch(path, change)


def movie_duration(path: Path, factor: int) -> None:
    """Multiplies the duration that the movie header claims."""

    def change(data: bytearray, boxes: list[_Box]) -> None:
        [offset] = offsets(boxes, b"mvhd")
        (duration,) = struct.unpack_from(">I", data, offset + 16)
        struct.pack_into(">I", data, offset + 16, duration * factor)

    patch(path, change)


def display_matrix(path: Path, matrix: tuple[int, ...]) -> None:
    """Sets the nine numbers of the first track's matrix, in 16.16 and 2.30 fixed point."""

    def change(data: bytearray, boxes: list[_Box]) -> None:
        struct.pack_into(">9i", data, offsets(boxes, b"tkhd")[0] + 40, *matrix)

    patch(path, change)


def edit(path: Path, seconds: float, rate: float) -> None:
    """Makes the first edit of every track this long, at this speed."""

    def change(data: bytearray, boxes: list[_Box]) -> None:
        [header] = offsets(boxes, b"mvhd")
        (ticks,) = struct.unpack_from(">I", data, header + 12)
        for offset in offsets(boxes, b"elst"):
            struct.pack_into(">I", data, offset + 8, int(seconds * ticks))
            struct.pack_into(">i", data, offset + 16, int(rate * 65536))

    patch(path, change)


def _walk(data: bytearray, start: int, end: int) -> Iterator[_Box]:
    position = start
    while position + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, position)
        header = 8
        if size == 1:
            size, header = struct.unpack_from(">Q", data, position + 8)[0], 16
        yield name, position + header
        if name in _CONTAINERS:
            yield from _walk(data, position + header, position + size)
        position += max(size, header)
