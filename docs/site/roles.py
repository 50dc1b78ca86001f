"""Docstrings' references, :class:`Face` and the like, as links of this site."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|attr|mod|data|exc):`~?([\w.]+)`")
LITERAL = re.compile(r"``([^`\n]+)``")


class Roles(griffe.Extension):
    """Turn reStructuredText's roles and literals into Markdown, where a name is known a link."""

    def on_instance(self, *, obj: griffe.Object, **more: Any) -> None:
        if obj.docstring is None:
            return
        text = re.sub(r"::\n\n(?= +)", ":\n\n", obj.docstring.value)
        text = ROLE.sub(lambda match: _link(obj, match[1]), text)
        obj.docstring.value = LITERAL.sub(r"`\1`", text)


def _link(obj: griffe.Object, name: str) -> str:
    scope: Any = obj if obj.is_module or obj.is_class else obj.parent
    try:
        path = scope.resolve(name)
    except griffe.NameResolutionError:
        path = name
    shown = name.replace("_", "&#95;")  # no emphasis
    return f'<autoref optional identifier="{path}"><code>{shown}</code></autoref>'
