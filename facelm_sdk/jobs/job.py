"""A job on disk: its plan and its parts in a folder beside the output, which becomes whole at the end.

``landmarks.parquet.parts`` holds ``pictures.jsonl`` (the names of all pictures, as they were when the job began),
``plan.json`` (what the job is, and its parts) and a parquet file a part that is done. Each is written atomically, so
whenever a run ends, the next one finds whole parts, and does the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import __version__, table
from .._optional import load
from ..aligner import Aligner
from ..errors import InputError, OutputError
from ..runtimes.base import Reopened, Session
from .inputs import Column, Part, Reader, plan
from .storage import Place
from .worker import Work, part_file

ROW_GROUP = 32_768
"""Rows of a row group of the output: about 30 MB in memory."""
_PLAN = "plan.json"
_KEY = "facelm_job"
_PART = re.compile(r"(\d{8,})\.parquet")

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a job found: its pictures, the faces in them, and those without one; ``failed`` have an error."""

    pictures: int
    faces: int
    without_face: int
    failed: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was begun. ``parts`` are all of its parts, ``settings`` what it depends on."""

    out: Place
    folder: Place
    settings: Settings
    parts: tuple[Part, ...]
    work: Work

    @property
    def pictures(self) -> int:
        """How many pictures there are."""
        return self.parts[-1].first + self.parts[-1].count

    def left(self) -> list[Part]:
        """Return the parts that are not done."""
        done = {int(found[1]) for name, _ in self.folder.names() if (found := _PART.fullmatch(name))}
        return [part for part in self.parts if part.number not in done]

    def finish(self) -> Summary:
        """Put the parts together, in order, as the output, and remove their folder.

        A part that is damaged is removed. Raises OutputError for that, to be done by the next run.
        """
        found = np.zeros(4, np.int64)
        parquet = load("pyarrow.parquet", "parquet")
        drafted = self.out.writing(self.folder)  # where a run that is ended leaves nothing behind
        with drafted as file, parquet.ParquetWriter(file, table.schema(), compression="zstd") as writer:
            for rows in _in_groups(self._checked(part, found) for part in self.parts):
                writer.write_table(rows, row_group_size=ROW_GROUP)
            summary = Summary(*found.tolist())
            writer.add_key_value_metadata({_KEY: json.dumps({**self.settings, "found": asdict(summary)})})
        _clear(self.folder)
        return summary

    def _checked(self, part: Part, found: Any) -> Any:
        """A part's table, counted into ``found``."""
        place = part_file(self.folder, part)
        try:
            system, path = place.find()
            with system.open_input_file(path) as file:
                rows = load("pyarrow.parquet", "parquet").ParquetFile(file).read()
            pictures = np.unique(rows["picture"].to_numpy())
            if not np.array_equal(pictures, np.arange(part.first, part.first + part.count)):
                raise ValueError("it has other pictures than it should")
        except (OSError, ValueError, KeyError) as error:
            place.remove()
            message = f"{place} was damaged ({error}) and is removed; the same command does its pictures again"
            raise OutputError(message) from error
        faces, failed = len(rows) - rows["face"].null_count, len(rows) - rows["error"].null_count
        found += (part.count, faces, len(rows) - faces - failed, failed)
        return rows


