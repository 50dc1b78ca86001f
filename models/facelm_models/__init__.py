"""PyTorch definitions of landmark and detection networks. Modules only: no exporting, no pixels in or out."""

from .protocol import LandmarkNetwork
from .registry import ModelInfo, create, info, list_models, register
from .weights import default_weights, load, load_backbone, restore

__all__ = [
    "LandmarkNetwork",
    "ModelInfo",
    "create",
    "default_weights",
    "info",
    "list_models",
    "load",
    "load_backbone",
    "register",
    "restore",
]
