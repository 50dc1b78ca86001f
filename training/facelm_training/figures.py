"""Figures that need no screen."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facelm_sdk.files import write_bytes
from facelm_sdk.metrics import ced, summary

from ._optional import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .reliability import Bins


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches."""
    figure: Figure = load("matplotlib.figure", "the plot").Figure(figsize=(width, height), layout="constrained")
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a picture."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100, metadata={"Software": None})
    return picture.getvalue()


def plot_ced(
    errors: dict[str, Any],
    path: Path,
    title: str,
    *,
    normaliser: str = "inter-ocular",
    limit: float = 0.12,
) -> None:
    """Cumulative error distributions up to ``limit`` as a PNG; a face not found counts as one of infinite error."""
    thresholds = np.linspace(0, limit, 241)
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    for name, values in errors.items():
        mean = summary(values)["nme"]
        label = f"{name}: {'none found' if mean is None else f'{mean:.2f}%'}"
        axes.plot(100 * thresholds, 100 * ced(values, thresholds), label=label)
    axes.set(xlabel=f"{normaliser} NME, %", ylabel="faces, %", title=title, xlim=(0, 100 * limit), ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    write_bytes(path, png(figure))


def plot_reliability(curves: Mapping[str, Bins], path: Path, title: str) -> None:
    """Reliability diagrams as a PNG: how many points of each bin of scores were right, and how many it has."""
    figure = new_figure(7, 5.5)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    upper.plot((0, 100), (0, 100), color="0.6", linestyle="--", linewidth=1)
    for name, bins in curves.items():
        some = bins.counts > 0
        label = f"{name}: ECE {bins.error:.3f}"
        upper.plot(100 * bins.scores[some], 100 * bins.right[some], marker="o", markersize=3, label=label)
        lower.plot(100 * bins.scores[some], 100 * bins.counts[some] / bins.counts.sum(), marker="o", markersize=3)
    upper.set(ylabel="points within 5% of the eye distance, %", title=title, xlim=(0, 100), ylim=(0, 100))
    lower.set(xlabel="score, %", ylabel="points, %")
    upper.grid(alpha=0.3)
    lower.grid(alpha=0.3)
    upper.legend(fontsize=8)
    write_bytes(path, png(figure))


def plot_thresholds(table: Mapping[str, Mapping[str, float]], path: Path, title: str) -> None:
    """A detector's scores, in percent, over its threshold as a PNG: a row a threshold, a curve a column."""
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    thresholds = [float(threshold) for threshold in table]
    for name in next(iter(table.values())):
        axes.plot(thresholds, [row[name] for row in table.values()], label=name)
    axes.set(xlabel="score threshold", ylabel="percent", xlim=(0, 1), ylim=(0, 101), title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left")
    write_bytes(path, png(figure))
