"""Model name -> torch module -> fused module -> ONNX -> parity -> file and report."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

import facelm_sdk
from facelm_models import ModelInfo, default_weights, heatmaps, info, load, official
from facelm_models.registry import Decoding, UnknownModel
from facelm_models.retinaface import RetinaFace
from facelm_models.weights import WeightsError, config_of, read_card
from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError, ModelFileError, OutputError, UnknownModelError
from facelm_sdk.files import write_bytes
from facelm_sdk.session import OrtSession
from facelm_sdk.spec import METADATA_KEY, ModelSpec
from facelm_sdk.transform import CropRecipe, kps5_recipe

from . import parity
from .onnx_export import OPSET, OPSETS, to_onnx
from .ops.decoding import decode
from .ops.patches import swap_patch_crops
from .wrappers import Decoder, FusedDetector, FusedLandmarks, to_half, without_batch_norm

Precision = Literal["fp32", "fp16"]
DET_THRESH = 0.88  # true faces score above 0.95 with few exceptions; letters and logos lie between


@dataclass(frozen=True)
class Exported:
    """Where the file and its report lie, and what the report says."""

    path: Path
    report_path: Path
    spec: ModelSpec
    report: dict[str, Any]


def export(
    model: str,
    *,
    precision: Precision = "fp32",
    flip: bool = False,
    batch: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    source: str | None = None,
    mean_face: str | os.PathLike[str] | None = None,
    random: bool = False,
    decoding: Decoding | None = None,
    markup: str | None = None,
    opset: int = OPSET,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Write ``model`` as one self-describing ONNX file with a parity report (``.json`` and ``.md``) beside it.

    ``weights`` is a .safetensors file; default: the ones that come with the package. ``source`` says that it is a
    checkpoint of that public code instead (``slpt``, ``star``, ``hrnet``, ``fan``, ``retinaface``, ...), with its crop,
    decoding and options; ``mean_face`` is the (L, 2) fractions of the crop that SLPT's own checkpoints lack, as .npy,
    .npz or text. ``random=True`` takes untrained weights, for latency work. ``decoding`` replaces the model's own
    heatmap decoder. ``markup``: default, what the weights were trained on, else ibug68. ``flip`` puts flip averaging
    into the graph, ``batch`` fixes the number of crops. ``out`` is a file or a folder; default: the working folder.
    ``progress`` is told each step.

    Raises UnknownModelError, InputError (weights or options do not fit), ParityError (the file would not compute
    PyTorch's landmarks within the tolerance; none is left) and ModelFileError (the place cannot be written).
    """
    file = _weights_file(model, weights, source, random=random)
    card = read_card(file) if file is not None and source is None else {}
    markup = markup or card.get("markup", "ibug68")
    described = _described(model, source, decoding, card)
    if precision not in parity.TOLERANCES:
        raise InputError(f"precision is one of {', '.join(parity.TOLERANCES)}, not {precision!r}")
    if batch is not None and batch < 1:
        raise InputError(f"a fixed batch is at least 1, not {batch}")
    if opset not in OPSETS:
        raise InputError(f"opset is {OPSETS[0]} to {OPSETS[-1]}, not {opset}")
    if flip and described.task != "landmarks":
        raise InputError(f"flip averaging is for landmark models; {model} is a detector")
    target = _target(out, model, precision, flip=flip, batch=batch)
    progress("building the network")
    network = _network(described, file, source, mean_face, markup, card.get("config", {}).get("num_landmarks"))
    spec = _spec(described, precision, markup, file, card, flip=flip)
    reference = _fuse(network, described, spec, decoder=heatmaps.decode)
    folded = without_batch_norm(network, described.input_size)
    swap_patch_crops(folded)
    fused = _fuse(to_half(folded) if precision == "fp16" else folded, described, spec)
    progress("tracing the graph")
    proto = to_onnx(fused, spec, batch=batch, opset=opset)
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "draft.onnx"
        draft.write_bytes(proto.SerializeToString())
        progress("comparing with PyTorch")
        figures = _compare(reference, OrtSession(draft), spec)
    if not random:  # untrained points are no points to measure, and nobody will use them
        parity.check(figures, precision, model)
    spec = _with_parity(spec, figures)
    _set_contract(proto, spec)
    data = proto.SerializeToString()
    report = _report(spec, target.name, data, proto, opset, batch)
    progress("writing")
    report_path = target.with_suffix(".report.json")
    _write(
        {
            report_path: json.dumps(report, indent=2).encode(),
            target.with_suffix(".report.md"): _markdown(report).encode(),
            target: data,
        }
    )
    return Exported(target, report_path, spec, report)


