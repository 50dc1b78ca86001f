"""What stands in the docs is what the package does: pictures and tables are made anew, every block of code is run."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelm_sdk import VideoWriter, zoo
from facelm_sdk import markup as markups
from facelm_training.recipe import read_toml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
MARKUPS = DOCS / "markups"
PICTURES = ROOT / "examples" / "pictures"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def draw():
    return module(MARKUPS / "draw.py")


@pytest.mark.parametrize("name", markups.names())
def test_the_pictures_of_the_markups_are_those_of_the_script(draw, name):
    assert (MARKUPS / f"{name}.svg").read_text() == draw.picture(name), "run python docs/markups/draw.py"
    points = draw.front(name)
    assert np.isfinite(points).all() and (points > 0).all() and (points < (draw.WIDTH, draw.HEIGHT)).all()
    mirrored = points[list(markups.get(name).flip)] * (-1, 1) + (draw.WIDTH, 0)
    np.testing.assert_allclose(mirrored, points, atol=1e-6)


def test_the_page_shows_every_markup():
    page = (MARKUPS / "README.md").read_text()
    assert all(f"]({name}.svg)" in page for name in markups.names())


def test_the_table_of_models_is_that_of_the_cards():
    page = (DOCS / "which-model.md").read_text()
    assert module(DOCS / "site" / "models_table.py").with_table(page) == page, "run python docs/site/models_table.py"


def test_checkpoints_that_are_not_embedded_have_a_table_too(monkeypatch):
    without = [entry for entry in zoo.list_models() if entry.name != "lotr_m"]
    monkeypatch.setattr(zoo, "list_models", lambda: without)
    embedded, checkpoints = module(DOCS / "site" / "models_table.py").table().split("Checkpoints of facelm-weights")
    assert "lotr_m.md" not in embedded
    assert "| 68 (ibug68) | 192 px | fp32 | 11." in checkpoints
    assert "| 3.84% | 7.05% | no | research use |" in checkpoints


def test_the_plot_is_of_the_committed_results():
    drawn = module(DOCS / "site" / "accuracy_speed.py").picture()
    assert (DOCS / "accuracy_speed.svg").read_text() == drawn, "run python docs/site/accuracy_speed.py"


# Blocks of code


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    why: str | None
    """Why it is not run, as the comment above it says."""

    @property
    def commands(self):
        """The words of each line of a block of the shell."""
        if self.language != "sh":
            return []
        lines = [shlex.split(line, comments=True) for line in self.text.splitlines()]
        return [words for words in lines if words]

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page):
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, found.start("text")), found["language"], found["text"], found["why"])
        for found in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]
RUN = [page for page in PAGES if any(block.why is None for block in blocks(page))]


def test_every_block_is_seen():
    for page in PAGES:
        assert page.read_text().count("```") == 2 * len(blocks(page)), page
    assert not {block.language for block in BLOCKS} & {"", "bash", "console", "py", "shell"}, "python and sh are run"


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """A second of a portrait that moves."""
    path = tmp_path_factory.mktemp("docs") / "video.mp4"
    picture = cv2.resize(cv2.imread(str(PICTURES / "collins.jpg")), (320, 320))
    with VideoWriter(path, 25) as writer:
        for index in range(12):
            writer.write(np.roll(picture, index, axis=1), index / 25)
    return path


@pytest.fixture
def workplace(tmp_path, monkeypatch, video):
    """A folder with what the pages speak of; the network that one registers is forgotten."""
    from facelm_models import registry

    shutil.copytree(PICTURES, tmp_path / "photos")
    for name, source in (("photo.jpg", "collins.jpg"), ("more/portrait.jpg", "hopper.jpg")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(PICTURES / source, tmp_path / name)
    shutil.copy(video, tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    registry._registry.pop("my_net", None)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run_one_after_the_other(page, workplace, monkeypatch):
    names = {"__name__": "page"}
    for block in blocks(page):
        if block.why is not None:
            continue
        if block.language == "python":
            code = compile("\n" * block.line + block.text, str(page), "exec")
            exec(code, names)
        for words in block.commands:
            fine = (None, 0, 1) if words == ["facelm", "doctor"] else (None, 0)  # 1: it found something to mend
            assert run(words, monkeypatch) in fine, f"{block}: {shlex.join(words)}"


def run(words, monkeypatch):
    """The exit code of a command of ours, run here."""
    import facelm_export.cli
    import facelm_sdk.cli

    mains = {"facelm": facelm_sdk.cli.main, "facelm-export": facelm_export.cli.main}
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        mains[words[0]]()
    return stop.value.code


def test_blocks_that_are_not_run_are_code_and_name_commands_that_exist(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(DOCS / "site")
    commands = import_module("commands").all_commands()
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    extras = read_toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"]
    for block in (block for block in BLOCKS if block.why is not None):
        if block.language == "python":
            compile(block.text, str(block), "exec")
        for words in block.commands:
            if words[0].startswith("facelm"):
                parse(words, commands)
            elif words[0] == "make":
                assert words[1] in targets, f"{block}: make {words[1]}"
            for wanted in re.findall(r"(?:facelm-sdk|\.)\[([\w,-]+)\]", " ".join(words)):
                assert set(wanted.split(",")) <= set(extras), f"{block}: {wanted}"


def parse(words, commands):
    """Let a command read its arguments, and do nothing."""
    name, arguments = words[0], words[1:]
    if name == "facelm":
        name, arguments = f"facelm {arguments[0]}", arguments[1:]
        if name == "facelm export":
            name = "facelm-export"
    command = commands[name]
    if arguments and arguments[0] in getattr(command, "commands", {}):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_context(name, list(arguments))


# The site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a broken link, or a name that is not there, ends the build."""
    pytest.importorskip("mkdocs", reason="the pages are built by facelm-sdk[docs]")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def documented(site):
    """The names that the pages explain, as the site's inventory has them."""
    data = (site / "objects.inv").read_bytes()
    lines = zlib.decompress(data.split(b"\n", 4)[4]).decode().splitlines()
    return {line.split(" ", 1)[0] for line in lines}


