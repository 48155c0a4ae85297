"""One file per mode: train, val, predict, export and the small ones."""
