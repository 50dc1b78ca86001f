"""Where the time of a landmark graph goes, node by node, as onnxruntime's profiler sees it."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from facelm_export.report.samples import portrait_crops
from facelm_sdk.runtimes.onnxruntime import OrtSession

from .interleaved import Variant
from .machine import THREADS

PARTS = ("preprocessing", "network", "decoding")
RUNS = 20

CONVOLUTIONS = {"Conv", "FusedConv", "ConvTranspose", "QLinearConv", "ConvInteger"}
PRODUCTS = {"MatMul", "Gemm", "FusedMatMul", "FusedGemm", "LayerNormalization", "SkipLayerNormalization"}
LAYOUT = {"ReorderInput", "ReorderOutput", "QuantizeLinear", "DequantizeLinear"}
"""Changes of layout and precision that the network's kernels ask for are the network's."""


class Profile:
    """The parts of an .onnx: what no node with weights comes before, what none comes after, and what is between.

    Decoders of heatmaps have products of constants too, so there (``heatmaps``) only convolutions count as the network.
    """

    def __init__(self, path: Path, *, heatmaps: bool) -> None:
        self._path, self._heatmaps = path, heatmaps

    def variant(self, part: str) -> Variant:
        def runs(count: int) -> Sequence[float]:
            return [self.found[index % RUNS][part] for index in range(count)]

        return Variant(runs=runs)

    @functools.cached_property
    def found(self) -> list[dict[str, float]]:
        """Milliseconds of each part, of each of RUNS runs of one crop."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = THREADS
            options.optimized_model_filepath = str(folder / "optimised.onnx")
            options.enable_profiling = True
            options.profile_file_prefix = str(folder / "profile")
            session = onnxruntime.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])
            crops = portrait_crops(OrtSession(self._path).spec, 1)
            for _ in range(5 + RUNS):
                session.run(None, {"crops": crops})
            events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
            parts = part_of(onnx.load(folder / "optimised.onnx"), heatmaps=self._heatmaps)
        return _sums(events, parts)[-RUNS:]


def part_of(model: onnx.ModelProto, *, heatmaps: bool) -> dict[str, str]:
    """Each node's part by its name."""
    kinds = CONVOLUTIONS | LAYOUT | (set() if heatmaps else PRODUCTS)
    nodes = model.graph.node
    behind: set[str] = set()
    for node in nodes:
        if node.op_type in kinds or behind.intersection(node.input):
            behind.update(node.output)
    ahead: set[str] = set()
    for node in reversed(nodes):
        if node.op_type in kinds or ahead.intersection(node.output):
            ahead.update(node.input)
    parts = {}
    for node in nodes:
        inside = node.op_type in kinds or (behind.intersection(node.input) and ahead.intersection(node.output))
        before = not behind.intersection(node.input)
        parts[node.name] = "network" if inside else "preprocessing" if before else "decoding"
    return parts


def _sums(events: list[dict[str, Any]], parts: dict[str, str]) -> list[dict[str, float]]:
    """Milliseconds of each part, a dictionary for each run."""
    ends = sorted(event["ts"] + event["dur"] for event in events if event["name"] == "model_run")
    found = [dict.fromkeys(PARTS, 0.0) for _ in ends]
    for event in events:
        name = event["name"].removesuffix("_kernel_time")
        if event["cat"] == "Node" and name != event["name"]:
            run = int(np.searchsorted(ends, event["ts"]))
            found[run][parts.get(name, "network")] += event["dur"] / 1000
    return found
