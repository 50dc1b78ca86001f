"""What runs a model's file: onnxruntime, OpenVINO or TensorRT, each behind :class:`.base.Session`."""
