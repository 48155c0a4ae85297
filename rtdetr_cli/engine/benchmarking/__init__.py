"""Everything that `rtdetr benchmark` needs: rows, timing, worker processes."""
