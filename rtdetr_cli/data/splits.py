"""Open a data set of any layout: find its files and choose the reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rtdetr_cli.config.dataset import SPLITS, DatasetConfig
from rtdetr_cli.config.load import load_dataset_config
from rtdetr_cli.core.errors import DataError, nearest
from rtdetr_cli.core.files import reason_of, refuse_special, user_path
from rtdetr_cli.data.coco import read_coco
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.download import fetch
from rtdetr_cli.data.shapes import draw_shapes
from rtdetr_cli.data.voc import is_voc_list, read_voc
from rtdetr_cli.data.yolo import list_images, read_image_list, read_yolo

ROBOFLOW_JSON = "_annotations.coco.json"


@contextmanager
def _reading() -> Iterator[None]:
    """Convert errors of the operating system to DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename}: {reason_of(error)}") from error


def load_data(data: str | Path, download: bool | None = None) -> DatasetConfig:
    """Open a data set given as a YAML, a shipped name, a folder or a COCO json.

    Args:
        data: the name or path.
        download: whether to download it if it is absent; None: up to 1 GB, and above if the user
            agrees.
    """
    return replace(_load(data), may_download=download)


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
def open_split(config: DatasetConfig, split: str) -> DetectionDataset:
    """Read one split of a data set.

    Raises:
        DataError: the split or a file of it is missing, or its labels are wrong.
    """
    if config.shapes:
        config = draw_shapes(config.shapes, config.path)
    entries: tuple[str, ...] | None = getattr(config, split)
    if not entries:
        known = [name for name in SPLITS if getattr(config, name)]
        raise DataError(f"{_origin(config)}: has no {split} split, only {', '.join(known)}")
    paths = [_find(config, split, entry) for entry in entries]
    annotations = [path for path in map(_annotation_file, paths) if path]
    if len(annotations) > 1:
        raise DataError(f"{_origin(config)}: {split} names more than one COCO json")
    if annotations:
        folders = [path for path in paths if path.is_dir()]
        folders += _usual_image_folders(annotations[0], config.path)
        return read_coco(annotations[0], folders, config.names)
    if all(map(is_voc_list, paths)):
        return read_voc(paths, config.names)
    if config.names is None:
        raise DataError(f"{_origin(config)}: names is missing; list the classes")
    images = [image for path in paths for image in _images(path, config.path)]
    if not images:
        raise DataError(f"{paths[0]}: no images in it")
    return read_yolo(images, config.names)


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


def _find(config: DatasetConfig, split: str, entry: str) -> Path:
    """Find the file or folder of a split; Roboflow writes ../train/images for train/images."""
    ensure_present(config)
    for path in (config.path / entry, config.path / entry.replace("../", "")):
        if path.exists():
            return path
    missing = config.path / entry
    siblings = [path.name for path in missing.parent.glob("*")]
    raise DataError(
        f"{_origin(config)}: {split}: {missing} does not exist{nearest(missing.name, siblings)}"
    )


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
    raise DataError(f"{path}: is neither a folder, a .txt list nor a .json")
