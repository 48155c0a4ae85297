"""The modes of `rtdetr`, one file each; a folder holds what only one mode needs."""
