"""Loading weights: a separate, strict step after a module is built."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from facelm_sdk.errors import FacelmError

from . import catalogue, official
from .official import torchvision
from .registry import ModelInfo, UnknownModel, info
from .torchscript import is_script, read_script

log = logging.getLogger(__name__)

CARD = {"model": str, "architecture": str, "config": dict, "markup": str, "decoding": str, "crop": dict}
"""The entries of a card that decide how its weights are used, and their kinds."""
NAMES = {str: "string", dict: "object"}
LARGEST = 1 << 14
"""No option of a network is larger: sides, channels, layers, points."""


class WeightsError(FacelmError, ValueError):
    """Weights do not fit the module, or the file is not a weights file; the message names keys and shapes."""


def default_weights(name: str) -> Path | None:
    """Return the checkpoint of this project's own training, of the checkout or of facelm-weights, or None."""
    return catalogue.checkpoint(name)


def read(path: str | Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a ``.safetensors`` file. Raises WeightsError when it is missing or not one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{path} is not a .safetensors file; a checkpoint of a paper's own code loads with the name of its source "
            f"(--from on the command line): {', '.join(official.list_sources())}; weights of your own are written by "
            f"facelm_models.weights.save"
        )
    try:
        return load_file(_existing(path))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error


def read_official(path: str | Path) -> dict[str, Any]:
    """Return what a PyTorch checkpoint (``.pth``), a TorchScript archive or a ``.safetensors`` file holds.

    No code in it is run. Raises WeightsError when the file is missing, is none of these or damaged, or holds more than
    tensors and plain values; the message then has the line that saves its tensors anew.
    """
    path = _existing(path)
    if path.suffix == ".safetensors":
        return dict(read(path))
    script = False
    try:
        script = is_script(path)
        content = read_script(path) if script else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} cannot be read safely: it is damaged, no checkpoint, or holds Python objects beside tensors. "
            f"If you trust where it comes from, save its tensors anew:\n  {_saved_anew(path, script=script)}"
        ) from error
    except Exception as error:  # a damaged file makes zipfile, pickle and torch raise of every kind
        raise WeightsError(f"{path} cannot be read: it is damaged or no checkpoint ({_described(error)})") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict")
    if strange := [key for key in content if not isinstance(key, str)]:
        raise WeightsError(f"{path} holds {strange[0]!r} in the place of a tensor's name")
    return dict(content)


def _saved_anew(path: Path, *, script: bool) -> str:
    """Return the command that runs the code of an untrusted file and writes a file of its tensors alone."""
    source, target = str(path), str(path.with_name(f"{path.stem}_tensors.pth"))
    if script:
        code = f"import torch; torch.save(torch.jit.load({source!r}, map_location='cpu').state_dict(), {target!r})"
    else:
        code = (
            f"import torch; c = torch.load({source!r}, map_location='cpu', weights_only=False); "
            f"c = c if isinstance(c, dict) else c.state_dict(); "
            f"torch.save({{k: v for k, v in c.items() if isinstance(v, (dict, torch.Tensor))}}, {target!r})"
        )
    return f"python -c {shlex.quote(code)}"


def _described(error: Exception) -> str:
    """Return an error's kind and the first line of what it says."""
    return f"{type(error).__name__}: {error}".partition("\n")[0].removesuffix(": ")


def _existing(path: str | Path) -> Path:
    if not os.path.isfile(path):  # noqa: PTH113 (Path's raises for names that are too long)
        raise WeightsError(f"there is no weights file {path}")
    return Path(path)


def to_bytes(model: nn.Module, card: Mapping[str, Any], *, half: bool = False) -> bytes:
    """Return a safetensors file with the weights of ``model`` and their ``card`` (data, licence, accuracy, ...).

    The network's class and config are entered into the card, so that the file says what it is. ``half``: kernels and
    matrices in fp16, half of the bytes; vectors (biases, batch norm's statistics) and buffers stay as they are. Raises
    WeightsError where a number is beyond fp16.
    """
    from safetensors.torch import save as serialise

    if is_dataclass(config := getattr(model, "config", None)):
        card = {**card, "architecture": type(model).__name__, "config": asdict(config)}  # type: ignore[arg-type]
    state = {k: v.contiguous() for k, v in model.state_dict().items() if not _counter(k)}
    if half:
        large = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
        state = {key: value.half() if key in large else value for key, value in state.items()}
        if beyond := [key for key, value in state.items() if key in large and not value.isfinite().all()]:
            raise WeightsError(f"{beyond[0]} has numbers that fp16 cannot hold")
    return serialise(state, metadata={"facelm": json.dumps(card)})


