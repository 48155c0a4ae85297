"""A generated data set that needs no download: discs, squares and triangles.

Color correlates with the class but does not determine it. Shapes overlap, vary four-fold in size
and lie on a textured background among distractors: bars, ellipses, arcs and lines. An image depends
only on (seed, split, number), so that enlarging one split does not change the others.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rtdetr_cli.config.dataset import SPLITS, DatasetConfig, ShapesConfig
from rtdetr_cli.core.files import storage_errors
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.core.opencv import cv2

Points = npt.NDArray[np.float64]
Canvas = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]

NAMES = {0: "disc", 1: "square", 2: "triangle"}
VERSION = 2
"""Part of the folder name; must be increased when the images change."""

SUPERSAMPLING = 4
"""Oversampling factor for smooth edges."""
MIN_VISIBLE = 0.6
"""Minimum visible fraction of every shape."""
PLACING_TRIALS = 20
OWN_COLOUR = 0.95
"""Fraction of the shapes with a color of their class; distractors have any color."""
MAX_TILT = np.pi / 12
"""Squares and triangles are upright up to this angle, as most objects in photos."""


def draw_shapes(config: ShapesConfig, parent: Path) -> DatasetConfig:
    """Write the data set below `parent` with YOLO labels unless it exists; return its config."""
    parts = "-".join(str(value) for value in asdict(config).values())
    folder = parent / f"shapes{VERSION}-{parts}"
    with storage_errors(folder):
        if not folder.is_dir():
            parent.mkdir(parents=True, exist_ok=True)
            _write_all(config, folder)
    train, val, test = ((f"images/{split}",) for split in SPLITS)
    return DatasetConfig(folder, train, val, test, NAMES)


def draw_image(rng: np.random.Generator, size: int) -> tuple[Pixels, list[tuple[int, Box]]]:
    """Draw one image.

    Returns:
        (size, size, 3) uint8 RGB, and class index and (left, top, right, bottom) in pixels of
        each shape, clipped to its visible part.
    """
    canvas = _ground(rng, size)
    for _ in range(rng.integers(2, 6)):
        _draw_line(canvas, rng)
    owner = np.full((size, size), -1, np.int64)  # index of the shape visible at each pixel
    shapes: list[_Shape] = []
    kinds = [*rng.integers(len(NAMES), size=rng.integers(3, 8)), *[-1] * rng.integers(1, 4)]
    for kind in rng.permutation(kinds).tolist():
        shape = _place(kind, size, owner, shapes, rng)
        if shape is not None:
            owner[shape.covered(owner)] = len(shapes)
            shapes.append(shape)
            _paint(canvas, shape, rng)
    canvas += rng.uniform(1, 6) * rng.standard_normal(canvas.shape, np.float32)
    boxes = [
        (shape.kind, _visible_box(shape, owner == number))
        for number, shape in enumerate(shapes)
        if shape.kind >= 0
    ]
    return canvas.clip(0, 255).astype(np.uint8), boxes


def _write_all(config: ShapesConfig, folder: Path) -> None:
    """Draw into a temporary folder and rename it, so that it appears atomically."""
    temporary = Path(tempfile.mkdtemp(prefix=".shapes-", dir=folder.parent))
    try:
        counts = (config.num_train, config.num_val, config.num_test)
        for number, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
            _write_split(temporary, split, [config.seed, number], count, config.size)
        names = "".join(f"  {index}: {name}\n" for index, name in NAMES.items())
        splits = "".join(f"{split}: images/{split}\n" for split in SPLITS)
        (temporary / "data.yaml").write_text(f"path: .\n{splits}names:\n{names}", "utf-8")
        if not folder.is_dir():
            temporary.chmod(0o755)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_split(root: Path, split: str, seed: list[int], count: int, size: int) -> None:
    for kind in ("images", "labels"):
        (root / kind / split).mkdir(parents=True)
    for number in range(count):
        image, boxes = draw_image(np.random.default_rng([*seed, number]), size)
        encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        (root / "images" / split / f"{number:04}.jpg").write_bytes(encoded.tobytes())
        lines = [_label_line(kind, np.array(box) / size) for kind, box in boxes]
        (root / "labels" / split / f"{number:04}.txt").write_text("".join(lines), "utf-8")


def _label_line(kind: int, box: Points) -> str:
    (left, top), (right, bottom) = box[:2], box[2:]
    return (
        f"{kind} {(left + right) / 2:.6f} {(top + bottom) / 2:.6f} "
        f"{right - left:.6f} {bottom - top:.6f}\n"
    )


@dataclass(frozen=True)
class _Shape:
    kind: int  # class index; -1: distractor
    left: int
    top: int
    alpha: Canvas  # (h, w) 0..1, inside the image
    box: Box  # exact, clipped to the image

    @property
    def region(self) -> tuple[slice, slice]:
        height, width = self.alpha.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def covered(self, owner: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Mask of the pixels that it covers by half or more."""
        mask = np.zeros(owner.shape, bool)
        mask[self.region] = self.alpha >= 0.5
        return mask


def _place(
    kind: int,
    size: int,
    owner: npt.NDArray[np.int64],
    others: list[_Shape],
    rng: np.random.Generator,
) -> _Shape | None:
    """Find a position where enough of this and all other shapes is visible."""
    for _ in range(PLACING_TRIALS):
        shape = _make(kind, size, rng)
        mask = shape.covered(owner)
        hidden = owner[mask]
        if all(
            (owner == number).sum() - (hidden == number).sum()
            >= MIN_VISIBLE * other.covered(owner).sum()
            for number, other in enumerate(others)
            if number in hidden
        ):
            return shape
    return None


