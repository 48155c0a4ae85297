"""OpenVINO: writes, quantises and runs graphs."""
