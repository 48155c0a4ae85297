"""Data sets of every format, augmentation and loading; everything that produces a `Batch`."""
