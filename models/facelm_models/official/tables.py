"""Key tables from pairs of modules."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def keys_of(network: nn.Module, modules: Mapping[str, str]) -> dict[str, str]:
    """The table official key -> our key of all tensors in ``modules``, official module -> our module of ``network``.

    Both modules of a pair must name their tensors alike, as one convolution or batch norm does to another.
    """
    return {
        f"{theirs}.{name}": f"{ours}.{name}"
        for theirs, ours in modules.items()
        for name in network.get_submodule(ours).state_dict()
    }
