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
    """Write the tensors by their official v2 names; the metadata holds the rest as JSON.

    Raises:
        StorageError: No space left or no permission; an existing file is kept.
    """
    metadata = {"format": "pt", FORMAT: json.dumps(header(checkpoint), ensure_ascii=False)}
    content = save(stored(checkpoint.weights), metadata)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def read_safetensors(described: str, weights: dict[str, Tensor], origin: str) -> Checkpoint:
    """Build the checkpoint from a file that `write_safetensors` wrote.

    Args:
        described: the metadata entry `checkpoint.FORMAT`.
        weights: tensors of the file.
        origin: the file's name, for messages.

    Raises:
        WeightsError: The description is damaged.
    """
    try:
        values = parse_json(described)
        values["names"] = {int(index): name for index, name in values["names"].items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise WeightsError(
            f"{origin} is damaged: its description is not that of a checkpoint"
        ) from None
    return with_header(values, weights, origin)
