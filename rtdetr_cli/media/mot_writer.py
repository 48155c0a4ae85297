"""Write tracks as text in the format of the MOT challenge, which trackers' evaluations read."""

from __future__ import annotations

from pathlib import Path

from rtdetr_cli.core.files import storage_errors
from rtdetr_cli.core.results import Results


class MotWriter:
    """The tracks of one sequence.

    A line per box, `frame,id,left,top,width,height,score,-1,-1,-1`; frames and ids from 1, lengths
    in pixels from the corner of the image (motchallenge.net/instructions, results).
    """

    def __init__(self, path: Path) -> None:
        """Create the file.

        Raises:
            StorageError: disk full or no permission.
        """
        self._path = path
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("w", encoding="utf-8", newline="\n")

    def write(self, results: Results) -> None:
        """Append the boxes of a frame.

        Raises:
            StorageError: disk full.
        """
        boxes = results.boxes.numpy()
        if boxes.id is None:
            return
        with storage_errors(self._path):
            for (x1, y1, x2, y2), one, score in zip(boxes.xyxy, boxes.id, boxes.conf, strict=True):
                place = f"{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}"
                self._stream.write(f"{results.frame},{int(one)},{place},{score:.4f},-1,-1,-1\n")
            self._stream.flush()

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()
