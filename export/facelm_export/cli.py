"""``facelm-export``, and the same as ``facelm export``."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from facelm_sdk.errors import FacelmError, InputError, MissingDependencyError

if TYPE_CHECKING:
    from .job import Exported

MODEL, PRECISION, FORMAT, CHECKS, OUTPUT = "Model", "Precision", "Format", "Checks", "Output"
PIPELINE = "Whole pipeline"


def require_torch(work: str, extras: str) -> None:
    """Raise MissingDependencyError, with the line to type, unless torch and the exporter can be imported."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f'{work} needs {error.name}; type: pip install "facelm-sdk[{extras}]"') from error


def export_command(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A registered model, e.g. lotr_m.", rich_help_panel=MODEL)
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="List the models and stop.", rich_help_panel=MODEL)] = False,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="A weights file; default: the packaged.", rich_help_panel=MODEL)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Whose code --weights come from: slpt, star, hrnet, fan, retinaface, retinaface_1mb.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    mean_face: Annotated[
        Path | None,
        typer.Option("--mean-face", help="SLPT's mean face: (L, 2) fractions of the crop.", rich_help_panel=MODEL),
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Untrained weights, for latency work.", rich_help_panel=MODEL)
    ] = False,
    markup: Annotated[
        str | None,
        typer.Option(
            "--markup",
            help="The points' convention; default: the weights' own, else ibug68.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    decoding: Annotated[
        str | None,
        typer.Option(
            "--decoding", help="Of heatmaps: argmax, local_soft_argmax, structured, expectation.", rich_help_panel=MODEL
        ),
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Flip averaging inside the graph.", rich_help_panel=MODEL)
    ] = False,
    module: Annotated[
        str | None,
        typer.Option(
            "--import",
            metavar="MODULE",
            help="Your module or .py file that registers a model; its code is run.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", "--dtype", help="fp32, fp16 or int8. (default: fp32)", rich_help_panel=PRECISION),
    ] = None,
    fp16: Annotated[
        bool,
        typer.Option("--fp16", "--half", help="Weights and activations in half precision.", rich_help_panel=PRECISION),
    ] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Quantized by calibration; without --target, a file for each target.",
            rich_help_panel=PRECISION,
        ),
    ] = False,
    calib: Annotated[
        Path | None,
        typer.Option(
            "--calib",
            metavar="DIR",
            help="Pictures with faces to calibrate int8 on; default: those of the package.",
            rich_help_panel=PRECISION,
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="onnx, engine (TensorRT), openvino or triton (a server's model repository). (default: onnx)",
            rich_help_panel=FORMAT,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", help="What an ONNX file will run on: cpu or tensorrt. (default: cpu)", rich_help_panel=FORMAT
        ),
    ] = None,
    opset: Annotated[int | None, typer.Option("--opset", help="ONNX opset, 17 to 22.", rich_help_panel=FORMAT)] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", "--batch-size", help="Fix the number of crops in a run.", rich_help_panel=FORMAT),
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Any number of crops in a run: the default.", rich_help_panel=FORMAT)
    ] = False,
    max_batch: Annotated[
        int | None,
        typer.Option("--max-batch", help="The most crops an engine or a server is built for.", rich_help_panel=FORMAT),
    ] = None,
    imgsz: Annotated[
        int | None,
        typer.Option("--imgsz", help="The crop size you expect; another one is an error.", rich_help_panel=FORMAT),
    ] = None,
    pipeline: Annotated[
        bool,
        typer.Option(
            "--pipeline",
            help="Detector, alignment and --model in one file: picture in, faces out.",
            rich_help_panel=PIPELINE,
        ),
    ] = False,
    detector: Annotated[
        str | None, typer.Option("--detector", help="The pipeline's detector.", rich_help_panel=PIPELINE)
    ] = None,
    det_size: Annotated[
        str | None,
        typer.Option(
            "--det-size",
            help="What it sees of a picture: auto, the long side in pixels, or WIDTHxHEIGHT. (default: auto)",
            rich_help_panel=PIPELINE,
        ),
    ] = None,
    det_thresh: Annotated[
        float | None, typer.Option("--det-thresh", help="Score threshold of its faces.", rich_help_panel=PIPELINE)
    ] = None,
    atol: Annotated[
        float | None,
        typer.Option(
            "--atol",
            help="Largest difference from PyTorch, in pixels. (default: the precision's limits)",
            rich_help_panel=CHECKS,
        ),
    ] = None,
    latency: Annotated[
        bool,
        typer.Option(
            "--latency/--no-latency", help="Time PyTorch and ONNX Runtime for the report.", rich_help_panel=CHECKS
        ),
    ] = True,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "--output", "-o", help="A file or a folder; default: the working folder.", rich_help_panel=OUTPUT
        ),
    ] = None,
) -> None:
    """Turn a trained PyTorch model into one file that any runtime can feed with raw crops, and prove it.

    A report (.report.md and .report.json) with the parity with PyTorch, the latency and the command lies beside it.
    """
    options = dict(locals())
    logging.basicConfig(level=logging.WARNING)
    stderr = Console(stderr=True)
    try:
        require_torch("exporting", "export,cpu")
        if module is not None:
            _import(module)
        if list_only:
            from facelm_models import list_models

            typer.echo("\n".join(list_models()))
        elif pipeline:
            _export_pipeline(options, stderr)
        else:
            _export_model(options, stderr)
    except KeyboardInterrupt as error:
        stderr.print("interrupted; no half file is left", style="red")
        raise typer.Exit(130) from error
    except (FacelmError, OSError) as error:
        stderr.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def main() -> None:
    """The script's entry."""
    typer.run(export_command)


