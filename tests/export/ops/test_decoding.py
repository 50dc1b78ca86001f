"""Decoding in the graph against its readable twin."""

from __future__ import annotations

import inspect
import logging

import onnxruntime
import pytest
import torch
from torch import nn

from facelm_export.ops import decoding as safe
from facelm_models import heatmaps as readable
from facelm_models import registry
from facelm_models.registry import decoder, list_decoders
from tests.tolerances import REWRITE

SIZE = (12, 16)  # h, w: unequal, so that swapped axes show
HEATMAPS = tuple(name for name in list_decoders() if decoder(name).takes == registry.HEATMAPS)
SCORED = tuple(name for name in HEATMAPS if decoder(name).has_scores)
EXACT = ("argmax", "local_soft_argmax", "structured")  # the same arithmetic; expectation sums in another order


def cases() -> dict[str, torch.Tensor]:
    """Heatmaps (n, L, h, w) whose peaks are everywhere, borders and corners included, and awkward ones."""
    h, w = SIZE
    generator = torch.Generator().manual_seed(5)
    everywhere = 0.4 * torch.rand(h, w, h, w, generator=generator)
    for y in range(h):
        everywhere[y, range(w), y, range(w)] = 0.9
    ties = torch.zeros(1, 4, h, w)
    ties[0, 0, 3, 7] = ties[0, 0, 3, 9] = 0.5  # in one row
    ties[0, 1, 3, 9] = ties[0, 1, 4, 7] = 0.5  # the first in reading order is not the first column
    ties[0, 2, 11, 15] = ties[0, 2, 0, 0] = 0.5
    ties[0, 3, :, 4] = 0.5
    return {
        "everywhere": everywhere,
        "flat": torch.full((2, 3, h, w), 0.3),
        "empty": torch.zeros(2, 3, h, w),
        "ties": ties,
        "above one": 3 * torch.rand(2, 3, h, w, generator=generator),
        "below zero": torch.rand(2, 3, h, w, generator=generator) - 2,
        "gaussians": readable.encode(1.2 * torch.rand(3, 5, 2, generator=generator) - 0.1, SIZE),
    }


CASES = cases()


def assert_alike(actual, expected, exact):
    for a, b in zip(actual, expected, strict=True):
        if b is None:
            assert a is None
        elif exact:
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        else:
            torch.testing.assert_close(a, b, **REWRITE)


@pytest.mark.parametrize("case", [name for name in CASES if name != "below zero"])
@pytest.mark.parametrize("decoding", HEATMAPS)
def test_the_twins_agree(decoding, case):
    expected = readable.decode(CASES[case], decoding)
    assert_alike(safe.decode(CASES[case], decoding), expected, decoding in EXACT)


@pytest.mark.parametrize("decoding", EXACT)
def test_the_twins_agree_below_zero(decoding):
    points, scores = safe.decode(CASES["below zero"], decoding)
    assert_alike((points, scores), readable.decode(CASES["below zero"], decoding), True)
    assert (scores == 0).all() if decoding in SCORED else scores is None


@pytest.mark.parametrize(("window", "temperature"), [(3, 10.0), (7, 1.0), (1, 10.0)])
def test_the_twins_agree_on_other_windows(window, temperature):
    options = {"window": window, "temperature": temperature}
    for heatmaps in CASES.values():
        expected = readable.local_soft_argmax(heatmaps, **options)
        assert_alike(safe.local_soft_argmax(heatmaps, **options), expected, True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("decoding", HEATMAPS)
def test_any_precision_is_decoded_in_fp32(decoding, dtype):
    heatmaps = CASES["gaussians"].to(dtype)
    points, scores = safe.decode(heatmaps, decoding)
    assert points.dtype == torch.float32
    assert scores is None or scores.dtype == torch.float32
    assert_alike((points, scores), readable.decode(heatmaps.float(), decoding), decoding in EXACT)


def test_every_decoding_has_a_twin():
    """But that of coordinates, which has nothing to do."""
    assert {decoder(name).reference for name in (*HEATMAPS, "corrected_argmax")} == set(safe.TWINS)
    points = torch.rand(2, 5, 2).half()
    actual, scores = safe.decode(points, "coordinates")
    assert scores is None
    torch.testing.assert_close(actual, points.float(), rtol=0, atol=0)
    with pytest.raises(KeyError, match=r"soft.*decodings: coordinates, argmax"):
        safe.decode(points, "soft")


@pytest.mark.parametrize("case", [name for name, maps in CASES.items() if len(maps)])
def test_the_twins_agree_on_corrections(case):
    square = CASES[case][..., :12]
    output = torch.cat([square.flatten(2), torch.rand(*square.shape[:2], 2) - 0.5], 2)
    assert_alike(safe.decode(output, "corrected_argmax"), readable.decode(output, "corrected_argmax"), False)


@pytest.mark.parametrize("base", ["local_soft_argmax:window=3", "structured:window=7,temperature=2", "soft_argmax"])
def test_the_twins_agree_on_parameters_of_a_name(base):
    name = base if ":" in base else f"{base}:temperature=10"
    for heatmaps in CASES.values():
        assert_alike(safe.decode(heatmaps, name), readable.decode(heatmaps, name), base != "soft_argmax")


def test_twins_take_the_parameters_of_their_reference():
    """A decoder's window and temperature mean the same on both sides."""
    for reference, twin in safe.TWINS.items():
        mine, others = (inspect.signature(function).parameters for function in (reference, twin))
        assert {k: p.default for k, p in mine.items()} == {k: p.default for k, p in others.items()}


class Decode(nn.Module):
    """One graph with every decoder, since each export takes seconds."""

    def forward(self, heatmaps):
        return tuple(part for name in HEATMAPS for part in safe.decode(heatmaps, name) if part is not None)


@pytest.fixture(scope="module")
def graph():
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        Decode().eval(),
        (CASES["flat"].half(),),
        input_names=["heatmaps"],
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},),
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    return program.model_proto


@pytest.fixture(scope="module")
def session(graph):
    return onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def test_indices_stay_integers(graph):
    operators = {node.op_type for node in graph.graph.node}
    assert "ArgMax" in operators
    assert not operators & {"Floor", "Loop", "If", "Scan", "NonZero", "GatherND", "ScatterND"}


@pytest.mark.parametrize("case", list(CASES))
def test_onnxruntime_agrees(session, case):
    """Batches and point counts other than the traced ones, from fp16 heatmaps."""
    heatmaps = CASES[case].half()
    actual = [torch.from_numpy(value) for value in session.run(None, {"heatmaps": heatmaps.numpy()})]
    expected = [value for name in HEATMAPS for value in readable.decode(heatmaps, name) if value is not None]
    if case == "below zero":  # the centre of mass of nothing positive is anywhere
        actual, expected = actual[:-1], expected[:-1]
    assert_alike(actual, expected, False)
