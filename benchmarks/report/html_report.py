"""What a report says, as HTML and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .charts import Series, bars, points
from .results import Entry, Run, milliseconds
from .targets import PARTS, Target, targets

METHOD = (
    "Sides of a comparison are measured in one run, in turns, in blocks of at most 20 runs; the first run of a block "
    "is not counted.",
    "Figures are medians, with quartiles where they stand in brackets; all that is called PyTorch eager runs the "
    "readable modules that the files were exported from, in inference mode.",
    "Threads are the same for onnxruntime, OpenVINO, PyTorch and OpenCV; a peer runs in a process of its own that is "
    "kept to as many cores.",
    "Where times are processor time, no waiting is in them, such as of a peer's threads for each other.",
    "A peer is scored on whole pictures by its own detector: faces of 300-W's common test set, and pictures without a "
    "face, whose kinds, though not these pictures, ours was trained on.",
    "Models whose weights do not come with the package are untrained: their times mean something, their points do not.",
    "A machine's peak is an fp32 matrix product of 1024x1024 by PyTorch, measured before and after each comparison; "
    "the share of int8 and bf16 is of that fp32 rate, too.",
)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2rem auto; padding: 0 1rem; color: #1f2328; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #d1d9e0; padding-bottom: .3rem; }
table { border-collapse: collapse; margin: .8rem 0; font-size: 13.5px; }
td, th { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid #d1d9e0; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.missed td { background: #ffebe9; } tr.met td { background: #dafbe1; } tr.unknown td { color: #656d76; }
svg { width: 100%; height: auto; } svg text { font: 11.5px system-ui, sans-serif; fill: #1f2328; }
.grid { stroke: #e6eaef; } .axis { stroke: #57606a; } code { font-size: 13px; overflow-wrap: anywhere; }
"""

Table = tuple[Sequence[str], list[list[str]]]


def accuracies(run: Run, results: Path) -> dict[str, float]:
    """NME in % by model, where it is known: from the models' own contracts, else from the training's results."""
    known: dict[str, float] = {}
    if results.is_file():
        for row in json.loads(results.read_text("utf-8")):
            known[row["model"]] = row["val_nme"]
    stated = (
        (entry.params["model"], _nme(entry.info["accuracy"])) for entry in run.entries if "accuracy" in entry.info
    )
    return {**known, **{model: value for model, value in reversed(list(stated)) if value is not None}}


def _nme(accuracy: Mapping[str, Any]) -> float | None:
    """The first NME of a contract's nested figures."""
    for key, value in accuracy.items():
        found = _nme(value) if isinstance(value, Mapping) else value if key == "nme" else None
        if found is not None:
            return float(found)
    return None


def html(run: Run, known: Mapping[str, float]) -> str:
    """The whole page; nothing in it comes from elsewhere."""
    met = targets(run)
    sections = [
        ("Targets", _targets(met)),
        ("Against others", _peers(run)),
        ("Latency against accuracy", _accuracy(run, known)),
        ("Batches", _batches(run)),
        ("Where the time goes", _stages(run) + _parts(run)),
        ("What the machine can do", _peak(run)),
        ("Threads", _html_table(_threads(run))),
        ("All comparisons", _html_table(comparisons(run))),
        ("Not run", _html_table(not_run(run))),
        ("How it was measured", "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in METHOD) + "</ul>"),
    ]
    facts = "".join(f"<li>{escape(name)}: {escape(text)}</li>" for name, text in circumstances(run))
    body = "".join(f"<h2>{title}</h2>{content}" for title, content in sections)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>facelm-sdk benchmarks</title>'
        f"<style>{STYLE}</style><h1>facelm-sdk benchmarks</h1><ul>{facts}</ul>{body}</html>\n"
    )


def markdown(run: Run) -> str:
    """The same figures without the charts."""
    facts = "\n".join(f"- {name}: {text}" for name, text in circumstances(run))
    method = "\n".join(f"- {line}" for line in METHOD)
    sections = {
        "Targets": (("target", "wanted", "found", ""), [[t.what, t.wanted, t.found, t.verdict] for t in targets(run)]),
        "Peers": peers(run),
        "Comparisons": comparisons(run),
        "Share of the machine's fp32 rate": _shares(run),
        "Not run": not_run(run),
    }
    tables = "\n".join(f"## {title}\n\n{_markdown_table(table)}" for title, table in sections.items())
    return f"# Benchmarks\n\n{facts}\n\n{tables}\n## How it was measured\n\n{method}\n"


