"""How fast a model runs on this machine: the timing that every figure of this project comes from, and ``facelm bench``.

Times are wall-clock milliseconds. What is compared is interleaved, one run of each in turn, so that a machine that
slows down slows all of them. A ratio is only stated where all were steady.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import machine
from ._optional import load_cv2, load_onnxruntime
from .aligner import Aligner
from .contract import LandmarkSpec, PipelineSpec
from .errors import InputError
from .images.read import read_image
from .landmarker import Landmarker
from .runtimes.base import PROVIDERS, InferencePrecision, RuntimeOptions, Session
from .runtimes.open import Variant, open_file
from .types import ImageArray

PICTURE = Path(__file__).parent / "assets" / "portrait.jpg"
"""NASA's portrait of Eileen Collins (public domain), its upper part at 640x480, one face."""

ROUNDS = 3
BLOCK_SECONDS = 0.2
MOST_IN_A_BLOCK = 20
WARM_UP_SECONDS = 0.3
LEAST_RUNS = 5
STEADY = 1.4
"""Times the fastest run that the upper quartile of a steady measurement is at most."""

Runs = Callable[[int], Sequence[float]]
"""So many runs of a side, one after the other -> the milliseconds of each."""


def times(run: Callable[[], object], count: int, clock: Callable[[], float] | None = None) -> list[float]:
    """Milliseconds of each of ``count`` runs by a ``clock`` of seconds (default: ``time.perf_counter``)."""
    clock = clock or time.perf_counter
    marks = [clock()]
    for _ in range(count):
        run()
        marks.append(clock())
    return [1000 * (after - before) for before, after in itertools.pairwise(marks)]


def in_turns(
    *sides: Runs,
    seconds: float,
    rounds: int = ROUNDS,
    block_seconds: float = BLOCK_SECONDS,
    most_in_a_block: int = MOST_IN_A_BLOCK,
) -> list[list[float]]:
    """Milliseconds of each side's runs, the sides in turns, in all about ``seconds`` but at least ``rounds`` turns.

    A side that is slow has few runs in a turn, a fast one as many as fill ``block_seconds``.
    """
    for side in sides:
        side(1)
    blocks = [max(1, min(most_in_a_block, int(block_seconds * 1000 / max(side(1)[0], 1e-6)))) for side in sides]
    found: list[list[float]] = [[] for _ in sides]
    start, done = time.perf_counter(), 0
    while done < rounds or time.perf_counter() - start < seconds:
        for own, side, block in zip(found, sides, blocks, strict=True):
            own += side(1 + block)[1:]
        done += 1
    return found


def interleaved(*runs: Callable[[], object], seconds: float, least: int = LEAST_RUNS) -> list[list[float]]:
    """Return the milliseconds of each of ``runs``, one of each in turn for about ``seconds``, at least ``least`` turns.

    A turn before them, which finds caches and memory as nobody left them, is not counted.
    """
    found: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    start = time.perf_counter()
    while len(found[0]) < least or time.perf_counter() - start < seconds:
        for own, run in zip(found, runs, strict=True):
            own += times(run, 1)
    return found


def summary(found: Sequence[float]) -> dict[str, float]:
    """Return minimum, median and quartiles of times, and how many there are."""
    least, q1, median, q3 = (round(float(value), 4) for value in np.percentile(found, (0, 25, 50, 75)))
    return {"min": least, "median": median, "q1": q1, "q3": q3, "runs": len(found)}


def unsteady(ms: Mapping[str, float]) -> str | None:
    """Return why the times of a :func:`summary` are no ground for a ratio, or None where they are steady.

    A machine that has nothing else to do repeats itself: a quarter of the runs far above the fastest is other work.
    """
    if ms["q3"] <= STEADY * ms["min"]:
        return None
    return f"the machine was busy: a quarter of the runs took {ms['q3'] / ms['min']:.1f} times as long as the fastest"


def ratio(one: Mapping[str, float], other: Mapping[str, float]) -> tuple[float | None, str | None]:
    """Return how many times the median of ``other`` is in that of ``one``, or None and the reason there is none."""
    reason = unsteady(one) or unsteady(other)
    return (None, reason) if reason else (round(one["median"] / other["median"], 2), None)


def tails(found: Sequence[float]) -> dict[str, float]:
    """The 90th and 99th percentile of times."""
    p90, p99 = (round(float(value), 4) for value in np.percentile(found, (90, 99)))
    return {"p90": p90, "p99": p99}


@dataclass(frozen=True, slots=True)
class Timed:
    """The times of one number of ``threads``, None where the runtime has no such number.

    ``ms``: minimum, median, quartiles, p90 and p99 of a run, and how many were timed; ``busy`` says why they are not
    to be relied on, where that is so.
    """

    threads: int | None
    ms: dict[str, float]
    per_second: float
    busy: str | None


