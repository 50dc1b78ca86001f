"""How long PyTorch and onnxruntime take for the same work, side by side on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facelm_sdk.bench import side_by_side, summary
from facelm_sdk.image import read_image
from facelm_sdk.session import OrtSession
from facelm_sdk.spec import ModelSpec

from .samples import PICTURE, portrait_crops

if TYPE_CHECKING:
    from .formats import Graph

PICTURE_SIZE = (640, 480)  # width, height of what a detector is timed on
SECONDS = 2.5
"""What the timing may take; a model that needs more is timed ``ROUNDS`` times a side."""
ROUNDS = 3
BLOCK_SECONDS = 0.2  # of one side before the other has its turn


def measured(reference: nn.Module, graph: Graph) -> dict[str, Any]:
    """Milliseconds of a run of ``reference`` (PyTorch eager, fp32) and of the graph (onnxruntime on the CPU).

    Both get the same input and number of threads, and take turns in blocks, so that a machine that slows down slows
    both; the first run of each block, which finds caches and threads as the other side left them, is not counted.
    ``ratio`` is how many times faster onnxruntime is.
    """
    session = OrtSession(graph.data, threads=torch.get_num_threads())
    name, value = _input(graph.spec, graph.batch or 1)
    tensor = torch.from_numpy(value)

    @torch.inference_mode()
    def eager() -> None:
        reference(tensor)

    facts = {"input": f"{name} {value.dtype} {value.shape}", "batch": len(value)}
    return facts | compared(eager, lambda: session.run({name: value}))


def compared(eager: Callable[[], object], file: Callable[[], object]) -> dict[str, Any]:
    """The figures of ``eager`` (PyTorch) and ``file`` (onnxruntime) as :func:`measured` states them."""
    pytorch, onnxruntime = _side_by_side(eager, file)
    return {
        "threads": torch.get_num_threads(),
        "pytorch_ms": summary(pytorch),
        "onnxruntime_ms": summary(onnxruntime),
        "ratio": round(statistics.median(pytorch) / statistics.median(onnxruntime), 2),
    }


def _input(spec: ModelSpec, batch: int) -> tuple[str, NDArray[np.uint8]]:
    if spec.task == "landmarks":
        return "crops", portrait_crops(spec, batch)
    import cv2

    return "image", np.asarray(cv2.resize(read_image(PICTURE), PICTURE_SIZE), np.uint8)[None]


def _side_by_side(*sides: Callable[[], object]) -> list[list[float]]:
    """Milliseconds of each side's runs."""
    return side_by_side(*sides, seconds=SECONDS, rounds=ROUNDS, block_seconds=BLOCK_SECONDS)
