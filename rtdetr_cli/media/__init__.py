"""Pictures in, pictures and texts out: what prediction reads and writes."""
