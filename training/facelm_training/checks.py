"""Bounds of the numbers in a recipe, which dataclasses hold themselves to."""

from __future__ import annotations

import sys

from facelm_sdk.errors import InputError


def number(
    name: str,
    value: float,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Raise InputError, which says what is accepted, unless ``value`` is finite and within the bounds."""
    inside = abs(value) <= sys.float_info.max  # whole numbers beyond are none that a float holds
    words = []
    for word, bound, holds in (
        ("at least", least, least is None or value >= least),
        ("above", above, above is None or value > above),
        ("at most", most, most is None or value <= most),
        ("below", below, below is None or value < below),
    ):
        if bound is not None:
            words.append(f"{word} {bound:g}")
        inside &= holds
    if not inside:
        raise InputError(f"{name} is a finite number{' ' if words else ''}{' and '.join(words)}, not {value!r}")


def part(name: str, value: float) -> None:
    """Raise InputError unless ``value`` is a part of a whole or a probability, 0 to 1."""
    number(name, value, least=0, most=1)
