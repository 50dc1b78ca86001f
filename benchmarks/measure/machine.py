"""The machine that is measured on: its threads, its versions and how many multiply-adds it can do."""

from __future__ import annotations

import os
import statistics
import time
from importlib import metadata
from typing import Any

import torch

from facelm_sdk import bench, machine

from ..report.format import FORMAT

THREADS = int(os.environ.get("FACELM_BENCH_THREADS", "2"))
PROCESSOR_TIME = os.environ.get("FACELM_BENCH_CLOCK") == "processor"
CLOCK = time.process_time if PROCESSOR_TIME else time.perf_counter
"""Processor time, of all threads, changes less with what else a busy machine does; users wait by the clock."""
SIDE = 1024
PACKAGES = ("torch", "openvino", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx")


def peak(runs: int = 12) -> float:
    """Billions of multiply-adds a second of an fp32 matrix product, 1024x1024, by PyTorch with its current threads."""
    one, other = torch.rand(2, SIDE, SIDE)
    found = bench.times(lambda: torch.mm(one, other), runs + 2, CLOCK)[2:]
    return SIDE**3 / 1e6 / statistics.median(found)


def circumstances() -> dict[str, Any]:
    """What stands in the results' ``machine_info`` beside pytest-benchmark's own facts."""
    versions = machine.versions()
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "format": FORMAT,
        "threads": THREADS,
        "clock": "processor time of all threads" if PROCESSOR_TIME else "wall-clock time",
        "versions": versions,
        **machine.describe(),
        **gpu,
        "peak_multiply_adds_per_second": round(peak(), 2),
    }
