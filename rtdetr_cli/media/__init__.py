"""Read image sources, draw boxes, and write the outputs of prediction."""
