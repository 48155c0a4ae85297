"""How good and how fast a detector is: COCO's numbers, curves, confusion, latency, FLOPs."""
