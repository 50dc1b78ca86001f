"""PyTorch definitions of landmark and detection networks. Modules only: no exporting, no pixels in or out.

Names are imported when they are first asked for, so that lists of models need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .protocol import LandmarkNetwork as LandmarkNetwork
    from .registry import Decoder as Decoder
    from .registry import ModelInfo as ModelInfo
    from .registry import create as create
    from .registry import info as info
    from .registry import list_models as list_models
    from .registry import register as register
    from .registry import register_decoder as register_decoder
    from .weights import default_weights as default_weights
    from .weights import load as load
    from .weights import load_backbone as load_backbone
    from .weights import restore as restore

_HOMES = {
    "protocol": ["LandmarkNetwork"],
    "registry": ["Decoder", "ModelInfo", "create", "info", "list_models", "register", "register_decoder"],
    "weights": ["default_weights", "load", "load_backbone", "restore"],
}
_EXPORTS = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value
