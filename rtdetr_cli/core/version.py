"""The version, which every room may import."""

VERSION = "0.1.0"
