"""``python -m facelm_sdk``: the ``facelm`` command."""

from .cli import main

main()
