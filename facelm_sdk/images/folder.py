"""A run over many pictures: which files, where each result goes, and writing it so that no half file is left."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._optional import load_cv2
from ..errors import ImageError
from ..files import write_bytes
from ..types import ImageArray

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a run; ``stem`` is the relative path, without a suffix, that its results have and no other's."""

    path: Path
    stem: str


def expand(sources: Sequence[str], output: Path | None = None) -> list[Item]:
    """The pictures of files, folders (recursive) and glob patterns, each once, in order.

    A file that does not exist stays in the list, to be reported when it is read. Pictures in ``output`` are results of
    an earlier run and are left out of folders around it.
    """
    stems: set[str] = set()
    items: dict[Path, Item] = {}
    for source in sources:
        for path, root in _paths(source, output):
            key = path.resolve()
            if key not in items:
                items[key] = Item(path, _unused(path.relative_to(root).with_suffix("").as_posix(), stems))
    return list(items.values())


def _paths(source: str, output: Path | None) -> Iterator[tuple[Path, Path]]:
    """The pictures of one source, each with the folder its result's name is relative to."""
    path = Path(source).expanduser()
    if path.is_dir():
        results = None if output is None or output.resolve() == path.resolve() else output.resolve()
        for found in sorted(path.rglob("*")):
            is_result = results is not None and results in found.resolve().parents
            if found.suffix.lower() in SUFFIXES and found.is_file() and not is_result:
                yield found, path
    elif glob.has_magic(source) and not path.exists():
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 (absolute patterns)
        files = [match for match in matches if match.is_file()]
        for match in files or [path]:
            yield match, match.parent
    else:
        yield path, path.parent


def _unused(stem: str, stems: set[str]) -> str:
    """``stem``, or with a number behind it where another picture has it (as on file systems that ignore case)."""
    candidate, number = stem, 2
    while candidate.casefold() in stems:
        candidate, number = f"{stem}_{number}", number + 1
    stems.add(candidate.casefold())
    return candidate


def beside_inputs(path: Path, inputs: Set[Path]) -> Path:
    """``path``, or with ``_faces`` behind its name where it is one of the input pictures (resolved paths)."""
    while path.resolve() in inputs:
        path = path.with_name(f"{path.stem}_faces{path.suffix}")
    return path


def write_image(path: Path, image: ImageArray) -> None:
    """Write a picture (H, W, 3) uint8 BGR in the format of the suffix, atomically."""
    cv2 = load_cv2()
    try:
        encoded: Any = cv2.imencode(path.suffix, image)[1]
    except cv2.error as error:
        raise ImageError(f"cannot write {path}: {error.err or error}") from error
    write_bytes(path, encoded.tobytes())
