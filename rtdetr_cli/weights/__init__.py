"""Trained weights: our checkpoint file, a safe reader for everybody else's, published files."""
