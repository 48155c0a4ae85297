"""Checks of opened splits, one file per subject; each returns findings."""
