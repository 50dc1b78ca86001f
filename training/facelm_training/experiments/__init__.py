"""Small experiments of the papers, repeated: each module runs by itself and writes a JSON and a PNG of its name."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from facelm_sdk.files import write_bytes

from ..figures import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_results(out: Path, name: str, command: str, result: dict[str, Any], figure: Figure) -> None:
    """``out``/``name``.json, with the command and the versions it was made with, and ``name``.png."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    machine = f"{platform.system()} {platform.machine()}, CPU"
    text = json.dumps({"command": command, "machine": machine, "versions": versions, **result}, indent=1)
    write_bytes(out / f"{name}.json", (text + "\n").encode())
    write_bytes(out / f"{name}.png", png(figure))
