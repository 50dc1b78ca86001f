"""Is an argument a number of the kind that is wanted?"""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np


def is_whole(value: Any, least: int, most: int | None = None) -> bool:
    """Return whether a value is a whole number from ``least`` to ``most``; numpy's count, True and False do not."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        return False
    return least <= int(value) and (most is None or int(value) <= most)


def is_number(value: Any, least: float, most: float = math.inf) -> bool:
    """Return whether a value is a number from ``least`` to ``most``; numpy's count, True, False and infinity do not."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        return False
    return bool(least <= value <= most) and value != math.inf
