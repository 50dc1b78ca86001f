"""Faces over HTTP: ``create_app`` for one's own ASGI server, ``run`` for ``facelm serve``. Extra: ``[serve]``."""

from . import _installed as _installed
from .app import create_app
from .limits import Limits
from .server import run

__all__ = ["Limits", "create_app", "run"]
