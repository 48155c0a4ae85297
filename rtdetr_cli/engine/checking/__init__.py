"""Parts of `rtdetr check`."""
