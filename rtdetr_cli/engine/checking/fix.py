"""Write a cleaned copy of a data set: `rtdetr check fix=`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rtdetr_cli.config.dataset import DatasetConfig
from rtdetr_cli.config.settings.check import CheckSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.core.files import new_folder
from rtdetr_cli.core.findings import Severity
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.checks.cleaning import (
    CHANGES,
    Change,
    with_joined_entries,
    without_doubtful_boxes,
    without_repeats,
    write_changes,
)
from rtdetr_cli.data.checks.duplicates import repeated_splits
from rtdetr_cli.data.checks.similar import Signature
from rtdetr_cli.data.collection import collect
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.selection import take_images
from rtdetr_cli.data.shapes import draw_shapes
from rtdetr_cli.data.sources import format_of, new_output, read_splits
from rtdetr_cli.data.splits import load_data
from rtdetr_cli.data.write import write_collection


def open_source(settings: CheckSettings) -> tuple[DatasetConfig, Path]:
    """Return the data set as it is copied, without images that have an error, and where to.

    Raises:
        UsageError: the folder is not empty, or it is in that of the data set.
    """
    source = load_data(settings.data, settings.download, "skip")
    source = draw_shapes(source.shapes, source.path) if source.shapes else source
    return source, new_output("fix", str(settings.fix), [source])


def write_fixed(
    source: DatasetConfig, output: Path, images: str, signatures: Mapping[Path, Signature]
) -> None:
    """Write a copy in the format of the source, and the list of what changed.

    Args:
        source: the data set.
        output: new folder.
        images: copy or link.
        signatures: of the images that can be decoded.

    Raises:
        DataError: a file that is not of one image is wrong, or no image of a split is left.
        StorageError: no space left or no permission.
    """
    parts, same = read_splits([source], decode=False)
    splits = dict(parts)
    changes = _of_readers(splits.values())
    for split, other in repeated_splits(splits).items():
        changes.append(Change(split, f"has the images of {other}, and takes its labels"))
        same[split] = other
        del splits[split]
    for split, dataset in splits.items():
        splits[split], undecodable = _without_undecodable(dataset, signatures)
        changes += undecodable
    kept, repeats = without_repeats(splits, signatures)
    collection, joined = with_joined_entries(collect([*kept.items()]))
    collection, boxes = without_doubtful_boxes(collection)
    changes += [*repeats, *joined, *boxes]
    format = format_of(splits.values())
    with new_folder(output) as folder:
        notes = write_collection(folder, collection, format, images, same)
        write_changes(folder, changes)
    say(f"cleaned copy ({format}): {output}", *(f"  {note}" for note in notes))
    for split, of_split in collection.splits.items():
        num_boxes = sum(len(image.boxes) for image in of_split)
        say(f"  {split}: {counted(len(of_split), 'image')}, {counted(num_boxes, 'box', 'boxes')}")
    say(f"  {counted(len(changes), 'change')}, listed in {output / CHANGES}")


def _of_readers(datasets: Iterable[DetectionDataset]) -> list[Change]:
    """What readers corrected or left out; of each kind the places that are kept, then a count."""
    changes = []
    for dataset in datasets:
        for path, reason in dataset.skipped.items():
            changes.append(Change(str(path), f"image left out, {reason}"))
        for one in dataset.findings:
            if one.id == "image-skipped" or one.severity is Severity.ERROR:
                continue
            changes += [
                Change(place.where, f"{one.message} {place.what}".strip()) for place in one.examples
            ]
            if one.count > len(one.examples):
                more = one.count - len(one.examples)
                changes.append(Change(f"{more} more places", one.message))
    return changes


def _without_undecodable(
    dataset: DetectionDataset, signatures: Mapping[Path, Signature]
) -> tuple[DetectionDataset, list[Change]]:
    kept = [at for at, record in enumerate(dataset.records) if record.path in signatures]
    lost = [str(one.path) for one in dataset.records if one.path not in signatures]
    changes = [Change(path, "image left out, it cannot be decoded") for path in lost]
    return (take_images(dataset, kept) if lost else dataset), changes