def circumstances(run: Run) -> list[tuple[str, str]]:
    """The machine, the versions, when and how."""
    m = run.machine
    gpu = f", {m['gpu']}" if "gpu" in m else ""
    rate = m["peak_multiply_adds_per_second"]
    return [
        ("Machine", f"{m['cpu']}, {m['cores']} cores{gpu}, {m['os']} {m['architecture']}; {m['threads']} threads used"),
        ("Times are", m.get("clock", "wall-clock time")),
        ("fp32 matrix product", f"{rate:.0f} billion multiply-adds a second at the end of the run"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in m["versions"].items())),
        ("When and how", f"{run.date}, {m['command']}"),
    ]


def comparisons(run: Run) -> Table:
    """Every side of every comparison, and its time in parts of the first side's."""
    rows = []
    for group, entries in run.groups().items():
        for entry in entries:
            stats = {name: milliseconds(1000 * entry.stats[name]) for name in ("median", "q1", "q3")}
            tails = [milliseconds(1000 * entry.info[name]) for name in ("p90", "p99")]
            ratio = "" if entry is entries[0] else f"{entries[0].median / entry.median:.2f}"
            time = f"{stats['median']} ({stats['q1']}-{stats['q3']})"
            rows.append([group, entry.side, time, *tails, ratio])
    return ("comparison", "side", "ms", "p90", "p99", "times faster than the first"), rows


def peers(run: Run) -> Table:
    """Time, faces found, false ones and error of each finder of faces, so that no speed is bought with error unseen."""
    heads = (
        "finder",
        "ms, one face",
        "in parts of ours",
        "ms, no face",
        "300-W common, found",
        "a face seen where none is",
    )
    one, none = (
        {
            entry.params["who"]: entry
            for entry in run.entries
            if entry.test == "peers" and entry.params["faces"] == faces
        }
        for faces in ("one", "none")
    )
    rows = []
    for who, entry in one.items():
        info = entry.info
        q1, median, q3 = (milliseconds(1000 * entry.stats[name]) for name in ("q1", "median", "q3"))
        row = [f"{info['what']} {info.get('peer_version', '')}".strip(), f"{median} ({q1}-{q3})"]
        row += [f"{entry.median / one['facelm'].median:.2f}" if "facelm" in one else ""]
        row += [milliseconds(none[who].median) if who in none else ""]
        row += [f"{info[part]} of {info[whole]}" if part in info else "" for part, whole in PARTS_OF]
        row += [f"{info[name]:.{digits}f}" if name in info else "" for name, digits in (("nme", 2), ("above 8%", 1))]
        rows.append(row)
    return (*heads, "NME, %", "above 8%, %"), rows


PARTS_OF = (("found", "faces"), ("false", "without"))


def not_run(run: Run) -> Table:
    """What could not be measured, and why."""
    rows = [[one["reason"], str(len(one["tests"])), _some(one["tests"])] for one in run.not_run]
    return ("why", "tests", "which"), rows


def _some(tests: Sequence[str], most: int = 3) -> str:
    return ", ".join(tests[:most]) + (", ..." if len(tests) > most else "")


def _targets(found: list[Target]) -> str:
    rows = "".join(
        f'<tr class="{t.verdict if t.value is not None else "unknown"}"><td>{escape(t.what)}</td><td>{t.wanted}</td>'
        f'<td class="number">{t.found}</td><td>{t.verdict}</td></tr>'
        for t in found
    )
    return f"<table><tr><th>target</th><th>wanted</th><th>found</th><th></th></tr>{rows}</table>"


PEERS = {
    "static": "A 640x480 picture with one face, detection included",
    "tracking": "A 640x480 video of one face that moves",
    "cold_start": "A fresh process up to its first landmarks",
}


def _peers(run: Run) -> str:
    charts = ""
    for test, what in PEERS.items():
        rows = {e.side: {"ms": e.median} for e in run.entries if e.test == test}
        charts += f"<p>{what}.</p>{bars(rows, 'ms')}"
    memory = [
        [e.side, f"{e.info['rss_mb']:.0f}", f"{e.info['rss_peak_mb']:.0f}"]
        for e in run.entries
        if e.test == "cold_start"
    ]
    return _html_table(peers(run)) + charts + _html_table((("process", "memory, MB", "at most, MB"), memory))


