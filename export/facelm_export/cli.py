"""``facelm-export``, and the same as ``facelm export``: landmark models and detectors, and whole pipelines."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from typer.core import TyperGroup

from facelm_sdk.cli.inspect import scores_in_words
from facelm_sdk.cli.process import run
from facelm_sdk.errors import FacelmError, InputError, MissingDependencyError

if TYPE_CHECKING:
    from facelm_models.catalogue import Entry

    from .job import Exported

MODEL, PRECISION, FORMAT, CHECKS, OUTPUT = "Model", "Precision", "Format", "Checks", "Output"
DETECTOR = "Detector"


def _option(panel: str, *names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


@dataclass(kw_only=True)
class NetworkOptions:
    """What every export takes: the network, how it is rounded, and where the file goes."""

    model: Annotated[str | None, _option(MODEL, "--model", "-m", help="A registered model, e.g. lotr_m.")] = None
    weights: Annotated[Path | None, _option(MODEL, "--weights", help="A weights file; default: the packaged.")] = None
    source: Annotated[
        str | None,
        _option(
            MODEL,
            "--from",
            help="Whose code --weights come from: slpt, star, hrnet, fan, retinaface, retinaface_1mb.",
        ),
    ] = None
    mean_face: Annotated[
        Path | None,
        _option(MODEL, "--mean-face", help="SLPT's mean face: its init_98.npz, or (L, 2) fractions of the crop."),
    ] = None
    markup: Annotated[
        str | None,
        _option(MODEL, "--markup", help="The points' convention; default: the weights' own, else ibug68."),
    ] = None
    decoding: Annotated[
        str | None,
        _option(
            MODEL,
            "--decoding",
            help="Of heatmaps: argmax, local_soft_argmax, structured, expectation, soft_argmax; parameters may follow, "
            "as in local_soft_argmax:window=7,temperature=5.",
        ),
    ] = None
    flip: Annotated[bool, _option(MODEL, "--flip", help="Flip averaging inside the graph.")] = False
    module: Annotated[
        str | None,
        _option(
            MODEL,
            "--import",
            metavar="MODULE",
            help="Your module or .py file that registers a model; its code is run.",
        ),
    ] = None
    precision: Annotated[
        str | None, _option(PRECISION, "--precision", "--dtype", help="fp32, fp16 or int8. (default: fp32)")
    ] = None
    fp16: Annotated[bool, _option(PRECISION, "--fp16", "--half", help="Weights and activations in half precision.")] = (
        False
    )
    int8: Annotated[
        bool,
        _option(
            PRECISION,
            "--int8",
            help="Quantized by calibration; a model alone without --target: a file for each target.",
        ),
    ] = False
    calib: Annotated[
        Path | None,
        _option(
            PRECISION,
            "--calib",
            metavar="DIR",
            help="Pictures with faces to calibrate int8 on; default: those of the package.",
        ),
    ] = None
    format: Annotated[
        str | None,
        _option(
            FORMAT,
            "--format",
            help="onnx, engine (TensorRT), openvino, triton (a server's model repository) or web (a site that runs in "
            "the browser). (default: onnx)",
        ),
    ] = None
    opset: Annotated[int | None, _option(FORMAT, "--opset", help="ONNX opset, 17 to 22.")] = None
    latency: Annotated[
        bool, _option(CHECKS, "--latency/--no-latency", help="Time PyTorch and ONNX Runtime for the report.")
    ] = True
    out: Annotated[
        str | None, _option(OUTPUT, "--out", "--output", "-o", help="A file or a folder; default: the working folder.")
    ] = None

    def given(self, *names: str) -> dict[str, Any]:
        """The options of these names that were given, or have a default here."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def one_precision(self) -> Any:
        """The one precision asked for."""
        flags = {name for name in ("fp16", "int8") if getattr(self, name, False)}
        asked = sorted(flags | ({self.precision} if self.precision is not None else set()))
        if len(asked) > 1:
            raise InputError(f"a file has one precision; {' and '.join(asked)} were asked for")
        return asked[0] if asked else "fp32"