def _weights_file(
    model: str, weights: str | os.PathLike[str] | None, source: str | None, *, random: bool
) -> Path | None:
    """Where the weights lie; None for random ones."""
    if random and weights is not None:
        raise InputError("give weights or random, not both")
    if source is not None and weights is None:
        raise InputError(f"give the checkpoint that comes from {source}: weights (--weights FILE)")
    _info(model)
    if random:
        return None
    file = Path(weights) if weights is not None else default_weights(model)
    if file is None:
        raise InputError(
            f"no weights of {model} come with the package; give a weights file (--weights FILE), "
            f"or take untrained ones for latency work (--random)"
        )
    if not file.is_file():
        raise InputError(f"there is no weights file {file}")
    return file


def _info(model: str) -> ModelInfo:
    try:
        return info(model)
    except UnknownModel as error:
        raise UnknownModelError(str(error)) from error


def _described(model: str, source: str | None, decoding: Decoding | None, card: Mapping[str, Any]) -> ModelInfo:
    """The variant with the conventions of its weights: their source's, or those their card states."""
    described = _info(model)
    architecture = getattr(described.build, "__name__", "network")
    if card.get("architecture", architecture) != architecture:
        raise InputError(f"these weights are of a {card['architecture']}, but {model} is a {architecture}")
    described = replace(described, **{key: card[key] for key in ("crop", "decoding") if key in card})
    if "config" in card:
        try:
            config = replace(described.config, **config_of(card))
        except TypeError as error:
            raise InputError(f"these weights are of another model or version than {model}: {error}") from error
        described = replace(described, config=config, input_size=getattr(config, "size", described.input_size))
    try:
        conventions = None if source is None else official.get(source)
    except official.UnknownSource as error:
        raise InputError(str(error)) from error
    if conventions is not None:
        if model not in conventions.models:
            raise InputError(f"checkpoints of {source} fit {', '.join(conventions.models)}, not {model}")
        described = replace(
            described,
            config=replace(described.config, **conventions.overrides),
            crop=described.crop if conventions.crop is None else conventions.crop,
            decoding=conventions.decoding or described.decoding,
            offset=described.offset if conventions.offset is None else conventions.offset,
        )
    if decoding is None or decoding == described.decoding:
        return described
    if decoding not in heatmaps.DECODERS:
        raise InputError(f"decoding is one of {', '.join(heatmaps.DECODERS)}, not {decoding!r}")
    if described.task != "landmarks" or "coordinates" in (decoding, described.decoding):
        raise InputError(f"{model} gives no heatmaps that {decoding!r} could decode")
    return replace(described, decoding=decoding)


def _target(out: str | os.PathLike[str] | None, model: str, precision: str, *, flip: bool, batch: int | None) -> Path:
    name = "_".join([model, *(["flip"] if flip else []), *([f"b{batch}"] if batch else []), precision]) + ".onnx"
    path = Path(out) if out is not None else Path(name)
    if path.is_dir() or (out is not None and str(out).endswith(os.sep)):
        path = path / name
    if path.suffix != ".onnx":
        raise InputError(f"the output is a folder or a file ending in .onnx, not {path}")
    return path


def _network(
    described: ModelInfo,
    file: Path | None,
    source: str | None,
    mean_face: str | os.PathLike[str] | None,
    markup: str,
    stated: int | None,
) -> nn.Module:
    """The network, filled. ``stated``: how many points its weights' card says they have."""
    torch.manual_seed(0)
    config = described.config
    if described.task == "landmarks":
        points = markups.get(markup).num_points
        if stated not in (None, points):
            fitting = [name for name in markups.names() if markups.get(name).num_points == stated]
            raise InputError(
                f"these weights are of {stated} points, but {markup} has {points}: give their markup (--markup "
                f"{fitting[0] if fitting else 'NAME'})"
            )
        config = replace(config, num_landmarks=points)
    network = described.build(config).eval()
    if file is None:
        return network
    try:
        load(network, file, source)
    except WeightsError as error:
        raise InputError(str(error)) from error
    if source is not None and "mean_face" in official.get(source).absent:
        _set_mean_face(network, mean_face)
    return network


