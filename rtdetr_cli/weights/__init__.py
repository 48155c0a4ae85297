"""Trained weights: our checkpoint file, safe readers for other toolkits, published files."""
