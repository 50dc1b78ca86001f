"""Imports between files: no circle, one way between packages. Read from the sources, wherever in a file they stand."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "facelm_sdk": ROOT / "facelm_sdk",
    "facelm_models": ROOT / "models" / "facelm_models",
    "facelm_export": ROOT / "export" / "facelm_export",
    "facelm_training": ROOT / "training" / "facelm_training",
}
"""The packages, each of which may import those before it."""
FOR_MODELS = {"facelm_sdk.markup", "facelm_sdk.transform", "facelm_sdk.errors"}
"""What the networks may take of the runtime."""


def module_name(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path, folder): path for folder in FOLDERS.values() for path in sorted(folder.rglob("*.py"))}


def statements(tree: ast.Module):
    """The import statements of a file but those for type checkers."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        else:
            waiting += ast.iter_child_nodes(node)


def imported(name: str, text: str, *, is_package: bool, known) -> set[str]:
    """The files among ``known`` that a module imports."""
    found = set()
    for node in statements(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = name.split(".")[: None if is_package else -1]
        start = base[: len(base) - node.level + 1] if node.level else []
        source = ".".join([*start, *([node.module] if node.module else [])])
        for alias in node.names:
            inner = f"{source}.{alias.name}"
            found.add(inner if inner in known else source)
    return (found & set(known)) - {name}


GRAPH = {
    name: imported(name, path.read_text("utf-8"), is_package=path.name == "__init__.py", known=FILES)
    for name, path in FILES.items()
}


def circle(graph) -> list[str]:
    """The first circle of a graph, empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("from . import other", {"a.b.other"}),
        ("from .other import thing", {"a.b.other"}),
        ("from ..c import thing", {"a.c"}),
        ("import a.c\nimport numpy", {"a.c"}),
        ("def late():\n    from a import c", {"a.c"}),
        ("if TYPE_CHECKING:\n    from . import other\nelse:\n    from a import c", {"a.c"}),
        ("from .. import name_of_a", {"a"}),
    ],
)
def test_imports_are_read(text, wanted):
    assert imported("a.b.file", text, is_package=False, known={"a", "a.b.other", "a.c"}) == wanted


def test_a_circle_would_be_seen():
    assert circle({"one": {"two"}, "two": {"three"}, "three": set()}) == []
    assert set(circle({"one": {"two"}, "two": {"three"}, "three": {"one"}})) == {"one", "two", "three"}


def test_no_file_imports_itself_by_way_of_others():
    assert len(GRAPH) > 100 and "facelm_sdk.contract" in GRAPH["facelm_sdk.landmarker"]
    assert not circle(GRAPH)


def test_packages_import_one_way():
    order = list(FOLDERS)
    for name, others in GRAPH.items():
        package = name.partition(".")[0]
        allowed = order[: order.index(package) + 1]
        above = {other for other in others if other.partition(".")[0] not in allowed}
        assert not above, f"{name} imports {', '.join(sorted(above))}"


def test_networks_take_little_of_the_runtime():
    for name, others in GRAPH.items():
        if name.startswith("facelm_models"):
            taken = {other for other in others if other.startswith("facelm_sdk")} - FOR_MODELS
            assert not taken, f"{name} imports {', '.join(sorted(taken))}"