def _make(kind: int, size: int, rng: np.random.Generator) -> _Shape:
    """Draw a shape of log-uniform size, at most a quarter of it outside of the image."""
    radius = size / 320 * np.exp(rng.uniform(np.log(14), np.log(56)))
    centre = rng.uniform(radius / 2, size - radius / 2, 2)
    angle = rng.uniform(-1, 1) * (np.pi if kind < 0 else MAX_TILT)
    outline = _DISTRACTORS[rng.integers(3)] if kind < 0 else _OUTLINES[kind]
    contours = [_turn(points, angle) * radius for points in outline(rng)]
    low = np.floor(centre - radius).astype(int) - 1
    side = int(2 * radius) + 4
    mask = np.zeros((side * SUPERSAMPLING,) * 2, np.uint8)
    shifted = [(points + centre - low) * SUPERSAMPLING for points in contours]
    cv2.fillPoly(mask, [points.round().astype(np.int32) for points in shifted], 255)
    small = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)
    alpha: Canvas = np.asarray(small, np.float32) / np.float32(255)
    (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(low + side, size)
    inside = alpha[top - low[1] : bottom - low[1], left - low[0] : right - low[0]]
    first = (contours[0].min(axis=0) + centre).clip(0, size).tolist()
    last = (contours[0].max(axis=0) + centre).clip(0, size).tolist()
    return _Shape(kind, int(left), int(top), inside, (*first, *last))


def _turn(points: Points, angle: float) -> Points:
    cosine, sine = np.cos(angle), np.sin(angle)
    turned: Points = points @ np.array([[cosine, sine], [-sine, cosine]])
    return turned


def _circle(radius: float = 1.0, turn: float = 2 * np.pi) -> Points:
    angles = np.linspace(0, turn, 90)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _polygon(corners: int) -> Points:
    """A regular polygon with a horizontal bottom side."""
    angles = 2 * np.pi * (np.arange(corners) + 0.5) / corners + np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _bar(rng: np.random.Generator) -> list[Points]:
    half = np.array([0.95, 0.95 * rng.uniform(0.15, 0.4)])
    return [half * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], float)]


def _ellipse(rng: np.random.Generator) -> list[Points]:
    return [_circle() * [1, rng.uniform(0.25, 0.5)]]


def _arc(rng: np.random.Generator) -> list[Points]:
    turn = rng.uniform(0.5, 0.75) * 2 * np.pi
    inner = rng.uniform(0.6, 0.8)
    return [np.concatenate([_circle(1.0, turn), _circle(inner, turn)[::-1]])]


Outline = Callable[[np.random.Generator], list[Points]]
"""Draws the contours of a shape in the unit circle; a second contour is a hole."""

_OUTLINES: list[Outline] = [
    lambda _: [_circle()],
    lambda _: [_polygon(4)],
    lambda _: [_polygon(3)],
]
_DISTRACTORS: list[Outline] = [_bar, _ellipse, _arc]


def _ground(rng: np.random.Generator, size: int) -> Canvas:
    """Background: noise of two scales over a gradient of two colors."""
    colours = rng.uniform(30, 225, (2, 3)).astype(np.float32)
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    across, down = rng.uniform(-1, 1, 2).astype(np.float32)
    slope = np.clip(0.5 + across * (ramp - 0.5)[None, :] + down * (ramp - 0.5)[:, None], 0, 1)
    canvas: Canvas = colours[0] + (colours[1] - colours[0]) * slope[..., None]
    for cells, strength in ((5, 25.0), (24, 12.0)):
        noise = strength * rng.uniform(0.3, 1) * rng.standard_normal((cells, cells, 3), np.float32)
        canvas += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return canvas


def _draw_line(canvas: Canvas, rng: np.random.Generator) -> None:
    start, end = rng.integers(0, canvas.shape[0], (2, 2)).tolist()
    colour = rng.uniform(20, 235, 3).tolist()
    cv2.line(canvas, start, end, colour, int(rng.integers(1, 4)), cv2.LINE_8)


def _paint(canvas: Canvas, shape: _Shape, rng: np.random.Generator) -> None:
    """Fill with a shaded, sometimes striped color that contrasts with the background."""
    beneath = canvas[shape.region]
    mean = beneath.mean(axis=(0, 1))
    own = shape.kind if rng.random() < OWN_COLOUR else -1
    colour = _colour(own, rng)
    while np.abs(colour - mean).max() < 70:
        colour = rng.uniform(0, 255, 3)  # the class color may lack contrast here
    rows, columns = np.mgrid[: beneath.shape[0], : beneath.shape[1]]
    direction = rng.uniform(-1, 1, 2)
    position = direction[0] * rows + direction[1] * columns
    shade = 1 + rng.uniform(0, 0.25) * (position - position.mean()) / (np.ptp(position) + 1)
    if rng.random() < 0.25:
        shade -= 0.25 * (np.sin(position * rng.uniform(0.3, 0.9)) > 0)
    fill = colour * shade[..., None]
    beneath += shape.alpha[..., None] * (fill - beneath)


def _colour(kind: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw a color; for a class, one dominated by the channel of the class."""
    colour = rng.uniform(0, 255, 3)
    if kind >= 0:
        colour *= 0.5
        colour[kind] = rng.uniform(150, 255)
    return colour


def _visible_box(shape: _Shape, visible: npt.NDArray[np.bool_]) -> Box:
    """The exact box, reduced to the visible part."""
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    left, top, right, bottom = shape.box
    return (
        max(left, columns[0] - 0.5),
        max(top, rows[0] - 0.5),
        min(right, columns[-1] + 1.5),
        min(bottom, rows[-1] + 1.5),
    )
