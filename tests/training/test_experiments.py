"""The papers' experiments at small scale: what each is there to show."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from facelm_sdk import Face
from facelm_sdk.metrics import inter_ocular
from facelm_sdk.pose import HEAD_68
from facelm_training.experiments import fig2_structured as fig2
from facelm_training.experiments import fig3_subpixel as fig3
from facelm_training.experiments import recognition

RESULTS = Path(__file__).resolve().parents[2] / "training" / "results"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    out = tmp_path_factory.mktemp("fig2")
    return fig2.run(out, starts=20, steps=100), out


def test_the_structured_loss_finds_the_right_cell(toy):
    """Within ten steps of 0.3, then a growing gap: up at the right cell by the step size, down everywhere else."""
    report = toy[0]["single start"][fig2.STRUCTURED]
    assert report["argmax right from step"] <= 10
    gaps = [report["gap"][str(at)] for at in (0, 10, 20, 50, 100)]
    assert gaps == sorted(gaps)
    assert gaps[0] < 0 < gaps[1]
    assert report["mean update of the right cell, first 10 steps"] == pytest.approx(0.3, rel=0.01)
    assert report["share of other cells' updates that are downwards"] == 1


def test_soft_argmax_is_content_with_two_wrong_peaks(toy):
    """Its loss is gone, its argmax never right; it moves the right cell least."""
    report = toy[0]["single start"][fig2.SOFT]
    assert report["argmax right from step"] is None
    assert report["soft-argmax"]["100"] == pytest.approx(5, abs=1e-3)
    assert 0 < report["mean update of the right cell, first 10 steps"] < 0.01
    assert 0.2 < report["share of other cells' updates that are downwards"] < 0.8


def test_it_does_not_hang_on_the_start_or_the_step(toy):
    rows = toy[0]["random starts"]["two peaks"]
    for rate in ("0.1", "0.3", "1.0"):
        assert rows[fig2.STRUCTURED][rate]["argmax right, %"] == 100
        assert rows[fig2.SOFT][rate]["argmax right, %"] < 20
        assert rows[fig2.SOFT][rate]["median |soft-argmax - 5| at the end"] < 0.01


def test_the_papers_bimodal_heatmap_has_no_gradient():
    """Eq. 7: argmax at both ends, the loss and every slope 0, while the structured loss raises the middle."""
    theta = torch.tensor([[0.4, 0.1, 1e-9, 0.1, 0.4]], dtype=torch.float64).log().requires_grad_()
    padded = torch.nn.functional.pad(theta, (3, 3), value=-50.0)  # cells 3 to 7 of 11, the middle at 5
    (slope,) = torch.autograd.grad(fig2.soft_argmax_l2(padded).sum(), theta, retain_graph=True)
    assert slope.abs().max() < 1e-12
    (slope,) = torch.autograd.grad(fig2.structured(padded).sum(), theta)
    assert slope[0, 2] < -0.9
    assert (slope[0, [0, 1, 3, 4]] > 0).all()


def test_the_toy_by_hand():
    """One step of eq. 11 on a flat heatmap: the slope is the softmax of the margin, less 1 at the right cell."""
    path = fig2.descend(fig2.structured, torch.zeros(1, 11, dtype=torch.float64), rate=0.5, steps=1)
    total = sum(math.exp((k - 5) ** 2) for k in range(11))
    assert path[1, 0, 5].item() == pytest.approx(0.5 * (1 - 1 / total))
    assert path[1, 0, 0].item() == pytest.approx(-0.5 * math.exp(25) / total)


def test_when_argmax_is_right_for_good():
    path = torch.zeros(4, 3, 11)
    path[:, 0, 5] = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    path[:, 1, 5] = torch.tensor([1.0, 1.0, -1.0, 1.0])
    path[:, 2, 5] = torch.tensor([1.0, 1.0, 1.0, -1.0])
    assert fig2.first_right(path).tolist() == [1, 3, math.inf]


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder with landmarks68.npz: 40 made-up faces of 68 points."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(2)
    points = rng.uniform(80, 180, (40, 68, 2))
    points[:, 36], points[:, 45] = (90, 110), (170, 110)
    np.savez(folder / "landmarks68.npz", points=points.astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def subpixel(faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("fig3")
    return fig3.run(faces, out, sides=(32, 64), options_on=10), out


def test_the_face_fills_its_part_of_the_crop(faces):
    points = fig3.crop_fractions(fig3.load(faces)).numpy()
    low, high = points.min(1), points.max(1)
    np.testing.assert_allclose((high - low).max(-1), 220 / 256, rtol=0.051)
    np.testing.assert_allclose((high + low) / 2, 0.5, atol=0.021)
    assert np.ptp((high - low).max(-1)) > 0.03


@pytest.mark.parametrize("side", ["32", "64"])
def test_continuous_heatmaps_lose_less(subpixel, side):
    """The paper's finding, and where it comes from: encoding gains a half, decoding the rest."""
    rows = {name: by_side[side]["mean"] for name, by_side in subpixel[0]["by cells a side"].items()}
    standard, proposed = rows[fig3.STANDARD], rows[fig3.PROPOSED]
    assert proposed < 0.4 * standard
    assert rows["quantised, local soft-argmax"] == pytest.approx(standard, rel=1e-3)
    assert rows["continuous, argmax 0.25"] == pytest.approx(0.5 * standard, rel=0.05)
    assert subpixel[0]["by cells a side"][fig3.PROPOSED][side]["max"] < standard


