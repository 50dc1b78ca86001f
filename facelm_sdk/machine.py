"""This machine: its processor, what that computes fast, its cores, and the versions installed."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from ._optional import load_cv2, load_onnxruntime

_INTEGER_PRODUCTS = {"avx512_vnni", "avx_vnni", "asimddp"}
"""Flags of processors that multiply and add four 8-bit pairs at once, without saturating on the way."""


@functools.cache
def fast_int8() -> bool:
    """Whether int8 networks are faster than fp32 here and exact: as Linux tells; elsewhere nothing is assumed."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return False
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return bool(lines) and all(_INTEGER_PRODUCTS.intersection(line.split()) for line in lines)


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def usable_cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """What timings depend on; nothing that names the machine or its user."""
    return {"cpu": cpu_model(), "cores": usable_cores(), "os": platform.system(), "architecture": platform.machine()}


def versions() -> dict[str, str]:
    """Versions of what a run goes through."""
    from . import __version__

    return {
        "facelm-sdk": __version__,
        "onnxruntime": load_onnxruntime().__version__,
        "opencv": load_cv2().__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
