"""What every benchmark runs on: the same threads for both sides, the same networks, and a record of the machine."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import facelm_sdk
from facelm_export import export
from facelm_export.samples import PICTURE
from facelm_export.wrappers import FusedDetector, FusedLandmarks
from facelm_models import create, default_weights, info, load
from facelm_sdk import markup as markups
from facelm_sdk import zoo
from facelm_sdk.image import read_image
from facelm_sdk.session import OrtSession
from facelm_sdk.spec import ModelSpec

THREADS = int(os.environ.get("FACELM_BENCH_THREADS", "2"))
HERE = Path(__file__).parent
RUNTIMES = ("onnxruntime", "PyTorch eager")


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    limits = pytest.mark.benchmark(min_rounds=5, max_time=1.5, warmup=True, warmup_iterations=3)
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(limits)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.pop("node", None)  # a host's name says nothing to others
    machine_info["command"] = shlex.join(["pytest", *map(str, config.invocation_params.args)])


class TorchSession:
    """A fused PyTorch module as a Session, so that both sides run through the same Detector, Landmarker and Aligner."""

    providers = ("PyTorch eager",)

    def __init__(self, module: nn.Module, spec: ModelSpec) -> None:
        self.module, self.spec = module.eval(), spec

    @torch.inference_mode()
    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        outputs = self.module(*(torch.from_numpy(value) for value in feeds.values()))
        return [part.numpy() for part in (outputs if isinstance(outputs, tuple) else (outputs,))]


@dataclass(frozen=True)
class Model:
    """An exported file and the network it was made from."""

    path: Path
    network: nn.Module
    weights: str

    def session(self, runtime: str) -> OrtSession | TorchSession:
        """Opened anew, with THREADS threads."""
        session = OrtSession(self.path, threads=THREADS)
        if runtime == "onnxruntime":
            return session
        spec = session.spec
        described = info(spec.name)
        if spec.task == "detection":
            return TorchSession(FusedDetector(self.network, described), spec)
        assert spec.crop is not None
        markup = markups.get(spec.markup)
        return TorchSession(FusedLandmarks(self.network, described, spec.crop.size, markup, flip=spec.flip), spec)


@pytest.fixture(scope="session", autouse=True)
def threads() -> int:
    """The threads of onnxruntime, PyTorch and OpenCV alike."""
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(THREADS)
    return THREADS


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """The packaged models, or untrained ones of the same architecture where they are not in the package."""
    embedded = {entry.name for entry in zoo.list_models()}
    made = {}
    for name in ("retinaface_mnet025", "lotr_m"):
        source = default_weights(name)
        if source is not None and name in embedded:
            made[name] = Model(zoo.resolve(name).path, load(create(name), source), "packaged")
        else:
            torch.manual_seed(0)  # as the exporter's
            network = create(name)
            path = export(name, random=True, out=tmp_path_factory.mktemp("untrained")).path
            made[name] = Model(path, network, "untrained, so times only, and too many faces to suppress")
    return made


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """NASA's portrait of Eileen Collins, 512x512, one face."""
    return read_image(PICTURE)


@pytest.fixture
def measure(benchmark: Any, models: dict[str, Model]) -> Any:
    """Times ``function(*arguments)`` under a group and a variant of it, and writes down the circumstances."""

    def run(group: str, variant: str, function: Any, *arguments: Any) -> Any:
        benchmark.group = group
        benchmark.extra_info |= {
            "variant": variant,
            "threads": THREADS,
            "cpu": cpu_model(),
            "weights": {name: model.weights for name, model in models.items()},
            "versions": {
                "facelm-sdk": facelm_sdk.__version__,
                "onnxruntime": onnxruntime.__version__,
                "torch": torch.__version__,
                "opencv": cv2.__version__,
                "numpy": np.__version__,
            },
        }
        return benchmark(function, *arguments)

    return run


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Which side runs the networks."""
    return request.param
