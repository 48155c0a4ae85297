"""The command line: `rtdetr MODE key=value ...`."""
