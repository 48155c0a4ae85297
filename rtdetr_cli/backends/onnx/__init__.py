"""ONNX: writes, quantises and runs graphs."""
