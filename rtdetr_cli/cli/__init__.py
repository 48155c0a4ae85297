"""The door: `rtdetr MODE key=value ...`."""
