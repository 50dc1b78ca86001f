"""PyTorch definitions of landmark and detection networks. Modules only: no exporting, no pixels in or out."""

from .protocol import LandmarkNetwork
from .registry import Decoder, ModelInfo, create, info, list_models, register, register_decoder
from .weights import default_weights, load, load_backbone, restore

__all__ = [
    "Decoder",
    "LandmarkNetwork",
    "ModelInfo",
    "create",
    "default_weights",
    "info",
    "list_models",
    "load",
    "load_backbone",
    "register",
    "register_decoder",
    "restore",
]
