"""Keys of `rtdetr predict` for results of many images: files of rows, shards, resume."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar

from rtdetr_cli.config.fields import Count, OneOf
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ManyImagesSettings(Settings):
    """Write the detections of many images as rows of files, by several processes if wanted."""

    groups: ClassVar[dict[str, str]] = {"out": "Many images"}

    out: str | None = None
    """Folder for the detections as files of rows, one row per image; nothing is drawn."""
    rows: Annotated[str, OneOf(("jsonl", "parquet"))] = "jsonl"
    """Format of the files in `out`: JSON lines or Parquet."""
    part_size: Count = 1000
    """Source files per file in `out`; a file is written when all of them are done."""
    shard: str | None = None
    """i/n: do share i of n, from 0/n; None: all, or the share of this torchrun worker."""
    resume: bool = False
    """Continue in `out`: skip the images whose file is there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard is not None:
            parse_shard(self.shard)
        keys = ("rows", "part_size", "shard", "resume")
        default = ManyImagesSettings.__dataclass_fields__
        unused = [key for key in keys if getattr(self, key) != default[key].default]
        if unused and self.out is None:
            raise UsageError(f"{self.mode}: {unused[0]} has no effect without out=FOLDER")
        if self.out is not None:
            self._refuse_other_outputs()

    def _refuse_other_outputs(self) -> None:
        """Check that no key asks for images or text besides the rows.

        Raises:
            UsageError: one does.
        """
        outputs = (
            "save_txt",
            "save_crop",
            "save_frames",
            "save_conf",
            "save_json",
            "show",
            "json",
            "project",
            "exist_ok",
        )
        fields = type(self).__dataclass_fields__
        given = [key for key in outputs if getattr(self, key) != fields[key].default]
        if "save" in self.given and getattr(self, "save", False):
            given.insert(0, "save")
        if given:
            raise UsageError(
                f"{self.mode}: {given[0]} has no effect with out=, which writes rows only"
            )


def parse_shard(text: str) -> tuple[int, int]:
    """The share and the number of shares of `i/n`.

    Raises:
        UsageError: it is not a share of so many.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    index, count = map(int, found.groups()) if found else (0, 0)
    if index >= count:
        raise UsageError(f"shard={text}: expected i/n with i from 0 to n-1, for example 0/4")
    return index, count
