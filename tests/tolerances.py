"""The one table of tolerances: how far two ways to compute the same thing may lie apart."""

from __future__ import annotations

PIXELS = {"fp32": 0.01, "fp16": 0.1}
"""Points and boxes of an exported file against PyTorch fp32, by the file's precision: the largest error in pixels."""

REWRITE = {"rtol": 1e-4, "atol": 1e-4}
"""The same fp32 function with its operations in another order: a folded batch norm, a mean outside the graph."""

ROUND_TRIP = {"rtol": 1e-4, "atol": 1e-3}
"""Encoding and decoding again, fp32, in pixels."""

GRADIENT = {"rtol": 1e-4, "atol": 1e-5}
"""Gradients of the same fp32 function from another formula."""

PAPER = 0.01
"""Sizes against those a paper prints, relative."""
