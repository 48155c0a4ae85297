"""What to say about a data set that is not on this machine."""

from __future__ import annotations

from rtdetr_cli.config.dataset import DatasetConfig
from rtdetr_cli.core.errors import DataError


def absent(config: DatasetConfig) -> DataError:
    """The error that says where the data set belongs and from where it comes."""
    name = config.origin.name if config.origin else "the data set"
    if not config.download:
        return DataError(
            f"{name}: its folder {config.path} does not exist; the head of {name} may say "
            "where the data set comes from"
        )
    urls = ", ".join(download.url for download in config.download)
    return DataError(f"{name}: not on this machine; unpack {urls} into {config.path}")
