"""Licences of weights: who states one and where, as a line that files carry on.

Nothing is concluded from the licence of code: a file whose authors state no licence for it has none
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rtdetr_cli.core.errors import printable

MAX_LINE = 1000
"""Characters of the line in a file; a longer one is damage."""
FROM_SCRATCH = "yours: trained from scratch"
CODE = (
    "this toolkit: Apache-2.0 (its LICENSE)",
    "RT-DETR of its authors: Apache-2.0, stated by one of them in "
    "https://github.com/lyuwenyu/RT-DETR/issues/433",
)
"""Licences of the code."""
DATA = (
    "annotations of COCO: CC BY 4.0 (https://cocodataset.org/#termsofuse), images: terms of Flickr",
    "Objects365: D-FINE's authors point to its terms, for academic use, in "
    "https://github.com/Peterande/D-FINE/issues/357",
)
"""What is stated about training data."""
_STARTED = ("fine-tuned from ", "backbone from ")


@dataclass(frozen=True)
class Licence:
    """The licence of published weights."""

    name: str | None
    """SPDX name; None if nobody states one."""
    stated_by: str | None
    """Who states it."""
    stated_where: str
    """Address of the statement, or of the open question."""

    def describe(self) -> str:
        """One line with source."""
        if self.name is None:
            return f"not stated by its authors (see {self.stated_where})"
        return f"{self.name}, stated by {self.stated_by} ({self.stated_where})"


ASKED = Licence(None, None, "https://github.com/lyuwenyu/RT-DETR/issues/685")
"""lyuwenyu/storage has no licence; the question about its files is open (November 2026)."""
PADDLECLAS = Licence(
    None, None, "https://github.com/PaddlePaddle/PaddleClas, whose code is Apache-2.0"
)
"""The ImageNet classifiers: converted from PaddleClas."""

DFINE = Licence(
    "Apache-2.0", "one of its authors", "https://github.com/Peterande/D-FINE/issues/357"
)
"""Files of D-FINE that were trained on COCO alone."""
DFINE_OBJECTS365 = Licence(
    None,
    None,
    "https://github.com/Peterande/D-FINE/issues/357, which sets files from Objects365 apart: the "
    "terms of these data are for academic use",
)
"""The others; the model cards of their copies on Hugging Face say Apache-2.0 all the same."""


def code_only(repository: str) -> Licence:
    """Licence of weights whose authors state one for their code only."""
    return Licence(None, None, f"https://github.com/{repository}, whose code is Apache-2.0")


def copied(name: str) -> Licence:
    """Licence in the model card of a network's copy on Hugging Face, PekingU/NAME."""
    where = f"https://huggingface.co/PekingU/{name}"
    return Licence("Apache-2.0", "the model card of its copy on Hugging Face", where)


def licence_entry(line: str) -> dict[str, str]:
    """The entry that files of other families get; empty if no licence is known."""
    return {"licence": line} if line else {}


def recorded_licence(values: Mapping[Any, Any]) -> str:
    """The line in such an entry of an untrusted file; empty if there is none."""
    line = values.get("licence")
    return printable(line, MAX_LINE) if isinstance(line, str) else ""


def fine_tuned(source: str, licence: str) -> str:
    """The line of weights that were trained from others.

    Args:
        source: name of the file they started from.
        licence: its line; empty if it records none.
    """
    if licence.startswith(_STARTED) or licence == FROM_SCRATCH:
        return licence
    return f"fine-tuned from {source}: {licence or 'which records no licence'}"


def from_backbone(source: str, licence: str) -> str:
    """The line of weights trained from scratch but for a pretrained backbone."""
    return f"backbone from {source}: {licence or 'which records no licence'}; the rest is yours"
