"""Timing, and what ``facelm bench`` says of a model."""

from __future__ import annotations

import functools
import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from facelm_sdk import bench as benching
from facelm_sdk import cli, machine
from facelm_sdk.bench import bench, in_turns, interleaved, ratio, summary, tails, times, unsteady
from facelm_sdk.errors import InputError, UnknownModelError
from facelm_sdk.images.read import read_image


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(benching, "WARM_UP_SECONDS", 0)


def test_one_run_of_each_in_turn_and_the_first_is_not_counted():
    calls = []
    one, other = interleaved(lambda: calls.append("a"), lambda: calls.append("b"), seconds=0, least=3)
    assert "".join(calls) == "ab" + "ab" * 3
    assert len(one) == len(other) == 3


def test_sides_take_turns_in_blocks_whose_first_runs_are_not_counted():
    calls = []
    sides = [functools.partial(times, functools.partial(calls.append, name)) for name in "ab"]
    one, other = in_turns(*sides, seconds=0, rounds=2, block_seconds=0)
    assert "".join(calls) == "abab" + "aabb" * 2
    assert len(one) == len(other) == 2


def test_a_fast_side_has_more_runs_in_a_turn():
    asked = {"slow": [], "fast": []}

    def side(name, ms):
        def runs(count):
            asked[name].append(count)
            return [ms] * count

        return runs

    slow, fast = in_turns(side("slow", 100.0), side("fast", 1.0), seconds=0, rounds=3, block_seconds=0.3)
    assert asked == {"slow": [1, 1, 4, 4, 4], "fast": [1, 1, 21, 21, 21]}
    assert slow == [100.0] * 9 and fast == [1.0] * 60


def test_turns_go_on_for_so_many_seconds(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(benching.time, "perf_counter", lambda: next(clock))  # a second goes by between two looks
    (found,) = interleaved(lambda: None, seconds=20, least=1)
    assert len(found) == 7  # each turn is two looks and one at the end


def test_figures_of_times():
    values = list(range(1, 101))
    assert summary(values) == {"min": 1.0, "median": 50.5, "q1": 25.75, "q3": 75.25, "runs": 100}
    assert tails(values) == {"p90": 90.1, "p99": 99.01}
    assert len(times(lambda: None, 3)) == 3


def test_a_ratio_is_stated_where_both_are_steady():
    steady, twice, busy = summary([10, 10.5, 11]), summary([20, 21, 22]), summary([10, 12, 16, 30])
    assert ratio(twice, steady) == (2.0, None) and unsteady(steady) is None
    for pair in ((steady, busy), (busy, steady)):
        value, reason = ratio(*pair)
        assert value is None and "the machine was busy: a quarter of the runs took 1.9 times" in reason


def test_one_thread_and_all_cores(landmark_model, monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    found = bench(landmark_model(), seconds=0)
    assert [one.threads for one in found.timed] == [1, 2]
    assert len({one.ms["runs"] for one in found.timed}) == 1
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    assert [one.threads for one in bench(landmark_model(), seconds=0).timed] == [1]


@pytest.mark.parametrize("busy", [True, False])
def test_what_is_told_of_a_busy_machine(landmark_model, monkeypatch, busy):
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    pattern = [10, 12, 16, 30] if busy else [10, 10, 11, 11]
    monkeypatch.setattr(benching, "interleaved", lambda *runs, seconds: [pattern for _ in runs])
    found = bench(landmark_model(), seconds=0)
    text = "\n".join(" ".join(line) for line in benching.lines(found))
    assert ("the machine was busy" in text) is busy and ("times as fast as one thread" in text) is not busy
    assert (found.speed_up is None) is busy


def test_landmark_model(landmark_model):
    found = bench(landmark_model(), batch=4, flip=True, seconds=0, threads=1)
    assert (found.model, found.task, found.precision, found.unit) == ("tiny", "landmarks", "fp32", "crops")
    (one,) = found.timed
    assert found.flip and one.threads == 1 and found.providers == ("CPUExecutionProvider",)
    assert one.ms["runs"] >= benching.LEAST_RUNS
    assert one.ms["min"] <= one.ms["q1"] <= one.ms["median"] <= one.ms["p90"] <= one.ms["p99"]
    assert one.per_second == pytest.approx(4000 / one.ms["median"], rel=0.01)


def test_so_many_crops_are_run(landmark_model, monkeypatch):
    seen = []
    run = benching.Landmarker.run
    monkeypatch.setattr(benching.Landmarker, "run", lambda self, crops: seen.append(crops.shape) or run(self, crops))
    bench(landmark_model(size=32), batch=3, seconds=0)
    assert set(seen) == {(3, 32, 32, 3)}


def test_detector(detector_model):
    found = bench(detector_model(), seconds=0, picture=np.zeros((48, 80, 3), np.uint8))
    assert (found.task, found.unit, found.what) == ("detection", "pictures", "one detection pass on a 80x48 picture")
    with pytest.raises(InputError, match="bright takes one picture"):
        bench(detector_model(), batch=2, seconds=0)


def test_the_whole_aligner_on_its_portrait():
    found = bench(batch=2, seconds=0, threads=1)
    assert found.task == "pipeline" and "2 pictures of 640x480, 1 face each" in found.what
    assert found.timed[0].per_second == pytest.approx(2000 / found.timed[0].ms["median"], rel=0.01)


def test_the_portrait_is_a_picture_of_the_stated_size():
    assert read_image(benching.PICTURE).shape == (480, 640, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch is at least 1"),
        ({"seconds": -1}, "seconds is 0 or more"),
        ({"provider": "abacus"}, "provider 'abacus' is not in this onnxruntime; there are .*cpu"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        bench(**{"seconds": 0, **options})


def test_unknown_model():
    with pytest.raises(UnknownModelError, match="lotr_m"):
        bench("lotr_x", seconds=0)


def test_the_command(landmark_model, tmp_path):
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.zeros((30, 40, 3), np.uint8))
    options = ["--seconds", "0", "--batch", "2", "--provider", "cpu", "--picture", str(picture)]
    result = CliRunner().invoke(cli.app, ["bench", str(landmark_model()), *options])
    assert result.exit_code == 0
    for word in ("tiny, fp32", "landmarks of 2 crops of 32 px", "1 thread", "median", "p90", "least", "onnxruntime"):
        assert word in result.stdout
    record = json.loads(CliRunner().invoke(cli.app, ["bench", str(landmark_model()), *options, "--json"]).stdout)
    assert record["batch"] == 2 and record["providers"] == ["CPUExecutionProvider"]
    assert {"min", "median", "q1", "q3", "p90", "p99", "runs"} == set(record["timed"][0]["ms"])
    assert record["machine"].keys() == {"cpu", "cores", "os", "architecture"}
