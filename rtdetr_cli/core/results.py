"""Results: the detections in one image as users see them, under the names of Ultralytics.

engine/predict.py creates them and passes in the drawing function, as core imports no other room.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np
from PIL import Image

from rtdetr_cli.core import exchange
from rtdetr_cli.core.arrays import Array
from rtdetr_cli.core.boxes import Boxes, Index
from rtdetr_cli.core.coco_classes import category_ids as coco_category_ids
from rtdetr_cli.core.encoding import Encoding, copy_suffix, encoding_for, write_encoded
from rtdetr_cli.core.errors import UsageError, nearest
from rtdetr_cli.core.file_names import class_folders, safe_name
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.core.image import Pixels, swap_red_blue, write_image
from rtdetr_cli.core.screen import show_image
from rtdetr_cli.core.tables import Table

Style: TypeAlias = "bool | float | str | tuple[int, int, int] | None"
Painter: TypeAlias = "Callable[[Pixels, Boxes, Mapping[int, str], DrawStyle], Pixels]"

_OTHER_TASKS = {"im_gpu", "kpt_line", "kpt_radius", "masks", "probs", "txt_color"}
"""Options of Ultralytics' `plot` that have no effect on boxes and their labels there either."""


@dataclass(frozen=True)
class DrawStyle:
    """Drawing options of `Results.plot`."""

    boxes: bool = True
    """Draw the boxes."""
    labels: bool = True
    """Draw class names."""
    conf: bool = True
    """Draw scores after the class names."""
    line_width: int | None = None
    """Line width in pixels; None: from the image size."""
    font_size: float | None = None
    """Text height in pixels; None: from the image size."""
    font: str | None = None
    """TrueType file; None: DejaVu Sans, or an installed font for scripts that it lacks."""
    color_mode: str = "class"
    """Color by `class` or by `instance`; boxes with ids have a color by id."""

    def __post_init__(self) -> None:
        if self.color_mode not in {"class", "instance"}:
            raise UsageError(f"color_mode={self.color_mode}: expected class or instance")


