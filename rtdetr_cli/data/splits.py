"""Open a data set of any layout: find its files and choose the reader."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rtdetr_cli.config.dataset import SPLITS, DatasetConfig
from rtdetr_cli.config.load import load_dataset_config
from rtdetr_cli.core.errors import DataError, nearest
from rtdetr_cli.core.files import reason_of, refuse_special, user_path
from rtdetr_cli.core.image import has_image_name
from rtdetr_cli.data.coco import class_names, read_coco
from rtdetr_cli.data.dataset import DetectionDataset, Record
from rtdetr_cli.data.download import fetch
from rtdetr_cli.data.image_cache import decode_record
from rtdetr_cli.data.kinds import merge
from rtdetr_cli.data.problems import Problems, unusable
from rtdetr_cli.data.selection import concatenate, take_images
from rtdetr_cli.data.shapes import draw_shapes
from rtdetr_cli.data.voc import is_voc_list, read_voc
from rtdetr_cli.data.yolo import list_images, read_image_list, read_yolo

VAL_IMAGES = "val_images.txt"
"""List of the images that val_fraction holds out, in the run folder."""
ROBOFLOW_JSON = "_annotations.coco.json"


@contextmanager
def _reading() -> Iterator[None]:
    """Convert errors of the operating system to DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename}: {reason_of(error)}") from error


def load_data(
    data: str | Path, download: bool | None = None, bad_images: str | None = None
) -> DatasetConfig:
    """Open a data set given as a YAML, a shipped name, a folder or a COCO json.

    Args:
        data: the name or path.
        download: whether to download it if it is absent; None: up to 1 GB, and above if the user
            agrees.
        bad_images: error, or skip to leave out images that cannot be used; None: error, and the
            caller has no such key.
    """
    return replace(_load(data), may_download=download, bad_images=bad_images)


@_reading()
def _load(data: str | Path) -> DatasetConfig:
    if re.match(r"\w+://", str(data)):
        raise DataError(f"data={data} is an address; download it and give the path of the data set")
    path = user_path(data)
    refuse_special(path, DataError)
    if path.suffix == ".json" and path.is_file():
        root = path.absolute().parent
        root = root.parent if root.name == "annotations" else root
        entry = (str(path.absolute().relative_to(root)),)
        return DatasetConfig(root, train=entry, val=entry, origin=path)
    if path.is_dir():
        return _from_folder(path.absolute())
    return load_dataset_config(data)


@_reading()
def open_split(config: DatasetConfig, split: str, decode: bool = True) -> DetectionDataset:
    """Read one split of a data set.

    Args:
        config: the data set.
        split: train, val or test.
        decode: whether bad_images=skip also leaves out the images that cannot be decoded.

    Raises:
        DataError: the split or a file of it is missing, or its labels are wrong.
    """
    if config.shapes:
        config = draw_shapes(config.shapes, config.path)
    dataset = _read(config, split)
    if config.bad_images == "skip" and decode:
        dataset = _without_undecodable(dataset)
    if not dataset.records:
        what = f"{split}: none of its images can be used"
        raise unusable("split-empty", _origin(config), what, dataset.findings)
    return dataset


def _read(config: DatasetConfig, split: str) -> DetectionDataset:
    paths = _paths(config, split)
    jsons = [path for path in map(_annotation_file, paths) if path]
    if jsons:
        names = config.names or class_names(_all_jsons(config), jsons[-1])
        folders = [path for path in paths if path.is_dir()]
        parts = [
            read_coco(
                one, folders + _usual_image_folders(one, config.path), names, config.bad_images
            )
            for one in jsons
        ]
        return parts[0] if len(parts) == 1 else concatenate(parts)
    if all(map(is_voc_list, paths)):
        return read_voc(paths, config.names, config.bad_images)
    if config.names is None:
        raise unusable("names-missing", _origin(config), "names is missing; list the classes")
    images = [image for path in paths for image in _images(path, config.path)]
    if not images:
        raise unusable("split-empty", str(paths[0]), "no images in it")
    return read_yolo(images, config.names, config.bad_images, config.keypoint_columns)


def _paths(config: DatasetConfig, split: str) -> list[Path]:
    """Files and folders of a split; patterns are expanded."""
    entries: tuple[str, ...] | None = getattr(config, split)
    if not entries:
        known = [name for name in SPLITS if getattr(config, name)]
        raise DataError(f"{_origin(config)}: has no {split} split, only {', '.join(known)}")
    return [path for entry in entries for path in _find(config, split, entry)]