def save(path: str | Path, model: nn.Module, card: Mapping[str, Any]) -> None:
    """Write :func:`to_bytes` to ``path``."""
    Path(path).write_bytes(to_bytes(model, card))


def read_card(path: str | Path) -> dict[str, Any]:
    """Return what a weights file says of its own origin; empty when it says nothing.

    Raises WeightsError when it is not a JSON object whose entries are of the kinds in ``CARD``.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_existing(path), framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError):
        return {}  # :func:`read` says what is wrong with it
    try:
        card = json.loads(metadata.get("facelm", "{}"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"the card in {path} is not JSON: {_described(error)}") from error
    if not isinstance(card, dict):
        raise WeightsError(f"the card in {path} is {_shown(card)}, not a JSON object")
    for key, kind in CARD.items():
        if not isinstance(card.get(key, kind()), kind):
            raise WeightsError(f"{key} of the card in {path} is {_shown(card[key])}, not a JSON {NAMES[kind]}")
    return card


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def config_of(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a card's config as they were before JSON, which has no tuples.

    Raises WeightsError where one is absurd: a network of that size would be built before it is seen not to fit.
    """
    config = {key: _as_tuples(value) for key, value in card["config"].items()}
    for key, value in config.items():
        if any(not -1 <= number <= LARGEST for number in _numbers(value)):
            raise WeightsError(f"these weights say {key} = {_shown(value)}, which no network has")
    return config


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _numbers(part)


