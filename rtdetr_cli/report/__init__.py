"""Self-contained HTML pages: one file without scripts that loads nothing, and its parts."""
