"""How often tensors are used in a run: a pass may change what one module alone sees."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how often each tensor is the input of an operation, and holds it, so that its id stays its own."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[int] = Counter()
        self.held: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor):
                self.counts[id(leaf)] += 1
                self.held.append(leaf)
        return func(*args, **kwargs)
