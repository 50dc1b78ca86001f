"""The card beside every TensorRT engine: what it was built from, by what and for which GPUs, and its contract."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...contract import LandmarkSpec, ModelSpec
from ...errors import ContractError, ModelFileError

CARD_VERSION = 1
"""The version of the card this package writes and reads."""


def card_path(engine: str | os.PathLike[str]) -> Path:
    """Where the card of an engine lies: ``x.engine.json`` of ``x.engine``."""
    return Path(f"{os.fspath(engine)}.json")


def timing_path(engine: str | os.PathLike[str]) -> Path:
    """Where TensorRT's timing cache of an engine lies: ``x.engine.timing`` of ``x.engine``."""
    return Path(f"{os.fspath(engine)}.timing")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCard:
    """``x.engine.json``, the card of ``x.engine``.

    ``flavour`` is tensorrt or tensorrt_rtx and ``version`` the one that built the engine, ``gpu`` the name of the GPU
    it was built on, None where it was built ahead of time, ``compute_capabilities`` those it runs on ("12.0+": and
    later ones). ``batch``: the fixed number of crops, else None and ``profiles`` hold the (least, best, most) crops of
    each optimisation profile. ``rebuild``: the line to type for a new one, where it is known. ``spec``: the contract.
    """

    flavour: str
    version: str
    gpu: str | None
    compute_capabilities: tuple[str, ...]
    batch: int | None
    profiles: tuple[tuple[int, int, int], ...]
    engine_sha256: str
    source_sha256: str
    rebuild: str | None
    spec: LandmarkSpec

    @property
    def max_batch(self) -> int:
        """The most crops in one run."""
        return self.batch or max(most for _, _, most in self.profiles)

    def to_json(self) -> str:
        """The card's text."""
        values = {"card_version": CARD_VERSION, **{entry.name: getattr(self, entry.name) for entry in fields(self)}}
        return json.dumps({**values, "spec": json.loads(self.spec.to_json())}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> EngineCard:
        """The inverse of :meth:`to_json`. Raises ContractError."""
        try:
            values: dict[str, Any] = json.loads(text)
            version = values.pop("card_version")
            if version != CARD_VERSION:
                raise ContractError(f"it has card_version {version!r}; this facelm-sdk reads {CARD_VERSION}")
            spec = ModelSpec.from_json(json.dumps(values.pop("spec")))
            if not isinstance(spec, LandmarkSpec):
                raise ContractError(f"it is of a model for {spec.task}; engines are of landmark models")
            profiles = tuple((int(least), int(best), int(most)) for least, best, most in values.pop("profiles"))
            targets = tuple(map(str, values.pop("compute_capabilities")))
            card = cls(**values, spec=spec, profiles=profiles, compute_capabilities=targets)
            if card.batch is None and not profiles:
                raise ContractError("it has neither a batch nor a profile")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ContractError(str(error)) from error
        return card

    @classmethod
    def read(cls, engine: str | os.PathLike[str]) -> EngineCard:
        """The card of an engine. Raises ModelFileError where there is none, ContractError where it is not one."""
        path = card_path(engine)
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFileError(
                f"{path} cannot be read ({error}); an engine is opened with the card that is written beside it"
            ) from error
        try:
            return cls.from_json(text)
        except ContractError as error:
            raise ContractError(f"{path} is not an engine's card: {error}") from error

    def runs_on(self, capability: str) -> bool:
        """Whether the engine is for GPUs of this compute capability, such as "8.9"."""
        return covers(self.compute_capabilities, capability)


def covers(targets: Iterable[str], capability: str) -> bool:
    """Whether ``capability``, such as "8.9", is one of ``targets``, of which "12.0+" is 12.0 and all later ones."""
    return any(
        target == capability or (target.endswith("+") and _number(capability) >= _number(target[:-1]))
        for target in targets
    )


def _number(capability: str) -> tuple[int, ...]:
    return tuple(map(int, capability.split(".")))


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()
