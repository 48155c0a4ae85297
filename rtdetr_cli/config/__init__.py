"""The typed shadow of the YAML folders models/ and cfg/; torch-free."""