class Results(Table):
    """The detections in one image.

    Attributes:
        orig_img: (H, W, 3) uint8 BGR, upright, before resizing.
        orig_shape: (height, width) in pixels.
        path: path of the image or video; `image0.jpg`, `image1.jpg`... for arrays.
        frame: number of the frame in its video, from 1; None for an image that is not tracked.
        time_s: seconds from the start of the video; None for an image.
        names: class name of each class index.
        boxes: the detections, highest score first.
        speed: milliseconds of `preprocess`, `inference` and `postprocess`.
        save_dir: the run folder; None if none is written.
        encoding: of the image file, which `save` follows; None for frames and pixels in memory.
    """

    masks = probs = keypoints = obb = semantic_mask = depth = None
    columns = ("name", "class", "confidence", "x1", "y1", "x2", "y2")

    def __init__(
        self,
        orig_img: Pixels,
        path: str,
        names: Mapping[int, str],
        boxes: Array | None = None,
        speed: dict[str, float] | None = None,
        painter: Painter | None = None,
    ) -> None:
        height, width = orig_img.shape[:2]
        self.orig_img = orig_img
        self.orig_shape = (height, width)
        self.path = path
        self.names = dict(names)
        none = np.zeros((0, 6), np.float32)
        self.boxes = Boxes(none if boxes is None else boxes, self.orig_shape)
        self.speed = speed or {"preprocess": 0.0, "inference": 0.0, "postprocess": 0.0}
        self.frame: int | None = None
        self.time_s: float | None = None
        self.save_dir: str | None = None
        self.encoding: Encoding | None = None
        self._painter = painter

    def plot(
        self,
        *,
        img: Pixels | None = None,
        pil: bool = False,
        show: bool = False,
        save: bool = False,
        filename: str | Path | None = None,
        **style: Style,
    ) -> Pixels | Image.Image:
        """Draw the boxes on a copy of the image.

        Args:
            img: another image of the same size to draw on.
            pil: return a PIL image (RGB) instead of an array.
            show: also open it, as `show` does.
            save: also write it.
            filename: where `save` writes; None: `results_<name of the image>`.
            **style: the fields of `DrawStyle`: boxes, labels, conf, line_width, font_size, font,
                color_mode. Options for masks, keypoints and class probabilities have no effect.

        Returns:
            (H, W, 3) uint8 BGR, or a PIL image.
        """
        drawn = self._draw(self.orig_img if img is None else img, **style)
        if save:
            self._write(filename, drawn)
        if show:
            show_image(_to_pil(drawn), self.path)
        return _to_pil(drawn) if pil else drawn

    def save(self, filename: str | Path | None = None, **style: Style) -> str:
        """Write the annotated image and return its path.

        Args:
            filename: its suffix chooses the format; None: `results_<name of the image>`. In the
                format of the image file it has the same quality and color profile.
            **style: as in `plot`.
        """
        return self._write(filename, self._draw(self.orig_img, **style))

    def show(self, **style: Style) -> None:
        """Show the annotated image in the notebook or the system's viewer; `style` as in `plot`.

        Raises:
            BackendError: there is no screen, or no program that opens images.
        """
        show_image(_to_pil(self._draw(self.orig_img, **style)), self.path)

    def save_txt(self, txt_file: str | Path, save_conf: bool = False) -> str:
        """Write YOLO labels, `class cx cy w h [score] [id]` in fractions, and return the path.

        Boxes are clipped to the image, so that the file is a valid label file. An image without
        boxes gets an empty file, which means background.
        """
        boxes = self.boxes.clipped().numpy()
        columns = [boxes.xywhn, boxes.conf[:, None]] if save_conf else [boxes.xywhn]
        rows = [[f"{value:.6g}" for value in row] for row in np.concatenate(columns, axis=1)]
        ids = [[]] * len(rows) if boxes.id is None else [[str(int(one))] for one in boxes.id]
        with atomic_write(txt_file) as temporary, temporary.open("w", encoding="utf-8") as stream:
            for label, row, track in zip(boxes.cls, rows, ids, strict=True):
                stream.write(" ".join([str(int(label)), *row, *track]) + "\n")
        return str(txt_file)

    def save_crop(self, save_dir: str | Path, file_name: str | Path = "im.jpg") -> None:
        """Write the crop of each box as `save_dir/<class>/<stem>-<row>.jpg`.

        Names that a file system does not allow are changed (core/file_names.py).
        """
        stem = safe_name(Path(file_name).stem)
        labels = {int(label) for label in self.boxes.cls.tolist()}
        folders = class_folders({label: self._name(label) for label in labels | set(self.names)})
        for row, box in enumerate(self.boxes.clipped().numpy(), start=1):
            x1, y1, x2, y2 = (round(float(value)) for value in box.xyxy[0])
            if x2 > x1 and y2 > y1:
                folder = folders[int(box.cls[0])]
                target = Path(save_dir) / folder / f"{stem}-{row}.jpg"
                write_image(target, self.orig_img[y1:y2, x1:x2])

    def summary(self, normalize: bool = False, decimals: int = 5) -> list[dict[str, Any]]:
        """One row per box: name, class, confidence, box {x1, y1, x2, y2}, track_id if it has one.

        Args:
            normalize: corners as fractions instead of pixels.
            decimals: digits after the decimal point.
        """
        boxes = self.boxes.numpy()
        corners = boxes.xyxyn if normalize else boxes.xyxy
        rows: list[dict[str, Any]] = [
            {
                "name": self._name(label),
                "class": int(label),
                "confidence": round(float(score), decimals),
                "box": {
                    key: round(float(value), decimals)
                    for key, value in zip(("x1", "y1", "x2", "y2"), corner, strict=True)
                },
            }
            for corner, score, label in zip(corners, boxes.conf, boxes.cls, strict=True)
        ]
        if boxes.id is not None:
            rows = [{**row, "track_id": int(one)} for row, one in zip(rows, boxes.id, strict=True)]
        return rows

    def to_coco(
        self,
        image_id: int | str | None = None,
        category_ids: Mapping[int, int] | Sequence[int] | None = None,
    ) -> list[dict[str, Any]]:
        """COCO results: image_id, category_id, bbox (left, top, width, height) and score per box.

        Args:
            image_id: None: the stem of `path`, as a number if it is one; of a frame with `_frame`.
            category_ids: of each class index; None: COCO's own (1 to 90) for its 80 classes, else
                the index + 1.

        Raises:
            UsageError: a class has no category id.
        """
        if image_id is None:
            frame = "" if self.time_s is None else f"_{self.frame}"
            image_id = exchange.image_id(f"{Path(self.path).stem}{frame}")
        ids = coco_category_ids(self.names) if category_ids is None else category_ids
        known = ids if isinstance(ids, Mapping) else dict(enumerate(ids))
        return exchange.coco_results(self.boxes, image_id, known)

    def to_supervision(self) -> Any:  # noqa: ANN401  (of an optional library)
        """The boxes as `supervision.Detections`, with class names and ids of tracks.

        Raises:
            BackendError: supervision is not installed.
        """
        return exchange.supervision_detections(self.boxes, self.names)

    def verbose(self) -> str:
        """Summary in words: `4 persons, 1 bus, ` or `(no detections), `."""
        return counted_names(Counter(int(label) for label in self.boxes.cls.tolist()), self.names)

    def new(self) -> Results:
        """The same image without boxes."""
        return self._with(self.boxes[:0])

    def update(self, boxes: Array) -> None:
        """Replace the boxes: (N, 6) rows of x1, y1, x2, y2, score, class, or (N, 7) with ids."""
        self.boxes = Boxes(boxes, self.orig_shape)

    def cpu(self) -> Results:
        """A copy with its boxes in main memory."""
        return self._with(self.boxes.cpu())

    def numpy(self) -> Results:
        """A copy with its boxes as NumPy arrays."""
        return self._with(self.boxes.numpy())

    def cuda(self) -> Results:
        """A copy with its boxes on the GPU."""
        return self._with(self.boxes.cuda())

    def to(self, *args: Any, **kwargs: Any) -> Results:  # noqa: ANN401  (those of Tensor.to)
        """A copy with its boxes on another device, of another type or both."""
        return self._with(self.boxes.to(*args, **kwargs))

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Index) -> Results:
        return self._with(self.boxes[index])

    def __iter__(self) -> Iterator[Results]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        height, width = self.orig_shape
        return f"Results({self.path}: {width}x{height} {self.verbose().removesuffix(', ')})"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            values = {public: getattr(type(self), public) for public in dir(type(self))}
            known = (key for key, value in values.items() if key[0] != "_" and value is not None)
            raise AttributeError(f"Results of a detector have no {name}{nearest(name, known)}")

    def _draw(self, image: Pixels, **style: Style) -> Pixels:
        if self._painter is None:
            raise UsageError("plot() needs a painter; Results returned by RTDETR(...) have one")
        known = DrawStyle.__dataclass_fields__
        options: dict[str, Any] = {k: v for k, v in style.items() if k not in _OTHER_TASKS}
        if options.get("font") == "Arial.ttf":  # the default of Ultralytics: no font is asked for
            del options["font"]
        for key in options.keys() - known.keys():
            raise UsageError(f"{key} is not an option of plot(){nearest(key, known)}")
        return self._painter(image, self.boxes, self.names, DrawStyle(**options))

    def _write(self, filename: str | Path | None, drawn: Pixels) -> str:
        path = Path(filename or self._copy_name())
        encoding = encoding_for(path, self.encoding)
        if encoding is None:
            write_image(path, drawn)
        else:
            write_encoded(path, _to_pil(drawn), encoding)
        return str(filename or path)

    def _copy_name(self) -> str:
        own = Path(self.path)
        frame = "" if self.frame is None else f"_{self.frame}"
        suffix = copy_suffix(own, self.encoding, self.orig_shape)
        return f"results_{safe_name(own.stem)}{frame}{suffix}"

    def _with(self, boxes: Boxes) -> Results:
        results = copy.copy(self)
        results.boxes = boxes
        return results

    def _name(self, label: float) -> str:
        return self.names.get(int(label), str(int(label)))


def counted_names(counts: Mapping[int, int], names: Mapping[int, str]) -> str:
    """Numbers of boxes in words: `4 persons, 1 bus, ` or `(no detections), `."""
    found = ""
    for label, number in sorted(counts.items()):
        name = names.get(label, str(label))
        found += f"{number} {name}{'s' * (number > 1 and not name.endswith('s'))}, "
    return found or "(no detections), "


def _to_pil(image_bgr: Pixels) -> Image.Image:
    return Image.fromarray(swap_red_blue(np.ascontiguousarray(image_bgr)))
