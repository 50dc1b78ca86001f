"""Folders and zip files of the project's own training data."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from facelm_sdk.errors import ImageError, InputError
from facelm_sdk.images.read import check_file, decode
from facelm_sdk.types import ImageArray


def check_folder(folder: str | Path, files: Sequence[str]) -> Path:
    """Return ``folder`` as a Path. Raises InputError naming those of ``files`` that it lacks."""
    path = Path(folder)
    if missing := [name for name in files if not (path / name).is_file()]:
        raise InputError(f"{path} is not the training data folder; it lacks {', '.join(missing)}")
    return path


def read_zipped(archive: Path, names: Sequence[str]) -> list[ImageArray]:
    """Read pictures (H, W, 3) uint8 BGR of a zip. Raises ImageError, which names the archive."""
    try:
        with zipfile.ZipFile(archive) as file:
            blobs = [file.read(name) for name in names]
    except Exception as error:  # zipfile raises as it pleases: BadZipFile, KeyError, EOFError, zlib.error, RuntimeError
        raise ImageError(f"{archive} cannot be read; it is damaged or lacks a picture ({error})") from error
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(decoded, blobs, (f"{archive.name}: {name}" for name in names)))


def decoded(data: bytes, what: str, *, upright: bool = True) -> ImageArray:
    """Return the picture (H, W, 3) uint8 BGR of a file's bytes, of no more pixels than read_image takes.

    ``upright``: turned by its EXIF orientation. Raises ImageError, which begins with ``what``.
    """
    check_file(data, what)
    return decode(data, what, upright=upright)
