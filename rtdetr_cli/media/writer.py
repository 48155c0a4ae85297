"""Write the run folder of a prediction: annotated images and videos, label files, crops."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from rtdetr_cli.core.console import say
from rtdetr_cli.core.encoding import copy_suffix
from rtdetr_cli.core.file_names import safe_name, same_name
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.results import DrawStyle, Results
from rtdetr_cli.media.coco_writer import CocoWriter
from rtdetr_cli.media.item import Clip
from rtdetr_cli.media.mot_writer import MotWriter
from rtdetr_cli.media.video_writer import VideoWriter


@dataclass
class RunWriter:
    """Writes the results of a run; images of the same name do not overwrite each other.

    `<stem>` is the name of the image without its suffix; for a frame of a clip labels, crops and
    frames have `<stem>_<number>`.
    """

    run_dir: Path
    images: bool = True
    """Annotated copies in the format of the image, `<stem>.png`, and of a clip `<stem>.mp4`."""
    labels: bool = False
    """YOLO text labels, `labels/<stem>.txt`."""
    scores: bool = False
    """Scores as the sixth column of the labels."""
    crops: bool = False
    """Crop of each box, `crops/<class>/<stem>-<row>.jpg`."""
    frames: bool = False
    """Annotated frames of a clip, `<stem>_frames/<number>.jpg`."""
    coco: bool = False
    """All boxes as COCO results, `predictions.json`."""
    tracks: bool = False
    """Tracks in the format of the MOT challenge, `mot/<stem>.txt`; of images `mot/<folder>.txt`."""
    style: DrawStyle = field(default_factory=DrawStyle)
    """Drawing options of the annotated copies."""
    _changes: set[str] = field(default_factory=set, init=False)
    _stems: set[str] = field(default_factory=set, init=False)
    _clips: dict[Clip, tuple[str, VideoWriter]] = field(default_factory=dict, init=False)
    _coco: CocoWriter | None = field(default=None, init=False)
    _mot_stems: set[str] = field(default_factory=set, init=False)
    _mots: dict[Hashable, MotWriter] = field(default_factory=dict, init=False)

    def write(
        self, results: Results, clip: Clip | None = None, drawn: Pixels | None = None
    ) -> None:
        """Write the selected outputs of one image, or of a frame of a clip.

        Args:
            results: of the image.
            clip: of a frame.
            drawn: the annotated copy (H, W, 3) uint8 BGR, if it exists already.

        Raises:
            StorageError: disk full or no permission.
        """
        results.save_dir = str(self.run_dir)
        if clip is None:
            stem = self._free_stem(Path(results.path).stem)
            if self.images:
                self._say_change(results)
                self._save_image(results, self.run_dir, stem, drawn)
        else:
            stem = f"{self._write_frame(results, clip, drawn)}_{results.frame}"
        if self.labels:
            results.save_txt(self.run_dir / "labels" / f"{stem}.txt", save_conf=self.scores)
        if self.crops:
            results.save_crop(self.run_dir / "crops", f"{stem}.jpg")
        if self.coco:
            self._coco = self._coco or CocoWriter(self.run_dir / "predictions.json")
            self._coco.write(results, stem)
        if self.tracks:
            self._write_tracks(results, clip)

    def close(self) -> None:
        """Finish the videos, tracks and COCO results."""
        try:
            self._close_clips()
        finally:
            if self._coco is not None:
                self._coco.close()

    def _close_clips(self) -> None:
        while self._clips:
            _, (_, video) = self._clips.popitem()
            video.close()
        while self._mots:
            self._mots.popitem()[1].close()

    def _write_frame(self, results: Results, clip: Clip, drawn: Pixels | None) -> str:
        """Write the annotated frame; returns the stem of the clip."""
        if clip not in self._clips:
            if not clip.is_live:
                self._close_clips()  # files are read one after the other
            stem = self._free_stem(Path(clip.path).stem)
            self._clips[clip] = stem, VideoWriter(self.run_dir / f"{stem}.mp4", clip)
        stem, video = self._clips[clip]
        if self.images:
            if drawn is None:
                drawn = np.asarray(results.plot(**asdict(self.style)), dtype=np.uint8)
            video.write(drawn, results.time_s or 0.0)
        if self.frames:
            self._save_image(results, self.run_dir / f"{stem}_frames", str(results.frame), drawn)
        return stem

    def _write_tracks(self, results: Results, clip: Clip | None) -> None:
        """Append the boxes of a frame to the file of its clip, or of the folder of its image."""
        own = Path(results.path)
        key = own.parent if clip is None else clip
        if key not in self._mots:
            while self._mots and not (clip and clip.is_live):
                self._mots.popitem()[1].close()
            name = own.parent.name or "images" if clip is None else own.stem
            stem = self._free_stem(name, self._mot_stems)
            self._mots[key] = MotWriter(self.run_dir / "mot" / f"{stem}.txt")
        self._mots[key].write(results)

    def _save_image(self, results: Results, folder: Path, stem: str, drawn: Pixels | None) -> None:
        suffix = copy_suffix(Path(results.path), results.encoding, results.orig_shape)
        path = folder / f"{stem}{suffix}"
        if drawn is None:
            results.save(path, **asdict(self.style))
        else:  # nothing is drawn on it again
            results.plot(img=drawn, boxes=False, labels=False, save=True, filename=path)

    def _say_change(self, results: Results) -> None:
        """Name the first annotated copy of each kind that cannot have the original's encoding."""
        change = "" if results.encoding is None else results.encoding.change
        if change and change not in self._changes:
            self._changes.add(change)
            say(f"{results.path}: the annotated copy {change}")

    def _free_stem(self, stem: str, taken: set[str] | None = None) -> str:
        """Make the stem valid on all file systems and unique with `-2`, `-3`..."""
        stem, taken = safe_name(stem), self._stems if taken is None else taken
        free, number = stem, 1
        while same_name(free) in taken:
            number += 1
            free = f"{stem}-{number}"
        taken.add(same_name(free))
        return free
