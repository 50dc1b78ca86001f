"""How long PyTorch and the file's own runtime take for the same work, one run of each in turn on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facelm_sdk.bench import interleaved, ratio, summary
from facelm_sdk.contract import LandmarkSpec, ModelSpec
from facelm_sdk.images.read import read_image
from facelm_sdk.machine import usable_cores
from facelm_sdk.runtimes.base import RuntimeOptions, Session

from .samples import PICTURE, portrait_crops

if TYPE_CHECKING:
    from ..job import ExportJob

PICTURE_SIZE = (640, 480)  # width, height of what a detector is timed on
SECONDS = 2.5
"""What the timing of a number of threads may take; a model that needs more is timed ``LEAST_RUNS`` times a side."""
LEAST_RUNS = 5

NAMES = {"pytorch": "PyTorch eager, fp32", "onnxruntime": "ONNX Runtime, CPU", "openvino": "OpenVINO, CPU"}

Opener = Callable[[RuntimeOptions], Session]


def measured(reference: nn.Module, job: ExportJob, runtimes: Mapping[str, Opener]) -> dict[str, Any]:
    """Return milliseconds of a run of ``reference`` (PyTorch eager, fp32) and of the file in each of ``runtimes``.

    All get the same input and number of threads, one and then all cores, and are interleaved, so that a machine that
    slows down slows all of them. ``ratios`` says how many times faster than PyTorch each is; where the times spread so
    much that the machine must have been busy, ``no_ratio`` says that instead.
    """
    name, value = _input(job.spec, job.batch or 1)
    tensor = torch.from_numpy(value)

    @torch.inference_mode()
    def eager() -> None:
        reference(tensor)

    def opened(threads: int) -> dict[str, Callable[[], object]]:
        sessions = {runtime: open(RuntimeOptions(threads=threads)) for runtime, open in runtimes.items()}
        return {runtime: _runner(session, name, value) for runtime, session in sessions.items()}

    return {
        "input": f"{name} {value.dtype} {value.shape}",
        "batch": len(value),
        "timed": compared(eager, opened),
    }


def compared(
    eager: Callable[[], object], opened: Callable[[int], Mapping[str, Callable[[], object]]]
) -> list[dict[str, Any]]:
    """Return the times of ``eager`` (PyTorch) and of the runs that ``opened`` gives for a number of threads.

    An entry for one thread and one for all cores, as :func:`measured` states them.
    """

    def one(threads: int) -> dict[str, Any]:
        runs = opened(threads)
        torch.set_num_threads(threads)
        times = dict(zip(("pytorch", *runs), map(summary, _interleaved(eager, *runs.values())), strict=True))
        found = {side: ratio(times["pytorch"], times[side]) for side in runs}
        ratios = {side: value for side, (value, _) in found.items() if value is not None}
        reasons = dict.fromkeys(reason for _, reason in found.values() if reason is not None)
        return {"threads": threads, "ms": times, "ratios": ratios, "no_ratio": "; ".join(reasons) or None}

    before = torch.get_num_threads()
    try:
        return [one(threads) for threads in dict.fromkeys((1, usable_cores()))]
    finally:
        torch.set_num_threads(before)


def lines(latency: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each number of threads: how much faster than PyTorch, or why that is not said."""
    return [_line(one, latency["batch"]) for one in latency["timed"]]


def _line(one: Mapping[str, Any], batch: int) -> str:
    threads = f"{one['threads']} thread{'s' * (one['threads'] != 1)}"
    faster = [f"{NAMES[side].split(',')[0]} {value:.2f} times as fast" for side, value in one["ratios"].items()]
    told = [*([f"{', '.join(faster)} as PyTorch"] if faster else []), *([one["no_ratio"]] if one["no_ratio"] else [])]
    return f"{threads}, batch {batch}: {'; '.join(told)}"


def _runner(session: Session, name: str, value: NDArray[np.uint8]) -> Callable[[], object]:
    return lambda: session.run({name: value})


def _input(spec: ModelSpec, batch: int) -> tuple[str, NDArray[np.uint8]]:
    if isinstance(spec, LandmarkSpec):
        return "crops", portrait_crops(spec, batch)
    import cv2

    return "image", np.asarray(cv2.resize(read_image(PICTURE), PICTURE_SIZE), np.uint8)[None]


def _interleaved(*runs: Callable[[], object]) -> list[list[float]]:
    """Return the milliseconds of each side's runs."""
    return interleaved(*runs, seconds=SECONDS, least=LEAST_RUNS)
