"""Published weights by name: where they come from, what they reach, and where they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rtdetr_cli.core.errors import WeightsError, nearest
from rtdetr_cli.core.files import rtdetr_home

_STORAGE = "https://github.com/lyuwenyu/storage/releases/download/"


@dataclass(frozen=True)
class Published:
    """A file that the authors of RT-DETR publish."""

    name: str
    """What a user types."""
    architecture: str
    """Name of the architecture in models/."""
    url: str
    ap: float
    """COCO val2017 AP of this very file in the official PyTorch code, 640x640."""
    ap50: float
    """AP at IoU 0.5, measured the same way."""
    data: str = "COCO"
    """What it was trained on."""
    licence: str = "Apache-2.0"


def _published(row: tuple[str, str, str, float, float], data: str = "COCO") -> Published:
    name, architecture, file, ap, ap50 = row
    return Published(f"{name}.pt", architecture, _STORAGE + file, ap, ap50, data)


# Figures and addresses: lyuwenyu/RT-DETR, README.md of rtdetr_pytorch and rtdetrv2_pytorch.
_COCO = (
    ("rtdetr-l", "rtdetr-l", "v0.1/rtdetrv2_hgnetv2_l_6x_coco_from_paddle.pth", 52.9, 71.5),
    ("rtdetr-x", "rtdetr-x", "v0.1/rtdetrv2_hgnetv2_x_6x_coco_from_paddle.pth", 54.7, 72.9),
    ("rtdetr-h", "rtdetr-h", "v0.1/rtdetrv2_hgnetv2_h_6x_coco_from_paddle.pth", 56.3, 74.8),
    ("rtdetr-r18", "rtdetr-r18", "v0.1/rtdetr_r18vd_dec3_6x_coco_from_paddle.pth", 46.4, 63.7),
    ("rtdetr-r34", "rtdetr-r34", "v0.1/rtdetr_r34vd_dec4_6x_coco_from_paddle.pth", 48.9, 66.8),
    ("rtdetr-r50m", "rtdetr-r50m", "v0.1/rtdetr_r50vd_m_6x_coco_from_paddle.pth", 51.3, 69.5),
    ("rtdetr-r50", "rtdetr-r50", "v0.1/rtdetr_r50vd_6x_coco_from_paddle.pth", 53.1, 71.2),
    ("rtdetr-r101", "rtdetr-r101", "v0.1/rtdetr_r101vd_6x_coco_from_paddle.pth", 54.3, 72.8),
    ("rtdetrv2-r18", "rtdetr-r18", "v0.2/rtdetrv2_r18vd_120e_coco_rerun_48.1.pth", 48.1, 65.1),
    ("rtdetrv2-r34", "rtdetr-r34", "v0.1/rtdetrv2_r34vd_120e_coco_ema.pth", 49.9, 67.5),
    ("rtdetrv2-r50m", "rtdetr-r50m", "v0.1/rtdetrv2_r50vd_m_7x_coco_ema.pth", 51.9, 69.9),
    ("rtdetrv2-r50", "rtdetr-r50", "v0.1/rtdetrv2_r50vd_6x_coco_ema.pth", 53.4, 71.6),
    ("rtdetrv2-r101", "rtdetr-r101", "v0.1/rtdetrv2_r101vd_6x_coco_from_paddle.pth", 54.3, 72.8),
)
_OBJECTS365 = (
    (
        "rtdetr-r18-o365",
        "rtdetr-r18",
        "v0.1/rtdetr_r18vd_5x_coco_objects365_from_paddle.pth",
        49.0,
        66.5,
    ),
    (
        "rtdetr-r50-o365",
        "rtdetr-r50",
        "v0.1/rtdetr_r50vd_2x_coco_objects365_from_paddle.pth",
        55.2,
        73.4,
    ),
    (
        "rtdetr-r101-o365",
        "rtdetr-r101",
        "v0.1/rtdetr_r101vd_2x_coco_objects365_from_paddle.pth",
        56.2,
        74.5,
    ),
)

# The classes of the published files, in the order of their heads.
_COCO_NAMES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire "
    "hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, "
    "bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, "
    "snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, "
    "tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, "
    "sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted "
    "plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, "
    "microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, "
    "hair drier, toothbrush"
)
COCO_NAMES: dict[int, str] = dict(enumerate(_COCO_NAMES.split(", ")))

CATALOG: dict[str, Published] = {
    entry.name: entry
    for entry in (
        *(_published(row) for row in _COCO),
        *(_published(row, "Objects365, then COCO") for row in _OBJECTS365),
    )
}


def resolve_weights(name: str | Path) -> Path:
    """The file that a user means: a path as given, else one kept in the home folder.

    Raises:
        WeightsError: It is neither; for a published name the message says where it comes from
            and where to put it.
    """
    given = Path(name).expanduser()
    if given.exists():
        return given
    home = rtdetr_home() / "weights"
    entry = CATALOG.get(str(name)) or CATALOG.get(f"{name}.pt")
    if entry is not None:
        for kept in (home / entry.name, home / entry.url.rpartition("/")[2]):
            if kept.is_file():
                return kept
        raise WeightsError(
            f"{entry.name} is not on this machine: download {entry.url} and save it as "
            f"{home / entry.name}"
        )
    if given.name == str(name) and (home / given).is_file():
        return home / given
    raise WeightsError(f"{name} does not exist{nearest(given.name, CATALOG)}")
