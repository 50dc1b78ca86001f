"""Non-maximum suppression: readable in PyTorch, one NonMaxSuppression node in the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

MAX_DETECTIONS = 750
NESTED = 3
"""Faces inside faces that are told apart; each is less than 0.4 of the one around it."""


def nms_reference(
    boxes: torch.Tensor,  # (p, 4) xyxy
    scores: torch.Tensor,  # (p,)
    iou_threshold: float,
    score_threshold: float,
) -> torch.Tensor:  # (k,) int64 indices, best score first
    """Greedy suppression: of overlapping boxes the best one stays. At most MAX_DETECTIONS are returned."""
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] > score_threshold]
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    keep: list[torch.Tensor] = []
    while len(order) and len(keep) < MAX_DETECTIONS:
        best, order = order[0], order[1:]
        keep.append(best)
        sides = torch.minimum(boxes[best, 2:], boxes[order, 2:]) - torch.maximum(boxes[best, :2], boxes[order, :2])
        both = sides.clamp(min=0).prod(1)
        order = order[both <= iou_threshold * (areas[best] + areas[order] - both)]
    return torch.stack(keep) if keep else torch.empty(0, dtype=torch.long)


@torch.library.custom_op("facelm::nms", mutates_args=())
def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, score_threshold: float) -> torch.Tensor:
    """:func:`nms_reference` as an operator that the exporter keeps whole."""
    return nms_reference(boxes, scores, iou_threshold, score_threshold)


@nms.register_fake
def _(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, score_threshold: float) -> torch.Tensor:
    count = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(count, dtype=torch.long)


def outside_better(
    boxes: torch.Tensor,  # (k, 4) xyxy, best score first
    max_contained: float,
) -> torch.Tensor:  # (k,) bool
    """Whether a box has at most ``max_contained`` of its area inside each better one that is kept.

    The graph's twin of what :func:`facelm_sdk.boxes.merge` does beyond :func:`nms`, exact for nests of NESTED boxes.
    """
    first, last = boxes[:, None, :2], boxes[:, None, 2:]
    both = (torch.minimum(last, boxes[:, 2:]) - torch.maximum(first, boxes[:, :2])).clamp(min=0).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    beats = (both > max_contained * areas).float().triu(1)  # (better, other)
    kept = torch.ones_like(areas)
    for _ in range(NESTED):  # the first that no other beats, then those that only a beaten one beats
        kept = 1 - (kept[:, None] * beats).sum(0).clamp(max=1)
    return kept > 0


def translations() -> dict[Any, Callable[..., Any]]:
    """What torch.onnx.export needs to know of the operators here."""
    from onnxscript import opset18

    op: Any = opset18  # its own annotations take no list of constants

    def onnx_nms(boxes: Any, scores: Any, iou_threshold: float, score_threshold: float) -> Any:
        selected = op.NonMaxSuppression(
            op.Unsqueeze(boxes, op.Constant(value_ints=[0])),
            op.Unsqueeze(scores, op.Constant(value_ints=[0, 1])),
            op.Constant(value_ints=[MAX_DETECTIONS]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[score_threshold]),
        )  # (k, 3): picture, class, index
        return op.Squeeze(op.Slice(selected, [2], [3], [1]), [1])

    return {torch.ops.facelm.nms.default: onnx_nms}
