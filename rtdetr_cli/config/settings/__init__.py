"""Typed settings, a file for each mode."""
