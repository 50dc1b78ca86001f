"""``facelm train`` on a data set's own files, and what its weights say to the exporter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from facelm_export import export
from facelm_models.weights import read, read_card
from facelm_sdk.errors import InputError
from facelm_training.cli import train_command

from .test_datasets import w300, wflw  # noqa: F401 (fixtures)

RECIPE = """
model = "lotr_m"
markup = "wflw98"
val = "test"
crop = { kind = "box", side = "max", scale = 1.4 }
summary = "a trial"
data = "three faces"
evaluate_every = 2

[[stages]]
name = "pooled"
network = "pooled"
size = 32
schedule = { steps = 2, batch = 2, warmup = 1 }

[[stages]]
name = "full"
size = 64
schedule = { epochs = 1, batch = 2, optimiser = "lamb", warmup = 1 }
"""


@pytest.fixture
def train(tmp_path_factory, wflw):  # noqa: F811
    """Runs the command; returns its result and the folder it wrote."""
    place = tmp_path_factory.mktemp("run")
    app = Typer()
    app.command()(train_command)

    def run(text=RECIPE, data=None, *options):
        data = data or f"wflw:{wflw[0]}"
        (place / "mine.toml").write_text(text)
        command = [str(place / "mine.toml"), "--data", data, "--out", str(place / "out"), "--threads", "1", *options]
        return CliRunner().invoke(app, command), place / "out"

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def test_from_a_data_set_to_an_exported_file(train, wflw, tmp_path):  # noqa: F811
    result, out = train()
    assert result.exception is None, result.output
    path = out / "mine.safetensors"
    card = read_card(path)
    assert (card["model"], card["markup"], card["recipe"], card["config"]["size"]) == (
        "lotr_m",
        "wflw98",
        "a trial",
        64,
    )
    assert sorted(p.name for p in (out / "full").iterdir()) == [
        "best.pt",
        "done.pt",
        "last.pt",
        "log.csv",
        "schedule.json",
    ]
    mean = read(path)["mean_shape"]
    assert mean.shape == (98, 2) and (mean > 0).all() and (mean < 1).all()
    spec = export("lotr_m", weights=path, latency=False, out=tmp_path).spec
    assert (spec.markup, spec.crop.kind, spec.crop.scale, spec.crop.size) == ("wflw98", "box", 1.4, 64)

    before = {key: value.clone() for key, value in read(path).items()}
    path.unlink()
    assert train()[0].exception is None  # every stage is done: the weights are written again
    assert all(torch.equal(value, before[key]) for key, value in read(path).items())

    other = RECIPE.replace("evaluate_every", 'weights = { loss = "l1" }\nevaluate_every')
    refused = train(other)[0].exception
    assert isinstance(refused, InputError) and 'weights.loss "smooth_wing" -> "l1"' in str(refused)
    longer = RECIPE.replace("epochs = 1", "epochs = 2")
    assert isinstance(train(longer)[0].exception, InputError)
    assert train(longer, f"wflw:{wflw[0]}", "--changed")[0].exception is None
    assert not all(torch.equal(value, before[key]) for key, value in read(path).items())


@pytest.mark.parametrize(
    ("text", "data", "options", "message"),
    [
        (RECIPE.replace("wflw98", "ibug68"), None, (), "trains ibug68, but wflw has wflw98"),
        (RECIPE, "some/folder", (), "names no data sets: give one as NAME:DIR"),
        (RECIPE, "wflw:no/such/folder", (), "WFLW_annotations"),
        (RECIPE, None, ("--device", "cuda:9"), "sees no CUDA device"),
        (RECIPE, None, ("--device", "x"), "--device is cpu, cuda or cuda:<index>, not 'x'"),
        (RECIPE, None, ("--threads", "0"), "--threads is from 1 to 1024, not 0"),
        (RECIPE, None, ("--threads", "99999999999"), "--threads is from 1 to 1024"),
        (RECIPE, None, ("--limit", "-1"), "--limit is at least 1, not -1"),
    ],
)
def test_what_does_not_go_together(train, wflw, text, data, options, message):  # noqa: F811
    if options and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    result, out = train(text, data, *options)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert not out.exists()


def test_the_weights_that_a_run_begins_with_are_kept(train):
    result, out = train()
    path = out / "mine.safetensors"
    before = path.read_bytes()
    result, _ = train(f'start = "{path.as_posix()}"\n' + RECIPE)
    assert isinstance(result.exception, InputError) and "would be written over what is read" in str(result.exception)
    assert path.read_bytes() == before


def test_faces_of_a_data_set(wflw):  # noqa: F811
    from facelm_training import datasets
    from facelm_training.data import faces_of

    faces = faces_of(datasets.open(f"wflw/train:{wflw[0]}"))
    assert len(faces) == 3 and faces.kps.shape == (3, 5, 2)
    np.testing.assert_allclose(faces.points, wflw[1], atol=1e-4)
    np.testing.assert_allclose(faces.kps[:, :2], wflw[1][:, 96:98], atol=1e-3)  # the pupils
    assert faces.images[2].shape == (100, 120, 3)


def test_held_out_faces_are_always_the_same(wflw):  # noqa: F811
    """By picture, so that no face of a training picture is among them, whatever the order and the other pictures."""
    from facelm_training import datasets
    from facelm_training.data import hold_out

    whole = datasets.open(f"wflw/train:{wflw[0]}")
    train, held = hold_out(whole, 0.05)
    names = [sample.name for sample in whole]
    assert sorted([s.name for s in (*train, *held)]) == sorted(names) and len(held) >= 1
    assert not {s.name.rpartition("#")[0] for s in train} & {s.name.rpartition("#")[0] for s in held}
    again = hold_out(whole.part(range(len(names) - 1, -1, -1)), 0.05)[1]
    assert {s.name for s in again} == {s.name for s in held}
    with pytest.raises(InputError, match=r"too few to hold 0\.9 of them out"):
        hold_out(whole, 0.9)


def test_a_part_held_out_takes_the_place_of_val(train):
    result, out = train(RECIPE.replace('val = "test"', "held_out_part = 0.4"))
    assert result.exception is None, result.output
    assert "val_nme" in (out / "full" / "log.csv").read_text()


def test_points_that_are_not_finite(wflw):  # noqa: F811
    import dataclasses

    from facelm_training import datasets
    from facelm_training.data import faces_of

    whole = datasets.open(f"wflw/train:{wflw[0]}")
    points = whole[1].points.copy()
    points[7, 1] = np.nan
    samples = (whole[0], dataclasses.replace(whole[1], points=points))
    with pytest.raises(InputError, match=f"wflw/train: a point of {whole[1].name} is not finite"):
        faces_of(dataclasses.replace(whole, samples=samples))


def test_a_mixture_is_read_below_the_folder(train, tmp_path, w300):  # noqa: F811
    """Sources and held-out faces by their specs; those of a data set that --data names take their place."""
    sources = """held_out = "300w/train/afw:."

