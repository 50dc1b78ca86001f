"""Faces as rows of one typed table, in a notebook as in the files of big jobs: a row a face, named as in the JSON.

A picture without a face has one row with none (``face`` is null), and so has one that could not be done (``error`` says
why), so that every picture is accounted for. ``Face.from_dict(row)`` is the face of a row. Needs pyarrow:
``pip install "facelm-sdk[parquet]"``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._optional import load, load_cv2
from .errors import FacelmError, InputError
from .files import printable
from .images.picture import Picture

if TYPE_CHECKING:
    import os

    import pyarrow

    from .aligner import Aligner

Row = dict[str, Any]


def schema() -> pyarrow.Schema:
    """Return the table's schema: the picture, then what Face.to_dict gives; coordinates are pixels as float32.

    ``picture`` is the picture's number in what was given, from 0; ``source`` its path or address; ``width``,
    ``height`` its pixels; ``error`` why it could not be done; ``face`` the face's number in it, from 0, best score
    first. ``landmarks`` and ``kps`` are lists of (x, y). Raises MissingDependencyError without pyarrow.
    """
    arrow = load("pyarrow", "parquet")
    number, text, whole = arrow.float32(), arrow.string(), arrow.int32()
    numbers = arrow.list_(number)
    points = arrow.list_(numbers)

    def struct(*names: str) -> Any:
        return arrow.struct([(name, number) for name in names])

    columns = {
        "picture": arrow.int64(),
        "source": text,
        "width": whole,
        "height": whole,
        "error": text,
        "face": whole,
        "bbox": numbers,
        "score": number,
        "presence": number,
        "kps": points,
        "markup": text,
        "landmarks": points,
        "scores": numbers,
        "pose": struct("yaw", "pitch", "roll"),
        "eye_openness": struct("left", "right"),
        "mouth_openness": number,
        "model": text,
        "detector": text,
    }
    return arrow.schema(list(columns.items()))


def rows(aligner: Aligner, image: Any, source: str | os.PathLike[str] | None = None, *, picture: int = 0) -> list[Row]:
    """Return the rows of one picture: one a face, or a single one without a face or with the error.

    ``image`` is what the Aligner takes; ``source`` what to call it, by default ``image`` where that is a path.
    """
    if source is None:
        source = image if isinstance(image, str) or hasattr(image, "__fspath__") else None
    try:
        opened = image if isinstance(image, Picture) else Picture(image, max_pixels=aligner.max_pixels)
        faces = aligner(opened)
    except picture_errors() as error:
        return [error_row(aligner, source, error_text(error), picture=picture)]
    size = {"width": opened.width, "height": opened.height}
    given = {**_picture(aligner, source, picture), **size}
    if not faces:
        return [given]
    return [{**given, "face": index, **face.to_dict()} for index, face in enumerate(faces)]


def error_row(aligner: Aligner, source: Any, error: str, *, picture: int = 0) -> Row:
    """Return the row of a picture that could not be done."""
    return {**_picture(aligner, source, picture), "error": printable(error)}


def align(aligner: Aligner, images: Iterable[Any]) -> pyarrow.Table:
    """Return the table of many pictures, in their order, as ``facelm align --out`` writes it."""
    found = [row for number, image in enumerate(images) for row in rows(aligner, image, picture=number)]
    return to_table(found)


def to_table(found: Iterable[Mapping[str, Any]]) -> pyarrow.Table:
    """Return rows as a pyarrow Table of :func:`schema`. Raises MissingDependencyError without pyarrow."""
    return load("pyarrow", "parquet").Table.from_pylist(list(found), schema())


def points(table: pyarrow.Table, column: str = "landmarks") -> NDArray[np.float32]:
    """Return a column of points of all faces of a table: (n, L, 2) float32, (x, y) pixels; also ``kps``.

    Rows without a face are left out. Raises InputError where faces have different numbers of points.
    """
    arrow = load("pyarrow", "parquet")
    found = table[column].combine_chunks().drop_null()
    if not len(found):
        return np.empty((0, 0, 2), np.float32)
    counts = load("pyarrow.compute", "parquet").list_value_length(found).to_numpy()
    if (counts != counts[0]).any():
        raise InputError(f"faces of {sorted(set(counts.tolist()))} points are no one array: choose by markup first")
    flat = found.flatten().flatten().cast(arrow.float32()).to_numpy(zero_copy_only=False)
    return np.asarray(flat).reshape(len(found), int(counts[0]), 2)


def picture_errors() -> tuple[type[Exception], ...]:
    """What a picture, not the program, is to blame for."""
    return FacelmError, OSError, MemoryError, load_cv2().error


def error_text(error: Exception) -> str:
    """Return what to tell a user of one of :func:`picture_errors`."""
    text = str(error)
    if isinstance(error, MemoryError):
        return f"too large for the memory there is{f': {text}' if text else ''}"
    if isinstance(error, load_cv2().error):
        return f"OpenCV: {error.err or error}"
    return text


def _picture(aligner: Aligner, source: Any, picture: int) -> Row:
    return {
        "picture": picture,
        "source": None if source is None else printable(str(source)),
        "model": (aligner.pipeline or aligner.landmarker).spec.name,
        "detector": None if aligner.detector is None else aligner.detector.spec.name,
    }
