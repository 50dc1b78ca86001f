"""What this machine's processor computes fast."""

from __future__ import annotations

import functools
from pathlib import Path

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