def open_job(
    sources: Sequence[str],
    out: Place,
    aligner: Aligner,
    *,
    column: str | None,
    root: str,
    told: Callable[[int], None],
) -> Job | Summary:
    """Begin a job, or go on with the one whose parts lie beside ``out``; its Summary where ``out`` is whole already.

    ``told`` is told how many pictures have been listed, now and then. Raises InputError where ``out`` or the parts are
    of another job, for sources that are none and where there is no picture, and OutputError.
    """
    settings = _settings(sources, aligner, column, root)
    folder = out.beside(".parts")
    if (summary := _finished(out, settings)) is not None:
        _clear(folder)  # a run ended between the last two steps
        return summary
    if (folder / _PLAN).kind() == "none":
        _clear(folder)
        folder.make_folder()
        try:
            files, parts = plan(sources, folder / "pictures.jsonl", column, told)
            if not parts:
                raise InputError(f"no pictures in {', '.join(sources)}")
        except BaseException:
            _clear(folder)
            raise
        planned = {"settings": settings, "files": [asdict(one) for one in files], "parts": [_row(one) for one in parts]}
        (folder / _PLAN).write(json.dumps(planned).encode())
    begun = json.loads((folder / _PLAN).read())
    _check_same(begun["settings"], settings, f"{folder} is of a run", f"or remove {folder}")
    files = [Column(**values) for values in begun["files"]]
    parts = [Part(number, *values) for number, values in enumerate(begun["parts"])]
    work = Work(aligner, Reader(folder / "pictures.jsonl", tuple(files), root), folder)
    return Job(out, folder, settings, tuple(parts), work)


def _row(part: Part) -> list[int | None]:
    return [part.first, part.count, part.file, part.start]


def _settings(sources: Sequence[str], aligner: Aligner, column: str | None, root: str) -> Settings:
    """What a job's results depend on, as JSON."""
    model = aligner.pipeline or aligner.landmarker
    finder = aligner.pipeline or aligner.detector
    return {
        "sources": [Place.of(source).url for source in sources],
        "column": column,
        "root": root,
        "facelm_sdk": __version__,
        "model": _fingerprint(model.session),
        "detector": None if aligner.detector is None else _fingerprint(aligner.detector.session),
        "flip": aligner.pipeline.spec.flip if aligner.pipeline else aligner.landmarker.flip,
        "det_size": getattr(finder, "det_size", None),
        "det_thresh": getattr(finder, "det_thresh", None),
        "max_faces": aligner.max_faces,
        "min_presence": aligner.min_presence,
        "realign": aligner.realign,
        "max_pixels": aligner.max_pixels,
    }


def _fingerprint(session: Session) -> str:
    name = session.spec.name
    return f"{name} sha256:{session.sha256[:16]}" if isinstance(session, Reopened) else name


def _finished(out: Place, settings: Settings) -> Summary | None:
    """What the job found that ``out`` is of; None where nothing is there."""
    if (kind := out.kind()) == "none":
        return None
    if kind == "folder":
        raise OutputError(f"{out} cannot be written: it is a folder, not a file")
    advice = f"or remove {out}"
    try:
        system, path = out.find()
        with system.open_input_file(path) as file:
            begun = json.loads(load("pyarrow.parquet", "parquet").read_metadata(file).metadata[_KEY.encode()])
            summary = Summary(**begun.pop("found"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{out} is there, and is no result of such a job: give another name, {advice}") from error
    _check_same(begun, settings, f"{out} is there, of a run", advice)
    return summary


def _check_same(begun: Mapping[str, Any], settings: Settings, what: str, advice: str) -> None:
    settings = json.loads(json.dumps(settings))
    other = [name for name in settings if begun.get(name) != settings[name]]
    if other:
        told = "; ".join(f"{name} {begun.get(name)!r}, not {settings[name]!r}" for name in other)
        raise InputError(f"{what} with other options ({told}): give the same, or another output, {advice}")


def _in_groups(tables: Iterator[Any]) -> Iterator[Any]:
    """The rows of small tables as tables of ROW_GROUP rows, the last one smaller."""
    arrow = load("pyarrow", "parquet")
    waiting: list[Any] = []
    count = 0
    for rows in tables:
        waiting.append(rows)
        count += len(rows)
        if count >= ROW_GROUP:
            whole = arrow.concat_tables(waiting)
            full = count - count % ROW_GROUP
            yield whole.slice(0, full)
            waiting, count = [whole.slice(full)], count - full
    if count:
        yield arrow.concat_tables(waiting)


def _clear(folder: Place) -> None:
    """Remove a folder of parts, the plan first, so that what is left of it is no job's."""
    with suppress(FileNotFoundError):
        (folder / _PLAN).remove()
        folder.remove()
