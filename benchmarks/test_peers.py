"""Aligner and Tracker beside other people's, picture to landmarks, detection included, each in its own process."""

from __future__ import annotations

import numpy as np
import pytest

from facelm_sdk import Aligner
from facelm_sdk.bench import PICTURE
from facelm_sdk.video.tracker import Tracker

from .measure.competitor_process import peer
from .measure.competitors import frames
from .measure.interleaved import Side
from .measure.machine import THREADS


@pytest.mark.parametrize("who", ["facelm", "mediapipe_static", "insightface", "face_alignment"])
def test_static(turns, picture, who):
    """One 640x480 picture with one face, looked at as if for the first time."""

    def make(who):
        if who != "facelm":
            return peer(who, PICTURE)
        aligner = Aligner(threads=THREADS)
        assert len(aligner(picture)) == 1
        return Side(lambda: aligner(picture), info={"precision": aligner.landmarker.spec.precision})

    turns(("who",), make, turns=5)


@pytest.mark.parametrize("who", ["facelm", "mediapipe_tracking"])
def test_tracking(turns, picture, who):
    """A 640x480 video of one face that moves two pixels a frame."""

    def make(who):
        if who != "facelm":
            return peer(who, PICTURE)
        tracker = Tracker(Aligner(threads=THREADS), max_faces=1)
        video = frames(np.asarray(picture))
        assert len(tracker(next(video))) == 1
        return Side(lambda: tracker(next(video)))

    turns(("who",), make, turns=5)
