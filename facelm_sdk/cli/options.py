"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from ..errors import InputError
from ..files import printable as printable
from ..runtimes.base import PROVIDERS

stderr = Console(stderr=True, highlight=False, soft_wrap=True)

DetSizeText = Annotated[
    str, typer.Option(help="auto, the long side in pixels, or WIDTHxHEIGHT: how the detector sees a picture.")
]
VariantText = Annotated[
    str, typer.Option("--variant", "--precision", help="File of an embedded model: auto, fp32, int8.")
]
ProviderText = Annotated[
    str | None,
    typer.Option(
        "--provider",
        metavar="NAME,...",
        help=f"In the place of --device, first choice first: {', '.join(PROVIDERS)}, or onnxruntime's own names.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Fail where --device or --provider cannot be used, in the place of a warning.")
]

LandmarkModel = Annotated[
    str, typer.Option(help="Landmark model: a name of `facelm models` or a path; or the path of a pipeline.")
]
DetectorModel = Annotated[str, typer.Option(help="Detector: a name or a path.")]
Flip = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", help="Average with the mirrored crop. (default: as the model does)"),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:<index>.")]
DetThresh = Annotated[float | None, typer.Option(help="Score threshold of faces. (default: the model's)")]
MaxFaces = Annotated[int | None, typer.Option(help="Keep the best faces of a picture.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads of a run. (default: 1 for a small network)")]
Workers = Annotated[int | None, typer.Option(help="Pictures done side by side. (default: as many as cores, at most 8)")]
MinPresence = Annotated[
    float | None,
    typer.Option(help="Drop what the landmark model takes for no face, below this probability. (default: 0.5)"),
]


def providers_of(text: str | None, device: str) -> list[str] | None:
    """The providers of ``--provider``, None without it. Raises InputError where ``--device`` says another place."""
    if text is None:
        return None
    if device != "cpu":
        raise InputError(f"--provider {text} and --device {device} both say where to run: give one of them")
    return [name.strip() for name in text.split(",")]


def det_size_of(text: str) -> Any:
    """The detector's size from its text; what is not a number is left for the Detector to refuse."""
    numbers = text.lower().split("x")
    if not all(number.isdecimal() for number in numbers):
        return text
    return int(text) if len(numbers) == 1 else tuple(map(int, numbers))


def counted(count: int, noun: str) -> str:
    """Return a number with what it counts: 1 frame, 2 frames."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
