"""HRNet-Facial-Landmark-Detection (Wang et al. 2020): heatmaps of WFLW, 300W, COFW and AFLW.

The box is the data set's own (of WFLW its detection box, of 300W that of the landmarks). A label is the rounded down
cell of 64 * (point - crop's corner) / side, and the crop's corner is rounded up to a whole picture pixel, so that
cell i stands, on average, for the crop's pixel 4 * i + 2.5: the offset below.

Two things of that code are not repeated here. On the way back it truncates points to whole picture pixels; here they
stay what the map says. And it resizes crops by scipy's imresize, which stretches the contrast of a picture that is not
uint8 to 0..255 (the crop is float there), by each crop's own darkest and brightest value; here pixels go in as they
are. A crop that holds black and white, as most do, differs by nothing; a pale one is seen paler than in training.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ..backbones.hrnet import HRNetW18
from ..hrnet import HRNet
from . import Source
from .tables import keys_of

Pairs = Iterator[tuple[str, str]]
"""Of (official module, our module)."""


def _conv_bn(theirs: str, ours: str) -> Pairs:
    yield f"{theirs}.0", f"{ours}.0"
    yield f"{theirs}.1", f"{ours}.1"


def _block(theirs: str, ours: str, convs: int) -> Pairs:
    for i in range(convs):
        yield f"{theirs}.conv{i + 1}", f"{ours}.layers.{i}.0"
        yield f"{theirs}.bn{i + 1}", f"{ours}.layers.{i}.1"


def _stem() -> Pairs:
    for i in range(2):
        yield f"conv{i + 1}", f"stem.{i}.0"
        yield f"bn{i + 1}", f"stem.{i}.1"
    for i in range(4):
        yield from _block(f"layer1.{i}", f"stem.{i + 2}", convs=3)
    yield from _conv_bn("layer1.0.downsample", "stem.2.skip")


def _module(theirs: str, ours: str, branches: int) -> Pairs:
    for i in range(branches):
        for block in range(4):
            yield from _block(f"{theirs}.branches.{i}.{block}", f"{ours}.branches.{i}.{block}", convs=2)
        for j in range(branches):
            layer = f"{theirs}.fuse_layers.{i}.{j}", f"{ours}.fuse.{i}.{j}"
            if j > i:
                yield from _conv_bn(*layer)
            for halving in range(i - j):
                yield from _conv_bn(*(f"{name}.{halving}" for name in layer))


def hrnet_modules(backbone: HRNetW18) -> Pairs:
    """The modules of ``backbone``, as this code base and those that build on it name them."""
    yield from _stem()
    yield from _conv_bn("transition1.0", "stages.0.transition.0")
    for i, stage in enumerate(backbone.stages):
        new = i + 1  # the branch that the stage adds
        yield from _conv_bn(f"transition{i + 1}.{new}.0", f"stages.{i}.transition.{new}")
        exchanges = stage.get_submodule("exchanges")
        assert isinstance(exchanges, nn.Sequential)
        for module in range(len(exchanges)):
            yield from _module(f"stage{i + 2}.{module}", f"stages.{i}.exchanges.{module}", branches=i + 2)


def head_modules() -> Pairs:
    """The modules of a :class:`HRNetHead`."""
    for i in (0, 1, 3):
        yield f"head.{i}", f"layers.{i}"


def hrnet_keys(network: nn.Module) -> dict[str, str]:
    """The table of an :class:`HRNet`."""
    if not isinstance(network, HRNet):
        raise TypeError(f"HRNet's checkpoints fit an HRNet, not a {type(network).__name__}")
    backbone = {theirs: f"backbone.{ours}" for theirs, ours in hrnet_modules(network.backbone)}
    head = {theirs: f"head.{ours}" for theirs, ours in head_modules()}
    return keys_of(network, backbone | head)


SOURCES = {
    "hrnet": Source(
        name="hrnet",
        models=("hrnet18",),
        keys=hrnet_keys,
        overrides={"modules": (1, 4, 3)},
        crop={"kind": "box", "box": "landmarks", "side": "max", "scale": 1.25},
        decoding="argmax",
        offset=0.5,
    )
}
