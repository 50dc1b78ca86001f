"""Which models are measured, their files in every form, made once, and sessions on them."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Collection, Mapping
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import facelm_export
import facelm_models
from facelm_export import export
from facelm_export.build import build, fuse
from facelm_export.passes.int8 import quantize
from facelm_export.pipeline import TorchSession, export_pipeline
from facelm_export.report.samples import portrait_crops
from facelm_models import default_weights, heatmaps, info, list_models
from facelm_models.complexity import multiply_adds, outline
from facelm_models.weights import read_card
from facelm_sdk import zoo
from facelm_sdk.contract import METADATA_KEY, ModelSpec
from facelm_sdk.errors import EngineError, MissingDependencyError, ProviderError
from facelm_sdk.files import write_bytes, write_files
from facelm_sdk.runtimes.base import InferencePrecision, RuntimeOptions, Session
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.runtimes.openvino import OpenVinoSession, load_openvino
from facelm_sdk.runtimes.tensorrt.api import Cuda
from facelm_sdk.runtimes.tensorrt.open import open_engine

from .machine import THREADS

ONE_OF_EACH = (
    "pyramid_m",
    "lotr_m_128",
    "lotr_m",
    "slpt_hrnet18",
    "mtld_m",
    "mtld_r18",
    "hourglass4",
    "fan2_s",
    "hrnet18",
)
"""What is in the package, and a variant of each other family: measured unless FACELM_BENCH_MODELS says "all" or names,
with commas between."""


def chosen(task: str = "landmarks") -> list[str]:
    """Names of the models to measure."""
    asked = os.environ.get("FACELM_BENCH_MODELS", "")
    there = list_models(task)
    if asked == "all":
        return there
    default = ONE_OF_EACH if task == "landmarks" else (zoo.DETECTOR,)
    return [name for name in asked.split(",") if name in there] or list(default)


def make_ahead(folder: Path, forms: Mapping[str, Collection[tuple[str, str]]]) -> None:
    """Make the files of several models, for each its (backend, precision) pairs, as many models at a time as THREADS.

    Most of an export is one thread's work. What fails here fails again, and is told, where the file is needed.
    """
    models = Models(folder)
    missing = {
        name: sorted(pair for pair in pairs if not models.place(name, *pair).is_file()) for name, pairs in forms.items()
    }
    jobs = [(name, pairs) for name, pairs in missing.items() if pairs]
    if len(jobs) < 2:
        return
    with ProcessPoolExecutor(THREADS, mp_context=multiprocessing.get_context("spawn")) as pool:
        wait([pool.submit(_make, folder, *job) for job in jobs])


def _make(folder: Path, name: str, pairs: Collection[tuple[str, str]]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    models = Models(folder)
    for backend, precision in pairs:
        (models.openvino if backend == "openvino" else models.onnx)(name, precision)


class Models:
    """Files of models and sessions on them. A file that ``folder`` has already is not made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / _sources()
        self.folder.mkdir(parents=True, exist_ok=True)

    def place(self, name: str, backend: str, precision: str) -> Path:
        """Where the file of a backend is, or will be: the package's own where it is in the package."""
        if backend == "openvino":
            return self.folder / f"{name}_{precision}.xml"
        if precision == "fp32" and name in {entry.name for entry in zoo.list_models()}:
            return zoo.resolve(name).path
        return self.folder / f"{name}_{precision}.onnx"

    def onnx(self, name: str, precision: str = "fp32") -> Path:
        """The exported file."""
        path = self.place(name, "onnxruntime", precision)
        if path.is_file():
            return path
        untrained = default_weights(name) is None
        if untrained and precision == "int8":
            self._quantize(name, path)
        else:
            export(name, precision=precision, random=untrained, latency=False, out=path)  # type: ignore[arg-type]
        return path

    def _quantize(self, name: str, path: Path) -> None:
        """An untrained model in int8, from its fp32 file: no points to compare, so few crops to calibrate on."""
        source = self.onnx(name)
        spec = replace(OrtSession(source).spec, precision="int8")
        proto = quantize(onnx.load(source), spec, [portrait_crops(spec, 4)], "cpu")
        onnx.helper.set_model_props(proto, {METADATA_KEY: spec.to_json()})
        write_bytes(path, proto.SerializeToString())

    def openvino(self, name: str, precision: str = "fp32") -> Path:
        """OpenVINO's IR of the .onnx."""
        openvino = _or_skip(load_openvino)
        path = self.place(name, "openvino", precision)
        if not path.is_file():
            with tempfile.TemporaryDirectory() as scratch:
                draft = Path(scratch) / path.name
                openvino.save_model(
                    openvino.Core().read_model(self.onnx(name, precision)), draft, compress_to_fp16=False
                )
                write_files(
                    {place: (draft.parent / place.name).read_bytes() for place in (path.with_suffix(".bin"), path)}
                )
        return path

    def pipeline(self, det_size: int) -> Path:
        """Detector, crops and landmarks in one file."""
        path = self.folder / f"pipeline_{det_size}.onnx"
        if not path.is_file():
            export_pipeline(det_size=det_size, latency=False, out=path)
        return path

    def eager(self, name: str, device: str = "cpu") -> TorchSession:
        """The network in PyTorch with the readable decoders, its batch norms not folded."""
        built = build(name, random=default_weights(name) is None)
        return TorchSession(fuse(built, decoder=heatmaps.decode), built.spec, device)

    def session(self, name: str, backend: str, precision: str = "fp32", threads: int = THREADS) -> Session:
        """A session of a backend, or a skip that says why there is none here."""
        if backend == "eager":
            return self.eager(name)
        if backend == "eager_cuda":
            if not torch.cuda.is_available():
                pytest.skip("PyTorch sees no CUDA device")
            return self.eager(name, "cuda")
        if backend == "onnxruntime":
            return OrtSession(self.onnx(name, precision), RuntimeOptions(threads=threads))
        if backend == "openvino":
            kind: InferencePrecision = "bf16" if precision == "bf16" else "f32"
            path = self.openvino(name, "int8" if precision == "int8" else "fp32")
            return _or_skip(
                OpenVinoSession, path, RuntimeOptions(threads=threads, inference_precision=kind, strict=True)
            )
        if backend == "tensorrt":
            _or_skip(Cuda, "cuda")  # before a file is made that nothing here could run
            engine = self.folder / f"{name}_{precision}.engine"
            return _or_skip(open_engine, self.onnx(name, precision), engine)
        raise ValueError(f"there is no backend {backend!r}")

    def spec(self, name: str, precision: str = "fp32") -> ModelSpec:
        """The contract of the exported file."""
        return OrtSession(self.onnx(name, precision)).spec

    def weights(self, name: str) -> str:
        """Where a model's weights come from."""
        return "packaged" if default_weights(name) is not None else "untrained"


def _or_skip(function: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return function(*arguments, **options)
    except (MissingDependencyError, ProviderError, EngineError) as error:
        text = str(error)
        for path in arguments:  # where a file lies says nothing to others
            text = text.replace(str(path), path.name) if isinstance(path, Path) else text
        pytest.skip(text)


@functools.cache
def billions(name: str, size: int | None = None) -> float:
    """Billions of multiply-adds of a crop, the network being as its weights are, or of a picture of ``size`` pixels."""
    described = info(name)
    options: dict[str, Any] = {"num_landmarks": 68} if described.task == "landmarks" else {}
    if options and (path := default_weights(name)) is not None:
        options = read_card(path)["config"]
    return multiply_adds(outline(name, **options), size or options.get("size", described.input_size))["Global"]


def _sources() -> str:
    """A name for files of this state of the code: files of another state are not taken for them."""
    digest = hashlib.sha256()
    for package in (facelm_export, facelm_models):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
