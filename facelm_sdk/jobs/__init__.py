"""Big jobs: the faces of many pictures as one parquet file, by many processes or machines, resumable at any moment.

``inputs`` says which pictures, ``job`` keeps plan and parts beside the output, ``worker`` does a part in a process of
its own, ``local`` and ``cluster`` (Ray) share parts out. Rows and their schema are :mod:`facelm_sdk.table`'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from .. import machine
from .._checks import is_whole
from .._optional import load
from ..aligner import Aligner
from ..errors import InputError
from ..files import check_place
from .inputs import Part
from .job import Job as Job
from .job import Summary as Summary
from .job import open_job
from .storage import Place

Engine = Literal["local", "ray"]

MAX_WORKERS = 4096


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: ``done`` of ``total`` pictures, ``before`` of them by earlier runs; ``failed`` in this run.

    While pictures are listed, ``total`` is None and ``done`` those that were found so far.
    """

    done: int
    total: int | None
    before: int = 0
    failed: int = 0


def align(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    aligner: Aligner | None = None,
    *,
    workers: int | None = None,
    column: str | None = None,
    root: str | os.PathLike[str] | None = None,
    engine: Engine = "local",
    address: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Write the faces of many pictures as one parquet file of :func:`facelm_sdk.table.schema`'s rows.

    ``sources`` are folders (searched recursively), patterns, pictures, ``.txt`` lists of paths or URLs, a line each,
    and ``.parquet`` files with a ``column`` of paths, URLs or bytes (default: the first of inputs.COLUMNS that is
    there). Folders, lists, parquet files, pictures and ``out`` may be URLs of pyarrow's file systems, such as s3://.
    ``root`` is the folder of relative paths in lists and columns (default: the working folder). ``workers`` are
    processes, by default as many as cores.

    A run that was ended, however, is gone on with by the same call: its parts lie beside ``out`` until all are done. A
    picture that cannot be read is a row with its error. ``engine="ray"`` shares the parts out on the Ray cluster at
    ``address``, a local one where there is none; the rows are the same. ``progress`` is called as pictures get done.

    Raises InputError for sources that are none and for an ``out`` of another job, OutputError, ModelError, and
    MissingDependencyError without pyarrow or Ray.
    """
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    if engine not in get_args(Engine):
        raise InputError(f"engine is {' or '.join(get_args(Engine))}, not {engine!r}")
    if address is not None and engine != "ray":
        raise InputError("address is of a Ray cluster: give engine='ray' too")
    if workers is not None and not is_whole(workers, 1, MAX_WORKERS):
        raise InputError(f"workers is a whole number from 1 to {MAX_WORKERS}, or None, not {workers!r}")
    if (place := Place.of(out)).suffix != ".parquet":
        raise InputError(f"the output of a job is a file that ends in .parquet, not {place}")
    load("pyarrow.parquet", "parquet")
    if engine == "ray":
        load("ray.data", "ray")
    if place.is_local:
        check_place(Path(place.url))
    tell = progress or (lambda _: None)
    job = open_job(
        [os.fspath(source) for source in sources],
        place,
        aligner or Aligner(),
        column=column,
        root=Place.of(root or ".").url,
        told=lambda count: tell(Progress(count, None)),
    )
    if isinstance(job, Summary):
        tell(Progress(job.pictures, job.pictures, job.pictures))
        return job
    left = job.left()
    before = done = job.pictures - sum(part.count for part in left)
    failed = 0
    tell(Progress(done, job.pictures, before))
    if left:
        with closing(_run(job, left, engine, workers, address)) as steps:
            for more, more_failed in steps:
                done, failed = done + more, failed + more_failed
                tell(Progress(done, job.pictures, before, failed))
    return job.finish()


def _run(
    job: Job, left: Sequence[Part], engine: Engine, workers: int | None, address: str | None
) -> Generator[tuple[int, int], None, None]:
    if engine == "ray":
        from . import cluster

        return cluster.run(job.work, left, workers, address)
    from . import local

    return local.run(job.work, left, workers or machine.usable_cores())
