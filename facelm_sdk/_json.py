"""JSON of files that anybody may have written."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 16
"""How deep values may be nested, so that nobody who reads them runs out of stack."""


def parse(text: str | bytes) -> Any:
    """Return the value of a JSON text, which can be written again as UTF-8.

    Raises ValueError where it is not JSON, is nested deeper than MAX_DEPTH or has half of a surrogate pair in it.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        value = None
        deep = True
    else:
        deep = _is_deep(value, MAX_DEPTH)
    if deep:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _is_deep(value: Any, left: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return left < 0 or any(_is_deep(one, left - 1) for one in inner)
