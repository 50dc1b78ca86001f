"""Which pictures a job is of: folders, lists and columns of parquet files, cut into parts that any worker can read."""

from __future__ import annotations

import io
import json
import os
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .._optional import load
from ..errors import InputError
from ..files import is_url
from ..images.folder import is_pattern, matches
from ..images.header import SUFFIXES
from .storage import Place

COLUMNS = ("image", "bytes", "path", "image_path", "file_path", "filepath", "file_name", "filename", "file", "url")
"""The names by which the column of pictures is found in a parquet file, first choice first."""
SMALLEST, LARGEST, AS_LARGE = 4, 2048, 64
"""Pictures of the first parts and of the last ones, and how many parts there are of a size before it doubles: few
pictures are shared out among many workers, and many make no more parts than a folder can hold."""
BATCH = 16
"""Pictures of a parquet file that are held in memory at a time."""


@dataclass(frozen=True, slots=True)
class Part:
    """Pictures that are done, and written, together: ``count`` of them from number ``first`` on.

    ``file`` is the index of the parquet file they stand in from row ``start`` on; None of the list, from that byte on.
    """

    number: int
    first: int
    count: int
    file: int | None
    start: int


@dataclass(frozen=True, slots=True)
class Column:
    """A column of pictures in a parquet file, and the file's state when it was first looked at."""

    url: str
    name: str
    state: list[int]


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the pictures of parts, in whatever process. ``root`` is the folder of relative paths."""

    listing: Place
    files: tuple[Column, ...]
    root: str

    def read(self, part: Part) -> Iterator[tuple[int, str, Any]]:
        """Yield each picture's number, its name, and what it is: bytes, an InputError, or None of a path or URL."""
        found = self._listed(part) if part.file is None else self._column(self.files[part.file], part)
        for index, (name, image) in enumerate(found):
            yield part.first + index, name, image

    def fetch(self, name: str) -> str | bytes:
        """Return what an Aligner reads of a picture's path or URL. Raises OSError and InputError."""
        if is_url(name):
            place = Place(name)
        elif is_url(self.root) and not os.path.isabs(name):  # noqa: PTH117
            place = Place(self.root) / quote(name, errors="surrogateescape")
        else:
            return os.path.join(self.root, name)  # noqa: PTH118 (faster, of millions)
        try:
            return place.read()
        except ValueError as error:  # of a name that the file system cannot have
            raise InputError(f"cannot read {place}: {error}") from error

    def _listed(self, part: Part) -> Iterator[tuple[str, Any]]:
        system, path = self.listing.find()
        with system.open_input_file(path) as file:
            file.seek(part.start)
            lines = io.BufferedReader(file)
            for _ in range(part.count):
                yield json.loads(lines.readline()), None

    def _column(self, column: Column, part: Part) -> Iterator[tuple[str, Any]]:
        place = Place(column.url)
        if place.state() != column.state:
            raise InputError(f"{place} has changed since the job began: begin anew with another --out")
        system, path = place.find()
        with system.open_input_file(path) as file:
            table = load("pyarrow.parquet", "parquet").ParquetFile(file, buffer_size=1 << 20)
            groups, row = _row_groups(table.metadata, part)
            for batch in table.iter_batches(BATCH, groups, [column.name]):
                for value in batch.column(0):
                    if part.start <= row < part.start + part.count:
                        yield _cell(value.as_py(), f"{place}#{row}")
                    row += 1


def plan(
    sources: Sequence[str | os.PathLike[str]], listing: Place, column: str | None, told: Callable[[int], None]
) -> tuple[list[Column], list[Part]]:
    """Write the names of all pictures of folders and lists to ``listing``, and return the parquet files and the parts.

    ``told`` is told the number of pictures now and then. Raises InputError for a source that is none.
    """
    files: list[Column] = []
    parts = _Parts(told)
    with listing.writing() as stream, io.BufferedWriter(stream, 1 << 20) as file:
        place = 0
        for source in sources:
            if (found := Place.of(source)).suffix == ".parquet":
                rows = _parquet(found, column, files)
                for row in range(rows):
                    parts.add(len(files) - 1, row)
                continue
            for name in _names(os.fspath(source)):
                line = json.dumps(name).encode() + b"\n"  # with what is not UTF-8, or a line's end, as an escape
                parts.add(None, place)
                place += file.write(line)
    return files, parts.done()


