"""What a checkpoint records of its training: data set, image size, batch, selected classes.

Ours has it under `trained_on`, Ultralytics' under `train_args`, with the same keys. A data set is
only a name to look up: nothing is opened here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rtdetr_cli.config.dataset import MAX_CLASSES, MAX_NAME
from rtdetr_cli.weights.plausible import MAX_COUNT, input_size
from rtdetr_cli.weights.safe_pickle import Inert

MAX_DATA = 4000
"""Characters of a data set's name or path."""


@dataclass(frozen=True)
class TrainedOn:
    """The keys of a training that a later one, or a validation, continues with."""

    data: str
    """Name or path of the data set, as the user gave it."""
    imgsz: tuple[int, int] | None = None
    """Height and width."""
    batch: int | None = None
    single_cls: bool = False
    classes: tuple[int | str, ...] | None = None
    """Names or indices."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint stores them; `trained_on` is the inverse."""
        lists = {key: list(value) for key, value in asdict(self).items() if type(value) is tuple}
        return {**asdict(self), **lists}


def trained_on(values: Inert) -> TrainedOn:
    """Parse the record of an untrusted file.

    Raises:
        ValueError: a value that no training can have had.
        TypeError: not a mapping.
        KeyError: it names no data set.
    """
    if not isinstance(values, dict):
        raise TypeError("its training is not a mapping")
    data, batch, single_cls = values["data"], values.get("batch"), values.get("single_cls", False)
    if not isinstance(data, str) or not is_name(data):
        raise ValueError("its data set has no plain name")
    if batch is not None and (type(batch) is not int or not 0 < batch <= MAX_COUNT):
        raise ValueError("invalid batch")
    if type(single_cls) is not bool:
        raise ValueError("single_cls is neither true nor false")
    return TrainedOn(data, _size(values.get("imgsz")), batch, single_cls, _classes(values))


def is_name(data: str) -> bool:
    """Whether it can be recorded: a name or a path, but no address, which a file may not choose."""
    return 0 < len(data) <= MAX_DATA and data.isprintable() and "://" not in data


def _size(imgsz: Inert) -> tuple[int, int] | None:
    size = input_size(imgsz)
    if imgsz is not None and size is None:
        raise ValueError("invalid image size")
    return size


def _classes(values: dict[Any, Any]) -> tuple[int | str, ...] | None:
    classes = values.get("classes")
    if classes is None:
        return None
    is_list = isinstance(classes, list) and 0 < len(classes) <= MAX_CLASSES
    if not is_list or not all(map(_is_class, classes)):
        raise ValueError("invalid classes")
    return tuple(classes)


def _is_class(one: Inert) -> bool:
    if isinstance(one, str):
        return len(one) <= MAX_NAME and one.isprintable()
    return type(one) is int and 0 <= one < MAX_CLASSES
