"""Charts as SVG text: points, lines and stacked bars, without a library and without a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#0a7ea4", "#bf3989", "#57606a")
WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 170, 16, 48

LETTER, LINE = 7, 13
"""Width of a letter and height of a line of text, about."""

Series = Mapping[str, Sequence[tuple[float, float, str]]]
"""Points (x, y, label) by the name that the legend gives them."""


def points(series: Series, x: str, y: str, *, joined: bool = False, log_y: bool = False) -> str:
    """A scatter chart, or lines, with a logarithmic x axis."""
    everything = [point for values in series.values() for point in values]
    if not everything:
        return "<p>Nothing of this was measured.</p>"
    xs, ys = ([point[axis] for point in everything] for axis in (0, 1))
    to_x = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT, log=True)
    to_y = _scale(min(ys) if log_y else 0, max(ys), HEIGHT - BOTTOM, TOP, log=log_y)
    parts = [_axes(x, y)]
    for value, at in _ticks(min(xs), max(xs), to_x, log=True):
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
    for value, at in _ticks(min(ys) if log_y else 0, max(ys), to_y, log=log_y):
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    for index, (name, values) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        places = [(to_x(a), to_y(b), label) for a, b, label in values]
        if joined:
            line = " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in places)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for a, b, label in places:
            tip = f"<title>{escape(f'{name} {label}')}</title>"
            parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4.5" fill="{colour}">{tip}</circle>')
        parts.append(_legend(index, name, colour))
    if not joined:
        parts += _labels([(to_x(a), to_y(b), label) for a, b, label in everything])
    return _svg("".join(parts), HEIGHT)


def _labels(places: Sequence[tuple[float, float, str]]) -> list[str]:
    """Each label once, above the leftmost of its points, and above those it would cover."""
    first: dict[str, tuple[float, float]] = {}
    for x, y, label in sorted(places):
        first.setdefault(label, (x, y))
    taken: list[tuple[float, float, float]] = []
    parts = []
    for label, (x, y) in sorted(first.items(), key=lambda item: -item[1][1]):
        at, end = y - 9, x + LETTER * len(label)
        while any(x < right and left < end and abs(at - other) < LINE for left, right, other in taken):
            at -= LINE
        taken.append((x, end, at))
        parts.append(f'<text x="{x - 4:.1f}" y="{at:.1f}">{escape(label)}</text>')
    return parts


def bars(rows: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Horizontal stacked bars: of each row its parts, in the order given, with the sum behind them."""
    if not rows:
        return "<p>Nothing of this was measured.</p>"
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    most = max(sum(parts.values()) for parts in rows.values()) or 1
    left, room, height = 190, WIDTH - 190 - 90, 26
    drawn = []
    for row, (label, parts) in enumerate(rows.items()):
        top, at = 34 + row * height, float(left)
        drawn.append(f'<text x="{left - 8}" y="{top + 14}" text-anchor="end">{escape(label)}</text>')
        for name, value in parts.items():
            colour = COLOURS[names.index(name) % len(COLOURS)]
            width = room * value / most
            tip = f"<title>{escape(name)}: {value:.3g} {unit}</title>"
            drawn.append(f'<rect x="{at:.1f}" y="{top}" width="{width:.1f}" height="18" fill="{colour}">{tip}</rect>')
            at += width
        drawn.append(f'<text x="{at + 6:.1f}" y="{top + 14}">{sum(parts.values()):.3g} {unit}</text>')
    if len(names) > 1:
        for index, name in enumerate(names):
            colour, at = COLOURS[index % len(COLOURS)], left + 92 * index
            drawn.append(f'<rect x="{at}" y="8" width="10" height="10" fill="{colour}"/>')
            drawn.append(f'<text x="{at + 14}" y="17">{escape(name)}</text>')
    return _svg("".join(drawn), 44 + height * len(rows))


def _svg(content: str, height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg">{content}</svg>'


def _axes(x: str, y: str) -> str:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return (
        f'<line class="axis" x1="{LEFT}" y1="{HEIGHT - BOTTOM}" x2="{WIDTH - RIGHT}" y2="{HEIGHT - BOTTOM}"/>'
        f'<line class="axis" x1="{LEFT}" y1="{TOP}" x2="{LEFT}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>'
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y)}</text>'
    )


def _legend(index: int, name: str, colour: str) -> str:
    at, top = WIDTH - RIGHT + 16, TOP + 8 + 20 * index
    mark = f'<rect x="{at}" y="{top - 9}" width="10" height="10" fill="{colour}"/>'
    return f'{mark}<text x="{at + 15}" y="{top}">{escape(name)}</text>'


class _scale:
    """Values to places, a little room on both sides."""

    def __init__(self, least: float, most: float, start: float, end: float, *, log: bool) -> None:
        self.log = log
        low, high = self._of(least), self._of(most)
        room = 0.06 * (high - low) or 0.5
        self.low = low - room if log else low
        self.unit = (end - start) / (high + room - self.low)
        self.start = start

    def _of(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self.log else value

    def __call__(self, value: float) -> float:
        return self.start + (self._of(value) - self.low) * self.unit


def _ticks(least: float, most: float, scale: _scale, *, log: bool) -> list[tuple[float, float]]:
    if log:
        low, high = math.floor(math.log10(max(least, 1e-9))), math.ceil(math.log10(max(most, 1e-9)))
        values = [step * 10.0**power for power in range(low, high + 1) for step in (1, 2, 5)]
        inside = [value for value in values if least * 0.85 <= value <= most * 1.15]
        if len(inside) < 3:  # a narrow range has its ends
            inside = list(dict.fromkeys(float(f"{value:.3g}") for value in (least, (least * most) ** 0.5, most)))
        return [(value, scale(value)) for value in inside]
    step = 10 ** math.floor(math.log10(most / 4)) if most > 0 else 1.0
    step *= next(factor for factor in (1, 2, 5, 10) if most / (step * factor) <= 6)
    return [(round(n * step, 9), scale(n * step)) for n in range(int(most / step) + 1)]
