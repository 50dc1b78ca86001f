"""Tells of a missing package of the extra, with the line to type, before a module of this folder imports it."""

from .._optional import load

for package in ("fastapi", "prometheus_client", "python_multipart", "uvicorn"):
    load(package, "serve")
