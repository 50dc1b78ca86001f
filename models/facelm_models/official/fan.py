"""FAN (Bulat and Tzimiropoulos 2017, the face-alignment package): 68 points, one to four stacks."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ..fan import FAN
from . import Source
from .tables import keys_of

Pairs = Iterator[tuple[str, str]]
"""Of (official module, our module)."""


def _block(theirs: str, ours: str, skip: bool = False) -> Pairs:
    for i in (1, 2, 3):
        yield f"{theirs}.bn{i}", f"{ours}.norm{i}"
        yield f"{theirs}.conv{i}", f"{ours}.conv{i}"
    if skip:
        yield f"{theirs}.downsample.0", f"{ours}.skip.0"
        yield f"{theirs}.downsample.2", f"{ours}.skip.2"


def _hourglass(theirs: str, ours: str, depth: int) -> Pairs:
    """Levels are counted from the innermost, 1, in the official names."""
    yield from _block(f"{theirs}.b1_{depth}", f"{ours}.skip")
    yield from _block(f"{theirs}.b2_{depth}", f"{ours}.down")
    yield from _block(f"{theirs}.b3_{depth}", f"{ours}.up")
    if depth > 1:
        yield from _hourglass(theirs, f"{ours}.inner", depth - 1)
    else:
        yield from _block(f"{theirs}.b2_plus_1", f"{ours}.inner")


def _modules(stacks: int, depth: int) -> Pairs:
    yield "conv1", "stem.0"
    yield "bn1", "stem.1"
    yield from _block("conv2", "stem.3", skip=True)
    yield from _block("conv3", "stem.5")
    yield from _block("conv4", "stem.6", skip=True)
    for i in range(stacks):
        ours = f"stacks.{i}"
        yield from _hourglass(f"m{i}", f"{ours}.hourglass", depth)
        yield from _block(f"top_m_{i}", f"{ours}.features.0")
        yield f"conv_last{i}", f"{ours}.features.1"
        yield f"bn_end{i}", f"{ours}.features.2"
        yield f"l{i}", f"{ours}.heatmaps"
    for i in range(stacks - 1):
        yield f"bl{i}", f"merges.{i}.features"
        yield f"al{i}", f"merges.{i}.heatmaps"


def fan_keys(network: nn.Module) -> dict[str, str]:
    """The table of a :class:`FAN`."""
    if not isinstance(network, FAN):
        raise TypeError(f"FAN's checkpoints fit a FAN, not a {type(network).__name__}")
    return keys_of(network, dict(_modules(network.config.stacks, network.config.depth)))


SOURCES = {
    "fan": Source(
        name="fan",
        models=("fan2", "fan4"),
        keys=fan_keys,
        # side = 200 * (w + h) / 195 of a box as the S3FD detector draws it, from 0.12 of its height above its centre
        crop={"kind": "box", "side": "mean", "scale": 400 / 195, "shift": (0.0, -0.12)},
        decoding="argmax",
    )
}
