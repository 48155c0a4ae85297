"""Runtimes for trained detectors: PyTorch, ONNX Runtime, OpenVINO, TensorRT."""
