"""torchvision's ImageNet checkpoints of MobileNetV2 and ResNet: the backbones of LOTR, SLPT and MTLD start from them.

Their classifier, which no backbone here has, is left out by its name.
"""

from __future__ import annotations

from torch import nn

from ..backbones.mobilenet import InvertedResidual, MobileNetV2
from ..backbones.resnet import ResNet
from .tables import keys_of

CLASSIFIERS = {
    MobileNetV2: ("classifier.1.weight", "classifier.1.bias"),
    ResNet: ("fc.weight", "fc.bias"),
}
"""Backbone -> torchvision's keys that belong to no part of it."""

RESNET_MODULES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")  # named alike on both sides


def mobilenet_v2_keys(backbone: MobileNetV2) -> dict[str, str]:
    """Return the table torchvision key -> our key of a :class:`MobileNetV2`: 312 tensors."""
    modules = {}
    for i, layer in enumerate(backbone.layers):
        if isinstance(layer, InvertedResidual):
            modules[f"features.{i}.conv"] = f"layers.{i}.layers"
        else:
            modules[f"features.{i}"] = f"layers.{i}"
    return keys_of(backbone, modules)


def resnet_keys(backbone: ResNet) -> dict[str, str]:
    """Return the table torchvision key -> our key of a :class:`ResNet`, whose modules are named as torchvision's."""
    return keys_of(backbone, {name: name for name in RESNET_MODULES})


def backbone_keys(backbone: nn.Module) -> dict[str, str]:
    """Return the complete table torchvision key -> our key. Raises TypeError for other than the two backbones."""
    if isinstance(backbone, MobileNetV2):
        return mobilenet_v2_keys(backbone)
    if isinstance(backbone, ResNet):
        return resnet_keys(backbone)
    raise TypeError(f"torchvision's checkpoints fit a MobileNetV2 or a ResNet, not a {type(backbone).__name__}")


def is_classifier(backbone: nn.Module, key: str) -> bool:
    """Return whether ``key`` of a torchvision checkpoint belongs to the classifier that ``backbone`` does not have."""
    return any(isinstance(backbone, kind) and key in keys for kind, keys in CLASSIFIERS.items())
