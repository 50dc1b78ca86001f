"""A face as one row of a table: pandas, CSV, parquet."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import markup as markups
from .._optional import load
from ..errors import InputError, MarkupError
from ..types import Face

if TYPE_CHECKING:
    import pandas

_BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
_DERIVED = ("yaw", "pitch", "roll", "eye_openness_left", "eye_openness_right", "mouth_openness")
_TEXT = ("source", "model", "detector", "markup")
_WHOLE = ("face", "width", "height", "track_id")


def columns(markup: str, *, scores: bool = False) -> list[str]:
    """The names of a row's columns, in order, for faces of a markup, with or without the points' scores.

    Box, ``score``, ``presence``, ``track_id`` and ``markup``; yaw, pitch, roll and openness; ``kps_x0``, ``kps_y0`` to
    4, ``x0``, ``y0`` and so on for the landmarks, ``score0`` and so on for their scores.
    """
    count = markups.get(markup).num_points
    points = [f"{axis}{index}" for index in range(count) for axis in "xy"]
    return [
        *(*_BOX, "score", "presence", "track_id", "markup", *_DERIVED),
        *(f"kps_{axis}{index}" for index in range(5) for axis in "xy"),
        *points,
        *(f"score{index}" for index in range(count) if scores),
    ]


def to_row(face: Face) -> dict[str, Any]:
    """A face as the values of :func:`columns`; None where there is none. ``pandas.Series(to_row(face))`` is its row."""
    values = face.to_dict()
    pose, eyes = values["pose"] or {}, values["eye_openness"] or {}
    derived = [*(pose.get(name) for name in ("yaw", "pitch", "roll")), eyes.get("left"), eyes.get("right")]
    row = [
        *(*values["bbox"], values["score"], values["presence"], face.track_id, face.markup),
        *(*derived, values["mouth_openness"]),
        *(value for points in (values["kps"], values["landmarks"]) for point in points for value in point),
        *(values["scores"] or ()),
    ]
    return dict(zip(columns(face.markup, scores=face.scores is not None), row, strict=True))


def from_row(row: Mapping[str, Any]) -> Face:
    """The face of a row: a pandas Series, a dict, a line of csv.DictReader; other columns are not read.

    Raises InputError for a row that lacks a column or has something else than a number, and MarkupError.
    """
    try:
        markup = str(row["markup"])
        count = markups.get(markup).num_points
        landmarks, kps = (_points(row, prefix, points) for prefix, points in (("", count), ("kps_", 5)))
        bbox = [float(row[name]) for name in _BOX]
        score, presence, track_id = (_number(row.get(name)) for name in ("score", "presence", "track_id"))
        scores = [value for index in range(count) if (value := _number(row.get(f"score{index}"))) is not None]
    except KeyError as error:
        raise InputError(f"a face's row lacks {error}") from error
    except MarkupError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"a face's row has something that is no number ({error})") from error
    return Face.of_landmarks(
        landmarks,
        markup,
        bbox=bbox,
        score=score,
        kps=kps,
        scores=scores or None,
        track_id=int(track_id) if track_id is not None and track_id.is_integer() else track_id,  # type: ignore[arg-type]
        presence=presence,
    )


def to_frame(faces: Iterable[Face]) -> pandas.DataFrame:
    """The faces as a pandas DataFrame, a row each. Raises MissingDependencyError without pandas."""
    frame: pandas.DataFrame = load("pandas", "pandas").DataFrame([to_row(face) for face in faces])
    return frame


def to_parquet(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bytes:
    """A parquet file of rows with these columns; numbers are float64 but for counts and ids, int64.

    Raises MissingDependencyError without pyarrow.
    """
    arrow = load("pyarrow", "parquet")
    parquet = load("pyarrow.parquet", "parquet")
    kinds = {**dict.fromkeys(_TEXT, arrow.string()), **dict.fromkeys(_WHOLE, arrow.int64())}
    schema = arrow.schema([(name, kinds.get(name, arrow.float64())) for name in names])
    data = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(list(rows), schema), data)
    return data.getvalue()


def _points(row: Mapping[str, Any], prefix: str, count: int) -> list[list[float]]:
    return [[float(row[f"{prefix}{axis}{index}"]) for axis in "xy"] for index in range(count)]


def _number(value: Any) -> float | None:
    """A cell as a number; None where it is empty, NaN or pandas' NA."""
    if value is None or value == "" or type(value).__name__ == "NAType":
        return None
    number = float(value)
    return None if math.isnan(number) else number
