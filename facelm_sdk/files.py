"""Writing files so that no half one is left."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path

from .errors import OutputError


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically, its folder too: a reader sees the old one or the whole new one.

    Raises OutputError where that is not possible.
    """
    write_files({path: data})


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write files and the folders they lie in: all of them or, where one cannot be written, none.

    None takes its place before all are on the disk; what stood there before is kept till then. Raises OutputError.
    """
    drafts = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    folders: list[Path] = []
    placed: list[Path] = []
    path = Path()
    try:
        for path, data in files.items():
            _make_folder(path.parent, folders)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            drafts[path].write_bytes(data)
        for path, draft in drafts.items():
            draft.replace(path)
            placed.append(path)
    except BaseException as error:  # an interrupt too leaves nothing behind
        for remains in (*drafts.values(), *placed):
            with contextlib.suppress(OSError):
                remains.unlink()
        for folder in reversed(folders):
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
        raise


def check_place(path: Path) -> None:
    """Raise OutputError where a file at ``path`` could not be written, before the work that makes it is done."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise OutputError(f"{path} cannot be written: {folder} is a file, not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be written: no permission to write in {folder}")


def _make_folder(folder: Path, made: list[Path]) -> None:
    """Make a folder and those above it; each that had to be made is added to ``made``."""
    for missing in reversed([parent for parent in (folder, *folder.parents) if not parent.exists()]):
        missing.mkdir(exist_ok=True)
        made.append(missing)
    folder.mkdir(exist_ok=True)  # tells of a file in its place
