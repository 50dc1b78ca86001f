"""What mkdocs does not do by itself: files of the repository that pages link to, and the reference of the commands."""

from __future__ import annotations

import os
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
import commands

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(!?\[[^\]]*\])\(([^()\s#:]+)(#[^()\s]*)?\)")
ALSO = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
MARKER = "<!-- commands -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that pages link to, and those that these link to, as repository/PATH."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()] + list(ALSO)
    seen = set(waiting)
    for source in ALSO:
        files.append(_of_repository(config, source))
    while waiting:
        source = waiting.pop()
        for target in _targets(source, (ROOT / source).read_text("utf-8")):
            if target is None or target in seen or target.startswith("docs/"):
                continue
            seen.add(target)
            files.append(_of_repository(config, target))
            if target.endswith(".md"):
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files outside docs/ to their place in the site, and fill in the commands."""
    uri = page.file.src_uri
    source = uri.removeprefix("repository/") if uri.startswith("repository/") else f"docs/{uri}"

    def moved(match: re.Match[str]) -> str:
        text, link, anchor = match.groups()
        target = _resolve(source, link)
        if target is None:
            return match[0]
        if target == "":
            return text.removeprefix("[").removesuffix("]")
        place = target.removeprefix("docs/") if target.startswith("docs/") else f"repository/{target}"
        return f"{text}({posixpath.relpath(place, posixpath.dirname(uri) or '.')}{anchor or ''})"

    markdown = LINK.sub(moved, markdown)
    return markdown.replace(MARKER, commands.markdown()) if MARKER in markdown else markdown


def _of_repository(config: MkDocsConfig, path: str) -> File:
    where: dict[str, Any] = {"abs_src_path": str(ROOT / path), "inclusion": InclusionLevel.INCLUDED}
    return File.generated(config, f"repository/{path}", **where)


def _targets(source: str, text: str) -> Iterator[str | None]:
    return (_resolve(source, match[2]) or None for match in LINK.finditer(text))


def _resolve(source: str, link: str) -> str | None:
    """The repository's file that a page's link leads to; "" for a folder without a page, None for no file."""
    path = Path(os.path.normpath(ROOT / PurePosixPath(source).parent / link))
    if not path.is_relative_to(ROOT) or not path.exists():
        return None
    if path.is_dir():
        path = path / "README.md"
        if not path.exists():
            return ""
    return path.relative_to(ROOT).as_posix()