def _set_mean_face(network: nn.Module, file: str | os.PathLike[str] | None) -> None:
    """Fill the buffer from a .npy, .npz (its only array) or text file of (L, 2) fractions of the crop."""
    if file is None:
        raise InputError(
            "these checkpoints do not hold the mean face that the network starts from, without which every landmark is "
            "wrong; give it as (L, 2) fractions of the crop: mean_face (--mean-face FILE; .npy, .npz or text)"
        )
    buffer = network.mean_face
    assert isinstance(buffer, torch.Tensor)
    try:
        values = np.loadtxt(file) if Path(file).suffix not in (".npy", ".npz") else np.load(file, allow_pickle=False)
        if isinstance(values, np.lib.npyio.NpzFile):
            values = values[values.files[0]]
        face = torch.from_numpy(np.asarray(values, np.float32)).reshape(buffer.shape)
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        raise InputError(f"{file} is not a mean face of shape {tuple(buffer.shape)}: {error}") from error
    if not (torch.isfinite(face).all() and (face > -0.5).all() and (face < 1.5).all()):
        raise InputError(f"{file} does not hold fractions of the crop (0 left or upper edge, 1 right or lower)")
    buffer.copy_(face)


def _crop(described: ModelInfo) -> CropRecipe | None:
    if described.task == "detection":
        return None
    options = {key: value for key, value in described.crop.items() if key != "kind"}
    if described.crop["kind"] == "kps5":
        return kps5_recipe(described.input_size, **options)
    return CropRecipe(size=described.input_size, kind="box", **options)


def _spec(
    described: ModelInfo, precision: str, markup: str, source: Path | None, card: Mapping[str, Any], *, flip: bool
) -> ModelSpec:
    detection = described.task == "detection"
    untrained = "none: untrained weights, for latency work only"
    return ModelSpec(
        task=described.task,
        name=described.name,
        markup="kps5" if detection else markup,
        num_landmarks=5 if detection else markups.get(markup).num_points,
        crop=_crop(described),
        has_scores=described.decoding in ("argmax", "local_soft_argmax"),
        flip=flip,
        precision=precision,
        det_thresh=DET_THRESH if detection else None,
        data=card.get("data", "not stated" if source else untrained),
        licence=card.get("licence", "not stated"),
        weights_sha256=hashlib.sha256(source.read_bytes()).hexdigest() if source else None,
        accuracy=card.get("accuracy", {}),
        created_by=f"facelm-sdk {facelm_sdk.__version__}",
    )


def _fuse(network: nn.Module, described: ModelInfo, spec: ModelSpec, decoder: Decoder = decode) -> nn.Module:
    if isinstance(network, RetinaFace):
        return FusedDetector(network, described).eval()
    assert spec.crop is not None
    markup = markups.get(spec.markup)
    return FusedLandmarks(network, described, spec.crop.size, markup, flip=spec.flip, decoder=decoder).eval()


def _compare(reference: nn.Module, session: OrtSession, spec: ModelSpec) -> dict[str, Any]:
    if spec.task == "detection":
        assert spec.det_thresh is not None
        return parity.detection_parity(reference, session, spec.det_thresh)
    return parity.landmark_parity(reference, session)


def _with_parity(spec: ModelSpec, figures: dict[str, Any]) -> ModelSpec:
    return replace(spec, parity={"against": "PyTorch fp32", **figures})


def _set_contract(proto: Any, spec: ModelSpec) -> None:
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = spec.to_json()


def _report(spec: ModelSpec, file: str, data: bytes, proto: Any, opset: int, batch: int | None) -> dict[str, Any]:
    import onnx
    import onnxruntime

    values = asdict(spec)
    parameters = {key: values[key] for key in ("name", "task", "markup", "flip", "precision", "weights_sha256")}
    return {
        "file": file,
        **parameters,
        "batch": batch or "dynamic",
        "opset": opset,
        "nodes": len(proto.graph.node),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "parity": dict(spec.parity),
        "tolerance": parity.TOLERANCES[spec.precision],
        "versions": {
            "facelm-sdk": facelm_sdk.__version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
    }


def _markdown(report: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)

    rows = "\n".join(f"| {key} | {text(value)} |" for key, value in report.items())
    return f"# {report['file']}\n\n| | |\n|---|---|\n{rows}\n"


def _write(files: dict[Path, bytes]) -> None:
    """All of the files or, where one cannot be written, none."""
    written: list[Path] = []
    try:
        for path, data in files.items():
            write_bytes(path, data)
            written.append(path)
    except OutputError as error:
        for path in written:
            path.unlink()
        raise ModelFileError(str(error)) from error
