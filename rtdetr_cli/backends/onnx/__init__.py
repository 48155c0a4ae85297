"""ONNX: write, quantise and run graphs."""
