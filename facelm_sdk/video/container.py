"""What the outermost structure of a video file says about its length."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_cut_off(path: Path) -> bool:
    """Return whether a file ends before its container does: of AVI, of MP4 and MOV, of Matroska and WebM.

    False for every other file. Raises OSError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start.startswith(b"RIFF"):
            return 8 + int.from_bytes(start[4:8], "little") > size
        if start.startswith(_EBML):
            return _segment_end(file) > size
        return start[4:8] in _FIRST_BOXES and _boxes_end(file, size) > size


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last of the boxes that follow each other in a file of ``size`` bytes ends."""
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(16).ljust(16, b"\0")
        (length,) = struct.unpack_from(">I", head)
        if length == 1:
            (length,) = struct.unpack_from(">Q", head, 8)
        if length < 8:  # 0: to the end of the file
            return size
        position += length
    return position


def _segment_end(file: BinaryIO) -> int:
    """Where the segment of a Matroska file ends; 0 where it does not say."""
    file.seek(len(_EBML))
    length = _number(file) or 0
    file.seek(length, 1)
    if file.read(len(_SEGMENT)) != _SEGMENT:
        return 0
    length = _number(file)
    return 0 if length is None else file.tell() + length


def _number(file: BinaryIO) -> int | None:
    """A number whose first byte tells how many bytes it has; None where it is unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> more)]) + file.read(more), "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value
