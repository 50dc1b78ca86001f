"""What this project set out to reach, each as one figure of a run, and whether it was met."""

from __future__ import annotations

from dataclasses import dataclass

from .results import Entry, Run


@dataclass(frozen=True)
class Target:
    """``value`` is to be at least (``at_least``) or at most ``limit``; None where it was not measured."""

    what: str
    value: float | None
    limit: float
    at_least: bool = False
    unit: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        met = self.value >= self.limit if self.at_least else self.value <= self.limit
        return "met" if met else "missed"

    @property
    def wanted(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}{self.unit}"

    @property
    def found(self) -> str:
        return "" if self.value is None else f"{self.value:.3g}{self.unit}"


FASTER = {
    "pyramid_m": 6.0,
    "lotr_m_128": 6.0,
    "lotr_m": 6.0,
    "slpt_hrnet18": 4.0,
    "hourglass4": 2.5,
    "hrnet18": 2.5,
    "fan2": 2.5,
    "fan2_s": 2.5,
}
FULL = ("mtld_r18", "hourglass4", "hrnet18")
"""Of the ResNet, hourglass and HRNet families: these should do half of what the machine can."""


def targets(run: Run) -> list[Target]:
    """All of them, with what this run found."""
    found = [
        _peer(run, "static", "mediapipe_static", "Aligner, 640x480, one face / MediaPipe FaceMesh static"),
        _peer(run, "tracking", "mediapipe_tracking", "Tracker, 640x480, one face / MediaPipe FaceMesh tracking"),
    ]
    for model, limit in FASTER.items():
        eager = run.find("landmarks", model=model, batch=1, backend="eager")
        fast = [_landmarks(run, model, "onnxruntime", "fp32"), _landmarks(run, model, "onnxruntime", "int8")]
        fast += [_landmarks(run, model, "openvino", kind) for kind in ("fp32", "bf16", "int8")]
        there = [entry for entry in fast if entry is not None]
        best = min(there, key=lambda entry: entry.median) if there else None
        side = f" ({best.side})" if best else ""
        found.append(Target(f"{model}: PyTorch eager / fastest backend{side}", _ratio(eager, best), limit, True, "x"))
        what = f"{model}: PyTorch eager / onnxruntime fp32"
        found.append(Target(what, _ratio(eager, fast[0]), limit, True, "x"))
    for model in run.models("parts"):
        parts = {name: run.find("parts", model=model, precision="fp32", part=name) for name in PARTS}
        around = [parts["preprocessing"], parts["decoding"]]
        network = parts["network"]
        share = None
        if network is not None and all(around):
            share = 100 * sum(entry.median for entry in around if entry) / network.median
        found.append(Target(f"{model}: preprocessing and decoding / network, in the graph", share, 5.0, unit="%"))
    for model in run.models("flip"):
        flip = _ratio(run.find("flip", model=model, flip=True), run.find("flip", model=model, flip=False))
        found.append(Target(f"{model}: with flip averaging / without", flip, 1.9, unit="x"))
    flip = _ratio(run.find("aligner_flip", flip=True), run.find("aligner_flip", flip=False))
    found.append(Target("Aligner, one face: with flip averaging / without", flip, 1.9, unit="x"))
    ways = (run.find("sixteen_faces", way="one_picture"), run.find("sixteen_faces", way="single_calls"))
    found.append(Target("16 faces in one picture / 16 single calls", _ratio(*ways), 0.8, unit="x"))
    for source in ("array", "jpeg", "jpeg12mp"):
        ways = (run.find("batch", source=source, way="loop"), run.find("batch", source=source, way="batch"))
        found.append(Target(f"16 pictures, {source}: a plain loop / Aligner.batch", _ratio(*ways), 1.7, True, "x"))
    for model in FULL:
        entry = _landmarks(run, model, "onnxruntime", "fp32")
        share = entry.info.get("share_of_peak") if entry else None
        found.append(Target(f"{model}: multiply-adds a second / the machine's fp32 rate", share, 0.5, True))
    start = run.find("cold_start", who="facelm")
    found.append(Target("memory of a process with an Aligner", start and start.info["rss_mb"], 200, unit=" MB"))
    beside = _ratio(start, run.find("cold_start", who="mediapipe"))
    found.append(Target("cold start / MediaPipe's", beside, 1.0, unit="x"))
    return found


PARTS = ("preprocessing", "network", "decoding")


def _peer(run: Run, test: str, who: str, what: str) -> Target:
    return Target(what, _ratio(run.find(test, who="facelm"), run.find(test, who=who)), 1.0, unit="x")


def _landmarks(run: Run, model: str, backend: str, precision: str) -> Entry | None:
    return run.find("landmarks", model=model, batch=1, backend=backend, precision=precision)


def _ratio(one: Entry | None, other: Entry | None) -> float | None:
    return None if one is None or other is None else one.median / other.median
