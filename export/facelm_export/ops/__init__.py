"""Operations that stand in the graph: a readable reference beside its export-safe twin."""
