"""SLPT-master and SLPT_Training (Xia et al. 2022): 98 points of WFLW, 68 of 300W, 6 or 12 layers.

The mean face that the first stage starts from is no part of a checkpoint. The code reads it from a file beside its
configuration, ``Config/init_<points>.npz``, whose ``init_face`` (L, 2) is in pixels of the 256x256 crop: the mean of
the training faces, centred, its longer side 256 / 1.2. So after loading::

    network.mean_shape.copy_(torch.from_numpy(numpy.load("init_98.npz")["init_face"] / 256))

or add it to the state dict as ``mean_shape`` before; ``facelm-export --mean-face init_98.npz`` does so. Without it,
results are wrong. The box is that of the landmarks; its centre falls on the crop's pixel 128, half a pixel from its
middle.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ..backbones.hrnet import HRNetW18
from ..slpt import SLPT
from . import Source
from .hrnet import head_modules, hrnet_modules
from .tables import keys_of


def _relations(layers: int) -> Iterator[tuple[str, str]]:
    """Of (official module, our module)."""
    for i in range(layers):
        theirs, ours = f"Transformer.Transformer_block.layers.{i}", f"relations.{i}"
        yield f"{theirs}.self_attn.out_proj", f"{ours}.self_attention.out"
        yield f"{theirs}.multihead_attn.out_proj", f"{ours}.cross_attention.out"
        yield f"{theirs}.linear1", f"{ours}.mlp.0"
        yield f"{theirs}.linear2", f"{ours}.mlp.3"
        for norm in ("norm1", "norm2", "norm3"):
            yield f"{theirs}.{norm}", f"{ours}.{norm}"


def _tensors(layers: int) -> Iterator[tuple[str, str]]:
    """Of (official key, our key), where the modules around them are not alike."""
    yield "Transformer.structure_encoding", "structure"
    yield "Transformer.landmark_query", "queries"
    yield "feature_extractor.weight", "embed.weight"
    for i in range(layers):
        theirs, ours = f"Transformer.Transformer_block.layers.{i}", f"relations.{i}"
        for kind in ("weight", "bias"):
            yield f"{theirs}.self_attn.in_proj_{kind}", f"{ours}.self_attention.project.{kind}"
            yield f"{theirs}.multihead_attn.in_proj_{kind}", f"{ours}.cross_attention.project.{kind}"


def slpt_keys(network: nn.Module) -> dict[str, str]:
    """The table of an :class:`SLPT` on HRNet."""
    if not isinstance(network, SLPT) or network.config.backbone != "hrnet18":
        raise TypeError(f"SLPT's checkpoints fit an SLPT with backbone='hrnet18', not this {type(network).__name__}")
    backbone = network.features[0]
    assert isinstance(backbone, HRNetW18)
    modules = dict(_relations(network.config.layers))
    modules["Transformer.Transformer_block.norm"] = "head.0"
    modules["out_layer"] = "head.1"
    modules |= {f"backbone.{theirs}": f"features.0.{ours}" for theirs, ours in hrnet_modules(backbone)}
    modules |= {f"backbone.{theirs}": f"features.1.{ours}" for theirs, ours in head_modules()}
    return keys_of(network, modules) | dict(_tensors(network.config.layers))


SOURCES = {
    "slpt": Source(
        name="slpt",
        models=("slpt_hrnet18", "slpt_hrnet18_12l"),
        keys=slpt_keys,
        unused=(r"feature_norm\.(weight|bias)",),
        absent=("mean_shape",),
        overrides={"backbone": "hrnet18"},
        crop={"kind": "box", "box": "landmarks", "side": "max", "scale": 1.2, "offset": (0.5, 0.5)},
        offset=0.0,
    )
}
