"""Studies: their files, what they make of outcomes, and one of tiny networks from the command to the page."""

from __future__ import annotations

import csv
import functools
import json
import math
import shutil

import numpy as np
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from facelm_models import create
from facelm_sdk.errors import InputError
from facelm_training.landmarks import Validation, stage_errors
from facelm_training.loop import Schedule
from facelm_training.recipe import LandmarkRecipe, Stage
from facelm_training.study import definition
from facelm_training.study.cli import study_command
from facelm_training.study.definition import Claim, Run, Study, changed, names
from facelm_training.study.report import effect, markdown
from facelm_training.study.runner import Outcome

from .test_datasets import w300  # noqa: F401 (fixture)

read = functools.cache(definition.read)

TINY = """
title = "Windows of a tiny FAN"
paper = "no paper"
report = "300w/common:."
seeds = [0, 1]
tables = { "3" = "NME, %" }

[recipe]
model = "fan2"
objective = "heatmap"
held_out = "300w/train/afw:."
options = { stacks = 1, dim = 8, depth = 1 }
evaluate_every = 2
sources = [{ data = "300w/train/helen:." }, { data = "300w/train/lfpw:." }]
stages = [{ name = "full", size = 32, schedule = { steps = 4, batch = 2, precision = "fp32" } }]

[[runs]]
name = "5 x 5"
printed = { "3" = 2.04 }

[[runs]]
name = "7 x 7"
set = { decoding = "local_soft_argmax:window=7" }
printed = { "3" = 2.07 }

[[runs]]
name = "quantised"
set = { "weights.quantised" = true, "stages.0.schedule.rate" = 2e-3 }

[[claims]]
table = "3"
better = "5 x 5"
worse = "7 x 7"

[[claims]]
table = "3"
better = "5 x 5"
worse = "quantised"
kind = "steps"
printed = "faster"
"""


@pytest.mark.parametrize("name", names())
def test_the_packaged_studies_can_be_run(name):
    """Each run is a sound recipe that differs from the others, and changes no more than it says."""
    study = read(name)
    recipes = [study.recipe_of(run, seed=3) for run in study.runs]
    assert len(set(map(repr, recipes))) == len(recipes) and {recipe.seed for recipe in recipes} == {3}
    assert study.claims and all(run.printed or any(c.printed for c in study.claims) for run in study.runs)
    assert {stage.schedule.steps for recipe in recipes for stage in recipe.stages[:1]} == {
        study.recipe_of(study.runs[0], 0).stages[0].schedule.steps
    }
    assert study.report.startswith("300w/common") and "300w/train/afw" in recipes[0].held_out
    for claim in study.claims:
        named = [study.run(one).name for one in (claim.better, claim.worse)]
        assert len(set(named)) == 2


def test_what_the_papers_print_decides_the_direction():
    """A claim with both numbers printed is one that the paper's numbers bear out."""
    higher_is_better = {"lotr"}
    for name in names():
        study = read(name)
        for claim in study.claims:
            if claim.printed:
                continue
            better, worse = (study.run(one).printed[claim.table] for one in (claim.better, claim.worse))
            assert (better > worse) if name in higher_is_better else (better < worse), (name, claim)


def test_entries_by_dotted_names():
    recipe = {"weights": {"a": 1, "b": 2}, "stages": ({"schedule": {"steps": 1}}, {"schedule": {"steps": 2}})}
    new = changed(recipe, {"weights.a": 5, "stages.1.schedule.steps": 9, "options.layers": 3, "objective": "x"})
    assert new == {
        "weights": {"a": 5, "b": 2},
        "stages": [{"schedule": {"steps": 1}}, {"schedule": {"steps": 9}}],
        "options": {"layers": 3},
        "objective": "x",
    }
    assert recipe["weights"]["a"] == 1
    for name in ("stages.7.size", "stages.one.size", "weights.a.deep"):
        with pytest.raises(InputError, match="leads nowhere"):
            changed(recipe, {name: 1})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('worse = "quantised"', 'worse = "other"', "a claim is of 'other'; runs: 5 x 5, 7 x 7, quantised"),
        ('name = "7 x 7"', 'name = "5 x 5"', "names of their own"),
        ("seeds = [0, 1]", "seeds = [1, 1]", "1 to 10 different numbers"),
        ("window=7", "window=6", "run 7 x 7: decoding: .* an odd window"),
        ('printed = "faster"', "", "has nothing printed"),
        ('"3" = 2.07', '"4" = 2.07', "4 is none of the tables 3"),
        ('report = "300w/common:."', "", "lacks report"),
        ('"weights.quantised"', '"weights.quantized"', "weights has unknown entries"),
    ],
)
def test_what_is_wrong_with_a_study_is_told(tmp_path, old, new, message):
    assert old in TINY
    (tmp_path / "tiny.toml").write_text(TINY.replace(old, new))
    with pytest.raises(InputError, match=message):
        definition.read(str(tmp_path / "tiny.toml"))


