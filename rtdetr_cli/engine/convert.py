"""`rtdetr convert`: write a checkpoint of any family in the format of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from rtdetr_cli.backends.torch import shipped_states
from rtdetr_cli.config.settings.modes import ConvertSettings
from rtdetr_cli.core.console import result, say
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.files import user_path
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, check_fit, save_checkpoint
from rtdetr_cli.weights.reader import open_weights
from rtdetr_cli.weights.safetensors_file import write_safetensors
from rtdetr_cli.weights.store import resolve_weights
from rtdetr_cli.weights.write_hugging_face import write_hugging_face
from rtdetr_cli.weights.write_official import official_settings, write_official

_WRITERS: dict[str, Callable[[Path, Checkpoint], None]] = {
    "rtdetr": save_checkpoint,
    "official": write_official,
    "hf": write_hugging_face,
    "safetensors": write_safetensors,
}
_ENDINGS = {"rtdetr": ".pt", "official": ".pth", "hf": "-hf", "safetensors": ".safetensors"}


def convert(settings: ConvertSettings) -> Path:
    """Write a checkpoint for deployment: float32, without training state.

    Returns:
        The file or folder written.

    Raises:
        WeightsError: the source cannot be opened or does not fit the network, or the other family
            has no such network.
        UsageError: the default output exists, or `out` is the source.
    """
    source = resolve_weights(settings.model)
    output = _output(source, settings)
    checkpoint = replace(open_weights(source), training=None)
    _check(checkpoint, source.name)
    _WRITERS[settings.format](output, checkpoint)
    say(describe(source, checkpoint))
    licence = f"licence of the weights: {checkpoint.licence or 'not recorded in the file'}"
    for note in (*checkpoint.notes, *_losses(settings.format, checkpoint), licence):
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


def _check(checkpoint: Checkpoint, origin: str) -> None:
    num_classes = len(checkpoint.names)
    with torch.device("meta"):
        network = RTDETRNetwork(checkpoint.config, num_classes)
    shipped = partial(shipped_states, num_classes)
    check_fit(checkpoint.weights, network.state_dict(), origin, shipped)


def _output(source: Path, settings: ConvertSettings) -> Path:
    """Path to write: as given, else the source's name with the ending of the format."""
    ending = _ENDINGS[settings.format]
    if settings.out is None:
        output = Path(f"{source.resolve().name if source.is_dir() else source.stem}{ending}")
        if output.exists():
            raise UsageError(f"{output} exists already; name what to write with out=")
        return output
    output = user_path(settings.out)
    if (output.suffix == ".safetensors") != (settings.format == "safetensors"):
        raise UsageError(
            f"out={settings.out} does not fit format={settings.format}, which writes *{ending}"
        )
    if output.exists() and output.samefile(source):
        raise UsageError(f"out={settings.out} is what is to be converted; name another one")
    return output


def _losses(format: str, checkpoint: Checkpoint) -> list[str]:
    """Notes on what files of the other family cannot store."""
    config, notes = checkpoint.config, []
    if format == "official":
        keys = ", ".join(f"{key}: {value}" for key, value in official_settings(checkpoint).items())
        notes.append(f"the official YAML needs {keys}; such files have no class names")
    if format == "hf" and config.decoder.eval_layers:
        idle = config.decoder.num_layers - config.decoder.eval_layers
        notes.append(f"{idle} decoder layers that do not run at inference left out")
    if format in {"official", "hf"} and not checkpoint.preprocessing.antialias:
        notes.append("trained on images resized without antialias, which such files cannot record")
    if format in {"official", "hf"} and config.norm_eps != 1e-5:
        notes.append(f"variances moved from BatchNorm epsilon {config.norm_eps:g} to 1e-05")
    return notes
