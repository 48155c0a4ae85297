"""`rtdetr convert`: any family's checkpoint in, one of ours out, with a word on what it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from rtdetr_cli.config.settings import ConvertSettings
from rtdetr_cli.core.console import result, say
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, check_fit, save_checkpoint
from rtdetr_cli.weights.reader import open_weights
from rtdetr_cli.weights.store import resolve_weights


def convert(settings: ConvertSettings) -> Path:
    """Write a checkpoint that is ready to ship: no training state, float32.

    Returns:
        The file written.

    Raises:
        WeightsError: The source cannot be opened or does not fit the network.
        UsageError: The file to write exists and was not named with `output=`.
    """
    source = resolve_weights(settings.model)
    output = _output(source, settings.output)
    checkpoint = open_weights(source)
    with torch.device("meta"):
        network = RTDETRNetwork(checkpoint.config, len(checkpoint.names))
    check_fit(checkpoint.weights, network.state_dict(), source.name)
    save_checkpoint(output, replace(checkpoint, training=None))
    say(describe(source, checkpoint))
    for note in checkpoint.notes:
        say(f"  {note}")
    result(str(output))
    return output


def describe(source: Path, checkpoint: Checkpoint) -> str:
    """One line: family, architecture, classes, epsilon, input size."""
    height, width = checkpoint.preprocessing.size_hw
    config = checkpoint.config
    return (
        f"{source.name}: {checkpoint.origin}, {config.name}, {len(checkpoint.names)} classes, "
        f"BatchNorm epsilon {config.norm_eps:g}, input {height}x{width}"
    )


def _output(source: Path, given: str | Path | None) -> Path:
    """The file to write: as given, else the source's name with `.pt` in the current folder."""
    if given is not None:
        output = Path(given).expanduser()
        if output.exists() and output.samefile(source):
            raise UsageError(f"output={given} is the file to be converted; name another one")
        return output
    output = Path(f"{source.resolve().name if source.is_dir() else source.stem}.pt")
    if output.exists():
        raise UsageError(f"{output} exists already; name the file to write with output=")
    return output
