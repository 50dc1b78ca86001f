"""Profile: time is booked once, to the stage it was spent in."""

from __future__ import annotations

import json
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from facelm_sdk import Aligner, Detector, Landmarker, Tracker, cli
from facelm_sdk import profile as profiling
from facelm_sdk.profile import Profile, call, stage


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(profiling, "perf_counter", clock)
    return clock


def one_call(profile, clock, network=0.004):
    with profile.call():
        clock.now += 0.001
        with stage("detect: resize", after="detect: merge"):
            clock.now += 0.002
            for _ in range(2):
                with stage("detect: network"):
                    clock.now += network
            clock.now += 0.003


def test_time_is_booked_once(clock):
    profile = Profile()
    one_call(profile, clock)
    assert profile.last == pytest.approx(
        {"detect: resize": 2, "detect: network": 8, "detect: merge": 3, "other": 1, "total": 14}
    )
    assert list(profile.last) == ["detect: resize", "detect: network", "detect: merge", "other", "total"]


def test_calls_are_summed_up(clock):
    profile = Profile()
    for network in (0.001, 0.002, 0.006):
        one_call(profile, clock, network)
    stages = {stage.name: stage for stage in profile.stages()}
    network = stages["detect: network"]
    assert (network.runs, network.mean, network.median) == (6, pytest.approx(6), pytest.approx(4))
    assert network.share == pytest.approx(6 / 12)
    assert sum(stage.share for stage in stages.values()) == pytest.approx(1)
    assert len(profile) == 3 and profile.total.mean == pytest.approx(12) and profile.total.median == pytest.approx(10)
    lines = str(profile).splitlines()
    assert lines[0].split() == ["3", "calls", "runs", "mean", "ms", "median", "share"]
    assert lines[2].split() == ["detect:", "network", "6", "6.000", "4.000", "50.0%"]
    assert lines[-1].split() == ["total", "3", "12.000", "10.000", "100.0%"]
    profile.reset()
    assert len(profile) == 0 and profile.last == {} and profile.stages() == []
    assert "0 calls" in profile.table()


def test_a_call_within_a_call_is_part_of_it(clock):
    profile = Profile()
    with profile.call():
        one_call(profile, clock)
        one_call(profile, clock)
    assert len(profile) == 1 and profile.last["total"] == pytest.approx(28)


def test_calls_that_fail_are_not_kept(clock):
    profile = Profile()
    with pytest.raises(ZeroDivisionError), profile.call(), stage("map back"):
        _ = 1 / 0
    assert len(profile) == 0
    one_call(profile, clock)
    assert profile.last["total"] == pytest.approx(14) and "map back" not in profile.last


def test_stages_outside_a_call_are_not_kept(clock):
    profile = Profile()
    with stage("warm-up"):
        clock.now += 1
    one_call(profile, clock)
    assert "warm-up" not in profile.last


def test_no_profile_reads_no_clock(monkeypatch):
    assert stage("a") is stage("b", after="c") is call(None)
    monkeypatch.setattr(profiling, "perf_counter", lambda: pytest.fail("it looks at the clock"))
    with call(None), stage("a"):
        pass


def test_calls_of_many_threads_are_calls_of_their_own():
    profile, everyone = Profile(), threading.Barrier(8)

    def one(index):
        with profile.call(), stage("outer"):
            everyone.wait(30)
            with stage(f"inner {index}"):
                everyone.wait(30)
        return str(profile)

    with ThreadPoolExecutor(8) as pool:
        assert all(list(pool.map(one, range(8))))
    assert len(profile) == 8
    assert {stage.name: stage.runs for stage in profile.stages()} == {
        "outer": 8,
        "other": 0,
        **{f"inner {index}": 1 for index in range(8)},
    }


def test_a_profile_may_be_reset_while_it_is_read(clock):
    """By another thread, between a question and the next."""

    class Reset(deque):
        def __bool__(self):
            self.clear()
            return True

    profile = Profile()
    one_call(profile, clock)
    profile._calls = Reset(profile._calls)
    assert profile.last["total"] == pytest.approx(14)


