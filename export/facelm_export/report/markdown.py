"""A report as Markdown: short tables, one a topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .latency import NAMES, lines

_FORMATS = {
    "onnx": "ONNX",
    "engine": "TensorRT engine",
    "openvino": "OpenVINO IR",
    "triton": "Triton model repository",
    "web": "site for the browser",
}
_OTHER_GRAPHS = ("engine", "openvino")
"""Formats whose file is made from the ONNX graph that was compared, and is not that graph."""
_TARGETS = {"cpu": "CPU", "tensorrt": "TensorRT"}
_PARITY = {
    "max_px": "largest difference, px",
    "p99_px": "99th percentile, px",
    "mean_px": "mean, px",
    "p99_percent": "99th percentile, % of the face",
    "mean_percent": "mean, % of the face",
    "nme_percent": "NME, %",
    "nme_fp32_percent": "NME of PyTorch fp32, %",
    "delta_nme_percent": "NME grew by, %",
    "unmatched": "faces that only one side finds",
}
_KNOWN = (
    *("file", "name", "task", "markup", "num_landmarks", "precision", "flip", "batch", "data", "licence", "accuracy"),
    *("weights_sha256", "format", "target", "opset", "nodes", "bytes", "sha256", "files", "parity", "tolerance"),
    *("latency", "command", "machine", "versions"),
)


def markdown(report: Mapping[str, Any]) -> str:
    """The text for people of what :func:`facelm_export.report.facts.report` gathered and a format's writer added."""
    more = {key: value for key, value in report.items() if key not in _KNOWN}
    topics = {key: more.pop(key) for key in list(more) if isinstance(more[key], Mapping)}
    parts = [
        f"# {report['file']}",
        _table(_model(report), "Model"),
        _table({**_file(report), **{_words(key): value for key, value in more.items()}}, "File"),
        _files(report.get("files", {})),
        *(_table(facts, _words(key).capitalize()) for key, facts in topics.items()),
        _parity(report),
        _latency(report.get("latency") or {}),
        _made_by(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _model(report: Mapping[str, Any]) -> dict[str, Any]:
    landmarks = {
        "markup": f"{report['markup']}, {report['num_landmarks']} points",
        "flip averaging": "inside the graph" if report["flip"] else "none",
    }
    crops = {"crops in a run": "any number" if report["batch"] == "dynamic" else report["batch"]}
    return {
        "model": report["name"],
        "task": report["task"],
        "precision": report["precision"],
        **({} if report["task"] == "detection" else landmarks),
        **(crops if report["task"] == "landmarks" else {}),
        "training data": report["data"],
        "licence": report["licence"],
        "accuracy": report["accuracy"] or "not stated",
        "weights, sha256": report["weights_sha256"] or "untrained",
    }


def _file(report: Mapping[str, Any]) -> dict[str, Any]:
    facts = {
        "format": _FORMATS.get(report["format"], report["format"]),
        "made for": _TARGETS.get(report["target"], report["target"]),
        "ONNX opset": report["opset"],
        "ONNX nodes": report["nodes"],
        "size": size(report["bytes"]),
    }
    return facts | ({"sha256": report["sha256"]} if report["sha256"] else {})


def size(count: int) -> str:
    """A number of bytes as people read it."""
    return f"{count / 2**20:.2f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def _files(files: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [(name, size(facts["bytes"]), facts["sha256"]) for name, facts in files.items()]
    return _rows(("file", "size", "sha256"), rows) if rows else ""


def _parity(report: Mapping[str, Any]) -> str:
    figures, limits = dict(report["parity"]), report["tolerance"]
    if not figures:
        return ""
    rows = []
    for key in [key for key in figures if key in _PARITY or key in limits]:
        value = figures.pop(key)
        limit = limits.get(key, 0 if key == "unmatched" else None)
        mark = "" if limit is None else "yes" if value <= limit else "no"
        rows.append((_PARITY.get(key, _words(key)), value, "" if limit is None else limit, mark))
    against = figures.pop("against", "PyTorch fp32")
    whose = "Parity of the ONNX graph" if report["format"] in _OTHER_GRAPHS else "Parity"
    text = f"## {whose} with {against}\n\n" + _rows(("", "measured", "allowed", "passed"), rows)
    notes = [f"{_words(key)}: {_text(value)}" for key, value in figures.items()]
    if report["weights_sha256"] is None:
        notes.append("weights are untrained, so a miss did not count")
    return text + (f"\n\n{'; '.join(notes)}" if notes else "")


def _latency(latency: Mapping[str, Any]) -> str:
    if "timed" not in latency:
        return ""
    rows = [
        (NAMES[side], one["threads"], _ms(t["min"]), _ms(t["median"]), f"{_ms(t['q1'])} to {_ms(t['q3'])}", t["runs"])
        for one in latency["timed"]
        for side, t in one["ms"].items()
    ]
    header = ("", "threads", "least, ms", "median, ms", "quartiles, ms", "runs")
    sentences = "\n".join(f"- {line}" for line in lines(latency))
    return f"## Latency\n\n{latency['input']}, one run of each in turn.\n\n{_rows(header, rows)}\n\n{sentences}"


def _ms(value: float) -> str:
    """Three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _made_by(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    where = f"{machine['cpu']}, {machine['cores']} logical cores, {machine['os']} {machine['architecture']}"
    line = f"```\n{report['command']}\n```\n\n" if report.get("command") else ""
    return f"## Made by\n\n{line}" + _rows(("", ""), [("machine", where), ("versions", report["versions"])])


def _table(facts: Mapping[str, Any], title: str) -> str:
    return f"## {title}\n\n" + _rows(("", ""), facts.items())


def _rows(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    cells = [list(header)]
    cells += [["---"] * len(cells[0]), *([_text(value).replace("|", "\\|") for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        values = {_words(str(key)): inner for key, inner in value.items()}
        return ", ".join(
            f"{k} ({_text(v)})" if isinstance(v, Mapping) else f"{k} {_text(v)}" for k, v in values.items()
        )
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
