"""Files and folders on this machine or by the URL of a pyarrow file system (s3://, gs://, hdfs://, abfs://, file://)."""

from __future__ import annotations

import functools
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from .._optional import load
from ..errors import InputError, OutputError
from ..files import is_url

_URL = re.compile(r"(?P<root>[^:]+://[^/?]*)/?(?P<path>[^?]*)(?P<options>\?.*)?", re.DOTALL)
_WHOLE_ON_CLOSE = ("s3", "gcs", "abfs")
"""Object stores, in which an object is there once it is whole, and moving one is copying it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder: a path of this machine, made absolute, or a URL. Can be pickled.

    Bytes of a URL's path may be percent-encoded; ?, # and % of a name must be. Behind ? stand options of the file
    system, as in ``s3://bucket/folder?region=eu-central-1``. Raises InputError for a URL that no file system takes.
    """

    url: str

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Place:
        """Return the place of a path or a URL."""
        text = os.fspath(path)
        return cls(text if is_url(text) else os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111

    def __str__(self) -> str:
        return self.url

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine, not a URL."""
        return not is_url(self.url)

    @property
    def suffix(self) -> str:
        """The end of its name, such as .txt, in small letters."""
        return os.path.splitext(self._cut()[0])[1].lower()  # noqa: PTH122

    def beside(self, suffix: str) -> Place:
        """Return the place whose name has that suffix more."""
        path, options = self._cut()
        return Place(f"{path}{suffix}{options}")

    def __truediv__(self, name: str) -> Place:
        path, options = self._cut()
        return Place(f"{path}{'' if path.endswith('/') else '/'}{name}{options}")

    def find(self) -> tuple[Any, str]:
        """Return pyarrow's file system and the path in it. Raises InputError and MissingDependencyError."""
        if self.is_local:
            return _local(), self.url
        found = _URL.fullmatch(self.url)
        assert found is not None
        system, prefix = _open(found["root"], found["options"] or "")
        return system, prefix + unquote(found["path"])

    def kind(self) -> str:
        """Return "file", "folder" or "none". Raises InputError where it cannot be looked at."""
        return _KINDS.get(self._info().type.name, "none")

    def state(self) -> list[int]:
        """Return the size in bytes and the time of the last change, by which a change of a file is seen."""
        info = self._info()
        return [info.size or 0, info.mtime_ns or 0]

    def read(self) -> bytes:
        """Return what the file holds. Raises OSError."""
        system, path = self.find()
        with system.open_input_stream(path) as file:
            return bytes(file.read())

    def write(self, data: bytes) -> None:
        """Write the file atomically; its folder is there. Raises OutputError."""
        try:
            with self.writing() as file:
                file.write(data)
        except OSError as error:
            raise OutputError(f"{self} cannot be written: {error}") from error

    def writing(self, drafts: Place | None = None) -> Writing:
        """Open the file for writing: it takes its place, whole, at the end of the with block. Raises OSError.

        ``drafts``: the folder of the draft, on the same file system (default: that of the file).
        """
        return Writing(*self.find(), None if drafts is None else drafts.find()[1])

    def make_folder(self) -> None:
        """Make the folder and those above it. Raises OutputError."""
        system, path = self.find()
        try:
            system.create_dir(path, recursive=True)
        except OSError as error:
            raise OutputError(f"{self} cannot be made: {error}") from error

    def remove(self) -> None:
        """Remove the file or the folder with all in it, if it is there. Raises OSError."""
        system, path = self.find()
        kind = self.kind()
        if kind == "folder":
            system.delete_dir(path)
        elif kind == "file":
            system.delete_file(path)

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield the names in the folder, in order, each with its kind; nothing where there is no folder."""
        system, path = self.find()
        selector = load("pyarrow.fs", "parquet").FileSelector(path, allow_not_found=True)
        for info in sorted(system.get_file_info(selector), key=lambda info: str(info.base_name)):
            yield info.base_name, _KINDS.get(info.type.name, "none")

    def _info(self) -> Any:
        system, path = self.find()
        try:
            return system.get_file_info(path)
        except (OSError, UnicodeEncodeError) as error:
            raise InputError(f"{self} cannot be looked at: {error}") from error

    def _cut(self) -> tuple[str, str]:
        path, mark, options = (self.url, "", "") if self.is_local else self.url.partition("?")
        return path, mark + options


_KINDS = {"File": "file", "Directory": "folder"}


class Writing:
    """A file that is being written: a draft, beside it or in ``drafts``, until the with block ends, then moved there.

    In an object store, where a file is there once it is closed, it is written at its place. Where the block raises,
    what was written is removed.
    """

    def __init__(self, system: Any, path: str, drafts: str | None = None) -> None:
        self.system, self.path = system, path
        draft = path if drafts is None else f"{drafts}/{path.rpartition('/')[2]}"
        self.draft = path if system.type_name in _WHOLE_ON_CLOSE else f"{draft}.{secrets.token_hex(4)}.tmp"

    def __enter__(self) -> Any:
        self._stream = self.system.open_output_stream(self.draft)
        return self._stream

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._stream.close()
        if error is not None:
            self.system.delete_file(self.draft)
        elif self.draft != self.path:
            if self.system.type_name == "hdfs" and self.system.get_file_info(self.path).is_file:
                self.system.delete_file(self.path)  # it moves onto no file
            self.system.move(self.draft, self.path)


@functools.cache
def _local() -> Any:
    return load("pyarrow.fs", "parquet").LocalFileSystem()


@functools.cache
def _open(root: str, options: str) -> tuple[Any, str]:
    """Return the file system of a URL's beginning, opened once, and how its paths begin."""
    fs = load("pyarrow.fs", "parquet")
    try:
        system, path = fs.FileSystem.from_uri(f"{root}/x{options}")
    except (ValueError, OSError) as error:
        known = "file, s3, gs, hdfs, abfs"
        raise InputError(f"{root}/ cannot be opened ({error}); pyarrow's file systems are {known}") from error
    return system, path.removesuffix("x")
