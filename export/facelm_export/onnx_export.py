"""A fused module to an ONNX file's bytes, its contract inside."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from facelm_sdk.contract import METADATA_KEY, DetectorSpec, LandmarkSpec, ModelSpec

from .ops import nms, resampling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

OPSET = 18
FOLDED = 1 << 28
"""Elements up to which what is computed from weights alone becomes a weight; by itself the exporter folds little."""
OPSETS = range(17, 23)  # LayerNormalization came with 17; 23 brings Attention, which few runtimes have


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes on torchvision and shapes are not for the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def to_onnx(
    fused: nn.Module,
    spec: ModelSpec,
    *,
    batch: int | None = None,
    opset: int = OPSET,
    outputs: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """Trace ``fused`` as the contract ``spec`` says. ``batch`` fixes n of a landmark model; None leaves it open.

    ``outputs`` are the names where they are not the contract's.
    """
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass, IdentityEliminationPass
    from onnx_ir.traversal import RecursiveGraphIterator
    from onnxscript import optimizer

    any_size = torch.export.Dim.DYNAMIC
    shapes: Any
    if isinstance(spec, LandmarkSpec):
        example = torch.zeros(batch or 2, spec.crop.size, spec.crop.size, 3, dtype=torch.uint8)
        shapes = None if batch else ({0: any_size},)
    else:
        picture = torch.zeros(320, 256, 3, dtype=torch.uint8)
        example, shapes = (picture, ({0: any_size, 1: any_size},))
        if isinstance(spec, DetectorSpec):
            example, shapes = (picture[None], ({1: any_size, 2: any_size},))
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            fused.eval(),
            (example,),
            input_names=list(spec.tensors.inputs),
            output_names=list(outputs or spec.tensors.outputs),
            opset_version=opset,
            dynamo=True,
            dynamic_shapes=shapes,
            custom_translation_table=nms.translations() | resampling.translations(),
            external_data=False,
            optimize=False,
            verbose=False,
        )
        assert program is not None
        CommonSubexpressionEliminationPass()(program.model)  # else a weight shared by layers is folded for each
        optimizer.optimize_ir(program.model, 1, input_size_limit=FOLDED, output_size_limit=FOLDED)
        IdentityEliminationPass()(program.model)
        resampling.constants_beside(program.model)
        for node in RecursiveGraphIterator(program.model.graph):
            node.metadata_props.clear()  # stack traces of this machine
    model = program.model_proto
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, spec.to_json()
    model.producer_name, model.producer_version = "facelm-export", spec.created_by
    return model
