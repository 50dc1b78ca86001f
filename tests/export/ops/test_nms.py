"""Suppression: the readable reference against the graph's one node."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from facelm_export.ops.nms import MAX_DETECTIONS, nms, nms_reference, translations

IOU, FLOOR = 0.4, 0.05


class Suppress(nn.Module):
    def forward(self, boxes, scores):
        return nms(boxes, scores, IOU, FLOOR)


@pytest.fixture(scope="module")
def graph():
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 8.0, 8.0], [1.0, 0.0, 3.0, 2.0]])
    program = torch.onnx.export(
        Suppress().eval(),
        (boxes, torch.tensor([0.5, 0.6, 0.7])),
        input_names=["boxes", "scores"],
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC}, {0: torch.export.Dim.DYNAMIC}),
        custom_translation_table=translations(),
        dynamo=True,
        verbose=False,
    )
    return program.model_proto


@pytest.fixture(scope="module")
def session(graph):
    return onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def both(session, boxes, scores):
    (actual,) = session.run(None, {"boxes": boxes, "scores": scores})
    return actual, nms_reference(torch.from_numpy(boxes), torch.from_numpy(scores), IOU, FLOOR).numpy()


def random_boxes(rng, count, spread):
    corner = rng.uniform(0, spread, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(2, 40, (count, 2))], 1).astype(np.float32)


def distinct_scores(rng, count):
    return (rng.permutation(count) / count).astype(np.float32)


def test_it_is_one_node(graph):
    assert [node.op_type for node in graph.graph.node].count("NonMaxSuppression") == 1
    assert not any(node.op_type in ("Loop", "If") for node in graph.graph.node)
    onnx.checker.check_model(graph)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("count", "spread"), [(1, 10), (60, 50), (400, 120), (400, 2000)])
def test_the_same_boxes_in_the_same_order(session, seed, count, spread):
    rng = np.random.default_rng([seed, count, spread])
    actual, expected = both(session, random_boxes(rng, count, spread), distinct_scores(rng, count))
    np.testing.assert_array_equal(actual, expected)
    assert actual.dtype == expected.dtype == np.int64


def test_by_hand(session):
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [8, 8, 18, 18], [0, 0, 9, 9]], np.float32)
    scores = np.array([0.8, 0.9, 0.03, 0.4, 0.7], np.float32)
    for kept in both(session, boxes, scores):
        assert kept.tolist() == [1, 3]


def test_nothing_above_the_floor(session):
    boxes = random_boxes(np.random.default_rng(0), 7, 50)
    for kept in both(session, boxes, np.full(7, 0.01, np.float32)):
        assert kept.shape == (0,)


def test_at_most_so_many(session):
    count = MAX_DETECTIONS + 50
    corner = np.arange(count, dtype=np.float32)[:, None] * 20
    boxes = np.concatenate([corner, corner, corner + 10, corner + 10], 1)
    scores = 0.1 + 0.5 * distinct_scores(np.random.default_rng(0), count)
    actual, expected = both(session, boxes, scores)
    assert len(actual) == MAX_DETECTIONS
    np.testing.assert_array_equal(actual, expected)


def test_the_operator_is_its_reference():
    rng = np.random.default_rng(4)
    boxes, scores = torch.from_numpy(random_boxes(rng, 50, 60)), torch.from_numpy(distinct_scores(rng, 50))
    assert torch.equal(nms(boxes, scores, IOU, FLOOR), nms_reference(boxes, scores, IOU, FLOOR))
