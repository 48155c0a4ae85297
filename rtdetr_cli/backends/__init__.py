"""A trained detector that runs; one file per format, and load.py to choose it."""
