"""Write the run folder of a prediction: annotated images, label files, crops."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from rtdetr_cli.core.file_names import safe_name, same_name
from rtdetr_cli.core.results import DrawStyle, Results

_JPEG_SIDE_LIMIT = 65500


@dataclass
class RunWriter:
    """Writes the results of a run; images of the same name do not overwrite each other."""

    run_dir: Path
    images: bool = True
    """Annotated copies, `<stem>.jpg`."""
    labels: bool = False
    """YOLO text labels, `labels/<stem>.txt`."""
    scores: bool = False
    """Scores as the sixth column of the labels."""
    crops: bool = False
    """Crop of each box, `crops/<class>/<stem>-<row>.jpg`."""
    style: DrawStyle = field(default_factory=DrawStyle)
    """Drawing options of the annotated copies."""
    _stems: set[str] = field(default_factory=set, init=False)

    def write(self, results: Results) -> None:
        """Write the selected outputs of one image.

        Raises:
            StorageError: disk full or no permission.
        """
        stem = self._free_stem(Path(results.path).stem)
        results.save_dir = str(self.run_dir)
        if self.images:
            suffix = ".jpg" if max(results.orig_shape) <= _JPEG_SIDE_LIMIT else ".png"
            results.save(self.run_dir / f"{stem}{suffix}", **asdict(self.style))
        if self.labels:
            results.save_txt(self.run_dir / "labels" / f"{stem}.txt", save_conf=self.scores)
        if self.crops:
            results.save_crop(self.run_dir / "crops", f"{stem}.jpg")

    def _free_stem(self, stem: str) -> str:
        """Make the stem valid on all file systems and unique with `-2`, `-3`..."""
        stem = safe_name(stem)
        free, number = stem, 1
        while same_name(free) in self._stems:
            number += 1
            free = f"{stem}-{number}"
        self._stems.add(same_name(free))
        return free