def load(
    model: nn.Module,
    weights: str | Path | Mapping[str, Any],
    source: str | None = None,
    beside: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> nn.Module:
    """Fill ``model`` with the weights of a file or a state dict, all of them and nothing else.

    ``source`` names the public code a checkpoint comes from (see :mod:`facelm_models.official`), whose keys are then
    renamed by its table; None means this project's own. ``beside``: tensors under our names that such checkpoints do
    not hold, as SLPT's lack their ``mean_shape``. Returns ``model``. Raises WeightsError, and leaves the model as
    it was, naming every missing, unknown or wrongly shaped key.
    """
    if source is not None:
        state, absent = _from_official(model, weights, source, beside)
    else:
        state, absent = dict(weights) if isinstance(weights, Mapping) else read(weights), set()
    own = model.state_dict()
    _check(model, _problems(state, own, absent))
    model.load_state_dict(state, strict=False)  # what may be missing was checked above
    return model


def load_backbone(backbone: nn.Module, weights: str | Path | Mapping[str, Any]) -> nn.Module:
    """Fill a MobileNetV2 or ResNet with the ImageNet weights of a checkpoint in torchvision's key names.

    ``backbone``: of :mod:`facelm_models.backbones`, alone or as the ``backbone`` of a network. ``weights``: a ``.pth``,
    a ``.safetensors`` or a state dict; its classifier is left out. Returns ``backbone``. Raises WeightsError, and
    leaves the backbone as it was, naming every missing, unknown or wrongly shaped key as torchvision does.
    """
    try:
        keys = torchvision.backbone_keys(backbone)
    except TypeError as error:
        raise WeightsError(str(error)) from error
    content = weights if isinstance(weights, Mapping) else read_official(weights)
    state = {k: v for k, v in content.items() if not _counter(k) and not torchvision.is_classifier(backbone, k)}
    table = {theirs: ours for theirs, ours in keys.items() if not _counter(theirs)}
    own = backbone.state_dict()
    _check(backbone, _problems(state, {theirs: own[ours] for theirs, ours in table.items()}))
    backbone.load_state_dict({table[key]: value for key, value in state.items()}, strict=False)  # counters alone lack
    return backbone


def restore(source: str | Path) -> nn.Module:
    """Return the network that weights of this project's training are of, with its options, filled; in eval mode.

    ``source``: a .safetensors file, or the name of a model whose weights are in facelm-weights. Raises WeightsError
    where there are none, or the file does not say what it is of; the message has the line to type instead.
    """
    path = _file_of(source)
    card = read_card(path)
    if not {"model", "config"} <= card.keys():
        read(path)  # tells what is wrong with a file that is none
        raise WeightsError(
            f"{path} does not say which network it is of: create it, and load the file into it:\n"
            f"  network = facelm_models.load(facelm_models.create(NAME), {str(path)!r})"
        )
    try:
        described = info(card["model"])
    except UnknownModel as error:
        raise WeightsError(f"{path} is of a model that is not registered: {error}") from error
    state = read(path)
    return load(_network(described, config_of(card), state), state).eval()


def _file_of(source: str | Path) -> Path:
    """Return the weights file of a model's name or a path."""
    path = Path(source)
    if isinstance(source, Path) or path.name != source or path.suffix or os.path.isfile(path):  # noqa: PTH113
        return _existing(path)
    try:
        name = info(source).name
    except UnknownModel as error:
        raise WeightsError(f"there is no weights file {source}, and {error}") from error
    file = default_weights(name)
    if file is None:
        raise WeightsError(
            f"{catalogue.no_weights(name)}. With a file of your own:\n  facelm_models.restore('{name}.safetensors')"
        )
    return file


def _network(described: ModelInfo, config: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return the untrained network of a card's config, which is built only if ``state`` fits it."""
    try:
        options = type(described.config)(**config)
        if (outline := _outline(described, options)) is not None:
            _check(outline, _problems(state, outline.state_dict()))
        return described.build(options)
    except WeightsError:
        raise
    except Exception as error:  # options of the wrong kind fail anywhere in a constructor
        raise WeightsError(
            f"these weights are of another version of {described.name}: it cannot be built with {_shown(dict(config))} "
            f"({_described(error)})"
        ) from error


def _outline(described: ModelInfo, options: Any) -> nn.Module | None:
    """Return a network without memory for its tensors; None for one of a user's own that cannot be built so."""
    try:
        with torch.device("meta"):
            return described.build(options)
    except Exception:  # building it for real tells what is wrong, if anything is
        return None


def _counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _problems(
    state: Mapping[str, Any], expected: Mapping[str, torch.Tensor], absent: Collection[str] = ()
) -> list[str]:
    """Return what is wrong with ``state``; keys of ``absent`` may be missing."""
    problems = [f"missing: {k}" for k in expected if k not in state and not _counter(k) and k not in absent]
    problems += [f"unknown: {key}" for key in state if key not in expected]
    for key, value in state.items():
        if key not in expected:
            continue
        if not isinstance(value, torch.Tensor):
            problems.append(f"{key} is a {type(value).__name__}, not a tensor")
        elif value.shape != expected[key].shape:
            problems.append(f"shape of {key}: {tuple(value.shape)}, not {tuple(expected[key].shape)}")
    return problems


def _check(model: nn.Module, problems: list[str]) -> None:
    if not problems:
        return
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.partition(" ")[0], []).append(problem)
    shown = [line for kind in kinds.values() for line in kind[:8]]  # some of each kind
    if len(shown) < len(problems):
        counts = ", ".join(f"{kind.rstrip(':')} {len(lines)}" for kind, lines in kinds.items() if len(lines) > 8)
        shown.append(f"and more; in all: {counts}")
    raise WeightsError(f"these weights do not fit {type(model).__name__}:\n  " + "\n  ".join(shown))


def _from_official(
    model: nn.Module, weights: str | Path | Mapping[str, Any], name: str, beside: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], set[str]]:
    """Return the state dict under our keys, and those of ours that such checkpoints do not hold."""
    source = official.get(name)
    if not any(type(model) is info(variant).build for variant in source.models):
        raise WeightsError(f"checkpoints of {name} fit {', '.join(source.models)}, not a {type(model).__name__}")
    for entry, value in source.overrides.items():
        if getattr(model.config, entry) != value:
            wanted = ", ".join(f"{k}={v!r}" for k, v in source.overrides.items())
            raise WeightsError(f"weights of {name} need a network created with {wanted}")
    content = dict(weights) if isinstance(weights, Mapping) else read_official(weights)
    for key in source.inside:
        if isinstance(content.get(key), Mapping):
            content = dict(content[key])
    content = {str(key).removeprefix("module."): value for key, value in content.items()}
    state = {key: value for key, value in content.items() if not _counter(key) and not source.is_unused(key)}
    state |= beside
    table = {theirs: ours for theirs, ours in source.keys(model).items() if not _counter(theirs)}
    table |= {key: key for key in source.absent}  # whoever has them may add them
    own = model.state_dict()
    _check(model, _problems(state, {theirs: own[ours] for theirs, ours in table.items()}, source.absent))
    absent = set(source.absent) - set(state)
    if absent:
        log.warning("checkpoints of %s do not hold %s: it stays as it was", name, ", ".join(sorted(absent)))
    return {table[key]: value for key, value in state.items()}, absent
