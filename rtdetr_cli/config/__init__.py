"""Typed settings, and the dataclasses behind the YAML files of models/ and cfg/; torch-free."""
