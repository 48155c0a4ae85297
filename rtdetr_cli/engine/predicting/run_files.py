"""Write the files of a prediction on a thread, while the network works on the next images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.predicting.pipeline import Behind
from rtdetr_cli.media.item import Clip
from rtdetr_cli.media.writer import RunWriter


class RunFiles:
    """The run folder, which is made for the first Results, so that no run leaves it empty."""

    def __init__(self, open_writer: Callable[[], RunWriter]) -> None:
        self._open_writer, self._behind = open_writer, Behind()
        self._writer: RunWriter | None = None

    def write(self, results: Sequence[Results], clips: Sequence[Clip | None]) -> Path:
        """Write Results and the clips of frames, soon; returns the run folder.

        They are copied, because their owner may change them before they are written.

        Raises:
            StorageError: disk full or no permission, here or at an earlier call.
        """
        self._writer = writer = self._writer or self._open_writer()
        for one, clip in zip(results, clips, strict=True):
            one.save_dir = str(writer.run_dir)
            copied = copy.deepcopy(one)
            self._behind.call(partial(writer.write, copied, clip), copied.orig_img.nbytes)
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