def test_every_public_name_is_documented(site):
    known = documented(site)
    names = {
        f"{package}.{name}"
        for package in ("facelm_sdk", "facelm_models", "facelm_export")
        for name in import_module(package).__all__
    } - {"facelm_sdk.__version__"}
    assert names - known == set()
    mentioned = {
        found for page in PAGES for found in re.findall(r"\bfacelm_(?:sdk|models|export)(?:\.\w+)+", page.read_text())
    }
    assert mentioned - known == set(), "name them in docs/reference"
    for name in known:
        if (loaded := sys.modules.get(name) or importable(name)) is not None:
            public = {
                f"{name}.{part}"
                for part, value in vars(loaded).items()
                if not part.startswith("_") and getattr(value, "__module__", None) == name and callable(value)
            }
            assert public - known == set(), "without a docstring?"


def importable(name):
    try:
        return import_module(name)
    except ImportError:
        return None


class Requests(HTMLParser):
    """What a page loads by itself, and where its links lead."""

    def __init__(self):
        super().__init__()
        self.loaded = []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(values["href"])
        if tag in ("script", "img", "iframe", "source", "video") and values.get("src"):
            self.loaded.append(values["src"])


def test_the_pages_ask_for_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        requests = Requests()
        requests.feed(page.read_text())
        assert requests.loaded
        for source in requests.loaded:
            assert not re.match(r"(https?:)?//", source), f"{page}: {source}"
            if page.name != "404.html":
                assert (page.parent / source.partition("?")[0]).exists(), f"{page}: {source}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"@import|url\(\s*[\"']?(https?:)?//", sheet.read_text()), sheet


def test_every_command_has_its_section(site):
    page = (site / "reference" / "cli" / "index.html").read_text()
    for name in ("facelm align", "facelm track", "facelm doctor", "facelm-export", "facelm-export pipeline"):
        assert f"<code>{name}</code>" in page, name
    assert "facelm train" in page and "--min-presence" in page and "<typer" not in page
