"""A target that does what no target may, to try the worker itself: its seed says what."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np

from .targets import Input, Target


class Broken(Target):
    def input(self, seed: int) -> Input:
        return Input({"x": b"1"}, (seed,))


def run(folder: Path, seed: int) -> None:
    if seed == 1:
        raise ValueError
    if seed == 2:
        (folder / "x").write_bytes(b"2")
    if seed == 3:
        (folder / ".y.tmp").write_bytes(b"2")
    if seed == 4:
        os.abort()
    if seed == 5:
        np.ones(1200 << 20, np.uint8)


def make(rng: random.Random) -> Input:
    return Input()


TARGETS = {"broken": Broken("broken", make, run, share=1)}
