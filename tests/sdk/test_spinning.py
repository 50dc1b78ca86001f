"""How sessions wait: spinning while the cores are free, asleep while they are not."""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime
import pytest

from facelm_sdk import spinning
from facelm_sdk.session import OrtSession
from facelm_sdk.spinning import FIRST_PAUSE, LEAST_CORES, LONGEST_PAUSE, MOST_SWITCHES, WINDOW, Cores

CROPS = {"crops": np.zeros((1, 32, 32, 3), np.uint8)}

needs_bounds = pytest.mark.skipif(
    not spinning.can_be_bounded(onnxruntime), reason="onnxruntime before 1.26, or a system that does not count switches"
)


@pytest.fixture
def cores(monkeypatch):
    """The process's cores as if it had just begun."""
    fresh = Cores()
    monkeypatch.setattr(spinning, "cores", fresh)
    return fresh


def spins(session):
    options = session.get_session_options()
    return options.get_session_config_entry("session.intra_op.allow_spinning") == "1"


def run(cores, seconds, *, share=1.6, rate=300.0):
    """A run that gets ``share`` of a core's time, and loses cores ``rate`` times a second."""
    cores.note(seconds, share * seconds, int(rate * seconds))


@pytest.mark.parametrize(
    "lack", [{"share": LEAST_CORES - 0.1}, {"rate": MOST_SWITCHES + 100}], ids=["time", "switches"]
)
def test_cores_that_are_taken_away_are_contended(lack):
    cores = Cores()
    for _ in range(20):
        run(cores, WINDOW / 2)
        assert not cores.contended
    run(cores, WINDOW / 2, **lack)
    assert not cores.contended  # a window is judged as a whole
    run(cores, WINDOW, **lack)
    assert cores.contended


def test_a_trial_that_fails_is_repeated_later_and_later():
    cores = Cores()
    pauses = []
    for _ in range(7):
        run(cores, WINDOW, share=1)
        pause = 0.0
        while cores.contended:
            run(cores, 0.25, rate=5000)  # what sleeping threads see counts for nothing
            pause += 0.25
        pauses.append(pause)
    assert pauses == [FIRST_PAUSE, 1.0, *5 * [LONGEST_PAUSE]]
    run(cores, WINDOW)
    run(cores, WINDOW, share=1)
    run(cores, FIRST_PAUSE)
    assert not cores.contended


@needs_bounds
def test_counts_what_the_system_takes_away(cores):
    with cores.watched():
        assert spinning.switches() >= 0
    assert cores._seconds > 0
    with pytest.raises(ZeroDivisionError), cores.watched():
        raise ZeroDivisionError


@needs_bounds
def test_threads_sleep_while_the_cores_are_contended(landmark_model, cores, monkeypatch):
    session = OrtSession(landmark_model())
    used = []
    whole = onnxruntime.InferenceSession.run
    monkeypatch.setattr(
        onnxruntime.InferenceSession, "run", lambda self, *rest: used.append(spins(self)) or whole(self, *rest)
    )
    (free,) = session.run(CROPS)
    cores.contended = True
    (opening,) = session.run(CROPS)
    session._opening.join()
    cores.contended = True
    (contended,) = session.run(CROPS)
    cores.contended = False
    session.run(CROPS)
    assert [used[0], *used[2:]] == [True, False, True]
    np.testing.assert_array_equal(free, contended)
    np.testing.assert_array_equal(free, opening)


@needs_bounds
@pytest.mark.parametrize("change", ["gone", "another"])
def test_a_file_that_changed_is_not_opened_again(landmark_model, cores, tmp_path, change):
    path = tmp_path / "model.onnx"
    path.write_bytes(landmark_model().read_bytes())
    session = OrtSession(path)
    (before,) = session.run(CROPS)
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(b"another")
    for _ in range(2):
        cores.contended = True
        np.testing.assert_array_equal(session.run(CROPS)[0], before)
        session._opening.join()
    assert session._sleeping is session._session


def test_what_never_spins(landmark_model, monkeypatch):
    def made(**options):
        return spins(OrtSession(landmark_model(), **options)._session)

    assert made() == spinning.can_be_bounded(onnxruntime)
    assert not made(threads=1)
    own = onnxruntime.SessionOptions()
    own.add_session_config_entry("session.intra_op.allow_spinning", "0")
    assert not made(session_options=own)
    monkeypatch.setattr(spinning, "LARGE_MODEL", landmark_model().stat().st_size - 1)
    assert not made()
    monkeypatch.undo()
    monkeypatch.setattr(onnxruntime, "__version__", "1.25.1")
    assert not made()


@pytest.mark.skipif(sys.platform == "win32", reason="it is Windows")
def test_elsewhere_than_windows_switches_are_counted():
    assert spinning.switches() > 0
