"""This machine: its processor, what that computes fast, its cores, and the versions installed."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ._optional import load_cv2, load_onnxruntime

_PRODUCTS = ("avx512_vnni", "avx_vnni", "asimddp")
"""Linux' names of instructions that multiply and add four 8-bit pairs at once, without saturating on the way."""
_NUMPY_PRODUCTS = ("AVX512VNNI", "ASIMDDP")
"""The same by numpy, which knows no avx_vnni."""
_MACOS_PRODUCT = "hw.optional.arm.FEAT_DotProd"
_WINDOWS_PRODUCT = 43
"""PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE of Windows' IsProcessorFeaturePresent."""


@dataclass(frozen=True, slots=True)
class Int8:
    """Whether int8 networks are faster than fp32 on this processor, and exact; ``told`` says how that is known."""

    fast: bool
    told: str


def fast_int8() -> bool:
    """Return whether int8 networks are faster than fp32 here and exact; where nothing is known, they are not."""
    return int8().fast


@functools.cache
def int8() -> Int8:
    """Return what the system tells of instructions for 8-bit products; i8mm of Arm comes with asimddp only.

    onnxruntime has no such question. On x86 without them it adds pairs in 16 bits, which saturate: slower, and wrong.
    """
    system, arm = platform.system(), platform.machine().lower() in ("arm64", "aarch64")
    if system == "Linux" and (flags := _linux_flags()):
        return _named("/proc/cpuinfo has", _PRODUCTS, flags.__contains__)
    if system == "Darwin" and arm:
        value = _sysctl(_MACOS_PRODUCT)
        told = "unknown, but all of Apple's have it" if value is None else value
        return Int8(value != 0, f"{_MACOS_PRODUCT} is {told}")
    if system == "Darwin":
        # The system hands 512-bit registers to a thread at its first use of them; until then onnxruntime sees none.
        return Int8(False, "onnxruntime cannot count on AVX-512 on macOS")
    if system == "Windows" and arm:
        has = _windows_has(_WINDOWS_PRODUCT)
        return Int8(has, f"Windows {'has' if has else 'lacks'} PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE")
    return _named("numpy found", _NUMPY_PRODUCTS, _numpy_found)


def _named(who: str, products: Sequence[str], has: Callable[[str], bool]) -> Int8:
    found = [name for name in products if has(name)]
    return Int8(bool(found), f"{who} {' and '.join(found)}" if found else f"{who} none of {', '.join(products)}")


def _linux_flags() -> set[str]:
    """Return what all cores can do; of a machine with two kinds of cores, what both can."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return set()
    cores = [set(line.split()) for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return set.intersection(*cores) if cores else set()


def _sysctl(name: str) -> int | None:
    """Return a number of macOS' sysctl, or None where it has no such."""
    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    try:
        ask = ctypes.CDLL(None).sysctlbyname
    except (OSError, AttributeError):
        return None
    failed = ask(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return None if failed else value.value


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
