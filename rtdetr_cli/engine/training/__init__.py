"""Everything that `rtdetr train` needs besides the loop."""