def test_unknown_studies_are_told():
    with pytest.raises(InputError, match="packaged study; those are lotr"):
        read("nothing")


def outcome(mean, curve=(), **scores):
    return Outcome({"nme": mean, **scores}, list(curve))


def test_a_difference_holds_where_the_seeds_agree():
    claim = Claim("3", "a", "b")
    outcomes = {
        "a": {s: outcome(4.0 + 0.01 * s) for s in range(3)},
        "b": {s: outcome(4.2 + 0.012 * s) for s in range(3)},
    }
    found = effect(claim, outcomes)
    assert found.difference == pytest.approx(0.202) and found.holds == "yes" and found.ours == "4.212 against 4.010"
    assert found.half == pytest.approx(4.303 * 0.002 / math.sqrt(3), rel=1e-6)  # of differences 0.2, 0.202, 0.204
    assert effect(Claim("3", "b", "a"), outcomes).holds == "no"
    outcomes["b"][1] = outcome(3.9)
    assert effect(claim, outcomes).holds == "undecided"
    one = {name: {0: by_seed[0]} for name, by_seed in outcomes.items()}
    assert effect(claim, one).holds == "one seed: so it was" and effect(claim, one).half == math.inf
    assert effect(claim, {"a": outcomes["a"]}) is None


def test_a_score_of_the_first_stage():
    outcomes = {"a": {0: outcome(4.0, nme_1=4.5)}, "b": {0: outcome(4.7)}}
    found = effect(Claim("3", "a", "b", score="nme_1"), outcomes)
    assert found.difference == pytest.approx(0.2), "of a network of one stage the first is the last"


def test_steps_to_the_same_error():
    """10% is reached by the one after 20 steps, by the other, between two evaluations, after 50."""
    fast, slow = [(10, 20.0), (20, 10.0), (60, 5.0)], [(20, 20.0), (40, 15.0), (60, 10.0)]
    claim = Claim("3", "a", "b", kind="steps", printed="2.2 times")
    found = effect(claim, {"a": {0: outcome(5.0, fast)}, "b": {0: outcome(10.0, slow)}})
    assert math.exp(found.difference) == pytest.approx(60 / 20) and found.ours == "3.00 times the steps"
    halfway = [(20, 20.0), (40, 15.0), (60, 5.0)]
    found = effect(claim, {"a": {0: outcome(5.0, [(10, 20.0), (20, 10.0)])}, "b": {0: outcome(5.0, halfway)}})
    assert math.exp(found.difference) == pytest.approx(50 / 20)


def test_a_run_that_diverged_is_worse():
    outcomes = {"a": {0: outcome(4.0)}, "b": {0: Outcome(diverged="the loss is nan")}}
    assert effect(Claim("3", "a", "b"), outcomes).holds == "yes"
    assert effect(Claim("3", "b", "a"), outcomes).ours == "b diverged"
    study = Study("s", "t", "p", {"3": "NME"}, {}, (Run("a"), Run("b")), (Claim("3", "a", "b", printed="-"),), "x:.")
    page = markdown(study, outcomes, {})
    assert (
        "| a is better than b | 3 | - | b diverged |  | 1 | yes |" in page and "| b |  | diverged | diverged |" in page
    )


@pytest.fixture
def study(tmp_path, w300):  # noqa: F811
    """Runs the command on the made-up faces; returns its result and the folders of results and runs."""
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    app = Typer()
    app.command()(study_command)
    out, runs = tmp_path / "results", tmp_path / "runs"

    def run(*options):
        command = [
            str(file),
            "--data",
            str(w300[0]),
            "--out",
            str(out),
            "--runs",
            str(runs),
            "--threads",
            "1",
            *options,
        ]
        return CliRunner().invoke(app, command), out, runs / "tiny"

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def test_from_the_command_to_the_page(study):
    result, out, runs = study("--seeds", "1")
    assert result.exception is None, result.output
    assert sorted(path.name for path in out.iterdir()) == ["tiny.json", "tiny.md", "tiny.png"]
    page = (out / "tiny.md").read_text()
    assert "| 5 x 5 is better than 7 x 7 | 3 | 2.07 against 2.04 |" in page and "one seed" in page
    record = json.loads((out / "tiny.json").read_text())
    assert [run["name"] for run in record["runs"]] == ["5 x 5", "7 x 7", "quantised"]
    assert record["command"].startswith("facelm study") and record["scores on"].startswith(
        "2 faces of 300w/test/common"
    )
    first, second, third = (run["seeds"]["0"] for run in record["runs"])
    assert [step for step, _ in first["curve"]] == [2, 4]
    assert first["curve"] == second["curve"] != third["curve"] and first["nme"] > 0

    # Another decoding alone is no training of its own, and is scored with its own.
    assert sorted(path.name for path in (runs / "seed0").iterdir()) == ["5_x_5", "quantised"]
    assert first["nme"] != second["nme"]

    # It goes on with the second seed, and with what was cut off, and leaves what is done as it is.
    log = runs / "seed0" / "5_x_5" / "full" / "log.csv"
    before = log.read_bytes()
    shutil.rmtree(runs / "seed0" / "quantised")
    result, *_ = study()
    assert result.exception is None, result.output
    assert log.read_bytes() == before
    record = json.loads((out / "tiny.json").read_text())
    assert [sorted(run["seeds"]) for run in record["runs"]] == [["0", "1"]] * 3
    assert record["runs"][2]["seeds"]["0"]["nme"] == third["nme"], "the same seed is the same training"
    assert record["runs"][0]["seeds"]["1"]["nme"] != first["nme"]
    assert len(list(csv.DictReader((runs / "seed1" / "5_x_5" / "full" / "log.csv").open()))) == 2
    assert record["claims"][0]["seeds"] == 2 and record["claims"][0]["holds"] in ("yes", "no", "undecided")


