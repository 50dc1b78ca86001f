"""A window that shows pictures while a command runs."""

from __future__ import annotations

import os
import sys
from types import TracebackType

from .._optional import load_cv2
from ..errors import InputError
from ..types import ImageArray

_KEYS = (ord("q"), 27)


class Window:
    """A window, closed at the end. Raises InputError where there is no display, or an OpenCV without windows."""

    def __init__(self, title: str) -> None:
        self._cv2, self._title = load_cv2(), title
        # Where it finds none, the library behind the windows ends the process.
        if sys.platform == "linux" and not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
            raise InputError("--show needs a display, and there is none (DISPLAY is not set): give -o FILE instead")
        try:
            self._cv2.namedWindow(title, self._cv2.WINDOW_NORMAL)
        except self._cv2.error as error:
            raise InputError(
                "--show needs an OpenCV with windows; type: pip uninstall opencv-python-headless; "
                "pip install opencv-python"
            ) from error

    def __enter__(self) -> Window:
        return self

    def show(self, image: ImageArray) -> bool:
        """Show a picture (H, W, 3) uint8 BGR; whether the user goes on: q, Escape or closing the window ends it."""
        self._cv2.imshow(self._title, image)
        key = self._cv2.waitKey(1) & 0xFF
        return key not in _KEYS and self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) >= 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cv2.destroyWindow(self._title)
