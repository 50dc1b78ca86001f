"""Model name and weights -> the network, filled, and the contract that its file will carry."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import facelm_sdk
from facelm_models import ModelInfo, catalogue, default_weights, info, list_models, load, official
from facelm_models.complexity import multiply_adds
from facelm_models.protocol import MeanShapeNetwork, has_confidence
from facelm_models.registry import Decoder, Decoding, UnknownDecoding, UnknownModel, decoder
from facelm_models.retinaface import RetinaFace
from facelm_models.weights import WeightsError, config_of, read_card
from facelm_sdk import markup as markups
from facelm_sdk.contract import DetectorSpec, LandmarkSpec
from facelm_sdk.errors import InputError, UnknownModelError
from facelm_sdk.files import is_file
from facelm_sdk.transform import CropRecipe, kps5_recipe

from .ops.candidates import DetectorGraph
from .ops.decoding import decode
from .wrappers import IOU_THRESHOLD, SCORE_FLOOR, Decode, FusedDetector, FusedLandmarks

SLPT_MEAN_FACE, SLPT_PIXELS = "init_face", 256
"""The array of the mean face in SLPT's code, and the crop it is in pixels of."""
DET_THRESH = 0.88
"""Of weights whose card has none: true faces score above 0.95 with few exceptions; letters and logos lie between."""


@dataclass(frozen=True)
class Built:
    """A network in eval mode with its weights, what is registered of it, and its contract, parity figures aside."""

    info: ModelInfo
    network: nn.Module
    spec: LandmarkSpec | DetectorSpec


def build(
    model: str,
    *,
    precision: str = "fp32",
    flip: bool = False,
    weights: str | os.PathLike[str] | None = None,
    source: str | None = None,
    mean_face: str | os.PathLike[str] | None = None,
    random: bool = False,
    decoding: Decoding | None = None,
    markup: str | None = None,
) -> Built:
    """The network of a model's name; arguments and errors: see :func:`facelm_export.export`."""
    file = _weights_file(model, weights, source, random=random)
    card = _card(file) if file is not None and source is None else {}
    markup = markup or card.get("markup", "ibug68")
    described = _resolve_info(model, source, decoding, card)
    if flip and described.task != "landmarks":
        raise InputError(f"flip averaging is for landmark models; {model} is a detector")
    network = _network(described, file, source, mean_face, markup, card.get("config", {}).get("num_landmarks"))
    return Built(described, network, _spec(described, network, precision, markup, file, card, flip=flip))


def fuse(built: Built, network: nn.Module | None = None, decoder: Decode = decode) -> nn.Module:
    """Raw pixels in, the contract's outputs out: the network, or ``network`` in its place, with all around it."""
    graph = network is not None
    network = built.network if network is None else network
    if isinstance(network, RetinaFace):
        reference = FusedDetector(network, built.info)
        if not graph:
            return reference.eval()
        return DetectorGraph(reference.pixels, network, iou=IOU_THRESHOLD, floor=SCORE_FLOOR).eval()
    spec = built.spec
    assert isinstance(spec, LandmarkSpec)
    markup = markups.get(spec.markup)
    return FusedLandmarks(network, built.info, spec.crop.size, markup, flip=spec.flip, decoder=decoder).eval()


def _weights_file(
    model: str, weights: str | os.PathLike[str] | None, source: str | None, *, random: bool
) -> Path | None:
    """Return where the weights lie; None for random ones."""
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
            f"{catalogue.no_weights(model)}; or give a weights file (--weights FILE), or take untrained ones for "
            "latency work (--random)"
        )
    if not is_file(file):
        raise InputError(f"there is no weights file {file}")
    return file


def _card(file: Path) -> dict[str, Any]:
    try:
        return read_card(file)
    except WeightsError as error:
        raise InputError(str(error)) from error


def _info(model: str) -> ModelInfo:
    try:
        return info(model)
    except UnknownModel as error:
        raise UnknownModelError(str(error)) from error


def _resolve_info(model: str, source: str | None, decoding: Decoding | None, card: Mapping[str, Any]) -> ModelInfo:
    """The variant with the conventions of its weights: their source's, or those their card states."""
    described = _info(model)
    architecture = getattr(described.build, "__name__", "network")
    if isinstance(described.build, type) and card.get("architecture", architecture) != architecture:
        fitting = [n for n in list_models() if getattr(info(n).build, "__name__", "") == card["architecture"]]
        hint = f"; give one of that kind (--model {' or '.join(fitting)})" if fitting else ""
        raise InputError(f"these weights are of a {card['architecture']}, but {model} is a {architecture}{hint}")
    described = replace(described, **{key: card[key] for key in ("crop", "decoding") if key in card})
    if "config" in card and hasattr(described.config, "__dataclass_fields__"):
        try:
            config = replace(described.config, **config_of(card))
        except (TypeError, WeightsError) as error:
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
    own = _decoder(described.decoding)
    if decoding is None or decoding == own.name:
        return described
    other = _decoder(decoding)
    if described.task != "landmarks" or other.takes != own.takes:
        raise InputError(f"{model} does not give {other.takes}, which decoding {decoding!r} takes")
    return replace(described, decoding=decoding)


def _decoder(name: Decoding) -> Decoder:
    try:
        return decoder(name)
    except UnknownDecoding as error:
        raise InputError(f"{error}; your own is registered by facelm_models.register_decoder") from error


