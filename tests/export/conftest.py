"""Exports that tests share: each takes many seconds, so each is made once, whichever of the workers needs it."""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from filelock import FileLock
from torch import nn

from facelm_export import Exported, export, exporter
from facelm_export.formats import ort_web, web
from facelm_export.job import ExportJob
from facelm_export.report import latency
from facelm_models import create, default_weights
from facelm_models.lotr import LOTR
from facelm_models.retinaface import RetinaFace
from facelm_models.weights import save
from facelm_sdk import zoo
from facelm_sdk.errors import FacelmError
from facelm_sdk.files import write_files
from facelm_sdk.runtimes.onnxruntime import OrtSession

# Small forms of each architecture; the file of their weights says which options they have.
SMALL = {
    "lotr_m_plus": {"size": 64, "layers": 1},
    "slpt_resnet34": {"size": 64, "layers": 1, "stages": 2, "dim": 64},
    "mtld_r18": {"size": 64, "encoder_layers": 1, "decoder_layers": 1},
    "hourglass4": {"size": 64, "stacks": 1, "dim": 32},
    "fan2": {"size": 64, "stacks": 1, "dim": 32},
    "hrnet18": {"size": 64, "modules": (1, 1, 1)},
    "pyramid_m": {"size": 64, "dim": 32},
}

CARD = {"data": "drawn at random", "licence": "none needed", "accuracy": {"nme": 0.5}}


def disturbed(name: str, **options: Any) -> nn.Module:
    """An untrained network whose outputs depend on its input, as those of a freshly built one hardly do."""
    torch.manual_seed(3)
    network = create(name, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = None  # the plain mean of the statistics of what it is shown
    detector = isinstance(network, RetinaFace)
    spread, size = (60, 160) if detector else (1, network.config.size)
    with torch.no_grad():
        coarse = torch.randn(4 if options else 8, 3, 6, 6) * spread
        network(nn.functional.interpolate(coarse, (size, size), mode="bilinear"))
        if isinstance(network, LOTR):
            network.mean_shape.uniform_(0.2, 0.8)
            network.head[-1].weight.mul_(0.04)  # a few pixels, and what fp16 rounds away a fraction of one
        if detector:
            for head in (*network.BboxHead, *network.LandmarkHead):
                head.conv1x1.weight.mul_(0.0015)
            for head in network.ClassHead:  # a few faces, no two of them with scores that fp16 could swap
                head.conv1x1.weight.mul_(0.04)
                head.conv1x1.bias[1::2] -= 2
    return network.eval()


@pytest.fixture(scope="session", autouse=True)
def brief_timing() -> Iterator[None]:
    """Reports are timed on few runs: what they say is tested, not how fast this machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "SECONDS", 0)
        patch.setattr(latency, "LEAST_RUNS", 2)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is one for all the workers of a run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def once(folder: Path, make: Callable[[], Exported]) -> Exported:
    """What ``make`` makes in ``folder``, made by the worker that comes first."""
    kept = folder / "exported.pickle"
    with FileLock(f"{folder}.lock"):
        folder.mkdir(exist_ok=True)
        if not kept.is_file():
            kept.write_bytes(pickle.dumps(make()))
        exported = pickle.loads(kept.read_bytes())
    assert isinstance(exported, Exported)
    return exported


@pytest.fixture(scope="session")
def weights(shared: Path) -> Callable[[str], Path]:
    """Writes the weights of ``disturbed(name)``."""
    folder = shared / "weights"

    @functools.cache
    def write(name: str) -> Path:
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.safetensors"
        with FileLock(f"{path}.lock"):
            if not path.is_file():
                save(path, disturbed(name), CARD)
        return path

    return write


@pytest.fixture(scope="session")
def exported(shared: Path, weights: Callable[[str], Path]) -> Callable[..., Exported]:
    """Exports ``disturbed(name)`` with the options of facelm_export.export."""

    @functools.cache
    def make(name: str, precision: str = "fp32", **options: Any) -> Exported:
        folder = shared / "_".join([name, precision, *(f"{key}_{value}" for key, value in sorted(options.items()))])
        return once(folder, lambda: export(name, precision=precision, weights=weights(name), out=folder, **options))

    return make


@pytest.fixture(scope="session")
def small(shared: Path) -> Callable[[str], Exported]:
    """The exported small form of a network, and where it lies."""

    @functools.cache
    def make(name: str) -> Exported:
        folder = shared / f"small_{name}"
        return once(folder, lambda: _export_small(name, folder))

    return make


def _export_small(name: str, folder: Path) -> Exported:
    network = disturbed(name, **SMALL[name])
    for key, buffer in network.named_buffers():
        if key == "mean_shape":
            buffer.uniform_(0.2, 0.8)
    path = folder / "weights.safetensors"
    save(path, network, {**CARD, "markup": "ibug68"})
    return export(name, weights=path, out=folder / f"{name}.onnx", latency=False)


@pytest.fixture(scope="session")
def archive() -> bytes:
    """The archive of onnxruntime-web, which is fetched once a machine."""
    try:
        return ort_web.archive()
    except FacelmError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def site(shared: Path, archive: bytes) -> Path:
    """The site of the embedded landmark model in fp32."""
    folder = shared / "site"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            model = OrtSession(zoo.resolve(zoo.LANDMARKS).path)
            job = ExportJob(
                zoo.resolve(zoo.LANDMARKS).path.read_bytes(), model.spec, folder, None, 16, lambda step: None
            )
            write_files(web.files(job)[0])
    return folder


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of lotr_m take the packaged graph instead of tracing theirs."""
    if default_weights("lotr_m") is None:
        pytest.skip("the weights of lotr_m are not in the package")
    path = zoo.resolve("lotr_m").path
    monkeypatch.setattr(exporter, "to_onnx", lambda *args, **options: onnx.load(path))
