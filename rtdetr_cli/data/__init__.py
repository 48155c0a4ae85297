"""Data sets of every format, drawn shapes, augmentation and loading: what ends in a Batch."""
