"""This machine: its processor, what that computes fast, its cores, and the versions installed."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ._optional import load_cv2, load_onnxruntime

_INTEGER_PRODUCTS = {"avx512_vnni", "avx_vnni", "asimddp"}
"""Flags of processors that multiply and add four 8-bit pairs at once, without saturating on the way."""
_WINDOWS_DOT_PRODUCT = 43
"""PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE of Windows' IsProcessorFeaturePresent."""


@functools.cache
def fast_int8() -> bool:
    """Return whether int8 networks are faster than fp32 here and exact; where nothing is known, they are not.

    Linux names its processors' abilities. Apple's own processors all have dot products, Windows tells of those of Arm
    processors, and on x86 numpy has asked the processor itself.
    """
    system, kind = platform.system(), platform.machine().lower()
    if system == "Linux":
        return _linux_names_products()
    if kind in ("arm64", "aarch64"):
        return system == "Darwin" or (system == "Windows" and _windows_has(_WINDOWS_DOT_PRODUCT))
    return _numpy_found("AVX512VNNI")


def _linux_names_products() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return False
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return bool(lines) and all(_INTEGER_PRODUCTS.intersection(line.split()) for line in lines)


def _windows_has(feature: int) -> bool:
    kernel = getattr(getattr(ctypes, "windll", None), "kernel32", None)
    return kernel is not None and bool(kernel.IsProcessorFeaturePresent(feature))


def _numpy_found(feature: str) -> bool:
    """Return whether numpy saw an ability of the processor; it keeps the table to itself, so that it may be missing."""
    for core in ("numpy._core", "numpy.core"):  # numpy 2 and 1
        with contextlib.suppress(ImportError):
            table = getattr(import_module(f"{core}._multiarray_umath"), "__cpu_features__", {})
            return bool(table.get(feature, False))
    return False


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
