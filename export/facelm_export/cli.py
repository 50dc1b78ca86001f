"""``facelm-export``, and the same as ``facelm export``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from facelm_sdk.errors import FacelmError, MissingDependencyError

if TYPE_CHECKING:
    from facelm_models.registry import Decoding


def require_torch(work: str, extras: str) -> None:
    """Raise MissingDependencyError, with the line to type, unless torch and the exporter can be imported."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f'{work} needs {error.name}; type: pip install "facelm-sdk[{extras}]"') from error


def export_command(
    model: Annotated[str | None, typer.Option("--model", "-m", help="a registered model, e.g. lotr_m")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="file or folder; default: the working folder")] = None,
    fp16: Annotated[bool, typer.Option("--fp16", "--half", help="weights and activations in half precision")] = False,
    flip: Annotated[bool, typer.Option("--flip", help="flip averaging inside the graph")] = False,
    batch: Annotated[int | None, typer.Option("--batch", help="fix the number of crops; default: any")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="a weights file; default: the packaged")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", help="whose code --weights come from: slpt, star, hrnet, fan, retinaface, retinaface_1mb"
        ),
    ] = None,
    mean_face: Annotated[
        Path | None, typer.Option("--mean-face", help="SLPT's mean face: (L, 2) fractions of the crop")
    ] = None,
    decoding: Annotated[
        str | None, typer.Option("--decoding", help="of heatmaps: argmax, local_soft_argmax or expectation")
    ] = None,
    random: Annotated[bool, typer.Option("--random", help="untrained weights, for latency work")] = False,
    markup: Annotated[
        str | None, typer.Option("--markup", help="the points' convention; default: the weights' own, else ibug68")
    ] = None,
    opset: Annotated[int, typer.Option("--opset", help="ONNX opset, 17 to 22")] = 18,
    list_only: Annotated[bool, typer.Option("--list", help="list the models and stop")] = False,
) -> None:
    """Turn a trained PyTorch model into one ONNX file that any runtime can feed with raw crops."""
    console = Console(stderr=True)
    logging.basicConfig(level=logging.WARNING)
    try:
        require_torch("exporting", "export,cpu")
        if list_only:
            from facelm_models import list_models

            typer.echo("\n".join(list_models()))
            return
        from .exporter import export

        if model is None:
            from facelm_models import list_models

            raise typer.BadParameter(f"--model is missing; models: {', '.join(list_models())}")
        with console.status("starting") as status:
            done = export(
                model,
                precision="fp16" if fp16 else "fp32",
                flip=flip,
                batch=batch,
                weights=weights,
                source=source,
                mean_face=mean_face,
                decoding=cast("Decoding | None", decoding),
                random=random,
                markup=markup,
                opset=opset,
                out=out,
                progress=lambda step: status.update(f"{model}: {step}"),
            )
    except FacelmError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    report = done.report
    typer.echo(
        f"{done.path}  {report['bytes'] / 2**20:.2f} MiB, {report['nodes']} nodes, "
        f"parity with PyTorch fp32: max {report['parity']['max_px']:.4f} px, p99 {report['parity']['p99_px']:.4f} px"
    )
    typer.echo(f"report: {done.report_path}")


def main() -> None:
    """The script's entry."""
    typer.run(export_command)
