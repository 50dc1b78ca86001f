"""Rewrites of a network or a graph that change its form, or its precision, and not what it computes."""
