"""OpenVINO: write, quantise and run graphs."""
