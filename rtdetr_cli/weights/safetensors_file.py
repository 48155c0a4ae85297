"""Read and write safetensors files."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from rtdetr_cli.core.bounded_text import parse_json
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.weights.checkpoint import FORMAT, Checkpoint, header, stored, with_header


def write_safetensors(path: Path, checkpoint: Checkpoint) -> None:
    """One file of tensors by their official v2 names; its metadata holds all else as JSON.

    Raises:
        StorageError: No space left or no permission; an older file is still whole.
    """
    metadata = {"format": "pt", FORMAT: json.dumps(header(checkpoint), ensure_ascii=False)}
    content = save(stored(checkpoint.weights), metadata)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def read_safetensors(described: str, weights: dict[str, Tensor], origin: str) -> Checkpoint:
    """The checkpoint in a file of `write_safetensors`.

    Args:
        described: what the metadata says under `checkpoint.FORMAT`.
        weights: the file's tensors.
        origin: the file's name, for messages.

    Raises:
        WeightsError: The description is damaged.
    """
    try:
        values = parse_json(described)
        values["names"] = {int(index): name for index, name in values["names"].items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{origin} is damaged: its description is no checkpoint's") from None
    return with_header(values, weights, origin)
