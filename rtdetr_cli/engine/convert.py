"""`rtdetr convert`: write weights or a data set in another format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rtdetr_cli.backends.torch import check_network
from rtdetr_cli.config.dataset import DatasetConfig
from rtdetr_cli.config.settings.convert import ConvertSettings
from rtdetr_cli.core.console import result, say
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.files import new_folder, user_path
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.collection import collect, group_by, keep_classes, resplit
from rtdetr_cli.data.problems import write_skipped
from rtdetr_cli.data.shapes import draw_shapes
from rtdetr_cli.data.sources import new_output, read_splits
from rtdetr_cli.data.splits import load_data
from rtdetr_cli.data.write import write_collection
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint
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
    """Convert weights (`model`) or a data set (`data`).

    Returns:
        The file or folder written.

    Raises:
        WeightsError: the source cannot be opened or does not fit the network, or the other family
            has no such network.
        DataError: the data set cannot be read, or not be written in this format.
        UsageError: the default output exists, or `out` is the source, in it, or not empty.
        StorageError: no space left or no permission; nothing is left of the output.
    """
    output = _convert_data(settings) if settings.data else _convert_weights(settings)
    result(str(output))
    return output


def _convert_weights(settings: ConvertSettings) -> Path:
    """Write a checkpoint for deployment: float32, without training state."""
    source, format = resolve_weights(str(settings.model)), settings.format or "rtdetr"
    output = _output(source, settings.out, format)
    checkpoint = replace(open_weights(source, family=settings.family), training=None)
    check_network(checkpoint, source.name)
    _WRITERS[format](output, checkpoint)
    say(describe(source, checkpoint))
    licence = f"licence of the weights: {checkpoint.licence or 'not recorded in the file'}"
    for note in (*checkpoint.notes, *_losses(format, checkpoint), licence):
        say(f"  {note}")
    return output


def describe(source: Path, checkpoint: Checkpoint) -> str:
    """One line: family, architecture, classes, epsilon, input size."""
    height, width = checkpoint.preprocessing.size_hw
    config = checkpoint.config
    return (
        f"{source.name}: {checkpoint.origin}, {config.name}, {len(checkpoint.names)} classes, "
        f"BatchNorm epsilon {config.norm_eps:g}, input {height}x{width}"
    )


def _output(source: Path, out: str | None, format: str) -> Path:
    """Path to write: as given, else the source's name with the ending of the format."""
    ending = _ENDINGS[format]
    if out is None:
        output = Path(f"{source.resolve().name if source.is_dir() else source.stem}{ending}")
        if output.exists():
            raise UsageError(f"{output} exists already; name what to write with out=")
        return output
    output = user_path(out)
    if (output.suffix == ".safetensors") != (format == "safetensors"):
        raise UsageError(f"out={out} does not fit format={format}, which writes *{ending}")
    if output.exists() and output.samefile(source):
        raise UsageError(f"out={out} is what is to be converted; name another one")
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
    if format in {"official", "hf"} and checkpoint.calibration:
        notes.append("the calibration is left out: such files have no place for it")
    if format in {"official", "hf"} and config.norm_eps != 1e-5:
        notes.append(f"variances moved from BatchNorm epsilon {config.norm_eps:g} to 1e-05")
    return notes


def _convert_data(settings: ConvertSettings) -> Path:
    """Write a data set into a new folder, which gets its name when it is complete."""
    sources = [_load(data, settings) for data in (str(settings.data), *(settings.merge or ()))]
    output = new_output("out", str(settings.out), sources)
    parts, same = read_splits(sources)
    collection = collect(parts)
    if settings.classes is not None:
        collection = keep_classes(collection, settings.classes)
    if settings.split is not None:
        group_of, same = group_by(settings.group), {}
        collection = resplit(collection, settings.split, settings.seed, group_of)
    with new_folder(output) as folder:
        format = str(settings.format)
        notes = write_collection(folder, collection, format, settings.images, same)
        skipped = {path: why for _, part in parts for path, why in part.skipped.items()}
        write_skipped(folder, skipped)
    for split, images in collection.splits.items():
        num_boxes = sum(len(image.boxes) for image in images)
        boxes = counted(num_boxes, "box", "boxes")
        say(f"{split}: {counted(len(images), 'image')}, {boxes}")
    say(f"classes: {', '.join(collection.names)}", *(f"  {note}" for note in notes))
    return output


def _load(data: str, settings: ConvertSettings) -> DatasetConfig:
    config = load_data(data, settings.download, settings.bad_images)
    return draw_shapes(config.shapes, config.path) if config.shapes else config
