"""The files of results that ``facelm align --format`` writes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from .._optional import load
from ..files import LinesFile, write_bytes
from ..interop import coco, table
from ..types import Face


class Format(str, Enum):
    """What is written of the faces: a file a picture (json, pts), or one for all."""

    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    PTS = "pts"
    COCO = "coco"


NAMES = {
    Format.JSONL: "faces.jsonl",
    Format.CSV: "faces.csv",
    Format.PARQUET: "faces.parquet",
    Format.COCO: "coco.json",
}
"""The one file for all, in -o DIR."""


class Results(Protocol):
    """A file of all results that is being written."""

    def add(self, record: dict[str, Any], faces: list[Face]) -> None:
        """Add a picture: its record as in the JSON, and its faces."""


def json_bytes(record: dict[str, Any], indent: int | None = None) -> bytes:
    """A record as JSON text that ends in a newline."""
    return f"{json.dumps(record, ensure_ascii=False, indent=indent)}\n".encode()


@contextmanager
def open_results(kind: Format, path: Path, markup: str, *, scores: bool) -> Iterator[Results]:
    """Open the one file of a format for faces of that markup, with or without scores.

    It takes its place at the end, with what there is where a run is cut short. Raises OutputError, and
    MissingDependencyError where parquet's package is missing.
    """
    if kind in (Format.JSONL, Format.CSV):
        with LinesFile(path) as lines:
            yield _Lines(lines) if kind is Format.JSONL else _Csv(lines, _columns(markup, scores=scores))
        return
    results = _Parquet(_columns(markup, scores=scores)) if kind is Format.PARQUET else _Coco()
    try:
        yield results
    except BaseException:
        if results.count:
            write_bytes(path, results.data())
        raise
    write_bytes(path, results.data())


_PICTURE = ("source", "width", "height", "model", "detector", "face")


def _columns(markup: str, *, scores: bool) -> list[str]:
    return [*_PICTURE, *table.columns(markup, scores=scores)]


def _rows(record: dict[str, Any], faces: list[Face]) -> Iterator[dict[str, Any]]:
    for index, face in enumerate(faces):
        yield {**{name: record[name] for name in _PICTURE[:-1]}, "face": index, **table.to_row(face)}


class _Lines:
    def __init__(self, lines: LinesFile) -> None:
        self.lines = lines

    def add(self, record: dict[str, Any], faces: list[Face]) -> None:
        self.lines.write(json_bytes(record))


class _Csv:
    """A row a face; a picture without one has none."""

    def __init__(self, lines: LinesFile, columns: list[str]) -> None:
        self.lines, self.columns = lines, columns
        self._write(columns)

    def add(self, record: dict[str, Any], faces: list[Face]) -> None:
        for row in _rows(record, faces):
            self._write([row[name] for name in self.columns])

    def _write(self, values: list[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        self.lines.write(text.getvalue().encode())


class _Parquet:
    def __init__(self, columns: list[str]) -> None:
        load("pyarrow.parquet", "parquet")  # told before hours of work
        self.columns = columns
        self.rows: list[dict[str, Any]] = []

    @property
    def count(self) -> int:
        return len(self.rows)

    def add(self, record: dict[str, Any], faces: list[Face]) -> None:
        self.rows += _rows(record, faces)

    def data(self) -> bytes:
        return table.to_parquet(self.rows, self.columns)


class _Coco:
    def __init__(self) -> None:
        self.images: list[coco.CocoImage] = []

    @property
    def count(self) -> int:
        return len(self.images)

    def add(self, record: dict[str, Any], faces: list[Face]) -> None:
        self.images.append(coco.CocoImage(record["source"], record["width"], record["height"], faces))

    def data(self) -> bytes:
        return json_bytes(coco.to_coco(self.images))
