"""MATLAB 5 files, as much of them as data sets need: arrays of numbers and cells of text.

Written from MathWorks' "MAT-File Format", with every tag and size checked: a reader in C that trusts them ends the
process at one damaged byte.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm_sdk.errors import InputError

MOST_BYTES = 2**28
"""What a compressed variable may unpack to; AFLW's largest has 8 MB."""

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHAR, _NUMBERS = 1, 4, range(6, 16)
_COMPLEX = 0x0800
_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}

Element = tuple[int, memoryview]


def read_mat(path: Path, *names: str) -> list[NDArray[Any]]:
    """Variables of a MATLAB 5 file: numbers as float64, cells of text as arrays of str, both of MATLAB's shape.

    Raises InputError.
    """
    try:
        found = _variables(path.read_bytes(), names)
        return [found[name] for name in names]
    except (OSError, KeyError, ValueError, zlib.error) as error:
        raise InputError(f"{path} cannot be read; it is truncated or lacks {', '.join(names)} ({error})") from error


def _variables(data: bytes, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    order = {b"IM": "<", b"MI": ">"}.get(data[_HEADER - 2 : _HEADER])
    if order is None or data[124:126] != struct.pack(f"{order}H", 0x0100):
        raise ValueError("not a MATLAB 5 file")
    found: dict[str, NDArray[Any]] = {}
    for kind, body in _elements(memoryview(data)[_HEADER:], order):
        if kind == _COMPRESSED:
            kind, body = next(_elements(_unpacked(body), order), (0, body))
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} stands where a variable should")
        name, variable = _variable(body, order, names)
        if name in names:
            found[name] = variable
            if len(found) == len(names):
                break
    return found


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    """Type and content of each element."""
    position = 0
    while position < len(data):
        if position + 8 > len(data):
            raise ValueError("a tag is cut off")
        kind, size = struct.unpack_from(f"{order}II", data, position)
        start = position + 8
        if kind >> 16:  # size and content within the tag
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
        end = start + size
        if end > len(data) or (start == position + 4 and size > 4):
            raise ValueError(f"an element of {size} bytes does not end in the file")
        yield kind, data[start:end]
        position = end if kind == _COMPRESSED else end + (position - end) % 8


def _unpacked(data: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    content = stream.decompress(data, MOST_BYTES)
    if not stream.eof:
        raise ValueError("a compressed variable is too large or cut off")
    return memoryview(content)


def _variable(body: memoryview, order: str, names: tuple[str, ...]) -> tuple[str, NDArray[Any]]:
    """The name of a variable and, where that is among ``names``, its content."""
    flags, shape, name, parts = _described(body, order)
    if name not in names:
        return name, np.empty(0)
    if flags & 0xFF == _CELL:
        texts = [_text(part, order) for part in parts]
        if len(texts) != np.prod(shape, dtype=object):
            raise ValueError(f"{name} has {len(texts)} cells, not {shape}")
        return name, np.array(texts, object).reshape(shape, order="F")
    if flags & 0xFF not in _NUMBERS or flags & _COMPLEX:
        raise ValueError(f"{name} is neither an array of real numbers nor a cell")
    kind, content = next(parts, (0, body))
    if kind not in _DTYPES:
        raise ValueError(f"{name} has values of type {kind}")
    values = np.frombuffer(content, f"{order}{_DTYPES[kind]}")
    return name, values.reshape(shape, order="F").astype(np.float64)


def _described(body: memoryview, order: str) -> tuple[int, tuple[int, ...], str, Iterator[Element]]:
    """Class and flags, shape and name of an array, and the elements that follow."""
    parts = _elements(body, order)
    (flags_kind, flags), (shape_kind, shape), (name_kind, name) = (next(parts, (0, body)) for _ in range(3))
    if (flags_kind, shape_kind, name_kind) != (6, 5, 1) or len(flags) != 8 or len(shape) % 4:
        raise ValueError("an array is not described as it should be")
    sides = struct.unpack(f"{order}{len(shape) // 4}i", shape)
    if min(sides, default=-1) < 0:
        raise ValueError(f"an array cannot have shape {sides}")
    return struct.unpack_from(f"{order}I", flags)[0], sides, str(name, "latin-1"), parts


def _text(cell: Element, order: str) -> str:
    if cell[0] != _MATRIX:
        raise ValueError(f"a cell of type {cell[0]}")
    flags, _, _, parts = _described(cell[1], order)
    kind, content = next(parts, (0, cell[1]))
    if flags & 0xFF != _CHAR or kind not in _ENCODINGS:
        raise ValueError("a cell does not hold text")
    encoding = _ENCODINGS[kind]
    return str(content, encoding if kind in (1, 2, 16) else f"{encoding}-{'le' if order == '<' else 'be'}")
