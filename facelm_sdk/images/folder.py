"""A run over many pictures: which files, and where each result goes, over no picture and no other's result."""

from __future__ import annotations

import glob
import os
import stat
import zlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._optional import load_cv2
from ..errors import ImageError, InputError
from ..files import Identity, expand_user, identity, is_folder, is_url, write_bytes
from ..types import ImageArray
from .header import SUFFIXES

_MARK = b"made by facelm align"
"""The comment in pictures of results, within their first 128 bytes."""
_RECORDS = (
    *(b'{\n "source": ', b'{"source": ', b"source,width,height,", b"PAR1", b"version: 1\nn_points: "),
    b'{"info": {"description": "faces, made by facelm align"',
)
"""How results as JSON, CSV, parquet, .pts and COCO begin, which patterns such as * find."""
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a run; ``stem`` is the relative path, without a suffix, that its results have and no other's.

    ``problem`` tells why a source is no picture's place, None where it is one.
    """

    path: Path
    stem: str
    problem: str | None = None


def expand(sources: Sequence[str], output: Path | None = None) -> tuple[list[Item], list[Path]]:
    """Return the pictures of files, folders (recursive) and glob patterns, each once, in order; and those left out.

    Left out are results of an earlier run below ``output``, as ``write_image`` marks them and JSON shows. A file that
    does not exist, a link that leads nowhere, a folder that cannot be listed, a pattern that matches nothing and a URL
    stay, to be told of when they are read. Raises InputError where a source is an empty text.
    """
    results = None if output is None else Path(os.path.realpath(output))
    stems: set[str] = set()
    items: dict[str, Item] = {}
    left_out: dict[str, Path] = {}
    for source in sources:
        if not source:
            raise InputError("an empty name is no picture, folder or pattern; the working folder is .")
        if (problem := _problem(source)) is not None:
            items.setdefault(source, Item(Path(source), _unused("none", stems), problem))
            continue
        for path, root in _paths(source):
            key = os.path.realpath(path)
            if results is not None and results in Path(key).parents and _is_result(path):
                left_out[key] = path
            elif key not in items:
                items[key] = Item(path, _unused(path.relative_to(root).with_suffix("").as_posix(), stems))
    return list(items.values()), list(left_out.values())


def _paths(source: str) -> Iterator[tuple[Path, Path]]:
    """The pictures of one source, each with the folder its result's name is relative to."""
    path = expand_user(source)
    if is_folder(path):
        for found in sorted(_below(path)):
            yield found, path
    elif is_pattern(source):
        for match in matches(path):
            yield match, match.parent
    else:
        yield path, path.parent


def _problem(source: str) -> str | None:
    """Why a source is neither a file, a folder nor a pattern of some."""
    if is_url(source):
        return f"{source} is an address; pictures are read from files: download it first"
    if is_pattern(source) and not matches(Path(os.path.expanduser(source))):  # noqa: PTH111 (as below)
        return f"no file matches {source}"
    return None


def is_pattern(source: str) -> bool:
    """Return whether a source is a glob pattern, not the name of a file that is there."""
    return glob.has_magic(source) and not os.path.lexists(os.path.expanduser(source))  # noqa: PTH111 (as below)


def matches(pattern: Path) -> list[Path]:
    """Return the files that a pattern matches, sorted."""
    paths = [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207 (absolute patterns)
    return [path for path in paths if _may_be_read(path)]


def told_of_none(sources: Sequence[str]) -> str:
    """Return what to say where folders hold no file that is named as a picture."""
    folders = [os.path.expanduser(source) for source in sources]  # noqa: PTH111
    names = [name for folder in folders for _, _, names in os.walk(folder) for name in names]
    suffixes = sorted({Path(name).suffix.lower() or "no suffix" for name in names})
    there = f"the files there end in {', '.join(suffixes[:8])}" if names else "no file is there"
    return f"no pictures in {', '.join(sources)}: {there}; accepted are {', '.join(SUFFIXES)}"


def _below(folder: Path) -> Iterator[Path]:
    """The files named as pictures, and the folders that cannot be listed."""
    errors: list[OSError] = []
    for parent, _, names in os.walk(folder, onerror=errors.append):
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES and _may_be_read(path):
                yield path
    for error in errors:
        yield Path(error.filename)


def _may_be_read(path: Path) -> bool:
    """Whether it is a file, or something wrong that reading it tells of; a folder, a pipe and a device are not."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _is_result(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            head = file.read(128)
    except OSError:
        return False
    return _MARK in head or head.startswith(_RECORDS)


def _unused(stem: str, stems: set[str]) -> str:
    """``stem``, or with a number behind it where another picture has it (as on file systems that ignore case)."""
    candidate, number = stem, 2
    while candidate.casefold() in stems:
        candidate, number = f"{stem}_{number}", number + 1
    stems.add(candidate.casefold())
    return candidate


def places(items: Sequence[Item], folder: Path, suffix: str, reserved: Set[Identity]) -> dict[Item, Path]:
    """Return where the result of each picture goes: STEM and suffix in ``folder``, no two at one place.

    Where that is one of the ``reserved`` files, such as the pictures, the name has ``_faces`` behind its stem.
    """
    stems = {item.stem.casefold() for item in items}
    found: dict[Item, Path] = {}
    for item in items:
        stem = item.stem
        while identity(folder / f"{stem}{suffix}") in reserved:
            stem = _unused(f"{item.stem}_faces", stems)
        found[item] = folder / f"{stem}{suffix}"
    return found


def beside_reserved(path: Path, reserved: Set[Identity]) -> Path:
    """``path``, or with ``_faces`` behind its name where it is one of the ``reserved`` files."""
    while identity(path) in reserved:
        path = path.with_name(f"{path.stem}_faces{path.suffix}")
    return path


def write_image(path: Path, image: ImageArray) -> None:
    """Write a result (H, W, 3) uint8 BGR as a picture in the format of the suffix, .jpg or .png, marked, atomically."""
    cv2 = load_cv2()
    try:
        encoded: Any = cv2.imencode(path.suffix, image)[1]
    except cv2.error as error:
        raise ImageError(f"cannot write {path}: {error.err or error}") from error
    write_bytes(path, _marked(encoded.tobytes()))


def _marked(data: bytes) -> bytes:
    """A JPEG or PNG file with the mark as its comment, behind the first segment or chunk, which is the header."""
    if data.startswith(_PNG):
        body = b"tEXtComment\0" + _MARK
        comment = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        end = len(_PNG) + 12 + int.from_bytes(data[8:12], "big")
    else:
        comment = b"\xff\xfe" + (len(_MARK) + 2).to_bytes(2, "big") + _MARK
        end = 4 + int.from_bytes(data[4:6], "big")
    return data[:end] + comment + data[end:]
