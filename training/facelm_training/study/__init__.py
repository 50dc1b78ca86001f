"""Claims of the papers made again: sets of trainings that differ in one setting (``facelm study``)."""
