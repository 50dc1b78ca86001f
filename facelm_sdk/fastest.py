"""Which way to run the models is fastest on this machine: every runtime, precision and number of threads, in turns.

Nothing is chosen by it. The times depend on what else the machine does, and runtimes round int8 in ways of their own,
so that points would depend on the moment in which a program was started. It tells the line to type instead.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import bench, machine, zoo
from ._optional import load_onnxruntime
from .aligner import Aligner
from .bench import PICTURE, Work, in_turns, ratio, summary, times, unsteady, warm_up, whole, work_of
from .errors import FacelmError, InputError
from .images.read import read_image
from .runtimes.base import PROVIDERS, RuntimeOptions, Session
from .runtimes.open import Variant, open_file

WORTH = 1.1
"""Times as fast as the default that a way must be to be advised: less is lost in the next picture or version."""

_SECONDARY = {"tensorrt": ["tensorrt", "cuda"]}
"""Providers that leave parts of a graph to another."""


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to run models: with onnxruntime, one of its ``provider``s or ``openvino``; the defaults are facelm's."""

    variant: Variant = "auto"
    threads: int | None = None
    provider: str | None = None
    openvino: bool = False

    @property
    def name(self) -> str:
        """What it is, in words."""
        if self == DEFAULT:
            return "as it comes"
        runtime = "OpenVINO" if self.openvino else f"onnxruntime{f' on {self.provider}' if self.provider else ''}"
        variant = "" if self.variant == "auto" else f" {self.variant}"
        threads = "" if self.threads is None else f", {self.threads} thread{'s' * (self.threads != 1)}"
        return f"{runtime}{variant}{threads}"

    def line(self, model: str | os.PathLike[str] | None, kind: str) -> str:
        """Return the Python to type for it; ``kind`` is the class that takes the model, which is Aligner for None."""
        named = zoo.LANDMARKS if model is None else os.fspath(model)
        given = [f"threads={self.threads}"] if self.threads else []
        if self.openvino:
            variant = "" if self.variant == "auto" else f', variant="{self.variant}"'
            options = f", RuntimeOptions({given[0]})" if given else ""
            first = [f'OpenVinoSession(zoo.resolve("{named}"{variant}).path{options})']
            given = given if model is None else []
        else:
            first = [] if model is None else [f'"{named}"']
            given += [] if self.variant == "auto" else [f'variant="{self.variant}"']
            given += [f"providers={self._providers}"] if self.provider else []
        return f"{kind}({', '.join([*first, *given])})"

    def session(self, model: str | os.PathLike[str]) -> Session:
        """Open one model. Raises what opening it does."""
        if not self.openvino:
            return open_file(model, self._options, variant=self.variant)
        from .runtimes.openvino import OpenVinoSession

        variant = None if self.variant == "auto" else self.variant
        return OpenVinoSession(zoo.resolve(model, variant=variant).path, self._options)

    def aligner(self) -> Aligner:
        """Open the whole way. OpenVINO has the landmarks alone: it is slower at pictures of any size."""
        if self.openvino:
            return Aligner(self.session(zoo.LANDMARKS), threads=self.threads)
        options = self._options
        return Aligner(variant=self.variant, threads=options.threads, providers=options.providers, strict=True)

    @property
    def _providers(self) -> list[str] | None:
        return _SECONDARY.get(self.provider, [self.provider]) if self.provider else None

    @property
    def _options(self) -> RuntimeOptions:
        return RuntimeOptions(threads=self.threads, providers=self._providers, strict=True)


DEFAULT = Setup()


@dataclass(frozen=True, slots=True)
class Way:
    """How long one way takes: ``ms`` as of :func:`facelm_sdk.bench.summary`, and the ``line`` of Python to type.

    ``times_as_fast`` as the default way is None where one of the two was not steady; ``busy`` says so of this one.
    """

    name: str
    line: str
    ms: dict[str, float]
    times_as_fast: float | None
    busy: str | None


@dataclass(frozen=True, slots=True)
class Ways:
    """All ways that there are here, the default first, and those that are not, with the reason."""

    what: str
    ways: tuple[Way, ...]
    missing: tuple[tuple[str, str], ...]
    advice: str
    machine: dict[str, Any]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def fastest(
    model: str | os.PathLike[str] | None = None,
    *,
    batch: int = 1,
    seconds: float = 12.0,
    picture: Any = PICTURE,
) -> Ways:
    """Time every way to run a model here, in turns, for about ``seconds``, and say which is the fastest.

    ``model`` is an embedded model's name, an .onnx, or None: the whole :class:`Aligner`. The rest as in
    :func:`facelm_sdk.bench.bench`. Raises InputError for options that do not fit the model, and what opening it does.
    """
    if batch < 1:
        raise InputError(f"batch is at least 1, not {batch}")
    if not seconds >= 0:
        raise InputError(f"seconds is 0 or more, not {seconds}")
    if model is not None and Path(model).suffix.lower() in (".xml", ".engine"):
        raise InputError(f"{os.fspath(model)} is of one runtime: all are compared of a name or an .onnx")
    image = read_image(picture)
    works: dict[Setup, Work] = {}
    missing: list[tuple[str, str]] = []
    for setup in _setups(model):
        try:
            work = (
                whole(image, batch, None, setup.aligner())
                if model is None
                else work_of(setup.session(model), image, batch, None)
            )
            warm_up(work.run, bench.WARM_UP_SECONDS)
        except FacelmError as error:
            if setup == DEFAULT:
                raise
            missing.append((setup.name, str(error)))
        else:
            works[setup] = work
    found = in_turns(*(functools.partial(times, work.run) for work in works.values()), seconds=seconds)
    base = works[DEFAULT]
    figures = [summary(ms) for ms in found]
    kind = {"landmarks": "Landmarker", "detection": "Detector"}.get(base.task, "Aligner")
    ways = tuple(
        Way(setup.name, setup.line(model, kind), ms, ratio(figures[0], ms)[0], unsteady(ms))
        for setup, ms in zip(works, figures, strict=True)
    )
    return Ways(base.what, ways, tuple(missing), advice(ways), machine.describe(), machine.versions())


def advice(ways: tuple[Way, ...]) -> str:
    """Return what to type for the fastest way, or why nothing: the default is first of ``ways``."""
    default, *others = ways
    if default.busy:
        return f"no advice: {default.busy}; try again when it is idle"
    steady = [way for way in others if way.times_as_fast is not None]
    if not steady:
        return f"no advice: there is nothing else to compare with {default.line}, or the machine was busy"
    best = max(steady, key=lambda way: way.times_as_fast or 0)
    if (best.times_as_fast or 0) < WORTH:
        told = f"the best, {best.name}, is {best.times_as_fast:.2f} times as fast"
        return f"leave it at {default.line}: nothing else is faster by {WORTH - 1:.0%} ({told})"
    return f"{best.name} is {best.times_as_fast:.2f} times as fast as {default.line}; type {best.line}"


def _setups(model: str | os.PathLike[str] | None) -> Iterator[Setup]:
    """The default, then all there may be."""
    yield DEFAULT
    name = zoo.LANDMARKS if model is None else os.fspath(model)
    variants: list[Any] = [entry.precision for entry in zoo.list_models() if entry.name == name] or ["auto"]
    for openvino in (False, True):
        for variant in variants:
            for threads in sorted({1, machine.usable_cores()}):
                yield Setup(variant, threads, openvino=openvino)
    available = load_onnxruntime().get_available_providers()
    for short, full in PROVIDERS.items():
        if short != "cpu" and full in available:
            yield Setup(provider=short)
