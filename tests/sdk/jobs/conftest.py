"""Jobs of tiny models and pictures, so that a run takes as long as its imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facelm_sdk import Aligner, table

pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def models(landmark_model, detector_model):
    """A landmark model and a detector, tiny."""
    return landmark_model(has_scores=True, has_presence=True), detector_model()


@pytest.fixture(scope="session")
def aligner(models):
    return Aligner(*models, min_presence=0)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory, scene):
    """A folder of 60 pictures below each other: of none to three faces; one is damaged."""
    import cv2

    folder = tmp_path_factory.mktemp("pictures")
    for number in range(60):
        boxes = [(4 + number % 7 + 9 * face, 6, 24 + 9 * face, 30 + number % 5) for face in range(number % 4)]
        path = folder / f"{number // 25}" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), scene(64, 48, *boxes))
    damaged = folder / "0" / "017.png"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    return folder


class Run:
    """A run of a job in another process, which can be killed."""

    def __init__(self, models, sources, out, **options):
        code = (
            "import sys; from facelm_sdk import Aligner, jobs\n"
            f"aligner = Aligner(*{[str(model) for model in models]!r}, min_presence=0)\n"
            f"print(jobs.align({[str(source) for source in sources]!r}, {str(out)!r}, aligner, **{options!r}))\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def end(self):
        """Wait for it; its output, or its errors where it failed."""
        out, errors = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, errors
        return out


@pytest.fixture
def start(models):
    """Starts a job in a process of its own: ``start(sources, out, **options)`` gives a :class:`Run`."""
    runs: list[Run] = []

    def build(sources, out, **options):
        runs.append(Run(models, sources, out, **options))
        return runs[-1]

    yield build
    for run in runs:
        run.process.kill()
        run.process.communicate()


@pytest.fixture(scope="session")
def names(pictures):
    """The pictures in the order in which a job lists them."""
    return [str(path) for part in sorted(pictures.iterdir()) for path in sorted(part.iterdir())]


@pytest.fixture(scope="session")
def expected(aligner, names):
    """The table of the pictures as a notebook makes it."""
    return table.align(aligner, names)


@pytest.fixture(scope="session")
def same():
    """Compares tables to the last bit, but for the columns ``but``."""

    def compare(found, wanted, but=()):
        assert found.schema.equals(wanted.schema)
        assert np.array_equal(found["picture"].to_numpy(), wanted["picture"].to_numpy())
        assert found.drop_columns(list(but)).equals(wanted.drop_columns(list(but)))

    return compare
