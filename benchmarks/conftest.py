"""What every benchmark runs on: the same threads for all sides, the same models, and a record of the machine."""

from __future__ import annotations

import os
import shlex
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from facelm_sdk import bench, zoo
from facelm_sdk.images.read import read_image

from .measure.interleaved import REPLAY, Interleaved, Key, Outcome
from .measure.machine import THREADS, circumstances
from .measure.models import Models, make_ahead

HERE = Path(__file__).parent
NOT_RUN: dict[str, list[str]] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.benchmark(timer=REPLAY))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What could not run is written down with its reason."""
    if report.skipped and isinstance(report.longrepr, tuple):
        NOT_RUN.setdefault(report.longrepr[2].removeprefix("Skipped: "), []).append(report.nodeid.rpartition("::")[2])


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.pop("node", None)  # a host's name says nothing to others
    settings = [f"{key}={value}" for key, value in sorted(os.environ.items()) if key in SETTINGS]
    command = shlex.join([*settings, "pytest", *map(str, config.invocation_params.args)])
    torch.set_num_threads(THREADS)
    machine_info["facelm"] = {**circumstances(), "command": command}


SETTINGS = ("FACELM_BENCH_CLOCK", "FACELM_BENCH_MODELS", "FACELM_BENCH_SECONDS", "FACELM_BENCH_THREADS")


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    output_json["not_run"] = [{"reason": reason, "tests": tests} for reason, tests in NOT_RUN.items()]


@pytest.fixture(scope="session", autouse=True)
def threads() -> int:
    """The threads of onnxruntime, PyTorch and OpenCV alike."""
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(THREADS)
    warnings.simplefilter("ignore")  # of the exporter's, which come with every file that is made
    return THREADS


@pytest.fixture(scope="session")
def models(request: pytest.FixtureRequest) -> Models:
    """Files of models, kept in FACELM_BENCH_CACHE or this user's cache: to make them takes longer than to time them."""
    kept = os.environ.get("FACELM_BENCH_CACHE")
    folder = Path(kept) if kept else zoo.cache_dir() / "benchmarks"
    make_ahead(folder, _forms(request.session.items))
    return Models(folder)


def _forms(items: list[pytest.Item]) -> dict[str, set[tuple[str, str]]]:
    """The (backend, precision) pairs of each model that the selected tests need files of."""
    forms: dict[str, set[tuple[str, str]]] = {}
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        backend, precision = params.get("backend", "onnxruntime"), params.get("precision", "fp32")
        if "model" in params and backend in ("onnxruntime", "openvino") and precision in ("fp32", "int8"):
            forms.setdefault(params["model"], set()).add((backend, precision))
    return forms


@pytest.fixture(scope="session")
def outcomes() -> dict[Key, dict[Key, Outcome]]:
    """What was measured in turns so far."""
    return {}


@pytest.fixture
def interleaved(request: pytest.FixtureRequest, benchmark: Any, outcomes: dict[Key, dict[Key, Outcome]]) -> Interleaved:
    """Measures the sides of a comparison in turns."""
    return Interleaved(request, benchmark, outcomes)


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """A 640x480 picture of one face."""
    return read_image(bench.PICTURE)


@pytest.fixture(scope="session")
def pictures(picture: np.ndarray) -> dict[str, np.ndarray]:
    """Pictures with 1, 16 (1280x960) and 0 faces."""
    small = cv2.resize(picture, (320, 240), interpolation=cv2.INTER_AREA)
    return {"1face": picture, "16faces": np.tile(small, (4, 4, 1)), "0faces": np.full_like(picture, 90)}
