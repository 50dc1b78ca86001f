"""What is said of an exported file: where it comes from, how close it is to PyTorch, how fast."""
