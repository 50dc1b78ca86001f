"""What heatmaps lose of the points they encode, without any network (sub-pixel paper, section 4.2 and Fig. 3).

``python -m facelm_training.experiments.fig3_subpixel --data DIR --out DIR``

The annotated points of landmarks68 are encoded and decoded again. The paper's two ways are a quantised centre with
argmax + 0.25 and a continuous centre with the local soft-argmax; the two mixtures tell encoding from decoding. As in
the paper the face fills 220 of the crop's 256 pixels, here give or take 5%, at a random place to within 2%: the points
are whole pixels of the frames they come from, which would otherwise fall on cells for some faces and cost nothing. The
paper prints no sigma: 1 cell here, with others beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from facelm_models.heatmaps import argmax_quarter, encode, encode_quantised, local_soft_argmax
from facelm_sdk import markup as markups
from facelm_sdk.metrics import inter_ocular, nme

from ..figures import new_figure
from . import write_results

FACE = 220 / 256
SIDES = (16, 32, 48, 64, 96, 128)
SIDE = 64
SIGMAS = (0.75, 1.0, 1.5, 2.0)
TEMPERATURES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
CELLS_AT_ONCE = 1 << 21
MARKUP = markups.get("ibug68")
STANDARD, PROPOSED = "quantised, argmax 0.25", "continuous, local soft-argmax"

Encode = Callable[..., torch.Tensor]
Decode = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
WAYS: dict[str, tuple[Encode, Decode]] = {
    STANDARD: (encode_quantised, argmax_quarter),
    "quantised, local soft-argmax": (encode_quantised, local_soft_argmax),
    "continuous, argmax 0.25": (encode, argmax_quarter),
    PROPOSED: (encode, local_soft_argmax),
}


def load(data: Path, limit: int | None = None) -> NDArray[np.float32]:
    """The annotators' points (n, 68, 2) of all faces of landmarks68.npz, or of ``limit`` spread over them."""
    with np.load(data / "landmarks68.npz") as file:
        points: NDArray[np.float32] = file["points"]
    return points if limit is None else points[:: max(1, len(points) // limit)][:limit]


def crop_fractions(
    points: NDArray[np.float32],  # (n, L, 2) pixels
) -> torch.Tensor:  # (n, L, 2) fractions of a crop about the face
    """Points in a square crop about their box, whose longer side is about FACE of the crop's."""
    rng = np.random.default_rng(0)
    scale, shift = rng.uniform(0.95, 1.05, (len(points), 1, 1)), rng.uniform(-0.02, 0.02, (len(points), 1, 2))
    low, high = points.min(1, keepdims=True), points.max(1, keepdims=True)
    side = (high - low).max(-1, keepdims=True) / FACE
    return torch.from_numpy(((points - (low + high) / 2) * scale / side + shift + 0.5).astype(np.float32))


def round_trip(
    points: torch.Tensor,  # (n, 68, 2) fractions
    encoder: Encode,
    decoder: Decode,
    side: int,
    *,
    sigma: float = 1.0,
) -> NDArray[np.float64]:  # (n,)
    """Inter-ocular NME of each face, in percent, after encoding into ``side`` x ``side`` cells and decoding."""
    chunk = max(1, CELLS_AT_ONCE // (points.shape[1] * side**2))
    decoded = [decoder(encoder(part, (side, side), sigma=sigma))[0] for part in torch.split(points, chunk)]
    return 100 * nme(torch.cat(decoded).numpy(), points.numpy(), inter_ocular(points.numpy(), MARKUP))


def _summary(errors: NDArray[np.float64]) -> dict[str, float]:
    statistics = {"mean": errors.mean(), "median": np.median(errors), "max": errors.max()}
    return {name: round(float(value), 4) for name, value in statistics.items()}


def by_options(points: torch.Tensor) -> dict[str, Any]:
    """Mean NME on SIDE cells: the four ways by sigma, and the paper's way by sigma and temperature."""
    ways = {
        name: {str(s): round(float(round_trip(points, *way, SIDE, sigma=s).mean()), 4) for s in SIGMAS}
        for name, way in WAYS.items()
    }
    temperatures = {
        str(t): {
            str(s): round(
                float(round_trip(points, encode, partial(local_soft_argmax, temperature=t), SIDE, sigma=s).mean()), 4
            )
            for s in SIGMAS
        }
        for t in TEMPERATURES
    }
    return {"mean NME by sigma": ways, f"mean NME of {PROPOSED} by temperature and sigma": temperatures}


def draw(errors: dict[str, dict[int, NDArray[np.float64]]], side: int) -> Any:
    """Left the paper's figure, every face's error at ``side`` cells; right the mean over resolutions."""
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    styles = dict(zip(errors, ("tab:blue", "tab:cyan", "tab:green", "tab:orange"), strict=True))
    for name in (STANDARD, PROPOSED):
        values = np.sort(errors[name][side])
        left.plot(
            np.linspace(0, 100, len(values)), values, color=styles[name], label=f"{name}: mean {values.mean():.2f}"
        )
    left.set(xlabel="faces, %, sorted by error", ylabel="inter-ocular NME, %", ylim=(0, None))
    left.set_title(f"encoding + decoding alone, {side}x{side} cells", fontsize=10)
    left.legend(fontsize=8)
    for name, by_side in errors.items():
        means = [values.mean() for values in by_side.values()]
        line = "o-" if name in (STANDARD, PROPOSED) else "s:"
        right.plot(list(by_side), means, line, color=styles[name], label=name, linewidth=1.5, markersize=4)
    right.set(xscale="log", yscale="log", xlabel="cells a side", ylabel="mean inter-ocular NME, %")
    right.set_xticks(list(by_side), [str(s) for s in by_side])
    right.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    right.minorticks_off()
    right.grid(alpha=0.3)
    right.set_title("by resolution", fontsize=10)
    right.legend(fontsize=8)
    return figure


def run(
    data: Path, out: Path, *, limit: int | None = None, sides: tuple[int, ...] = SIDES, options_on: int = 400
) -> dict[str, Any]:
    """The whole experiment, by sigma and temperature on ``options_on`` faces; the result is what the JSON holds."""
    points = crop_fractions(load(data, limit))
    errors = {name: {side: round_trip(points, *way, side) for side in sides} for name, way in WAYS.items()}
    fewer = crop_fractions(load(data, min(options_on, limit or options_on)))
    result = {
        "data": "landmarks68, the annotators' points",
        "faces": len(points),
        "unit": "inter-ocular NME, %",
        "sigma": 1.0,
        "window": 5,
        "temperature": 10.0,
        "by cells a side": {
            name: {str(side): _summary(values) for side, values in by_side.items()} for name, by_side in errors.items()
        },
        f"on {SIDE} cells": {"faces": len(fewer), **by_options(fewer)},
    }
    command = "python -m facelm_training.experiments.fig3_subpixel --data DIR --out training/results"
    write_results(out, "fig3_subpixel", command, result, draw(errors, SIDE if SIDE in sides else sides[-1]))
    return result


def main(
    data: Annotated[Path, typer.Option(help="the folder with landmarks68.npz")],
    out: Annotated[Path, typer.Option(help="where fig3_subpixel.json and .png go")],
) -> None:
    """Encode and decode the points of landmarks68."""
    for name, by_side in run(data, out)["by cells a side"].items():
        typer.echo(f"{name}: " + ", ".join(f"{side} cells {values['mean']}" for side, values in by_side.items()))


if __name__ == "__main__":
    typer.run(main)
