"""RetinaFace in PyTorch, as published for MobileNet-0.25 and ResNet-50, and the "1 MB" detector after it.

The two code bases share every key and shape; they differ in activations and priors, so only the name can tell them
apart. Both feed BGR pictures of any size less (104, 117, 123), and both decode with the same variances.
"""

from __future__ import annotations

from torch import nn

from ..retinaface import RetinaFace
from . import Source
from .tables import keys_of

# Our modules are named as theirs. The body's children that their code keeps depend on the backbone.
BODIES = {
    "mobilenet025": ("stage1", "stage2", "stage3"),
    "resnet50": ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"),
}
NECK = ("fpn", "ssh1", "ssh2", "ssh3")
HEADS = ("ClassHead", "BboxHead", "LandmarkHead")


def retinaface_keys(network: nn.Module) -> dict[str, str]:
    """The table of a :class:`RetinaFace`."""
    if not isinstance(network, RetinaFace):
        raise TypeError(f"RetinaFace's checkpoints fit a RetinaFace, not a {type(network).__name__}")
    body = (f"body.{name}" for name in BODIES[network.config.backbone])
    return keys_of(network, {name: name for name in (*body, *NECK, *HEADS)})


SOURCES = {
    "retinaface": Source(
        name="retinaface",
        models=("retinaface_mnet025", "retinaface_r50"),
        keys=retinaface_keys,
        overrides={"min_sizes": ((16, 32), (64, 128), (256, 512))},
    ),
    "retinaface_1mb": Source(
        name="retinaface_1mb",
        models=("retinaface_mnet025",),
        keys=retinaface_keys,
        overrides={"leaky": 0.0, "min_sizes": ((10, 20), (32, 64), (128, 256))},
    ),
}
