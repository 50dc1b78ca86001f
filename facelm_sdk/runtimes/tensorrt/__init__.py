"""TensorRT engines: built once, kept with a sidecar that says for what, and run."""
