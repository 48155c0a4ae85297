"""Everything that `rtdetr export` needs: a file per format and per step."""