def test_threads_use_and_read_one_profile(landmark_model, detector_model, scene):
    aligner = Aligner(landmark_model(), detector_model(), profile=True, realign=False)
    picture = scene(640, 480, (50, 50, 250, 260))

    def work(index):
        for _ in range(5):
            assert len(aligner(picture)) == 1
            assert str(aligner.profile) and aligner.profile.last is not None and aligner.profile.total
            if index == 0:
                aligner.profile.reset()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    aligner.profile.reset()
    aligner(picture)
    assert {stage.name: stage.runs for stage in aligner.profile.stages()}[profiling.WARP] == 1


def test_a_call_of_another_profile_is_its_own(clock):
    outer, inner = Profile(), Profile()
    with outer.call(), stage("a"):
        one_call(inner, clock)
    assert next(iter(inner.last)) == "detect: resize" and list(outer.last) == ["a", "other", "total"]
    assert outer.last["a"] == pytest.approx(14)


def test_an_aligner_tells_its_stages(landmark_model, detector_model, scene):
    aligner = Aligner(landmark_model(), detector_model(), profile=True, realign=False)
    picture = scene(640, 480, (50, 50, 250, 260), (400, 100, 600, 300))
    for _ in range(3):
        assert len(aligner(picture)) == 2
    stages = {stage.name: stage for stage in aligner.profile.stages()}
    assert list(stages) == [name for name in profiling.ORDER if name not in (profiling.CONFIRM, profiling.PIPELINE)]
    assert stages[profiling.READ].runs == stages[profiling.LANDMARKER].runs == 3
    assert stages[profiling.WARP].runs == 6
    assert all(stage.mean > 0 for stage in stages.values())
    assert sum(aligner.profile.last.values()) == pytest.approx(2 * aligner.profile.last["total"])
    aligner.profile.reset()
    aligner.batch([picture] * 9, workers=4)
    assert len(aligner.profile) == 9
    assert {stage.name: stage.runs for stage in aligner.profile.stages()}[profiling.WARP] == 18


def test_the_parts_given_are_those_that_are_measured(landmark_model, detector_model, scene):
    landmarker, detector = Landmarker(landmark_model()), Detector(detector_model())
    timed, plain = (Aligner(landmarker, detector, profile=timed, realign=False) for timed in (True, False))
    assert plain.profile is None
    assert timed.landmarker is plain.landmarker is landmarker and timed.detector is plain.detector is detector
    picture = scene(640, 480, (50, 50, 250, 260))
    np.testing.assert_array_equal(timed(picture)[0].landmarks, plain(picture)[0].landmarks)
    assert len(timed.profile) == 1 and timed.profile.last[profiling.DETECTOR] > 0
    detector.det_thresh = 1.0
    assert timed(picture) == [] == plain(picture)
    blind = Aligner(landmarker, None, profile=True)
    blind(picture, boxes=[50, 50, 250, 260])
    assert profiling.DETECTOR not in blind.profile.last and profiling.LANDMARKER in blind.profile.last


def test_a_tracker_tells_its_stages(landmark_model, detector_model, scene):
    tracker = Tracker(landmarks=landmark_model(), detector=detector_model(), profile=True)
    for _ in range(2):
        tracker(scene(640, 480, (50, 50, 250, 260)))
    stages = {stage.name: stage.runs for stage in tracker.aligner.profile.stages()}
    assert len(tracker.aligner.profile) == 2 and stages[profiling.CONFIRM] == 1 and stages[profiling.READ] >= 2


def test_the_command_prints_the_table_to_stderr(landmark_model, detector_model, scene, tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        cv2.imwrite(str(path), scene(640, 480, (50, 50, 250, 260)))
    models = ["--model", str(landmark_model()), "--detector", str(detector_model())]
    command = ["align", *map(str, paths), "--json-lines", "-", *models]
    result = CliRunner().invoke(cli.app, [*command, "--profile"])
    assert result.exit_code == 0
    assert [len(json.loads(line)["faces"]) for line in result.stdout.splitlines()] == [1, 1]
    table = result.stderr[result.stderr.index("2 calls") :].splitlines()
    assert table[1].startswith("read picture") and float(table[1].split()[-3]) > 0  # decoding the file
    assert table[-1].startswith("total")
    assert "calls" not in CliRunner().invoke(cli.app, command).stderr
