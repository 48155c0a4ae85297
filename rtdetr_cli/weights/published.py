"""What is known of a published file: address, accuracy, cost, licence and local path.

Torch-free. catalog.py and catalog_dfine.py list the files; store.py downloads and opens them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.files import rtdetr_home
from rtdetr_cli.weights.licence import ASKED, PADDLECLAS, Licence

STORAGE = "https://github.com/lyuwenyu/storage/releases/download/"
"""Address of most of them; a mirror (`RTDETR_MIRROR`) replaces it."""


@dataclass(frozen=True)
class PublishedFile:
    """A file published by the authors of a network."""

    name: str
    """What a user types."""
    architecture: str
    """Name of the architecture in models/."""
    file: str
    """Release and name below the start of its address."""
    storage: str | None = field(default=None, kw_only=True)
    """Start of its address; None: `STORAGE`."""
    saved_as: str | None = field(default=None, kw_only=True)
    """Name of the local copy, where the published name is not unique."""

    @property
    def url(self) -> str:
        """Address of the published file."""
        return (self.storage or STORAGE) + self.file

    @property
    def original(self) -> Path:
        """Local path of the downloaded file, under its published name."""
        return weights_home() / (self.saved_as or self.file.rpartition("/")[2])


@dataclass(frozen=True)
class Published(PublishedFile):
    """A trained detector."""

    ap: float
    """AP of this file on the validation set of its last training data, as its authors print it."""
    ap50: float | None
    """AP at IoU 0.5, measured in the same way; None if not printed."""
    data: str = "COCO"
    """What it was trained on."""
    family: str = "RT-DETR"
    """Heading of the list."""
    parameters_m: float = 0.0
    """Parameters in millions, as printed."""
    gflops: float = 0.0
    """10^9 floating-point operations for an image, as printed."""
    latency_ms: float | None = None
    """Milliseconds on a T4 (TensorRT, FP16, batch 1), as printed."""
    sampling: str = "bilinear"
    """Sampling of its decoder, bilinear or discrete; cannot be inferred from the tensors."""
    licence: Licence = ASKED
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    """Preprocessing with which AP was measured."""
    sha256: str | None = None
    """Checksum, if two independent projects recorded the same one."""
    is_fetched: bool = True
    """False: the address is a page for a browser, and the user saves the file."""

    @property
    def converted(self) -> Path:
        """Local path in our format; a file that the user put there takes precedence."""
        return weights_home() / self.name

    @property
    def kept(self) -> Path | None:
        """The local file, if any."""
        return next((p for p in (self.converted, self.original) if p.is_file()), None)


@dataclass(frozen=True)
class PublishedBackbone(PublishedFile):
    """A backbone pretrained for classification, from which a detector is trained.

    `architecture` is one that has this backbone; others with the same backbone use the same file.
    """

    megabytes: float
    """Size of its float32 tensors, in 10^6 bytes."""
    data: str = "ImageNet"
    """What it was trained on."""
    licence: Licence = PADDLECLAS
    sha256: str | None = None
    """Checksum, if two independent projects recorded the same one."""

    @property
    def kept(self) -> Path | None:
        """The local file, if any."""
        return self.original if self.original.is_file() else None


def weights_home() -> Path:
    """Local folder of weights: `RTDETR_HOME`/weights."""
    return rtdetr_home() / "weights"
