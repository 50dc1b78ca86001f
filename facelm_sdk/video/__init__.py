"""Videos: faces followed over the frames, points steadied, files read and written."""
