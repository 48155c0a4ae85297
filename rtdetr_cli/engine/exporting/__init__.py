"""What `rtdetr export` needs, a file for each format and for each step."""
