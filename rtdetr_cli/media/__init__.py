"""Images in, images and texts out: what prediction reads and writes."""