def _all_jsons(config: DatasetConfig) -> list[Path]:
    """COCO jsons of all splits that are there; each has a say in the classes."""
    entries = [entry for split in SPLITS for entry in getattr(config, split) or ()]
    paths = [path for entry in entries for path in _matches(config.path, entry)]
    jsons = [path for path in map(_annotation_file, paths) if path is not None]
    return list(dict.fromkeys(jsons))


def _without_undecodable(dataset: DetectionDataset) -> DetectionDataset:
    """Decode every image, and leave out those that fail."""

    def reason(record: Record) -> str | None:
        try:
            decode_record(record)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        reasons = list(pool.map(reason, dataset.records))
    skipped = {
        record.path: text
        for record, text in zip(dataset.records, reasons, strict=True)
        if text is not None
    }
    if not skipped:
        return dataset
    kept = [number for number, text in enumerate(reasons) if text is None]
    problems = Problems("skip")
    for path, text in skipped.items():
        problems.reject(path, "image-damaged", str(path), text.removeprefix(f"{path}: "))
    return replace(
        take_images(dataset, kept),
        notes=[*dataset.notes, *problems.notes()],
        skipped={**dataset.skipped, **skipped},
        findings=merge([*dataset.findings, *problems.findings()]),
    )


def _from_folder(folder: Path) -> DatasetConfig:
    yamls = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if len(yamls) > 1:
        yamls = [path for path in yamls if path.stem in {"data", "dataset", folder.name}]
    if yamls:
        return load_dataset_config(yamls[0])
    places = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}
    voc = {split: (f"ImageSets/Main/{split}.txt",) for split in SPLITS}
    voc = {split: entry for split, entry in voc.items() if (folder / entry[0]).is_file()}
    found = voc or {
        split: (f"{name}/{ROBOFLOW_JSON}",)
        for split, names in places.items()
        for name in names
        if (folder / name / ROBOFLOW_JSON).is_file()
    }
    if not found:
        raise DataError(
            f"{folder}: no data.yaml in it, no train/{ROBOFLOW_JSON}, no ImageSets/Main"
        )
    train, val, test = (found.get(split) for split in SPLITS)
    return DatasetConfig(folder, train, val, test, origin=folder)


@_reading()
def ensure_present(config: DatasetConfig) -> None:
    """Download a data set that is absent.

    Raises:
        DataError: it cannot be downloaded, or nobody agreed to.
        StorageError: no space left or no permission.
    """
    if config.shapes is None and not config.path.exists():
        fetch(config)


def _find(config: DatasetConfig, split: str, entry: str) -> list[Path]:
    """Find the file, the folder or the matches of a pattern."""
    ensure_present(config)
    found = _matches(config.path, entry)
    if found:
        return found
    missing = config.path / entry
    if glob.has_magic(entry):
        what = f"{split}: the pattern {missing} matches nothing"
    else:
        siblings = [path.name for path in missing.parent.glob("*")]
        what = f"{split}: {missing} does not exist{nearest(missing.name, siblings)}"
    raise unusable("split-missing", _origin(config), what)


def _matches(root: Path, entry: str) -> list[Path]:
    """What an entry of a split names; Roboflow writes ../train/images for train/images."""
    for path in (root / entry, root / entry.replace("../", "")):
        if path.exists():
            return [path]
    if not glob.has_magic(entry):
        return []
    return sorted(map(Path, glob.glob(str(root / entry), recursive=True)))  # noqa: PTH207 (**)


def _origin(config: DatasetConfig) -> str:
    return str(config.origin.name if config.origin else config.path)


def _annotation_file(path: Path) -> Path | None:
    if path.suffix == ".json":
        return path
    return path / ROBOFLOW_JSON if (path / ROBOFLOW_JSON).is_file() else None


def _usual_image_folders(json_path: Path, root: Path) -> list[Path]:
    split = json_path.stem.removeprefix("instances_")
    usual = [json_path.parent, root, root / "images", root / "images" / split, root / split]
    return list(dict.fromkeys(usual))


def _images(path: Path, root: Path) -> list[Path]:
    if path.is_dir():
        return list_images(path)
    if path.suffix == ".txt":
        return read_image_list(path, root)
    if has_image_name(path):
        return [path]
    raise DataError(f"{path}: is neither a folder, an image, a .txt list nor a .json")
