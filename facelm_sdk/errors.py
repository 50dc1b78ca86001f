"""Typed errors. Each says what was wrong, what is accepted and, where it helps, what to type."""

from __future__ import annotations


class FacelmError(Exception):
    """Base of every error this project raises on purpose."""


class ImageError(FacelmError, ValueError):
    """A picture could not be read or has a shape, dtype or size that is not accepted."""


class InputError(FacelmError, ValueError):
    """Boxes, points, options or other arguments are not of the accepted form."""


class OutputError(FacelmError, OSError):
    """A file could not be written; nothing of it is left."""


class MarkupError(FacelmError, ValueError):
    """A markup is unknown, or one cannot be converted to the other."""


class ModelError(FacelmError):
    """Base of the errors about a model or its file."""


class UnknownModelError(ModelError, KeyError):
    """No model has that name; the message lists the names there are."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class ModelFileError(ModelError, OSError):
    """A model file is missing, truncated, not a model, or a graph that cannot be run."""


class ContractError(ModelError, ValueError):
    """A model file does not follow the contract (ModelSpec) this version reads."""


class ChecksumError(ModelFileError):
    """A file's sha256 is not the one it must have."""


class EngineError(ModelError):
    """A TensorRT engine cannot be built or run, or is of another TensorRT, GPU or source than it must be."""


class ParityError(ModelError):
    """An exported graph's outputs are further from PyTorch's than the tolerance; no file was written."""


class ProviderError(FacelmError, RuntimeError):
    """An execution provider was asked for and cannot be used (only with ``strict=True``)."""


class MissingDependencyError(FacelmError, ImportError):
    """An optional package is not installed; the message says which line to type."""
