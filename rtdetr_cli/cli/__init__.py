"""Command line: `rtdetr MODE key=value ...`."""
