"""Show the images of a run while it runs, for `show=true`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.results import DrawStyle, Results
from rtdetr_cli.core.screen import Windows
from rtdetr_cli.media.item import SourceImage


class Display:
    """Windows with the annotated images: one per stream, one for everything else.

    An image stays until a key is pressed. The frames of a video follow each other at its rate, if
    the run is fast enough; those of a stream come at once. q, Esc or closing a window ends the run.
    """

    def __init__(self, style: DrawStyle) -> None:
        self._style, self._windows = style, Windows()

    @property
    def is_ended(self) -> bool:
        """Whether the user has ended the run."""
        return self._windows.is_ended

    def show(self, items: Sequence[SourceImage], results: Sequence[object]) -> list[Pixels | None]:
        """Show the Results of a batch, those of its readable items.

        Returns:
            What was drawn. None for what callbacks have put in place of Results, which is passed
            over.
        """
        shown: list[Pixels | None] = []
        readable = (item for item in items if item.image is not None)
        for item, one in zip(readable, results, strict=False):
            if not isinstance(one, Results):
                shown.append(None)
                continue
            clip = item.clip
            title = clip.path if clip is not None and clip.is_live else "rtdetr"
            seconds = None if clip is None else 0.0 if clip.is_live else 1 / clip.fps
            drawn = np.asarray(one.plot(**vars(self._style)), np.uint8)
            self._windows.show(title, drawn, seconds)
            shown.append(drawn)
        return shown

    def close(self) -> None:
        """Close the windows."""
        self._windows.close()
