"""``python -m facelm_export``: the ``facelm-export`` command."""

from .cli import main

main()