class _Parts:
    """Cuts pictures that are added one by one into parts."""

    def __init__(self, told: Callable[[int], None]) -> None:
        self._parts: list[Part] = []
        self._told = told
        self._total = self._first = self._start = 0
        self._file: int | None = None

    def add(self, file: int | None, start: int) -> None:
        number = len(self._parts)
        size = min(LARGEST, SMALLEST << min(number // AS_LARGE, 32))
        if self._total - self._first == size or file != self._file:
            self.done()
        if self._total == self._first:
            self._file, self._start = file, start
        self._total += 1
        if self._total % 10_000 == 0:
            self._told(self._total)

    def done(self) -> list[Part]:
        """End the part that was begun, and return all."""
        if count := self._total - self._first:
            self._parts.append(Part(len(self._parts), self._first, count, self._file, self._start))
            self._first = self._total
        return self._parts


def _names(source: str) -> Iterator[str]:
    """The pictures that a source which is no parquet file names."""
    place = Place.of(source)
    if place.is_local and is_pattern(source):
        if not (found := matches(Path(source).expanduser())):
            raise InputError(f"no file matches {source}")
        yield from map(str, found)
    elif (kind := _kind(place)) == "none":
        raise InputError(f"there is no {source}; accepted are folders, pictures, LIST.txt and .parquet files")
    elif kind == "folder":
        yield from _walk(os.path.expanduser(source)) if place.is_local else _walk_url(place)  # noqa: PTH111
    elif place.suffix == ".txt":
        yield from _lines(place)
    else:
        yield source


def _kind(place: Place) -> str:
    if not place.is_local:
        return place.kind()
    path = Path(place.url)
    return "folder" if path.is_dir() else "file" if path.exists() else "none"


def _walk(folder: str) -> Iterator[str]:
    """The files named as pictures below a folder, folder by folder in order, and the folders that cannot be listed."""
    errors: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=errors.append):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES):
                yield os.path.join(parent, name)  # noqa: PTH118 (faster, of millions)
    for error in errors:
        yield error.filename


def _walk_url(folder: Place) -> Iterator[str]:
    below = []
    for name, kind in folder.names():
        inner = folder / quote(name)
        if kind == "folder":
            below.append(inner)
        elif name.lower().endswith(SUFFIXES):
            yield inner.url
    for inner in below:
        yield from _walk_url(inner)


def _lines(place: Place) -> Iterator[str]:
    system, path = place.find()
    with system.open_input_stream(path) as stream, io.BufferedReader(stream, 1 << 20) as file:
        for number, line in enumerate(file):
            text = (line.removeprefix(BOM_UTF8) if number == 0 else line).rstrip(b"\r\n")
            if text:
                yield os.fsdecode(text)


def _parquet(place: Place, column: str | None, files: list[Column]) -> int:
    """Add a parquet file to ``files`` and return its number of rows."""
    parquet = load("pyarrow.parquet", "parquet")
    try:
        system, path = place.find()
        with system.open_input_file(path) as file:
            table = parquet.ParquetFile(file)
            schema, rows = table.schema_arrow, table.metadata.num_rows
    except (OSError, ValueError) as error:
        raise InputError(f"{place} cannot be read as a parquet file: {error}") from error
    name = column or next((name for name in COLUMNS if name in schema.names), None)
    if name not in schema.names:
        wanted = f"column {column!r}" if column else f"column of pictures ({', '.join(COLUMNS)})"
        raise InputError(f"{place} has no {wanted}; it has {', '.join(schema.names)}: --column says which")
    files.append(Column(place.url, str(name), place.state()))
    return int(rows)


def _row_groups(metadata: Any, part: Part) -> tuple[list[int], int]:
    """The row groups that a part's rows lie in, and the number of the first row in them."""
    groups: list[int] = []
    first = row = 0
    for group in range(metadata.num_row_groups):
        end = row + metadata.row_group(group).num_rows
        if row < part.start + part.count and end > part.start:
            first = first if groups else row
            groups.append(group)
        row = end
    return groups, first


def _cell(value: Any, row: str) -> tuple[str, Any]:
    """The name and the picture of a cell: a path or URL, bytes, or what Hugging Face's datasets write, both."""
    path = value.get("path") if isinstance(value, dict) else value if isinstance(value, str) else None
    data = value.get("bytes") if isinstance(value, dict) else value if isinstance(value, bytes) else None
    if path is None and data is None:
        found = "nothing" if value is None else f"a {type(value).__name__}"
        return row, InputError(
            f"{row} holds {found}; accepted are a path or URL, bytes, and a struct of bytes and path"
        )
    return str(path or row), data
