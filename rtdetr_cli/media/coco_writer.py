"""Write the detections of a run as COCO results, row by row, so that none are kept in memory."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from rtdetr_cli.core.errors import printable
from rtdetr_cli.core.exchange import image_id
from rtdetr_cli.core.files import atomic_write, storage_errors
from rtdetr_cli.core.results import Results


class CocoWriter:
    """A JSON array of COCO results with `file_name`; the file appears when it is closed."""

    def __init__(self, path: Path) -> None:
        """Create a temporary file.

        Raises:
            StorageError: disk full or no permission.
        """
        self._path, self._open = path, ExitStack()
        temporary = self._open.enter_context(atomic_write(path))
        self._stream = self._open.enter_context(temporary.open("w", encoding="utf-8"))
        self._separator = "["

    def write(self, results: Results, stem: str) -> None:
        """Append the boxes of an image; `stem` is its name in the run folder.

        Raises:
            StorageError: disk full.
        """
        name = printable(Path(results.path).name)
        with storage_errors(self._path):
            for row in results.to_coco(image_id(stem)):
                text = json.dumps({**row, "file_name": name}, ensure_ascii=False)
                self._stream.write(f"{self._separator}\n{text}")
                self._separator = ","

    def close(self) -> None:
        """Finish the file; raises as `__init__`."""
        with self._open:
            self._stream.write("[]\n" if self._separator == "[" else "\n]\n")