@dataclass(frozen=True, slots=True)
class Benched:
    """How long one model takes, on one thread and on all cores.

    ``what`` is what a run does, and ``unit`` what it does it to: crops or pictures.
    ``speed_up`` is how many times faster all cores are, None where that was not measured or not steady.
    """

    model: str
    task: str
    precision: str
    what: str
    batch: int
    flip: bool
    providers: tuple[str, ...]
    timed: tuple[Timed, ...]
    speed_up: float | None
    unit: str
    machine: dict[str, Any]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**asdict(self), "providers": list(self.providers), "timed": [asdict(one) for one in self.timed]}


@dataclass(frozen=True, slots=True)
class Work:
    """One run of what is timed, and what it is."""

    run: Callable[[], object]
    what: str
    unit: str
    session: Session
    model: str
    task: str
    flip: bool = False


def bench(
    model: str | os.PathLike[str] | None = None,
    *,
    variant: Variant = "auto",
    inference_precision: InferencePrecision | None = None,
    batch: int = 1,
    threads: int | None = None,
    provider: str | None = None,
    device: str = "cpu",
    flip: bool | None = None,
    seconds: float = 3.0,
    picture: Any = PICTURE,
) -> Benched:
    """Time a model on this machine for about ``seconds``, after a warm-up: on one thread and on all cores, interleaved.

    ``threads`` is one number instead of both. A GPU or an engine is timed once.

    ``model`` is an embedded model's name or a file: a landmark model gets ``batch`` crops a run, a detector and a
    pipeline ``picture`` (anything :func:`read_image` takes; default: a 640x480 portrait). None is the whole
    :class:`Aligner` with the embedded models on ``batch`` such pictures, detection included. ``variant`` is that of
    embedded models, as in Aligner; ``inference_precision`` (f32, bf16) is of an OpenVINO .xml. ``provider`` is one of
    :data:`PROVIDERS` or onnxruntime's own name, ``device`` as in RuntimeOptions; what was asked for and cannot be used
    is a ProviderError, never another provider's time. ``flip`` as in Landmarker.

    Raises InputError for options that do not fit the model, and what opening it does.
    """
    if batch < 1:
        raise InputError(f"batch is at least 1, not {batch}")
    if not seconds >= 0:
        raise InputError(f"seconds is 0 or more, not {seconds}")
    options = RuntimeOptions(
        device=device,
        providers=None if provider is None else [_provider(provider)],
        strict=True,
        threads=threads,
        inference_precision=inference_precision,
    )
    image = read_image(picture)

    if model is None:
        options.refuse(["inference_precision"], "is of an OpenVINO .xml, and the whole Aligner has none")

    def work(count: int | None) -> Work:
        own = replace(options, threads=count)
        if model is not None:
            return work_of(open_file(model, own, variant=variant), image, batch, flip)
        aligner = Aligner(
            flip=flip, variant=variant, device=device, providers=own.providers, strict=True, threads=own.threads
        )
        return whole(image, batch, flip, aligner)

    counts = _threads(options, model)
    works = [work(count) for count in counts]
    for one in works:
        warm_up(one.run, WARM_UP_SECONDS)
    found = interleaved(*(one.run for one in works), seconds=seconds)
    timed = tuple(_timed(count, times, batch) for count, times in zip(counts, found, strict=True))
    first = works[0]
    return Benched(
        model=first.model,
        task=first.task,
        precision=inference_precision or first.session.spec.precision,
        what=first.what,
        batch=batch,
        flip=first.flip,
        providers=first.session.providers,
        timed=timed,
        speed_up=ratio(timed[0].ms, timed[1].ms)[0] if len(timed) > 1 else None,
        unit=first.unit,
        machine=machine.describe(),
        versions=machine.versions(),
    )


def _threads(options: RuntimeOptions, model: str | os.PathLike[str] | None) -> list[int | None]:
    """Return the numbers of threads to time: what was asked for, else one and all cores, of a CPU's runtime."""
    if options.threads is not None:
        return [options.threads]
    on_cpu = options.device == "cpu" and options.providers in (None, (PROVIDERS["cpu"],))
    if not on_cpu or (model is not None and os.fspath(model).lower().endswith(".engine")):
        return [None]
    return [1, cores] if (cores := machine.usable_cores()) > 1 else [1]


def _timed(threads: int | None, found: Sequence[float], batch: int) -> Timed:
    ms = {**summary(found), **tails(found)}
    return Timed(threads, ms, round(1000 * batch / ms["median"], 2), unsteady(ms))