def _import(module: str) -> None:
    """Run a user's module, which registers models. One that was imported already is not run again."""
    path = Path(module)
    file = path.suffix == ".py"
    folder = str(path.resolve().parent if file else Path.cwd())  # from where it may import others, as under python
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        if file:
            _run_file(path.resolve())
        else:
            importlib.import_module(module)
    except Exception as error:  # whatever a user's code may raise
        raise InputError(f"--import {module} failed: {type(error).__name__}: {error}") from error


def _run_file(path: Path) -> None:
    name = f"_facelm_import_{path.stem}"  # not its stem alone, which a package may have
    if getattr(sys.modules.get(name), "__file__", None) == str(path):
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    loaded = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[name]
        raise


def _export_model(options: dict[str, Any], stderr: Console) -> None:
    from .exporter import export

    model = options["model"]
    if model is None:
        from facelm_models import list_models

        raise InputError(f"--model is missing; models: {', '.join(list_models())}")
    if stray := [
        f"--{name.replace('_', '-')}" for name in ("detector", "det_size", "det_thresh") if options[name] is not None
    ]:
        raise InputError(f"{', '.join(stray)} is for --pipeline")
    precision = _precision(options)
    if options["batch"] is not None and options["dynamic"]:
        raise InputError(
            "--batch fixes the number of crops, --dynamic leaves it open: give one of them (--max-batch says the most)"
        )
    if options["calib"] is not None and precision != "int8":
        raise InputError("--calib is for --int8")
    given = {name: options[name] for name in _TAKEN if options[name] is not None}
    # onnxruntime is fastest with unsigned activations, which TensorRT does not take.
    both = precision == "int8" and not options["target"] and options["format"] in (None, "onnx")
    for target in ("cpu", "tensorrt") if both else (options["target"],):
        out = options["out"]
        if both and target == "tensorrt" and out is not None and out.endswith(".onnx"):
            out = f"{out.removesuffix('.onnx')}_trt.onnx"
        what = f"{model} for {target}" if both else model

        def work(progress: Callable[[str], None], target: Any = target, out: str | None = out) -> Exported:
            return export(model, precision=precision, target=target, out=out, progress=progress, **given)

        _tell(_with_progress(stderr, what, work))


_TAKEN = (
    *("format", "flip", "batch", "max_batch", "calib", "weights", "source", "mean_face", "random", "decoding"),
    *("markup", "opset", "imgsz", "atol", "latency"),
)
"""The options that export takes as they are."""

_NOT_OF_A_PIPELINE = (
    *("target", "batch", "max_batch", "calib", "weights", "source", "mean_face", "random", "decoding"),
    *("markup", "imgsz", "atol", "dynamic"),
)


def _export_pipeline(options: dict[str, Any], stderr: Console) -> None:
    from facelm_sdk.cli.options import det_size_of

    from .pipeline import export_pipeline

    if stray := [f"--{name.replace('_', '-')}" for name in _NOT_OF_A_PIPELINE if options[name] not in (None, False)]:
        raise InputError(f"--pipeline does not take {', '.join(stray).replace('--source', '--from')}")
    taken = {
        "model": "landmarks",
        "detector": "detector",
        "det_thresh": "det_thresh",
        "opset": "opset",
        "format": "format",
    }
    given = {name: options[option] for option, name in taken.items() if options[option] is not None}
    if options["det_size"] is not None:
        given["det_size"] = size = det_size_of(options["det_size"])
        if isinstance(size, str) and size != "auto":
            raise InputError(f"--det-size is auto, a long side in pixels or WIDTHxHEIGHT, not {size}")

    def work(progress: Callable[[str], None]) -> Exported:
        return export_pipeline(
            precision=_precision(options),
            flip=options["flip"],
            latency=options["latency"],
            out=options["out"],
            progress=progress,
            **given,
        )

    _tell(_with_progress(stderr, "pipeline", work))


def _precision(options: dict[str, Any]) -> Any:
    """The one precision asked for."""
    given = {"fp16": options["fp16"], "int8": options["int8"], options["precision"]: options["precision"] is not None}
    asked = sorted(name for name, is_asked in given.items() if is_asked)
    if len(asked) > 1:
        raise InputError(f"a file has one precision; {' and '.join(asked)} were asked for")
    return asked[0] if asked else "fp32"


def _with_progress(stderr: Console, what: str, work: Callable[[Callable[[str], None]], Exported]) -> Exported:
    """Do the work behind a line that tells its step and how long it has taken."""
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task(f"{what}: starting", total=None)
        return work(lambda step: progress.update(task, description=f"{what}: {step}"))


def _tell(done: Exported) -> None:
    """What was made, in a few lines."""
    from .report.latency import lines
    from .report.markdown import size

    report = done.report
    parity, latency = report["parity"], report.get("latency")
    total = sum(file["bytes"] for file in report["files"].values()) if "files" in report else report["bytes"]
    against = parity.get("against", "PyTorch fp32")
    # An engine is not run here, and OpenVINO's file is compared with the ONNX graph that was compared with PyTorch.
    whose = "parity of its ONNX graph" if report.get("format") in ("engine", "openvino") else "parity"
    typer.echo(
        f"{done.path}  {size(total)}, {report['nodes']} nodes, "
        f"{whose} with {against}: max {parity['max_px']:.4f} px, p99 {parity['p99_px']:.4f} px"
    )
    for line in lines(latency) if latency else ():
        typer.echo(f"latency: {line}")
    typer.echo(f"report: {done.report_path.with_suffix('.md')}")
