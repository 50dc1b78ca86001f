"""Landmarker: any number of crops -> landmarks, in batches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import markup as markups
from . import profile as profiling
from . import zoo
from ._checks import is_whole
from .contract import LandmarkSpec
from .errors import InputError
from .runtimes.base import Provider, RuntimeOptions, Session
from .runtimes.open import Variant, open_session, renamed
from .transform import CropRecipe
from .types import ImageArray


class Landmarks(NamedTuple):
    """What a run gives of n crops.

    ``landmarks`` (n, L, 2) float32, (x, y) crop pixels; ``scores`` (n, L) and ``presence`` (n,), float32 in [0, 1], or
    None where the model has none: the probabilities that a point is within 5% of the eye distance (of heatmap models,
    the height of a peak), and that the crop shows a face.
    """

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    presence: NDArray[np.float32] | None


class Landmarker:
    """Finds landmarks in crops. ``model`` is an embedded model's name, a path to an .onnx, or a Session.

    ``flip``: None as the graph does it; True averages with the mirrored crop, here where the graph does not; False asks
    for no averaging, which a graph with averaging inside cannot do (InputError). ``max_batch`` is the most crops, the
    mirrored ones counted, in one run. ``variant`` chooses among an embedded model's files: see open_file; ``device``,
    ``providers``, ``strict``, ``threads``, ``session_options``, ``licence_notice``: see
    RuntimeOptions. ``precision`` is ``variant``'s old name.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Session = zoo.LANDMARKS,
        *,
        flip: bool | None = None,
        max_batch: int = 64,
        variant: Variant = "auto",
        device: str = "cpu",
        providers: Sequence[Provider] | None = None,
        strict: bool = False,
        threads: int | None = None,
        session_options: Any = None,
        licence_notice: bool = True,
        precision: Variant | None = None,
    ) -> None:
        if not is_whole(max_batch, 1):
            raise InputError(f"max_batch is a whole number of at least 1, not {max_batch!r}")
        if not (flip is None or isinstance(flip, bool)):
            raise InputError(f"flip is True, False or None, not {flip!r}")
        options = RuntimeOptions(
            device=device,
            providers=providers,
            strict=strict,
            threads=threads,
            session_options=session_options,
            licence_notice=licence_notice,
        )
        self.session, self._spec = open_session(model, LandmarkSpec, options, variant=renamed(variant, precision))
        if flip is False and self.spec.flip:
            raise InputError(
                f"{self.spec.name} averages with the mirrored crop inside its graph; flip=False cannot undo it"
            )
        self.max_batch = max_batch
        self._flip_here = bool(flip) and not self.spec.flip

    @property
    def spec(self) -> LandmarkSpec:
        """The model's contract."""
        return self._spec

    @property
    def recipe(self) -> CropRecipe:
        """How the model's crops are cut."""
        return self.spec.crop

    @property
    def size(self) -> int:
        """The side S of a crop in pixels."""
        return self.recipe.size

    @property
    def flip(self) -> bool:
        """Whether landmarks are the mean with those of the mirrored crop, in the graph or by this class."""
        return self.spec.flip or self._flip_here

    def __call__(self, crops: ImageArray) -> NDArray[np.float32]:
        """Crops (n, S, S, 3) uint8 BGR -> landmarks (n, L, 2) float32, (x, y) crop pixels."""
        return self.run(crops).landmarks

    def run(self, crops: ImageArray) -> Landmarks:
        """As calling, and what the model says of its confidence."""
        shape = (self.size, self.size, 3)
        if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8 or crops.shape[1:] != shape or crops.ndim != 4:
            found = f"{crops.dtype} {crops.shape}" if isinstance(crops, np.ndarray) else type(crops).__name__
            raise InputError(f"crops for {self.spec.name} are uint8 (n, {', '.join(map(str, shape))}); got {found}")
        count = len(crops)
        points = self.spec.num_landmarks
        shapes: dict[str, tuple[int, ...]] = {"landmarks": (points, 2), "scores": (points,), "presence": ()}
        named = {name: np.empty((count, *shapes[name]), np.float32) for name in self.spec.tensors.outputs}
        step = max(1, self.max_batch // 2) if self._flip_here else self.max_batch
        for start in range(0, count, step):
            part = slice(start, start + step)
            outputs = self._run_flipped(crops[part]) if self._flip_here else self._run(crops[part])
            for array, output in zip(named.values(), outputs, strict=True):
                array[part] = output
        return Landmarks(named["landmarks"], named.get("scores"), named.get("presence"))

    def _run(self, crops: ImageArray) -> list[NDArray[np.float32]]:
        crops = np.ascontiguousarray(crops)
        with profiling.stage(profiling.LANDMARKER):
            return self.session.run({"crops": crops})

    def _run_flipped(self, crops: ImageArray) -> list[NDArray[np.float32]]:
        """The mean of what the crops and their mirror images give, in one batch."""
        count, markup = len(crops), markups.get(self.spec.markup)
        outputs = self._run(np.concatenate([crops, crops[:, :, ::-1]]))
        means = []
        for name, values in zip(self.spec.tensors.outputs, outputs, strict=True):
            straight, mirrored = values[:count], values[count:]
            if name == "landmarks":
                mirrored = markups.flip_points(mirrored, self.size, markup)
            elif name == "scores":
                mirrored = mirrored[:, list(markup.flip)]
            means.append(np.asarray((straight + mirrored) / 2, np.float32))
        return means
