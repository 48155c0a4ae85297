"""Data sets of all formats, generated shapes, augmentation and loading into batches."""
