"""The version of the result files."""

FORMAT = 2
"""1 had no parameters and no turns."""
