"""What `rtdetr val` and `compare` need besides the evaluation: files of earlier results."""
