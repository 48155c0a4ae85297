"""Typed settings, one file per mode."""
