"""What training and export ask of a landmark network, whatever its architecture.

Each protocol stands beside :class:`torch.nn.Module`, which every network is as well. :class:`LandmarkNetwork` holds for
all that are registered; the others say what a network may offer beyond it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch


class LandmarkConfig(Protocol):
    """The options that every landmark network's frozen config has; ``create(name, size=..., num_landmarks=...)``."""

    @property
    def size(self) -> int:
        """Side S of the square crop in pixels."""

    @property
    def num_landmarks(self) -> int:
        """The number L of points, in the order of a markup."""


@runtime_checkable
class LandmarkNetwork(Protocol):
    """A network from crops to landmarks. Built by ``build(config)``; loading weights is a step of its own."""

    @property
    def config(self) -> LandmarkConfig:
        """The config it was built from, to be built again at another size, or by whoever reads its weights file."""

    def __call__(
        self,
        crops: torch.Tensor,  # (n, 3, S, S) float, normalised and with channels ordered as the ModelInfo says
    ) -> torch.Tensor:  # (n, L, 2) fractions of the crop, or (n, L, h, w) heatmaps: what its Decoder takes
        """Return what inference needs and nothing else: this is what is traced, exported and evaluated."""

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Compute ``__call__``."""

    def intermediate(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> Any:
        """Return what training needs: every stage, layer and branch, as the architecture's docstring says.

        The last of what corresponds to ``forward`` equals it, so that a loss may supervise both or either.
        """


class Backbone(Protocol):
    """A convolutional feature extractor: crops (n, 3, S, S) to its last map, or to several, the deepest last."""

    @property
    def channels(self) -> int | tuple[int, ...]:
        """Channels of the map, or of each map."""

    def __call__(self, crops: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Return the map (n, channels, S / 32, S / 32), or the maps, of which the last has that resolution."""


@runtime_checkable
class BackboneNetwork(LandmarkNetwork, Protocol):
    """A network whose backbone can be trained by itself first, under a plain head on its pooled deepest map."""

    @property
    def backbone(self) -> Backbone:
        """The part that a warm start trains; :func:`facelm_models.load_backbone` may fill it before."""


class FeatureConfig(LandmarkConfig, Protocol):
    """The options of a :class:`FeatureNetwork`."""

    @property
    def dim(self) -> int:
        """Channels of the feature map."""


@runtime_checkable
class FeatureNetwork(LandmarkNetwork, Protocol):
    """A network whose feature map can be trained by itself first, under one convolution that gives heatmaps."""

    @property
    def config(self) -> FeatureConfig:
        """The config it was built from."""

    def features(self, crops: torch.Tensor) -> torch.Tensor:
        """Return the map (n, config.dim, S / 4, S / 4); an ``nn.Module``."""


@runtime_checkable
class MeanShapeNetwork(LandmarkNetwork, Protocol):
    """A network that moves points from where they are on the mean of the training faces."""

    @property
    def mean_shape(self) -> torch.Tensor:
        """The mean (L, 2) as fractions of the crop: a buffer, saved with the weights and filled by training."""


class ConfidenceConfig(LandmarkConfig, Protocol):
    """The options of a :class:`ConfidenceNetwork`."""

    @property
    def confidence(self) -> bool:
        """Whether the network is built with the heads."""


@runtime_checkable
class ConfidenceNetwork(LandmarkNetwork, Protocol):
    """A network whose heads say how far its points can be trusted, and whether there is a face.

    They are trained when all else is, which stays as it is; :func:`has_confidence` says whether there are any.
    """

    @property
    def config(self) -> ConfidenceConfig:
        """The config it was built from."""

    @property
    def confidence(self) -> Callable[..., tuple[torch.Tensor, torch.Tensor]] | None:
        """The heads, an ``nn.Module``, or None: features to logits (n, L) and (n,).

        Of the probabilities that a point is within 5% of the eye distance and that the crop shows a face, once
        calibrated. The last layer of each is an ``nn.Linear`` to one value, ``scores`` and ``presence``.
        """

    def forward_features(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return what ``forward`` returns, and the features that the heads are given, (n, ...) each."""


class ConfidentNetwork(ConfidenceNetwork, Protocol):
    """One that was built with the heads."""

    @property
    def confidence(self) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
        """The heads."""


def has_confidence(network: object) -> TypeGuard[ConfidentNetwork]:
    """Say whether ``network`` has heads for the confidence of its points."""
    return isinstance(network, ConfidenceNetwork) and network.confidence is not None
