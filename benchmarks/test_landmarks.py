"""Crops to landmarks: every model x backend x precision x batch, flip averaging, threads, and the graph's own parts."""

from __future__ import annotations

import os

import pytest

from facelm_export.report.samples import portrait_crops
from facelm_models import info
from facelm_models.registry import decoder
from facelm_sdk import Landmarker

from .measure.interleaved import Variant
from .measure.models import billions, chosen
from .measure.nodes import PARTS, Profile

SIDES = (
    ("eager", "fp32"),
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
HEAVY = 20.0
"""Billions of multiply-adds above which a batch is left out unless FACELM_BENCH_MODELS names its model."""


def work(models, name, session, batch, flip=None):
    """Landmarks of a batch of crops."""
    landmarker = Landmarker(session, flip=flip, max_batch=2 * batch if flip else batch)
    crops = portrait_crops(landmarker.spec, batch)
    assert landmarker(crops).shape == (batch, 68, 2)
    about = {"weights": models.weights(name), "accuracy": dict(landmarker.spec.accuracy)}
    return Variant(lambda: landmarker(crops), info=about, multiply_adds=(2 if flip else 1) * batch * billions(name))


@pytest.mark.parametrize(("backend", "precision"), SIDES)
@pytest.mark.parametrize("batch", [1, 8, 16], ids="batch{}".format)
@pytest.mark.parametrize("model", chosen())
def test_landmarks(interleaved, models, model, batch, backend, precision):
    if batch > 1 and batch * billions(model) > HEAVY and "FACELM_BENCH_MODELS" not in os.environ:
        pytest.skip("more than the default run has time for; set FACELM_BENCH_MODELS")
    interleaved(
        ("backend", "precision"),
        lambda backend, precision: work(models, model, models.session(model, backend, precision), batch),
    )


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
@pytest.mark.parametrize("model", chosen())
def test_flip(interleaved, models, model, flip):
    """Flip averaging, its mirrored crop in the same batch, against the plain run."""
    interleaved(("flip",), lambda flip: work(models, model, models.session(model, "onnxruntime"), 1, flip))


@pytest.mark.parametrize("threads", [1, 2], ids="threads{}".format)
@pytest.mark.parametrize("model", chosen())
def test_threads(interleaved, models, model, threads):
    interleaved(
        ("threads",), lambda threads: work(models, model, models.session(model, "onnxruntime", threads=threads), 1)
    )


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("model", chosen())
def test_parts(interleaved, models, model, precision, part):
    """What a run's nodes take before the network, in it and after it, by onnxruntime's own profile."""
    profile = Profile(models.onnx(model, precision), heatmaps=decoder(info(model).decoding).of_maps)
    interleaved(("part",), profile.variant, seconds=0)