[[sources]]
data = "300w/train/helen:."
weight = 2

[[sources]]
data = "300w/train/lfpw:."
"""
    text = RECIPE.replace("wflw98", "ibug68").replace("[[stages]]", f"{sources}\n[[stages]]", 1)
    result, out = train(text, str(w300[0]))
    assert result.exception is None, result.output
    assert read(out / "mine.safetensors")["mean_shape"].shape == (68, 2)


def test_several_data_sets_in_one_run(train, wflw):  # noqa: F811
    result, out = train(RECIPE.replace('val = "test"', "held_out_part = 0.3"), None, "--data", f"wflw/test:{wflw[0]}")
    assert result.exception is None, result.output
    stages = read_card(out / "mine.safetensors")["training"]
    assert [(one["stage"], one["batch"], one["weights"]) for one in stages] == [
        ("pooled", 2, "exponential moving average, decay 0.998"),
        ("full", 2, "exponential moving average, decay 0.998"),
    ]


def test_faces_of_several_data_sets(wflw):  # noqa: F811
    """Each face of all of them counts the same; the best weights are chosen on faces of each that are held out."""
    from facelm_training.cli import read_faces
    from facelm_training.loop import Schedule
    from facelm_training.recipe import LandmarkRecipe, Stage

    recipe = LandmarkRecipe("lotr_m", (Stage("one", Schedule(steps=1)),), markup="wflw98", held_out_part=0.3)
    specs = [f"wflw:{wflw[0]}", f"wflw/test:{wflw[0]}"]
    one, both = read_faces(recipe, specs[:1], None), read_faces(recipe, specs, None)
    for few, many in zip(one, both, strict=True):
        assert many.names == 2 * few.names and (many.weights == 1).all()
        np.testing.assert_array_equal(many.points, np.concatenate([few.points, few.points]))
        for index in range(len(many)):
            np.testing.assert_array_equal(many.images[index], few.images[index % len(few)])
    assert sum(len(part) for part in both) == 6


def test_several_data_sets_are_named(train, wflw):  # noqa: F811
    result, _ = train(RECIPE, f"wflw:{wflw[0]}", "--data", "some/folder")
    assert "several --data are NAME:DIR each, which 'some/folder' is not" in str(result.exception)