def warm_up(run: Callable[[], object], seconds: float) -> None:
    """Run until caches are filled, memory is taken and the clock is up: at least three times."""
    spent, runs = 0.0, 0
    while runs < 3 or spent < 1000 * seconds:
        spent += times(run, 1)[0]
        runs += 1


def _provider(name: str) -> str:
    """Return onnxruntime's name of a provider that it has here. Raises InputError where it has no such."""
    full = PROVIDERS.get(name.lower(), name)
    known = load_onnxruntime().get_available_providers()
    if full not in known:
        short = [key for key, value in PROVIDERS.items() if value in known]
        raise InputError(f"provider {name!r} is not in this onnxruntime; there are {', '.join(short or known)}")
    return full


def work_of(session: Session, image: ImageArray, batch: int, flip: bool | None) -> Work:
    """Return a run of one model. Raises InputError where batch and flip mean nothing to it."""
    return (_crops if isinstance(session.spec, LandmarkSpec) else _picture)(session, image, batch, flip)


def whole(image: ImageArray, batch: int, flip: bool | None, aligner: Aligner) -> Work:
    """Return a run of an Aligner on ``batch`` times the picture, which it has seen once."""
    images = [image] * batch
    faces = len(aligner(image))
    detector = aligner.detector
    assert detector is not None
    height, width = image.shape[:2]
    return Work(
        run=(lambda: aligner(image)) if batch == 1 else (lambda: aligner.batch(images)),
        what=f"Aligner on {_pictures(batch)} {width}x{height}, {faces} face{'s' * (faces != 1)} each, with detection",
        unit="pictures",
        session=aligner.landmarker.session,
        model=f"{detector.spec.name} + {aligner.landmarker.spec.name}",
        task="pipeline",
        flip=bool(flip) or aligner.landmarker.spec.flip,
    )


def _pictures(count: int) -> str:
    return "one picture of" if count == 1 else f"{count} pictures of"


def _crops(session: Session, image: ImageArray, batch: int, flip: bool | None) -> Work:
    landmarker = Landmarker(session, flip=flip, max_batch=2 * batch)
    size = landmarker.size
    square: NDArray[Any] = np.asarray(load_cv2().resize(image, (size, size)), np.uint8)
    crops = np.stack([np.roll(square, 3 * shift, axis=1) for shift in range(batch)])
    return Work(
        run=lambda: landmarker(crops),
        what=f"landmarks of {batch} crop{'s' * (batch != 1)} of {size} px",
        unit="crops",
        session=session,
        model=session.spec.name,
        task="landmarks",
        flip=bool(flip) or landmarker.spec.flip,
    )


def _picture(session: Session, image: ImageArray, batch: int, flip: bool | None) -> Work:
    spec = session.spec
    if batch != 1 or flip:
        raise InputError(f"batch and flip are for landmark models and the Aligner; {spec.name} takes one picture")
    feeds = {"image": image if spec.task == "pipeline" else image[None]}
    height, width = image.shape[:2]
    return Work(
        run=lambda: session.run(feeds),
        what=f"{'the whole way' if spec.task == 'pipeline' else 'one detection pass'} on a {width}x{height} picture",
        unit="pictures",
        session=session,
        model=spec.name,
        task=spec.task,
        flip=isinstance(spec, PipelineSpec) and spec.flip,
    )


def lines(found: Benched) -> list[tuple[str, str]]:
    """Return what there is to say of a result, as labels and texts."""
    about = found.machine
    return [
        ("model", f"{found.model}, {found.precision}{', flip averaging' if found.flip else ''}"),
        ("a run", found.what),
        *(line for one in found.timed for line in _lines(one, found.unit)),
        *([("all cores", f"{found.speed_up:.2f} times as fast as one thread")] if found.speed_up is not None else []),
        ("runs on", ", ".join(found.providers)),
        ("machine", f"{about['cpu']}, {about['cores']} cores, {about['os']} {about['architecture']}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in found.versions.items())),
    ]


def _lines(one: Timed, unit: str) -> list[tuple[str, str]]:
    ms = one.ms
    label = "time" if one.threads is None else f"{one.threads} thread{'s' * (one.threads != 1)}"
    text = f"median {ms['median']:.3g} ms (least {ms['min']:.3g}, quartiles {ms['q1']:.3g}-{ms['q3']:.3g}"
    return [
        (label, f"{text}, p90 {ms['p90']:.3g}, p99 {ms['p99']:.3g}; {ms['runs']} runs)"),
        ("", one.busy if one.busy else f"{one.per_second:.4g} {unit} a second"),
    ]
