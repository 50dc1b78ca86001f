"""Folders and zip files of the project's own training data."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm_sdk.errors import ImageError, InputError


def check_folder(folder: str | Path, files: Sequence[str]) -> Path:
    """Return ``folder`` as a Path. Raises InputError naming those of ``files`` that it lacks."""
    path = Path(folder)
    if missing := [name for name in files if not (path / name).is_file()]:
        raise InputError(f"{path} is not the training data folder; it lacks {', '.join(missing)}")
    return path


def read_zipped(archive: Path, names: Sequence[str]) -> list[NDArray[np.uint8]]:
    """Read pictures (H, W, 3) uint8 BGR of a zip. Raises ImageError, which names the archive."""
    try:
        with zipfile.ZipFile(archive) as file:
            blobs = [file.read(name) for name in names]
    except Exception as error:  # zipfile raises as it pleases: BadZipFile, KeyError, EOFError, zlib.error, RuntimeError
        raise ImageError(f"{archive} cannot be read; it is damaged or lacks a picture ({error})") from error
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(decoded, blobs))
    for name, image in zip(names, images, strict=True):
        if image is None:
            raise ImageError(f"{archive.name}: {name} is not a readable picture")
    return images  # type: ignore[return-value]


def decoded(blob: bytes) -> NDArray[np.uint8] | None:
    """Return the picture (H, W, 3) uint8 BGR of a file's bytes, None where it is none that can be read."""
    try:
        return cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR)  # type: ignore[return-value]
    except cv2.error:  # of an empty file, or above OpenCV's limit
        return None
