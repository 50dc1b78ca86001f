"""What the headers of a JPEG file say, without decoding it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MOST_SCANS = 100
"""Each scan of a progressive JPEG goes over the whole picture; encoders write about ten."""

_START, _SCAN, _END = b"\xff\xd8", 0xDA, b"\xff\xd9"
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")  # that begins a segment: not TEM, RST, SOI or a fill byte
_SEQUENTIAL = (0xC0, 0xC1)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_APP1, _EXIF = 0xE1, b"Exif\0\0"
_ORIENTATION, _SHORT = 0x0112, 3


@dataclass(frozen=True, slots=True)
class Header:
    """A sequential 8-bit JPEG: its sides in pixels as stored, and its EXIF orientation (1 where it tells none)."""

    width: int
    height: int
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) with the orientation applied."""
        return (self.width, self.height) if self.orientation < 5 else (self.height, self.width)


def is_jpeg(data: bytes) -> bool:
    """Whether the file starts as a JPEG does."""
    return data.startswith(_START)


def is_whole(data: bytes) -> bool:
    """Whether an end marker follows the scan. The segments before it are stepped over: a thumbnail has its own end."""
    return any(marker == _SCAN and data.rfind(_END, start) >= 0 for marker, start, _ in _segments(data))


def has_too_many_scans(data: bytes) -> bool:
    """Whether a decoder would go over the picture more than MOST_SCANS times."""
    components: bytes | None = None
    scans = 0
    for marker, start, _ in _segments(data):
        if marker in _SEQUENTIAL:
            components = data[start + 5 : start + 6]
        elif marker == _SCAN:
            if not scans and data[start : start + 1] == components:
                return False  # all components at once: decoders read no other
            scans += 1
            if scans > MOST_SCANS:
                return True
    return False


def size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels as stored, of a JPEG of any kind; None where the header is damaged."""
    for marker, start, _ in _segments(data):
        if marker in _FRAMES and start + 5 <= len(data):
            height, width = struct.unpack_from(">HH", data, start + 1)
            return width, height
    return None


def header(data: bytes) -> Header | None:
    """The header of a sequential JPEG of 8 bits a sample; None for every other file."""
    if not is_jpeg(data):
        return None
    orientation = 0
    for marker, start, end in _segments(data):
        body = data[start:end]
        if marker == _APP1 and body.startswith(_EXIF):
            orientation = orientation or _exif_orientation(body[len(_EXIF) :])
        elif marker in _SEQUENTIAL and len(body) >= 5 and body[0] == 8:
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            return Header(width, height, orientation or 1) if width and height else None
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the contents of each segment up to the end marker. The pixels follow a scan's header.

    What is not a marker where one should be is stepped over, as decoders do.
    """
    position = len(_START)
    while (found := _MARKER.search(data, position)) is not None and found[0] != _END:
        start = found.end()
        position = start + int.from_bytes(data[start : start + 2], "big")
        yield found[1][0], start + 2, position


def _exif_orientation(tiff: bytes) -> int:
    """The orientation among the entries of the first directory; 1 where it is missing or damaged."""
    order: Literal["little", "big"] = "little" if tiff.startswith(b"II") else "big"

    def number(start: int, size: int) -> int:
        return int.from_bytes(tiff[start : start + size], order)

    directory = number(4, 4)
    for index in range(number(directory, 2)):
        entry = directory + 2 + 12 * index
        if number(entry, 2) == _ORIENTATION and number(entry + 2, 2) == _SHORT:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1
