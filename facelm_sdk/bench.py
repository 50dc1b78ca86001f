"""How fast a model runs on this machine: the timing that every figure of this project comes from, and ``facelm bench``.

Times are wall-clock milliseconds. Sides that are compared take turns in blocks, so that a machine that slows down slows
all of them; the first run of a block, which finds caches and threads as another side left them, is not counted.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import machine
from ._optional import load_cv2, load_onnxruntime
from .aligner import Aligner
from .contract import PipelineSpec
from .errors import InputError
from .images.read import read_image
from .landmarker import Landmarker
from .runtimes.base import InferencePrecision, RuntimeOptions, Session
from .runtimes.open import Variant, open_file
from .types import ImageArray

PICTURE = Path(__file__).parent / "assets" / "portrait.jpg"
"""NASA's portrait of Eileen Collins (public domain), its upper part at 640x480, one face."""

ROUNDS = 3
BLOCK_SECONDS = 0.2
MOST_IN_A_BLOCK = 20
WARM_UP_SECONDS = 0.3
LEAST_RUNS = 5

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
"""Short names of onnxruntime's providers."""

Runs = Callable[[int], Sequence[float]]
"""So many runs of a side, one after the other -> the milliseconds of each."""


def times(run: Callable[[], object], count: int) -> list[float]:
    """Milliseconds of each of ``count`` runs."""
    marks = [time.perf_counter()]
    for _ in range(count):
        run()
        marks.append(time.perf_counter())
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


def side_by_side(*sides: Callable[[], object], **options: Any) -> list[list[float]]:
    """:func:`in_turns` of plain functions, timed from here."""
    return in_turns(*(functools.partial(times, side) for side in sides), **options)


def summary(found: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of times, and how many there are."""
    q1, median, q3 = (round(float(value), 4) for value in np.percentile(found, (25, 50, 75)))
    return {"median": median, "q1": q1, "q3": q3, "runs": len(found)}


def tails(found: Sequence[float]) -> dict[str, float]:
    """The 90th and 99th percentile of times."""
    p90, p99 = (round(float(value), 4) for value in np.percentile(found, (90, 99)))
    return {"p90": p90, "p99": p99}


@dataclass(frozen=True, slots=True)
class Benched:
    """How long one model takes. ``ms``: median, quartiles, p90 and p99 of one run, and how many runs were timed.

    ``what`` is what a run does; ``per_second`` counts ``unit`` (crops or pictures); ``threads`` None is the runtime's
    own choice.
    """

    model: str
    task: str
    precision: str
    what: str
    batch: int
    flip: bool
    threads: int | None
    providers: tuple[str, ...]
    ms: dict[str, float]
    per_second: float
    unit: str
    machine: dict[str, Any]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**asdict(self), "providers": list(self.providers)}


@dataclass(frozen=True, slots=True)
class _Work:
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
    """Time a model on this machine for about ``seconds``, after a warm-up.

    ``model`` is an embedded model's name or a file: a landmark model gets ``batch`` crops a run, a detector and a
    pipeline ``picture`` (anything :func:`read_image` takes; default: a 640x480 portrait). None is the whole
    :class:`Aligner` with the embedded models on ``batch`` such pictures, detection included. ``variant`` is that of
    embedded models, as in Aligner; ``inference_precision`` (f32, bf16) is of an OpenVINO .xml. ``provider`` is one of
    :data:`PROVIDERS` or onnxruntime's own name, ``device`` as in RuntimeOptions; what was asked for and cannot be used
    is a ProviderError, never another provider's time. ``threads`` and ``flip`` as in Landmarker.

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
        work = _whole(image, batch, flip, options, variant)
    else:
        session = open_file(model, options, variant=variant)
        work = (_crops if session.spec.task == "landmarks" else _picture)(session, image, batch, flip)
    warm_up(work.run, WARM_UP_SECONDS)
    found = times(work.run, LEAST_RUNS)
    end = time.perf_counter() + max(0.0, seconds - sum(found) / 1000)
    while time.perf_counter() < end:
        found += times(work.run, 1)
    ms = {**summary(found), **tails(found)}
    return Benched(
        model=work.model,
        task=work.task,
        precision=inference_precision or work.session.spec.precision,
        what=work.what,
        batch=batch,
        flip=work.flip,
        threads=threads,
        providers=work.session.providers,
        ms=ms,
        per_second=round(1000 * batch / ms["median"], 2),
        unit=work.unit,
        machine=machine.describe(),
        versions=machine.versions(),
    )


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


def _whole(image: ImageArray, batch: int, flip: bool | None, options: RuntimeOptions, variant: Variant) -> _Work:
    options.refuse(["inference_precision"], "is of an OpenVINO .xml, and the whole Aligner has none")
    aligner = Aligner(
        flip=flip,
        variant=variant,
        device=options.device,
        providers=options.providers,
        strict=options.strict,
        threads=options.threads,
    )
    images = [image] * batch
    faces = len(aligner(image))
    detector = aligner.detector
    assert detector is not None
    height, width = image.shape[:2]
    return _Work(
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


def _crops(session: Session, image: ImageArray, batch: int, flip: bool | None) -> _Work:
    landmarker = Landmarker(session, flip=flip, max_batch=2 * batch)
    size = landmarker.size
    square: NDArray[Any] = np.asarray(load_cv2().resize(image, (size, size)), np.uint8)
    crops = np.stack([np.roll(square, 3 * shift, axis=1) for shift in range(batch)])
    return _Work(
        run=lambda: landmarker(crops),
        what=f"landmarks of {batch} crop{'s' * (batch != 1)} of {size} px",
        unit="crops",
        session=session,
        model=session.spec.name,
        task="landmarks",
        flip=bool(flip) or landmarker.spec.flip,
    )


def _picture(session: Session, image: ImageArray, batch: int, flip: bool | None) -> _Work:
    spec = session.spec
    if batch != 1 or flip:
        raise InputError(f"batch and flip are for landmark models and the Aligner; {spec.name} takes one picture")
    feeds = {"image": image if spec.task == "pipeline" else image[None]}
    height, width = image.shape[:2]
    return _Work(
        run=lambda: session.run(feeds),
        what=f"{'the whole way' if spec.task == 'pipeline' else 'one detection pass'} on a {width}x{height} picture",
        unit="pictures",
        session=session,
        model=spec.name,
        task=spec.task,
        flip=isinstance(spec, PipelineSpec) and spec.flip,
    )


def lines(found: Benched) -> list[tuple[str, str]]:
    """What there is to say of a result, as labels and texts."""
    ms, about = found.ms, found.machine
    threads = "the default" if found.threads is None else str(found.threads)
    return [
        ("model", f"{found.model}, {found.precision}{', flip averaging' if found.flip else ''}"),
        ("a run", found.what),
        ("median", f"{ms['median']:.3g} ms (quartiles {ms['q1']:.3g}-{ms['q3']:.3g}, {ms['runs']} runs)"),
        ("p90, p99", f"{ms['p90']:.3g} ms, {ms['p99']:.3g} ms"),
        ("throughput", f"{found.per_second:.4g} {found.unit} a second"),
        ("runs on", f"{', '.join(found.providers)}; threads: {threads}"),
        ("machine", f"{about['cpu']}, {about['cores']} cores, {about['os']} {about['architecture']}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in found.versions.items())),
    ]
