"""What goes into the writer of a format, and what comes out of an export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from facelm_sdk.contract import ModelSpec

Format = Literal["onnx", "engine", "openvino", "triton", "web"]


@dataclass(frozen=True)
class ExportJob:
    """A proven ONNX graph, from which the files of every format are made.

    ``path``: the file or folder wanted. ``batch``: the fixed number of crops, None for any; ``max_batch``: the most
    that a format which must know it is built for; ``command``: the line that makes the files again.
    """

    data: bytes
    spec: ModelSpec
    path: Path
    batch: int | None
    max_batch: int
    progress: Callable[[str], None]
    command: str = ""


@dataclass(frozen=True)
class Exported:
    """Where the file and its report lie, and what the report says."""

    path: Path
    report_path: Path
    spec: ModelSpec
    report: dict[str, Any]