def _singles(run: Run) -> list[Entry]:
    return [entry for entry in run.entries if entry.test == "landmarks" and entry.params["batch"] == 1]


def _accuracy(run: Run, known: Mapping[str, float]) -> str:
    series: dict[str, list[tuple[float, float, str]]] = {}
    for entry in _singles(run):
        model = entry.params["model"]
        if model in known:
            series.setdefault(entry.side, []).append((entry.median, known[model], model))
    note = (
        "<p>NME in % of the eye distance on held-out people: the package's models as their contracts state it, the "
        "others as this project's short CPU trainings at 128 px reached it (training/results), timed at full size.</p>"
    )
    return note + points(series, "milliseconds a crop", "NME, %")


def _batches(run: Run) -> str:
    series: dict[str, list[tuple[float, float, str]]] = {}
    for entry in run.entries:
        if entry.test == "landmarks" and entry.side == "onnxruntime fp32":
            batch = entry.params["batch"]
            series.setdefault(entry.params["model"], []).append((batch, entry.median / batch, f"batch {batch}"))
    return points(_sorted(series), "crops in a run, onnxruntime fp32", "ms a crop", joined=True, log_y=True)


def _sorted(series: Mapping[str, list[tuple[float, float, str]]]) -> Series:
    return {name: sorted(values) for name, values in series.items()}


def _stages(run: Run) -> str:
    found = {entry.params["stage"]: entry.median for entry in run.entries if entry.test == "stages"}
    whole = found.pop("whole", None)
    if not found or whole is None:
        return "<p>The stages were not measured.</p>"
    rows = {"stages one by one": found, "Aligner, the whole": {"whole": whole}}
    return "<p>From a 640x480 JPEG to one face.</p>" + bars(rows, "ms")


def _parts(run: Run) -> str:
    rows: dict[str, dict[str, float]] = {}
    for entry in run.entries:
        if entry.test == "parts" and entry.params["precision"] == "fp32":
            rows.setdefault(entry.params["model"], {})[entry.params["part"]] = entry.median
    ordered = {model: {name: parts[name] for name in PARTS if name in parts} for model, parts in rows.items()}
    return "<p>Inside a landmark model's graph, one crop, by onnxruntime's profile.</p>" + bars(ordered, "ms")


def _shares(run: Run) -> Table:
    rows = [
        [
            e.params["model"],
            e.side,
            f"{e.info['multiply_adds']:.3g}",
            f"{e.info['multiply_adds_per_second']:.1f}",
            f"{e.info['peak_multiply_adds_per_second']:.1f}",
            f"{100 * e.info['share_of_peak']:.0f}%",
        ]
        for e in run.entries
        if "share_of_peak" in e.info and (e.test != "landmarks" or e.params["batch"] == 1) and e.test != "flip"
    ]
    return ("model", "by", "multiply-adds, G", "G a second", "machine, G a second", "share"), rows


def _peak(run: Run) -> str:
    rows = {
        f"{e.params['model']} {e.side}": {"share": 100 * e.info["share_of_peak"]}
        for e in _singles(run)
        if e.params["backend"] == "onnxruntime"
    }
    return bars(rows, "%") + _html_table(_shares(run))


def _threads(run: Run) -> Table:
    rows = []
    for test, what in (("threads", "landmarks"), ("detection_threads", "detection"), ("aligner_threads", "Aligner")):
        for entry in run.entries:
            if entry.test == test and entry.params["threads"] == 1:
                rest = {key: value for key, value in entry.params.items() if key != "threads"}
                other = run.find(test, **rest, threads=2)
                if other is not None:
                    name = " ".join([what, *map(str, rest.values())])
                    ratio = f"{entry.median / other.median:.2f}"
                    rows.append([name, milliseconds(entry.median), milliseconds(other.median), ratio])
    return ("what", "1 thread, ms", "2 threads, ms", "times faster"), rows


def _html_table(table: Table) -> str:
    heads, rows = table
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _markdown_table(table: Table) -> str:
    heads, rows = table
    if not rows:
        return "None.\n"
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
