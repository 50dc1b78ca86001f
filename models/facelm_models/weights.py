"""Loading weights: a separate, strict step after a module is built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

CHECKPOINTS = Path(__file__).with_name("checkpoints")


class WeightsError(ValueError):
    """Weights do not fit the module, or the file is not a weights file; the message names keys and shapes."""


def default_weights(name: str) -> Path | None:
    """The checkpoint of this project's own training that comes with the package, or None when there is none."""
    path = CHECKPOINTS / f"{name}.safetensors"
    return path if path.is_file() else None


def read(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a ``.safetensors`` file. Raises WeightsError when it is missing or not one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path} is not a .safetensors file, the one format of weights that is read")
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error


def to_bytes(model: nn.Module, card: Mapping[str, Any]) -> bytes:
    """A safetensors file with the weights of ``model`` and their ``card`` (data, licence, accuracy, ...)."""
    from safetensors.torch import save as serialise

    state = {k: v.contiguous() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    return serialise(state, metadata={"facelm": json.dumps(card)})


def save(path: str | Path, model: nn.Module, card: Mapping[str, Any]) -> None:
    """Write :func:`to_bytes` to ``path``."""
    Path(path).write_bytes(to_bytes(model, card))


def read_card(path: str | Path) -> dict[str, Any]:
    """What a weights file says of its own origin; empty when it says nothing."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    return dict(json.loads(metadata.get("facelm", "{}")))


def load(model: nn.Module, source: str | Path | Mapping[str, torch.Tensor]) -> nn.Module:
    """Fill ``model`` with the weights of a file or a state dict, all of them and nothing else.

    Returns ``model``. Raises WeightsError, and leaves the model as it was, naming every missing, unknown or wrongly
    shaped key.
    """
    state = dict(source) if isinstance(source, Mapping) else read(source)
    own = model.state_dict()
    optional = {key for key in own if key.endswith("num_batches_tracked")}
    problems = [f"missing: {key}" for key in own if key not in state and key not in optional]
    problems += [f"unknown: {key}" for key in state if key not in own]
    problems += [
        f"shape of {key}: {tuple(value.shape)}, not {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    if problems:
        shown = "\n  ".join(problems[:20]) + (f"\n  and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise WeightsError(f"these weights do not fit {type(model).__name__}:\n  {shown}")
    model.load_state_dict(state, strict=False)  # what may be missing was checked above
    return model