def _network(
    described: ModelInfo,
    file: Path | None,
    source: str | None,
    mean_face: str | os.PathLike[str] | None,
    markup: str,
    card_num_landmarks: int | None,
) -> nn.Module:
    """The network, filled. ``card_num_landmarks``: how many points its weights' card says they have."""
    torch.manual_seed(0)
    config = described.config
    if described.task == "landmarks":
        points = markups.get(markup).num_points
        if card_num_landmarks not in (None, points):
            fitting = [name for name in markups.names() if markups.get(name).num_points == card_num_landmarks]
            raise InputError(
                f"these weights are of {card_num_landmarks} points, but {markup} has {points}: give their markup "
                f"(--markup {fitting[0] if fitting else 'NAME'})"
            )
        if hasattr(config, "num_landmarks"):
            config = replace(config, num_landmarks=points)
    network = _built(described, config)
    if not described.build.__module__.startswith("facelm_models."):
        _check_output(described, network, markup)
    if file is None:
        return network
    beside: dict[str, torch.Tensor] = {}
    if source is not None and isinstance(network, MeanShapeNetwork) and "mean_shape" in official.get(source).absent:
        beside["mean_shape"] = _mean_face(network, mean_face)
    try:
        load(network, file, source, beside)
    except WeightsError as error:
        other = (
            "\n  if they are of another markup or variant, say which (--markup, --model)"
            if "shape of" in str(error)
            else ""
        )
        raise InputError(f"{error}{other}") from error
    return network


def _built(described: ModelInfo, config: Any) -> nn.Module:
    network = described.build(config)
    if not isinstance(network, nn.Module) or next(network.parameters(), None) is None:
        raise InputError(f"build of {described.name} gives no torch.nn.Module with parameters: {network!r}")
    return network.eval()


@torch.no_grad()
def _check_output(described: ModelInfo, network: nn.Module, markup: str) -> None:
    """Raise InputError unless a model of the user's own gives what its registration says, in shape."""
    side, points = described.input_size, markups.get(markup).num_points
    try:
        output = network(torch.zeros(1, 3, side, side))
    except Exception as error:  # whatever a user's code may raise
        raise InputError(f"{described.name} does not run on float (1, 3, {side}, {side}): {error}") from error
    named = _decoder(described.decoding)
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    takes = f"{named.takes} with L = {points}, as {markup} has"
    try:
        decoded, scores = named(output)
    except Exception as error:  # of a shape that it does not take
        raise InputError(f"{described.name} gives {found}, but decoding {named.name!r} takes {takes}") from error
    if decoded.shape != (1, points, 2) or (named.has_scores and (scores is None or scores.shape != (1, points))):
        raise InputError(f"{described.name} gives {found}, but decoding {named.name!r} takes {takes}")


def _mean_face(network: MeanShapeNetwork, file: str | os.PathLike[str] | None) -> torch.Tensor:  # (L, 2)
    """Return the fractions of the crop in a .npy, .npz (its only array) or text file.

    SLPT's own ``init_98.npz`` is in pixels of a crop of 256, which is seen by its array's name and its numbers.
    """
    if file is None:
        raise InputError(
            "these checkpoints do not hold the mean face that the network starts from, without which every landmark is "
            "wrong; give it as (L, 2) fractions of the crop: mean_face (--mean-face FILE; .npy, .npz or text, or the "
            "Config/init_98.npz of SLPT's code)"
        )
    shape = network.mean_shape.shape
    try:
        values = np.loadtxt(file) if Path(file).suffix not in (".npy", ".npz") else np.load(file, allow_pickle=False)
        named = ""
        if isinstance(values, np.lib.npyio.NpzFile):
            named = values.files[0]
            values = values[named]
        face = torch.from_numpy(np.asarray(values, np.float32)).reshape(shape)
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        raise InputError(f"{file} is not a mean face of shape {tuple(shape)}: {error}") from error
    if named == SLPT_MEAN_FACE and face.max() > 1.5:
        face = face / SLPT_PIXELS
    if not (torch.isfinite(face).all() and (face > -0.5).all() and (face < 1.5).all()):
        raise InputError(
            f"{file} does not hold fractions of the crop (0 left or upper edge, 1 right or lower); pixels are taken "
            f"from an .npz whose array is {SLPT_MEAN_FACE}, as SLPT's code has it"
        )
    return face


def _crop(described: ModelInfo) -> CropRecipe:
    options = {key: value for key, value in described.crop.items() if key != "kind"}
    if described.crop["kind"] == "kps5":
        return kps5_recipe(described.input_size, **options)
    return CropRecipe(size=described.input_size, kind="box", **options)


def _multiply_adds(described: ModelInfo, network: nn.Module, *, flip: bool) -> float:
    """Return billions for a crop, to four digits."""
    once = multiply_adds(network, described.input_size).get("Global", 0.0)
    return float(f"{2 * once if flip else once:.4g}")


def _spec(
    described: ModelInfo,
    network: nn.Module,
    precision: str,
    markup: str,
    source: Path | None,
    card: Mapping[str, Any],
    *,
    flip: bool,
) -> LandmarkSpec | DetectorSpec:
    untrained = "none: untrained weights, for latency work only"
    common: dict[str, Any] = {
        "name": described.name,
        "precision": precision,
        "data": card.get("data", "not stated" if source else untrained),
        "licence": card.get("licence", "not stated"),
        "weights_sha256": hashlib.sha256(source.read_bytes()).hexdigest() if source else None,
        "accuracy": card.get("accuracy", {}),
        "created_by": f"facelm-sdk {facelm_sdk.__version__}",
    }
    if described.task == "detection":
        return DetectorSpec(det_thresh=card.get("det_thresh", DET_THRESH), **common)
    return LandmarkSpec(
        markup=markup,
        num_landmarks=markups.get(markup).num_points,
        crop=_crop(described),
        has_scores=decoder(described.decoding).has_scores or has_confidence(network),
        has_presence=has_confidence(network),
        flip=flip,
        multiply_adds=_multiply_adds(described, network, flip=flip),
        **common,
    )
