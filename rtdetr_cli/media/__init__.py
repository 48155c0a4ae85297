"""What prediction reads and writes: image sources, drawn images, label files."""
