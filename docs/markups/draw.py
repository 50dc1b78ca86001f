"""Draw the indices of every markup on the mean head of ``facelm_sdk.pose``: ``python docs/markups/draw.py`` writes the
SVG files beside it.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from facelm_sdk import markup as markups
from facelm_sdk.files import write_bytes
from facelm_sdk.pose import HEAD_68

WIDTH, HEIGHT, ZOOM = 760, 780, 46  # pixels, and pixels a centimetre
COLOURS = {"jaw": "#0a6ebd", "brows": "#1a7f37", "eyes": "#a86400", "nose": "#8a3ffc", "mouth": "#cf222e"}
LABELS = ((4, -3), (4, 12), (-18, -3), (-18, 12))
"""Where an index may stand beside its point: the first place that is free."""
BESIDE_THE_NOSE = ((55, (0.30, 0.25)), (56, (0.42, 0.72)))
"""Points of jd106 at the side of the nose: between the bridge's top (0) and the alar base (1), across and down."""


def front(name: str) -> np.ndarray:
    """The points (L, 2) of a markup on the mean head from the front, its mouth a little open, pixels.

    The 68 are the head's vertices, others are made of them as ``convert`` makes them. Of the places that the 68 do not
    mark, the brows' lower edge and the sides of the nose, the picture shows about where they are.
    """
    points = HEAD_68[:, :2] * ZOOM + (WIDTH / 2, HEIGHT / 2)
    points[[*range(55, 60), 65, 66, 67], 1] += 0.6 * ZOOM
    if name == "ibug68":
        return points
    made = markups.convert(points, "ibug68", name, missing="nan").astype(float)
    down = np.array([0, 0.55 * ZOOM])
    if name in ("wflw98", "jd106"):
        lower = {38: (36, 37), 39: (35, 36), 40: (34, 35), 41: (33, 34)}
        for index, edge in lower.items():
            made[index] = made[list(edge)].mean(0) + down
    if name == "jd106":
        for index, share in BESIDE_THE_NOSE:
            made[index] = made[51] + np.array(share) * (made[57] - made[51])
    if name == "cofw29":
        made[5] = made[4] + down
    flip = markups.get(name).flip
    for index in np.flatnonzero(np.isnan(made[:, 0])):
        made[index] = (WIDTH - made[flip[index], 0], made[flip[index], 1])
    return made


def picture(name: str) -> str:
    """The SVG of a markup: a dot a point, a ring where the 68 only interpolate it, a cross where they lack it."""
    markup, points = markups.get(name), front(name)
    if name == "ibug68":
        interpolated = missing = np.zeros(68, bool)
    else:
        made = markups.conversion("ibug68", name)
        interpolated, missing = made.interpolated, made.missing
    colour = {i: COLOURS[part] for part, indices in markup.groups.items() if part in COLOURS for i in indices}
    shapes: list[str] = []
    labels: list[tuple[float, float]] = []
    for run in markup.polylines:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points[list(run)])
        shapes.append(f'<polyline points="{path}" fill="none" stroke="{colour[run[0]]}" stroke-opacity=".35"/>')
    for index, (x, y) in enumerate(points):
        ink = colour[index]
        if missing[index]:
            shape = f'<path d="M{x - 3:.1f} {y - 3:.1f}l6 6m0-6l-6 6" stroke="{ink}"/>'
        else:
            fill = "#fff" if interpolated[index] else ink
            shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{fill}" stroke="{ink}"/>'
        at = next((x + dx, y + dy) for dx, dy in LABELS if _is_free((x + dx, y + dy), labels) or (dx, dy) == LABELS[-1])
        labels.append(at)
        shapes.append(f'{shape}<text x="{at[0]:.1f}" y="{at[1]:.1f}" fill="{ink}">{index}</text>')
    title = escape(f"{name}: {markup.num_points} points")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
    return "\n".join(
        [
            f'{head} font-size="11"><title>{title}</title><rect width="100%" height="100%" fill="#fff"/>',
            f'<text x="16" y="28" font-size="18">{title}</text>',
            *shapes,
            "</svg>\n",
        ]
    )


def _is_free(place: tuple[float, float], labels: list[tuple[float, float]]) -> bool:
    return all(abs(place[0] - x) > 18 or abs(place[1] - y) > 10 for x, y in labels)


if __name__ == "__main__":
    for each in markups.names():
        write_bytes(Path(__file__).with_name(f"{each}.svg"), picture(each).encode())
