"""The parts of `rtdetr train`; the loop is in engine/train.py."""
