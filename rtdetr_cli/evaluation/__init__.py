"""Accuracy and cost of a detector: COCO metrics, curves, confusion matrix, FLOPs."""
