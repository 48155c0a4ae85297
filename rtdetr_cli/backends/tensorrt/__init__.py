"""TensorRT: builds and runs engines."""
