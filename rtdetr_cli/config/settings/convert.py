"""Settings of `rtdetr convert`, for weights (`model=`) or a data set (`data=`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import BadImages, CountFromZero, Family, Fraction, OneOf
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.core.errors import UsageError

_WEIGHT_FORMATS = ("rtdetr", "official", "hf", "safetensors")
_DATA_FORMATS = ("coco", "yolo", "voc")
_FOR_DATA = ("download", "bad_images", "images", "classes", "merge", "split", "group", "seed")
"""Keys that weights do not have."""


@dataclass(frozen=True, kw_only=True)
class ConvertSettings(Settings):
    """Convert weights or a data set to another format."""

    mode = "convert"
    groups: ClassVar[dict[str, str]] = {
        "model": "Input, one of two",
        "format": "Output",
        "images": "Data sets",
    }

    model: str | None = None
    """Checkpoint: rtdetr, official PyTorch, Ultralytics or Hugging Face."""
    family: Family | None = None
    """dfine, deim or rtdetrv4, for weights whose tensors and file name do not say which."""
    data: str | None = None
    """Data set: a name (coco8), YAML, folder or COCO json."""

    format: Annotated[str, OneOf((*_WEIGHT_FORMATS, *_DATA_FORMATS))] | None = None
    """rtdetr (None), official: v2 .pth, hf: a folder or safetensors; for data coco, yolo or voc."""
    out: str | None = None
    """Output file or folder; None: named after the model. A data set needs a new folder."""

    images: Annotated[str, OneOf(("copy", "link", "none"))] = "copy"
    """copy: into out; link: links to the files of the source; none: write only labels."""
    classes: tuple[int | str, ...] | None = None
    """Classes to keep, names or indices, numbered in this order; None: all."""
    merge: tuple[str, ...] | None = None
    """Further data sets to add to data; classes are matched by name."""
    split: tuple[Fraction, ...] | None = None
    """Fractions of train, val and test, e.g. 0.8,0.1,0.1; None: the splits of the source."""
    group: str | None = None
    """What `split` keeps together: folder, or a regular expression, its first group in the name."""
    seed: CountFromZero = 0
    """Random seed of `split`."""
    download: bool | None = None
    """Download the data set if absent: true without a question, false never; None: up to 1 GB."""
    bad_images: BadImages = "error"
    """error, or skip: leave out images that cannot be decoded or have a wrong label."""

    def __post_init__(self) -> None:
        super().__post_init__()
        reason = self._input_reason() or (self._data_reason() if self.data else None)
        if reason:
            raise UsageError(f"convert: {reason}")

    def _input_reason(self) -> str | None:
        """Explain why model, data and the other keys do not fit each other."""
        if not self.model and not self.data:
            return "give model= (weights) or data= (a data set), for example model=rtdetr-l.pt"
        if self.model and self.data:
            return "model= is weights and data= a data set; give one of them"
        if self.data and self.family:
            return "family has no effect with data=: it is for weights"
        noun, formats = ("model", _WEIGHT_FORMATS) if self.model else ("data", _DATA_FORMATS)
        if self.format not in formats and not (self.model and self.format is None):
            found = f", found {self.format}" if self.format else ""
            return f"format must be one of {', '.join(formats)} with {noun}={found}"
        defaults = {one.name: one.default for one in fields(self)}
        foreign = [
            key for key in _FOR_DATA if key in self.given or getattr(self, key) != defaults[key]
        ]
        return f"{foreign[0]} has no effect with model=" if self.model and foreign else None

    def _data_reason(self) -> str | None:
        """Explain what is wrong with the keys of a data set."""
        if not self.out:
            return "data= needs out=, a new folder, for example out=my-data-coco"
        if self.split is None:
            idle = "group" if self.group else "seed" if self.seed else None
            return f"{idle} has no effect without split=" if idle else None
        if not 2 <= len(self.split) <= 3 or abs(sum(self.split) - 1) > 1e-6:
            return "split must be two or three fractions that sum to 1, for example 0.8,0.1,0.1"
        return None if self.group in {None, "folder"} else _expression_reason(str(self.group))


def _expression_reason(group: str) -> str | None:
    try:
        has_group = re.compile(group).groups > 0
    except re.error as error:
        return f"group={group} is not a regular expression: {error}"
    if not has_group:
        return f"group={group} has no (group) that names what belongs together; or use group=folder"
    return None