def test_the_loss_halves_with_twice_the_cells(subpixel):
    for by_side in subpixel[0]["by cells a side"].values():
        assert by_side["64"]["mean"] == pytest.approx(0.5 * by_side["32"]["mean"], rel=0.1)


def test_rounding_loses_what_chance_would(subpixel, faces):
    """An error uniform over a cell: (sqrt 2 + asinh 1) / 6 of its side on average."""
    eyes = inter_ocular(fig3.crop_fractions(fig3.load(faces)), fig3.MARKUP)
    expected = 100 * (math.sqrt(2) + math.asinh(1)) / 6 / 64 * (1 / eyes).mean()
    assert subpixel[0]["by cells a side"][fig3.STANDARD]["64"]["mean"] == pytest.approx(expected, rel=0.03)


def test_a_wider_gaussian_is_decoded_better(subpixel):
    row = subpixel[0]["on 64 cells"]["mean NME by sigma"][fig3.PROPOSED]
    assert row["1.5"] < 0.5 * row["1.0"]
    assert row["2.0"] < 0.5 * row["1.5"]


@pytest.mark.parametrize(("fixture", "name"), [("toy", "fig2_structured"), ("subpixel", "fig3_subpixel")])
def test_results_are_files(fixture, name, request):
    result, out = request.getfixturevalue(fixture)
    written = json.loads((out / f"{name}.json").read_text())
    assert written["command"].startswith(f"python -m facelm_training.experiments.{name}")
    assert {"python", "torch", "numpy"} <= set(written["versions"])
    assert {key: written[key] for key in result} == json.loads(json.dumps(result))
    picture = (out / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


def test_the_committed_toy_is_this_code():
    written = json.loads((RESULTS / "fig2_structured.json").read_text())["single start"]
    _, report = fig2.single(1000)
    for name, values in report.items():
        assert written[name]["argmax right from step"] == values["argmax right from step"]
        for key in ("gap", "soft-argmax"):
            assert written[name][key] == pytest.approx(values[key], abs=2e-3)


@pytest.mark.data
def test_the_committed_figure_is_this_code(data_dir):
    """On a part of the faces, at the figure's own resolution."""
    written = json.loads((RESULTS / "fig3_subpixel.json").read_text())["by cells a side"]
    points = fig3.crop_fractions(fig3.load(data_dir, 40))
    for name, way in fig3.WAYS.items():
        assert fig3.round_trip(points, *way, fig3.SIDE).mean() == pytest.approx(written[name]["64"]["mean"], rel=0.06)


def test_pairs_of_recognition_are_of_two_videos():
    """Of three pictures of one person two are of one video, which says nothing of alignment."""
    pairs = recognition.Pairs.of(["a", "a", "a", "b"], ["0", "0", "1", "0"])
    assert pairs.same.tolist() == [[0, 2], [1, 2]]
    assert pairs.other.tolist() == [[0, 3], [1, 3], [2, 3]]


def test_acceptance_and_what_a_way_gains():
    """A threshold that lets one pair of two people in ten pass; one way is right twice as often."""
    other = np.linspace(1, 2, 101)
    same = np.array([0.5, 1.05, 1.5, 1.05])
    assert recognition.accepted(same, other, 0.1) == 0.75
    better, worse = (np.r_[np.zeros(hits), np.full(8 - hits, 3.0)] for hits in (8, 4))
    distances = {"worse": (worse, other), "better": (better, other)}
    gains = recognition.against(distances, "worse", np.repeat(np.arange(4), 2), 0.1)
    mean, low, high = gains["better"]
    assert list(gains) == ["better"] and mean == 50 and low < 50 < high
    assert recognition.table(distances)["worse"]["TAR at FAR 0.01"] == 50


def test_the_box_crop_of_recognition_has_the_scale_and_place_of_the_aligned_one():
    points = HEAD_68[:, :2] * 30 + 200
    face = Face.of_landmarks(points, bbox=[100, 90, 290, 310])
    kps = face.to("kps5")
    template = (kps - kps.mean(0)) * 0.9 + (74.5, 80)
    found = recognition._upright([face], template.astype(np.float64)).transform(box=face.bbox).apply(face.to("kps5"))
    np.testing.assert_allclose(found.mean(0), template.mean(0), atol=0.01)
    assert np.ptp(found[:, 0]) == pytest.approx(np.ptp(template[:, 0]), rel=0.05)
