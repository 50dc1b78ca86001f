"""Aligner and Tracker beside other people's, picture to landmarks, detection included, each in its own process."""

from __future__ import annotations

import numpy as np
import pytest

from facelm_sdk import Aligner
from facelm_sdk.bench import PICTURE
from facelm_sdk.video.tracker import Tracker

from .measure.competitor_process import competitor
from .measure.competitors import frames
from .measure.interleaved import Variant
from .measure.machine import THREADS


@pytest.mark.parametrize("who", ["facelm", "mediapipe_static", "insightface", "face_alignment"])
def test_static(interleaved, picture, who):
    """One 640x480 picture with one face, looked at as if for the first time."""

    def make(who):
        if who != "facelm":
            return competitor(who, PICTURE)
        aligner = Aligner(threads=THREADS)
        assert len(aligner(picture)) == 1
        return Variant(lambda: aligner(picture), info={"precision": aligner.landmarker.spec.precision})

    interleaved(("who",), make, rounds=5)


@pytest.mark.parametrize("who", ["facelm", "mediapipe_tracking"])
def test_tracking(interleaved, picture, who):
    """A 640x480 video of one face that moves two pixels a frame."""

    def make(who):
        if who != "facelm":
            return competitor(who, PICTURE)
        tracker = Tracker(Aligner(threads=THREADS), max_faces=1)
        video = frames(np.asarray(picture))
        assert len(tracker(next(video))) == 1
        return Variant(lambda: tracker(next(video)))

    interleaved(("who",), make, rounds=5)