@dataclass(kw_only=True)
class ExportOptions(NetworkOptions):
    """What the export of one model takes as well."""

    list_only: Annotated[bool, _option(MODEL, "--list", help="List the models and stop.")] = False
    random: Annotated[bool, _option(MODEL, "--random", help="Untrained weights, for latency work.")] = False
    target: Annotated[
        str | None,
        _option(FORMAT, "--target", help="What an ONNX file will run on: cpu or tensorrt. (default: cpu)"),
    ] = None
    batch: Annotated[
        int | None, _option(FORMAT, "--batch", "--batch-size", help="Fix the number of crops in a run.")
    ] = None
    dynamic: Annotated[bool, _option(FORMAT, "--dynamic", help="Any number of crops in a run: the default.")] = False
    max_batch: Annotated[
        int | None, _option(FORMAT, "--max-batch", help="The most crops an engine or a server is built for.")
    ] = None
    imgsz: Annotated[
        int | None, _option(FORMAT, "--imgsz", help="The crop size you expect; another one is an error.")
    ] = None
    atol: Annotated[
        float | None,
        _option(CHECKS, "--atol", help="Largest difference from PyTorch, in pixels. (default: the precision's limits)"),
    ] = None


@dataclass(kw_only=True)
class PipelineOptions(NetworkOptions):
    """What the export of a whole pipeline takes as well."""

    detector: Annotated[str | None, _option(DETECTOR, "--detector", help="A registered detector.")] = None
    detector_weights: Annotated[
        Path | None, _option(DETECTOR, "--detector-weights", help="Its weights file; default: the packaged.")
    ] = None
    det_size: Annotated[
        str | None,
        _option(
            DETECTOR,
            "--det-size",
            help="What it sees of a picture: the long side in pixels, or WIDTHxHEIGHT. (default: 320)",
        ),
    ] = None
    det_thresh: Annotated[
        float | None, _option(DETECTOR, "--det-thresh", help="Score threshold of its faces. (default: its own)")
    ] = None


Options = TypeVar("Options", bound=NetworkOptions)


def _with_options(kind: type[Options]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, which takes a context and ``kind``, an option for each field of ``kind``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(kind, include_extras=True)
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("context", keyword, annotation=typer.Context),
            *(inspect.Parameter(f.name, keyword, default=f.default, annotation=hints[f.name]) for f in fields(kind)),
        ]

        def run(context: typer.Context, **values: Any) -> None:
            command(context, kind(**values))

        run.__doc__ = command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {"context": typer.Context} | {f.name: hints[f.name] for f in fields(kind)}
        return run

    return decorate


class _PipelineFlag(TyperGroup):
    """``--pipeline`` among the options is the command ``pipeline``."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        if "--pipeline" in args:
            args = ["pipeline", *(arg for arg in args if arg != "--pipeline")]
        return super().parse_args(context, args)


app = typer.Typer(cls=_PipelineFlag, add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
@_with_options(ExportOptions)
def export_command(context: typer.Context, options: ExportOptions) -> None:
    """Turn a trained PyTorch model into one file that any runtime can feed with raw crops, and prove it.

    A report (.report.md and .report.json) with the parity with PyTorch, the latency and the command lies beside it.
    """
    if context.invoked_subcommand is not None:
        if options != ExportOptions():
            raise typer.BadParameter(f"options come after the command: facelm-export {context.invoked_subcommand} ...")
        return
    with _told() as stderr:
        if options.list_only:
            _list(options)
            return
        _prepare(options)
        _export_model(options, stderr)


@app.command("pipeline")
@_with_options(PipelineOptions)
def pipeline_command(context: typer.Context, options: PipelineOptions) -> None:
    """Detector, crops and a landmark model in one file: picture in, faces out, as Aligner with --det-size.

    It comes with the same report, and runs in plain onnxruntime, in Aligner and in facelm align --model.
    """
    with _told() as stderr:
        _prepare(options)
        _export_pipeline(options, stderr)


def main() -> None:
    """The script's entry."""
    run(lambda: app(prog_name="facelm-export"))


