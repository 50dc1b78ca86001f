"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from rich.console import Console

stderr = Console(stderr=True, highlight=False, soft_wrap=True)

DetSizeText = Annotated[
    str, typer.Option(help="auto, the long side in pixels, or WIDTHxHEIGHT: how the detector sees a picture.")
]
VariantText = Annotated[
    str, typer.Option("--variant", "--precision", help="File of an embedded model: auto, fp32, int8.")
]

MinPresence = Annotated[
    float | None,
    typer.Option(help="Drop what the landmark model takes for no face, below this probability. (default: 0.5)"),
]


def det_size_of(text: str) -> Any:
    """The detector's size from its text; what is not a number is left for the Detector to refuse."""
    numbers = text.lower().split("x")
    if not all(number.isdecimal() for number in numbers):
        return text
    return int(text) if len(numbers) == 1 else tuple(map(int, numbers))


def printable(text: str) -> str:
    """Return a text with file names in it as valid Unicode: bytes that are not UTF-8 become ``\\xff`` and the like."""
    surrogates = "surrogatepass" if os.name == "nt" else "surrogateescape"
    return text.encode("utf-8", surrogates).decode("utf-8", "backslashreplace")
