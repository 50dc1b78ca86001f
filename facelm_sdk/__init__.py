"""Facial landmarks that run fast: picture -> detect -> crop -> landmarks -> map back -> :class:`Face`.

Names are imported when they are first used, so that ``import facelm_sdk`` costs nothing; nothing here imports torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime 1.32 reports to its maker from its import on

if TYPE_CHECKING:
    from . import markup as markup
    from .aligner import Aligner as Aligner
    from .contract import DetectorSpec as DetectorSpec
    from .contract import LandmarkSpec as LandmarkSpec
    from .contract import ModelSpec as ModelSpec
    from .contract import PipelineSpec as PipelineSpec
    from .detector import Detections as Detections
    from .detector import Detector as Detector
    from .errors import ChecksumError as ChecksumError
    from .errors import ContractError as ContractError
    from .errors import EngineError as EngineError
    from .errors import FacelmError as FacelmError
    from .errors import ImageError as ImageError
    from .errors import InputError as InputError
    from .errors import MarkupError as MarkupError
    from .errors import MissingDependencyError as MissingDependencyError
    from .errors import ModelError as ModelError
    from .errors import ModelFileError as ModelFileError
    from .errors import OutputError as OutputError
    from .errors import ParityError as ParityError
    from .errors import ProviderError as ProviderError
    from .errors import UnknownModelError as UnknownModelError
    from .images.read import read_image as read_image
    from .landmarker import Landmarker as Landmarker
    from .markup import Markup as Markup
    from .profile import Profile as Profile
    from .transform import CropRecipe as CropRecipe
    from .transform import CropTransform as CropTransform
    from .types import Face as Face
    from .types import ImageArray as ImageArray
    from .video.one_euro import Smoothing as Smoothing
    from .video.reader import VideoReader as VideoReader
    from .video.tracker import Tracker as Tracker
    from .video.writer import VideoWriter as VideoWriter

__version__ = "0.1.0"

_HOMES = {
    "aligner": ["Aligner"],
    "detector": ["Detections", "Detector"],
    "errors": [
        "ChecksumError",
        "ContractError",
        "EngineError",
        "FacelmError",
        "ImageError",
        "InputError",
        "MarkupError",
        "MissingDependencyError",
        "ModelError",
        "ModelFileError",
        "OutputError",
        "ParityError",
        "ProviderError",
        "UnknownModelError",
    ],
    "images.read": ["read_image"],
    "landmarker": ["Landmarker"],
    "markup": ["Markup"],
    "profile": ["Profile"],
    "video.one_euro": ["Smoothing"],
    "contract": ["DetectorSpec", "LandmarkSpec", "ModelSpec", "PipelineSpec"],
    "video.reader": ["VideoReader"],
    "video.tracker": ["Tracker"],
    "video.writer": ["VideoWriter"],
    "transform": ["CropRecipe", "CropTransform"],
    "types": ["Face", "ImageArray"],
}
_EXPORTS = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_EXPORTS, "__version__", "markup"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    elif name == "markup":
        value = import_module(".markup", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
