"""STAR (Zhou et al. 2023): the stacked hourglass, trained on WFLW (98 points), 300W (68) or COFW (29)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ..hourglass import StackedHourglass
from . import Source
from .tables import keys_of

Pairs = Iterator[tuple[str, str]]
"""Of (official module, our module)."""


def _block(theirs: str, ours: str, skip: bool = False) -> Pairs:
    for i in (1, 2, 3):
        yield f"{theirs}.bn{i}", f"{ours}.norm{i}"
        yield f"{theirs}.conv{i}.conv", f"{ours}.conv{i}"
    if skip:
        yield f"{theirs}.skip_layer.conv", f"{ours}.skip"


def _hourglass(theirs: str, ours: str, depth: int) -> Pairs:
    yield from _block(f"{theirs}.up1", f"{ours}.skip")
    yield from _block(f"{theirs}.low1", f"{ours}.down")
    yield from _block(f"{theirs}.low3", f"{ours}.up")
    inner = f"{theirs}.low2", f"{ours}.inner"
    yield from _hourglass(*inner, depth - 1) if depth > 1 else _block(*inner)


def _stem() -> Pairs:
    yield "pre.0.conv", "stem.0.conv"
    yield "pre.0.bn", "stem.1"
    yield from _block("pre.1", "stem.3", skip=True)
    yield from _block("pre.3", "stem.5")
    yield from _block("pre.4", "stem.6", skip=True)


def _stack(i: int, depth: int) -> Pairs:
    ours = f"stacks.{i}"
    yield f"hgs.{i}.coordconv.conv", f"{ours}.locate.conv"
    yield from _hourglass(f"hgs.{i}", f"{ours}.hourglass", depth)
    yield from _block(f"features.{i}.0", f"{ours}.features.0")
    yield f"features.{i}.1.conv", f"{ours}.features.1"
    yield f"features.{i}.1.bn", f"{ours}.features.2"
    yield f"out_heatmaps.{i}.conv", f"{ours}.heatmaps"
    yield f"out_edgemaps.{i}.conv", f"{ours}.edges"
    yield f"out_pointmaps.{i}.conv", f"{ours}.points"


def _merge(i: int) -> Pairs:
    yield f"merge_features.{i}.conv", f"merges.{i}.features"
    yield f"merge_heatmaps.{i}.conv", f"merges.{i}.heatmaps"
    yield f"merge_edgemaps.{i}.conv", f"merges.{i}.edges"
    yield f"merge_pointmaps.{i}.conv", f"merges.{i}.points"


def _modules(stacks: int, depth: int) -> Pairs:
    yield from _stem()
    for i in range(stacks):
        yield from _stack(i, depth)
    for i in range(stacks - 1):
        yield from _merge(i)


def star_keys(network: nn.Module) -> dict[str, str]:
    """The table of a :class:`StackedHourglass`."""
    if not isinstance(network, StackedHourglass):
        raise TypeError(f"STAR's checkpoints fit a StackedHourglass, not a {type(network).__name__}")
    edges = {"e2h_transform.weight": "edge_weight", "e2h_transform.bias": "edge_bias"}
    return keys_of(network, dict(_modules(network.config.stacks, network.config.depth))) | edges


SOURCES = {
    "star": Source(
        name="star",
        models=("hourglass4",),
        keys=star_keys,
        # Every block has a skip convolution; those that keep the number of channels never run theirs.
        unused=(r"(pre\.3|hgs\..+|features\.\d+\.0)\.skip_layer\.conv\.(weight|bias)",),
        inside=("net",),
        # Of the box of the landmarks, whose centre falls on the crop's centre pixel 127.5.
        crop={"kind": "box", "box": "landmarks", "side": "min", "scale": 1.05},
        decoding="expectation",
    )
}
