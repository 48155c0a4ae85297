"""What `rtdetr benchmark` needs: rows, timing, worker processes."""