@contextmanager
def _told() -> Iterator[Console]:
    """A console for messages; errors of this project's become one red line on it and exit code 2."""
    logging.basicConfig(level=logging.WARNING)
    stderr = Console(stderr=True)
    try:
        yield stderr
    except KeyboardInterrupt as error:
        stderr.print("interrupted; no half file is left", style="red")
        raise typer.Exit(130) from error
    except BrokenPipeError:  # of stdout: who reads it has enough
        raise
    except (FacelmError, OSError) as error:
        stderr.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def _list(options: ExportOptions) -> None:
    """Print the models, a line each: whether weights are there, their points, crop size and score. Needs no torch."""
    from facelm_models import catalogue

    entries = catalogue.entries()
    if options.module is not None:  # whose models only importing tells
        _prepare(options)
        from facelm_models import list_models

        known = {entry.name for entry in entries}
        entries += [catalogue.Entry(name) for name in list_models() if name not in known]
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        typer.echo(f"{entry.name:{width}}  {_told_of(entry)}")
    if catalogue.weights_folder() is None:
        typer.echo(f"the weights of these networks are a package of their own; type: {catalogue.INSTALL}")


def _told_of(entry: Entry) -> str:
    if entry.accuracy is None:
        return "no weights: --weights FILE, or --random"
    words = ["weights"]
    if entry.points is not None:
        words.append(f"{entry.points} points")
    if entry.size is not None:
        words.append(f"{entry.size} px")
    return "  ".join([*words, *scores_in_words(entry.accuracy)])


def _prepare(options: NetworkOptions) -> None:
    require_torch("exporting", "export,cpu")
    if options.module is not None:
        _import(options.module)


def require_torch(work: str, extras: str) -> None:
    """Raise MissingDependencyError, with the line to type, unless torch and the exporter can be imported."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f'{work} needs {error.name}; type: pip install "facelm-sdk[{extras}]"') from error


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


def _export_model(options: ExportOptions, stderr: Console) -> None:
    from .exporter import export

    model, precision = options.model, options.one_precision()
    if model is None:
        from facelm_models import list_models

        raise InputError(f"--model is missing; models: {', '.join(list_models())}")
    if options.batch is not None and options.dynamic:
        raise InputError(
            "--batch fixes the number of crops, --dynamic leaves it open: give one of them (--max-batch says the most)"
        )
    if options.calib is not None and precision != "int8":
        raise InputError("--calib is for --int8")
    given = options.given(*_NETWORK, "batch", "max_batch", "calib", "random", "imgsz", "atol")
    for target, out in _targets(options, precision):

        def work(progress: Callable[[str], None], target: Any = target, out: str | None = out) -> Exported:
            return export(model, precision=precision, target=target, out=out, progress=progress, **given)

        _tell(_with_progress(stderr, f"{model} for {target}" if target else model, work))


_NETWORK = ("format", "flip", "weights", "source", "mean_face", "decoding", "markup", "opset", "latency")
"""The options that every export takes as they are."""


def _targets(options: ExportOptions, precision: str) -> list[tuple[str | None, str | None]]:
    """What the files are for and where each goes: int8 for both targets, where neither is named.

    onnxruntime is fastest with unsigned activations, which TensorRT does not take.
    """
    out = options.out
    if precision != "int8" or options.target or options.format not in (None, "onnx"):
        return [(options.target, out)]
    second = f"{out.removesuffix('.onnx')}_trt.onnx" if out is not None and out.endswith(".onnx") else out
    return [("cpu", out), ("tensorrt", second)]


def _export_pipeline(options: PipelineOptions, stderr: Console) -> None:
    from .pipeline import export_pipeline

    given = options.given(*_NETWORK, "model", "calib", "detector", "detector_weights", "det_thresh")
    if options.det_size is not None:
        given["det_size"] = _det_size(options.det_size)

    def work(progress: Callable[[str], None]) -> Exported:
        return export_pipeline(precision=options.one_precision(), out=options.out, progress=progress, **given)

    _tell(_with_progress(stderr, "pipeline", work))


def _det_size(text: str) -> int | tuple[int, ...]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise InputError(
            f"--det-size is a long side in pixels or WIDTHxHEIGHT, not {text}; the search over scales (auto) is "
            f"Aligner's alone"
        )
    return int(text) if len(sides) == 1 else tuple(map(int, sides))


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
