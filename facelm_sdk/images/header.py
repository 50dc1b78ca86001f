"""How many pixels a picture file will have once decoded, from its header alone."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import jpeg

Size = tuple[int, int]

FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF, JPEG 2000, AVIF, HEIC, PNM, PAM, PFM, Radiance HDR and Sun raster"
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".avif", ".heic"),
    *(".heif", ".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".pfm", ".hdr", ".ras", ".sr"),
)
"""How the names of files in FORMATS end, by which pictures are found in folders."""

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PNM = re.compile(rb"P[1-6Ff]" + _GAP + rb"(\d{1,10})" + _GAP + rb"(\d{1,10})\s")
_PAM = re.compile(rb"(WIDTH|HEIGHT)\s+(\d{1,10})\s")
_HDR = re.compile(rb"-Y\s*(\d{1,10})\s*\+X\s*(\d{1,10})")
_AVIF = re.compile(rb"ispe.{4}(.{8})", re.DOTALL)
_LONGEST_TEXT = 2**16
_RGB = 2
_CODESTREAM = b"\xff\x4f\xff\x51"


def size(data: bytes) -> Size | None:
    """(width, height) in pixels as stored; None for a file of none of FORMATS, or whose header is damaged.

    Where a header can say it twice, the larger one counts, so that no decoder finds more pixels than this tells.
    """
    try:
        return next((read(data) for signature, start, read in _READERS if data.startswith(signature, start)), None)
    except (struct.error, OverflowError):  # the header is cut off or points out of the file
        return None


def _png(data: bytes) -> Size | None:
    return struct.unpack_from(">II", data, 16) if data[12:16] == b"IHDR" else None


def _gif(data: bytes) -> Size | None:
    return struct.unpack_from("<HH", data, 6)


def _bmp(data: bytes) -> Size | None:
    if struct.unpack_from("<I", data, 14) == (12,):
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)


def _webp(data: bytes) -> Size | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff(data: bytes) -> Size | None:
    """Of the first directory, the one that OpenCV reads; a tag that stands twice counts with its larger value.

    None for RGB of fewer than three samples: OpenCV gives memory as it was for those that are missing.
    """
    order, big = "<" if data[:1] == b"I" else ">", data[2:4] in (b"+\0", b"\0+")
    (start,) = struct.unpack_from(f"{order}Q", data, 8) if big else struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    first, length, value = (start + 8, 20, 12) if big else (start + 2, 12, 8)
    found = {256: 0, 257: 0, 262: 0, 277: 1}  # width, height, kind of colour, samples a pixel
    for entry in range(first, first + min(count, 0xFFFF) * length, length):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag in found:
            form = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
            if form is None:
                return None
            found[tag] = max(found[tag], *struct.unpack_from(f"{order}{form}", data, entry + value))
    return None if found[262] == _RGB and found[277] < 3 else (found[256], found[257])


def _jpeg2000(data: bytes) -> Size | None:
    start = 0 if data.startswith(_CODESTREAM) else next((at for kind, at in _boxes(data) if kind == b"jp2c"), -1)
    if start < 0 or data[start : start + 4] != _CODESTREAM:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    return right - left, bottom - top


def _boxes(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Type and start of the content of each box."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if length == 1:
            (length,), head = struct.unpack_from(">Q", data, position + 8), 16
        yield kind, position + head
        if length < head:  # to the end of the file, or damaged
            return
        position += length


def is_heif(data: bytes) -> bool:
    """Whether a file is HEIC or AVIF, which have one container."""
    return data.startswith(b"ftyp", 4)


def is_heic(data: bytes) -> bool:
    """Whether a file of that container is HEIC: its brands are not AVIF's."""
    return is_heif(data) and not any(brand in data[8:64] for brand in (b"avif", b"avis"))


def _avif(data: bytes) -> Size | None:
    return _largest(struct.unpack(">II", sides) for sides in _AVIF.findall(data))


def _pnm(data: bytes) -> Size | None:
    found = _PNM.match(data[:_LONGEST_TEXT])
    return None if found is None else (int(found[1]), int(found[2]))


def _pam(data: bytes) -> Size | None:
    found = _PAM.findall(data[: data.find(b"ENDHDR")])
    sides = [max((int(side) for name, side in found if name == wanted), default=0) for wanted in (b"WIDTH", b"HEIGHT")]
    return (sides[0], sides[1]) if all(sides) else None


def _hdr(data: bytes) -> Size | None:
    return _largest((int(width), int(height)) for height, width in _HDR.findall(data))


def _largest(sizes: Iterable[Any]) -> Size | None:
    return max(sizes, key=lambda one: one[0] * one[1], default=None)


def _sun_raster(data: bytes) -> Size | None:
    return struct.unpack_from(">II", data, 4)


_READERS: tuple[tuple[bytes, int, Callable[[bytes], Size | None]], ...] = (
    (b"\xff\xd8", 0, jpeg.size),
    (b"\x89PNG\r\n\x1a\n", 0, _png),
    (b"RIFF", 0, _webp),
    (b"GIF8", 0, _gif),
    (b"BM", 0, _bmp),
    (b"II*\0", 0, _tiff),
    (b"MM\0*", 0, _tiff),
    (b"II+\0", 0, _tiff),
    (b"MM\0+", 0, _tiff),
    (b"jP  ", 4, _jpeg2000),
    (_CODESTREAM, 0, _jpeg2000),
    (b"ftyp", 4, _avif),
    (b"P7", 0, _pam),
    (b"P", 0, _pnm),
    (b"#?R", 0, _hdr),
    (b"\x59\xa6\x6a\x95", 0, _sun_raster),
)
