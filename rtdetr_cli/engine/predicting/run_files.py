"""Write the files of a prediction on a thread, while the network works on the next images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path

from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.predicting.pipeline import Behind
from rtdetr_cli.media.item import Clip
from rtdetr_cli.media.writer import RunWriter


class RunFiles:
    """The run folder, which is made for the first Results, so that no run leaves it empty."""

    def __init__(self, open_writer: Callable[[], RunWriter]) -> None:
        self._open_writer, self._behind = open_writer, Behind()
        self._writer: RunWriter | None = None

    def write(
        self,
        results: Sequence[Results],
        clips: Sequence[Clip | None],
        drawn: Iterable[Pixels | None] = repeat(None),
    ) -> Path:
        """Write Results, soon; returns the run folder.

        They are copied, because their owner may change them before they are written.

        Args:
            results: of a batch.
            clips: those of frames.
            drawn: annotated copies that exist already, in the style of the run.

        Raises:
            StorageError: disk full or no permission, here or at an earlier call.
        """
        self._writer = writer = self._writer or self._open_writer()
        for one, clip, drawing in zip(results, clips, drawn, strict=False):
            one.save_dir = str(writer.run_dir)
            copied = copy.deepcopy(one)
            num_bytes = copied.orig_img.nbytes * (1 if drawing is None else 2)
            self._behind.call(partial(writer.write, copied, clip, drawing), num_bytes)
        return writer.run_dir

    def finish(self) -> None:
        """Wait until everything is written; raises as `write`."""
        self._behind.finish()

    def close(self) -> None:
        """Write what is left and finish the videos; raises as `write`."""
        try:
            self._behind.close()
        finally:
            if self._writer is not None:
                self._writer.close()
