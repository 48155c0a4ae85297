"""What callbacks of val, predict and export receive; that of train is in training/events.py.

Attribute names follow Ultralytics' validator, predictor and exporter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.callbacks import Callbacks
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.media.item import SourceImage

if TYPE_CHECKING:  # torch, augmentation and metrics would slow the start of `rtdetr predict`
    from rtdetr_cli.core.structures import Batch
    from rtdetr_cli.data.loader import EvalLoader
    from rtdetr_cli.evaluation.metrics import Metrics


@dataclass
class ValState:
    """The argument of a validation callback; iterating it yields the batches.

    Attributes:
        dataloader: of the split.
        args: the settings; None inside a training.
        batch: the current batch.
        batch_i: its number, from 0.
        metrics: the result, in on_val_end.
    """

    dataloader: EvalLoader
    callbacks: Callbacks = field(default_factory=Callbacks, repr=False)
    args: ValSettings | None = None
    batch: Batch | None = None
    batch_i: int = 0
    metrics: Metrics | None = None

    def __len__(self) -> int:
        return len(self.dataloader)

    def __iter__(self) -> Iterator[Batch]:
        self.callbacks.call("on_val_start", self)
        for number, batch in enumerate(self.dataloader):
            self.batch_i, self.batch = number, batch
            self.callbacks.call("on_val_batch_start", self)
            yield batch
            self.callbacks.call("on_val_batch_end", self)
        self.batch = None

    def end(self, metrics: Metrics) -> Metrics:
        """Return the result, after on_val_end."""
        self.metrics = metrics
        self.callbacks.call("on_val_end", self)
        return metrics


class FrameTrackers(Protocol):
    """The trackers of a run (engine/predicting/tracking.py)."""

    def update(self, items: Sequence[SourceImage], results: Sequence[Any]) -> None:
        """Add ids to the Results of the readable items."""

    def reset(self) -> None:
        """Forget all tracks."""


@dataclass
class PredictState:
    """The argument of a prediction callback.

    Attributes:
        args: the settings.
        images: the current ones, in the order of the source: path, (H, W, 3) RGB pixels or None,
            and the error of an unreadable one.
        results: Results of its readable images, from on_predict_postprocess_end on. A callback may
            change or replace them; one item per image is returned to the caller.
        seen: number of images so far.
        save_dir: the run folder, once something has been written.
        trackers: those of `track`; its `reset()` forgets all tracks.
    """

    args: PredictSettings
    callbacks: Callbacks = field(default_factory=Callbacks, repr=False)
    images: list[SourceImage] = field(default_factory=list, repr=False)
    results: Sequence[Any] = ()
    seen: int = 0
    save_dir: Path | None = None
    trackers: FrameTrackers | None = field(default=None, repr=False)

    @property
    def batch(self) -> tuple[list[str], list[Pixels], list[str]]:
        """Paths, (H, W, 3) BGR images and log lines of the readable `images`, as in Ultralytics."""
        readable = [(one.path, one.image) for one in self.images if one.image is not None]
        paths = [path for path, _ in readable]
        pixels = [np.ascontiguousarray(rgb[..., ::-1]) for _, rgb in readable]
        return paths, pixels, [f"image {path}: " for path in paths]

    def call(self, event: str) -> None:
        """Call the functions of an event."""
        self.callbacks.call(event, self)

    def outcomes(self) -> Iterator[Any]:
        """The results and unreadable images of the batch, in the order of the source.

        Raises:
            UsageError: a callback has changed the number of results.
        """
        results, count = list(self.results), sum(one.image is not None for one in self.images)
        if len(results) != count:
            raise UsageError(f"a callback has left {len(results)} results of {count} images")
        found = iter(results)
        return (next(found) if one.image is not None else one for one in self.images)


@dataclass
class ExportState:
    """The argument of an export callback.

    Attributes:
        args: the settings.
        file: the file or folder written, in on_export_end.
    """

    args: ExportSettings
    file: Path | None = None
