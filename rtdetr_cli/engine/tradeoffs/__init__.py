"""Everything that `rtdetr tradeoff` needs: settings and rows, AP, latency."""