def test_what_the_table_holds_is_not_trained_again(study, tmp_path):
    """Only the run whose recipe changed is; no seed is lost, and a table of other faces is refused."""
    _, out, runs = study("--seeds", "1")
    record = json.loads((out / "tiny.json").read_text())
    shutil.rmtree(runs)
    (tmp_path / "tiny.toml").write_text(TINY.replace("2e-3", "3e-3"))
    assert study("--seeds", "1")[0].exception is None
    assert [path.name for path in (runs / "seed0").iterdir()] == ["quantised"]
    again = json.loads((out / "tiny.json").read_text())
    assert again["runs"][:2] == record["runs"][:2] and again["runs"][2]["seeds"] != record["runs"][2]["seeds"]
    assert study("--seeds", "2")[0].exception is None
    assert sorted(path.name for path in (runs / "seed1").iterdir()) == ["5_x_5", "quantised"]
    both = json.loads((out / "tiny.json").read_text())
    assert both["claims"][0]["seeds"] == 2 and both["runs"][0]["seeds"]["0"] == record["runs"][0]["seeds"]["0"]
    shutil.rmtree(runs)
    assert study("--seeds", "1")[0].exception is None and not runs.exists()
    assert json.loads((out / "tiny.json").read_text()) == both, "nor are other seeds lost, nor a digit of an effect"
    before = (out / "tiny.json").read_bytes()
    refused = study("--seeds", "1", "--limit", "1")[0].exception
    assert isinstance(refused, InputError) and "of other faces (scores on: 2 faces" in str(refused)
    assert (out / "tiny.json").read_bytes() == before and not runs.exists()
    (out / "tiny.json").write_bytes(before[:-9])
    refused = study("--seeds", "1")[0].exception
    assert isinstance(refused, InputError) and "is no table of a study" in str(refused)


def test_another_recipe_or_other_data_in_the_same_folder_are_refused(study, tmp_path):
    """Scores that are there are of another recipe then, and not entered into the table as if they were of this one."""
    _, out, _ = study("--seeds", "1")
    before = (out / "tiny.json").read_bytes()
    (tmp_path / "tiny.toml").write_text(TINY.replace("2e-3", "3e-3"))
    refused = study("--seeds", "1")[0].exception
    assert isinstance(refused, InputError) and "was trained by another recipe" in str(refused)
    recorded = json.loads((out / "tiny.json").read_text())["runs"]
    assert recorded[:2] == json.loads(before)["runs"][:2] and not recorded[2]["seeds"]
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "runs" / "tiny" / "seed0" / "5_x_5" / "scores_5_x_5.json").unlink()
    refused = study("--seeds", "1", "--limit", "1", "--out", str(tmp_path / "elsewhere"))[0].exception
    assert isinstance(refused, InputError) and "was trained by another recipe: limit" in str(refused)


def test_studies_are_listed():
    app = Typer()
    app.command()(study_command)
    listed = CliRunner().invoke(app, []).output
    assert all(f"{name}: " in listed for name in names()) and "SLPT: stages" in listed


def test_errors_after_each_stage(faces):
    """The last is that of the network; the others are those of a network with as many stages."""
    recipe = LandmarkRecipe("slpt_hrnet18", (Stage("full", Schedule(steps=1), size=64),), "slpt")
    options = {"size": 64, "layers": 1, "dim": 16, "heads": 2, "feedforward": 16}
    torch.manual_seed(0)
    whole = create("slpt_hrnet18", stages=2, **options).eval()
    one = create("slpt_hrnet18", stages=1, **options).eval()
    one.load_state_dict(whole.state_dict())
    val = Validation(recipe, 64, faces)
    first, last = stage_errors(whole, val)
    np.testing.assert_allclose(last, val.errors(whole), rtol=1e-5)
    np.testing.assert_allclose(first, val.errors(one), rtol=1e-5)
    assert abs(first - last).max() > 1e-5 and len(stage_errors(one, val)) == 1
