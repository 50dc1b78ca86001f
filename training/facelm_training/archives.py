"""Folders and zip files of the project's own training data."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm_sdk.errors import ImageError, InputError

DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, lzma.LZMAError)
"""What zipfile raises on a damaged file beside errors of no kind of its own."""


def check_folder(folder: str | Path, files: Sequence[str]) -> Path:
    """Return ``folder`` as a Path. Raises InputError naming those of ``files`` that it lacks."""
    path = Path(folder)
    if missing := [name for name in files if not (path / name).is_file()]:
        raise InputError(f"{path} is not the training data folder; it lacks {', '.join(missing)}")
    return path


def read_zipped(archive: Path, names: Sequence[str]) -> list[NDArray[np.uint8]]:
    """Read pictures (H, W, 3) uint8 BGR of a zip. Raises ImageError, and InputError where the zip is damaged."""
    blobs = read_records(archive, names)
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda blob: cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR), blobs))
    for name, image in zip(names, images, strict=True):
        if image is None:
            raise ImageError(f"{archive.name}: {name} is not a readable picture")
    return images  # type: ignore[return-value]


def read_records(archive: Path, names: Sequence[str]) -> list[bytes]:
    """Read files of a zip. Raises InputError where it is damaged or lacks one."""
    try:
        with zipfile.ZipFile(archive) as file:
            return [file.read(name) for name in names]
    except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError, EOFError, *DAMAGED) as error:
        raise InputError(f"{archive} cannot be read; it is damaged ({error})") from error
