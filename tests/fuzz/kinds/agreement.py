"""Good COCO, YOLO and VOC data sets with one mutation: check, train and val agree on each.

A mutation says what has to become of it: the same boxes, a refusal, or either. Detections equal to
the boxes of the good set have an AP of 1 on every accepted set of the same boxes.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from rtdetr_cli.config.settings.check import CheckSettings
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.errors import RTDETRError
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.image_cache import read_record_image
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.engine.check import check, refuse
from rtdetr_cli.engine.training.splits import open_splits
from rtdetr_cli.evaluation.coco import CocoEvaluator

NAMES = ("cat", "dog")
SPLITS = {"train": 3, "val": 2}
WIDTH, HEIGHT = 60, 40
ODD = (None, True, "x", "7", [], {}, -1, 0, 0.5, 1e30, float("nan"), [1, 2], "9" * 400)
Boxes = list[tuple[str, int, int, int, int]]
Mutation = Callable[[random.Random, Path], str]


def case(rng: random.Random, folder: Path) -> None:
    """Write a good data set, damage it, and compare what the three commands say."""
    truth = {
        (split, f"{number}.png"): _boxes(rng)
        for split, count in SPLITS.items()
        for number in range(count)
    }
    write, mutations = rng.choice(((_coco, COCO), (_yolo, YOLO), (_voc, VOC)))
    write(folder, truth)
    mutation = rng.choice(mutations + FILES)
    expected = mutation(rng, folder)
    data = folder if write is _voc else folder / "data.yaml"
    refusals = {name: _refusal(run, data) for name, run in (("check", _check), ("train", _train))}
    val = _refusal(lambda data: _decode(open_split(load_data(data), "val")), data)
    message = f"{mutation.__name__} of {write.__name__}: {refusals}, val: {val}"
    assert bool(refusals["check"]) == bool(refusals["train"]), message
    assert not val or refusals["check"], message
    if expected == "refused":
        assert refusals["check"], message
    if expected == "same":
        assert not refusals["check"], message
        _compare(data, truth)
    if refusals["check"]:
        raise RTDETRError(refusals["check"])


def _refusal(run: Callable[[Path], None], data: Path) -> str:
    try:
        run(data)
    except RTDETRError as error:
        return str(error)
    return ""


def _check(data: Path) -> None:
    settings = CheckSettings(data=str(data))
    refuse(settings, check(settings))


def _train(data: Path) -> None:
    for split in open_splits(TrainSettings(data=str(data), model="rtdetr-n.yaml")):
        assert split is not None
        _decode(split)


def _decode(dataset: DetectionDataset) -> None:
    for record in dataset.records:
        read_record_image(record)
    CocoEvaluator(dataset.ground_truth(), dataset.category_ids).compute()


def _compare(data: Path, truth: dict[tuple[str, str], Boxes]) -> None:
    """The boxes of each image are those of the good set; so is the AP of detecting them."""
    for split in SPLITS:
        dataset = open_split(load_data(data), split)
        evaluator = CocoEvaluator(dataset.ground_truth(), dataset.category_ids)
        index_of = {name: index for index, name in dataset.names.items()}
        for record in dataset.records:
            boxes = truth[split, re.sub(r".*-", "", record.path.stem) + ".png"]
            found = [
                (dataset.names[label], *map(round, corners))
                for label, corners in zip(
                    record.labels.tolist(), record.boxes_xyxy.tolist(), strict=True
                )
            ]
            assert sorted(found) == sorted(boxes), (split, record.path, found, boxes)
            corners = torch.tensor([box[1:] for box in boxes], dtype=torch.float32)
            labels = torch.tensor([index_of[box[0]] for box in boxes])
            evaluator.update(record.image_id, Detections(corners, torch.ones(len(boxes)), labels))
        assert len(dataset.records) == SPLITS[split]
        assert evaluator.compute().stats["AP"] > 0.999, split


def _boxes(rng: random.Random) -> Boxes:
    boxes: Boxes = []
    for number in range(3):
        left, top = rng.randrange(30), rng.randrange(20)
        box = (left, top, left + rng.randrange(8, 30), top + rng.randrange(8, 20))
        boxes.append((NAMES[number % 2], *box))
    return boxes


def _write_images(root: Path, truth: dict[tuple[str, str], Boxes]) -> None:
    for split, name in truth:
        path = root / "images" / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(path)


# --- COCO


def _coco(root: Path, truth: dict[tuple[str, str], Boxes]) -> None:
    _write_images(root, truth)
    for split in SPLITS:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for (_, name), boxes in ((key, boxes) for key, boxes in truth.items() if key[0] == split):
            image = {"id": len(images) + 1, "file_name": name, "height": HEIGHT, "width": WIDTH}
            images.append(image)
            for label, left, top, right, bottom in boxes:
                bbox = [left, top, right - left, bottom - top]
                corners = [left, top, right, top, right, bottom, left, bottom]
                box = {"id": len(annotations) + 1, "image_id": image["id"], "bbox": bbox}
                box |= {"category_id": 3 + NAMES.index(label), "segmentation": [corners]}
                box |= {"iscrowd": 0, "area": bbox[2] * bbox[3]}
                annotations.append(box)
        categories = [{"id": 3 + n, "name": name} for n, name in enumerate(NAMES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    (root / "data.yaml").write_text("path: .\ntrain: train.json\nval: val.json\n")


def _edit_json(rng: random.Random, root: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = root / f"{rng.choice(list(SPLITS))}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def ids_of_another_type(rng: random.Random, root: Path) -> str:
    """Each id as text, float or number, anywhere."""
    as_type = (str, float, int, lambda one: f"{one}.0")

    def edit(content: dict[str, Any]) -> None:
        for entry in (one for key in content for one in content[key]):
            for key in {"id", "image_id", "category_id"} & set(entry):
                entry[key] = rng.choice(as_type)(entry[key])

    _edit_json(rng, root, edit)
    return "same"


def image_ids_are_names(rng: random.Random, root: Path) -> str:
    """Text ids."""

    def edit(content: dict[str, Any]) -> None:
        for key, id_ in (("images", "id"), ("annotations", "image_id")):
            for entry in content[key]:
                entry[id_] = f"img_{entry[id_]}"

    _edit_json(rng, root, edit)
    return "same"


def odd_optional_keys(rng: random.Random, root: Path) -> str:
    """A null or a wrong type in keys that may be absent."""
    odd = (None, "x", [], {}, float("nan"), {"a": [1]})
    keys = {"images": ("license", "flickr_url", "coco_url", "date_captured", "height", "width")}
    keys["annotations"] = ("id", "iscrowd", "area", "segmentation", "attributes")
    keys["categories"] = ("supercategory", "keypoints")

    def edit(content: dict[str, Any]) -> None:
        for key, optional in keys.items():
            for entry in content[key]:
                entry[rng.choice(optional)] = rng.choice(odd)

    _edit_json(rng, root, edit)
    return "same"


def optional_keys_dropped(rng: random.Random, root: Path) -> str:
    """Keys that may be absent."""

    def edit(content: dict[str, Any]) -> None:
        for entry in content["images"]:
            entry.pop(rng.choice(("height", "width")))
        for entry in content["annotations"]:
            for key in rng.sample(("id", "iscrowd", "area", "bbox"), 2):
                entry.pop(key)

    _edit_json(rng, root, edit)
    return "same"


def annotation_ids_repeat(rng: random.Random, root: Path) -> str:
    """As in merged jsons."""

    def edit(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            entry["id"] = rng.randrange(1, 3)

    _edit_json(rng, root, edit)
    return "same"


def image_ids_repeat(rng: random.Random, root: Path) -> str:
    """Two images of one id."""

    def edit(content: dict[str, Any]) -> None:
        content["images"][1]["id"] = content["images"][0]["id"]

    _edit_json(rng, root, edit)
    return "refused"


def other_category_ids(rng: random.Random, root: Path) -> str:
    """One split counts its categories differently."""
    ids = dict(zip((3, 4), rng.sample(range(1, 9), 2), strict=True))

    def edit(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            entry["category_id"] = ids[entry["category_id"]]
        for entry in content["categories"]:
            entry["id"] = ids[entry["id"]]
        rng.shuffle(content["categories"])

    _edit_json(rng, root, edit)
    return "same"


def empty_parent_of_roboflow(rng: random.Random, root: Path) -> str:
    """The category that Roboflow adds, in one split or in both."""

    def edit(content: dict[str, Any]) -> None:
        for entry in content["categories"]:
            entry["supercategory"] = "pets"
        parent = {"id": 0, "name": "pets", "supercategory": "none"}
        if parent not in content["categories"]:
            content["categories"].insert(0, parent)

    for _ in range(rng.choice((1, 4))):
        _edit_json(rng, root, edit)
    return "same"


def wrong_sizes(rng: random.Random, root: Path) -> str:
    """Sizes that are not those of the images."""

    def edit(content: dict[str, Any]) -> None:
        for entry in content["images"]:
            entry |= {"width": rng.randrange(1, 999), "height": rng.choice((40, 60, 1, "40"))}

    _edit_json(rng, root, edit)
    return "same"


def listed_in_folders(rng: random.Random, root: Path) -> str:
    """Names with folders, which are there or not, of both systems."""
    prefix = rng.choice(("images/{}/", "gone/{}/", "images\\{}\\", "C:\\x\\", "./"))

    for split in SPLITS:
        path = root / f"{split}.json"
        content = json.loads(path.read_text())
        for entry in content["images"]:
            entry["file_name"] = prefix.format(split) + entry["file_name"]
        path.write_text(json.dumps(content))
    return "same"


def a_needed_value_is_odd(rng: random.Random, root: Path) -> str:
    """A needed key is absent or of any type."""
    keys = {"images": ("id", "file_name"), "categories": ("id", "name")}
    keys["annotations"] = ("image_id", "category_id", "bbox")

    def edit(content: dict[str, Any]) -> None:
        kind = rng.choice(list(keys))
        entry = rng.choice(content[kind])
        key = rng.choice(keys[kind])
        entry[key] = rng.choice(ODD)
        if rng.random() < 0.3:
            del entry[key]

    _edit_json(rng, root, edit)
    return "either"


def a_list_is_odd(rng: random.Random, root: Path) -> str:
    """One of the three lists is absent, empty or something else."""

    def edit(content: dict[str, Any]) -> None:
        content[rng.choice(list(content))] = rng.choice((*ODD, [[]], [None]))

    _edit_json(rng, root, edit)
    return "either"


def boxes_elsewhere(rng: random.Random, root: Path) -> str:
    """A box out of the image, without area, or with a negative side."""

    def edit(content: dict[str, Any]) -> None:
        entry = rng.choice(content["annotations"])
        entry["bbox"][rng.randrange(4)] = rng.choice((-30, 0, 55, 200, 1e9))

    _edit_json(rng, root, edit)
    return "either"


def two_jsons(rng: random.Random, root: Path) -> str:
    """The images of a split in two jsons."""
    split = rng.choice(list(SPLITS))
    content = json.loads((root / f"{split}.json").read_text())
    at = rng.randrange(1, SPLITS[split])
    for name, images in (("a", content["images"][:at]), ("b", content["images"][at:])):
        ids = [image["id"] for image in images]
        boxes = [box for box in content["annotations"] if box["image_id"] in ids]
        part = {**content, "images": images, "annotations": boxes}
        (root / f"{split}-{name}.json").write_text(json.dumps(part))
    path = root / "data.yaml"
    entries = f"[{split}-a.json, {split}-b.json, images/{split}]"
    path.write_text(path.read_text().replace(f"{split}.json", entries))
    return "same"


# --- YOLO


def _yolo(root: Path, truth: dict[tuple[str, str], Boxes]) -> None:
    _write_images(root, truth)
    for (split, name), boxes in truth.items():
        path = root / "labels" / split / Path(name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            f"{NAMES.index(label)} {(x1 + x2) / 2 / WIDTH:.6f} {(y1 + y2) / 2 / HEIGHT:.6f} "
            f"{(x2 - x1) / WIDTH:.6f} {(y2 - y1) / HEIGHT:.6f}\n"
            for label, x1, y1, x2, y2 in boxes
        ]
        path.write_text("".join(rows))
    splits = "train: images/train\nval: images/val\n"
    (root / "data.yaml").write_text(f"path: .\n{splits}names: [cat, dog]\n")


def _some_labels(rng: random.Random, root: Path) -> Path:
    return rng.choice(sorted(root.glob("labels/*/*.txt")))


def other_line_ends(rng: random.Random, root: Path) -> str:
    """A byte order mark, line ends of Windows, blanks and empty lines."""
    for path in root.glob("labels/*/*.txt"):
        end = rng.choice(("\r\n", "\n\n", "  \n", "\t\r\n"))
        text = path.read_text().replace("\n", end).replace(" ", rng.choice((" ", "\t", "  ")))
        path.write_bytes(rng.choice((b"", b"\xef\xbb\xbf")) + text.encode())
    return "same"


def rows_repeat(rng: random.Random, root: Path) -> str:
    """Every row several times."""
    path = _some_labels(rng, root)
    path.write_text(path.read_text() * rng.randrange(2, 4))
    return "same"


def polygons_for_boxes(rng: random.Random, root: Path) -> str:
    """Rows as polygons."""
    path = _some_labels(rng, root)
    rows = []
    for row in path.read_text().splitlines():
        label, cx, cy, w, h = map(float, row.split())
        x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
        corners = [x1, y1, x2, y1, x2, y2, x1, y2]
        rows.append(" ".join([str(int(label)), *(f"{max(one, 0):.7f}" for one in corners)]))
    path.write_text("\n".join(rows))
    return "same"


def names_by_index(rng: random.Random, root: Path) -> str:
    """Quoted indices, gaps, foreign keys."""
    names = rng.choice(('{"0": cat, "1": dog}', "{1: dog, 0: cat}", "{0: cat, 1: dog, '5': cow}"))
    path = root / "data.yaml"
    extra = rng.choice(("", "channels: 3\n", "kpt_shape: [5, 2]\n", "flip_idx: [1]\n"))
    path.write_text(path.read_text().replace("[cat, dog]", names) + extra)
    return "same"


def lists_and_patterns(rng: random.Random, root: Path) -> str:
    """A list with BOM and CRLF, a pattern, or several folders."""
    kind = rng.choice(("list", "pattern", "single"))
    lines = ["path: .", "names: [cat, dog]"]
    for split in SPLITS:
        names = [f"./images/{split}/{path.name}" for path in (root / "images" / split).iterdir()]
        if kind == "list":
            (root / f"{split}.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(names).encode())
        entry = {"list": f"{split}.txt", "pattern": f"images/{split}/*.png"}.get(kind)
        lines.append(f"{split}: {entry or json.dumps(sorted(names))}")
    (root / "data.yaml").write_text("\n".join(lines))
    return "same"


def a_row_is_odd(rng: random.Random, root: Path) -> str:
    """A column is dropped, doubled, or another value."""
    path = _some_labels(rng, root)
    rows = [row.split() for row in path.read_text().splitlines()]
    row = rng.choice(rows)
    at = rng.randrange(len(row))
    row[at : at + 1] = rng.choice(([], [row[at]] * 2, ["nan"], ["x"], ["-1"], ["2"], ["0.97"]))
    path.write_text("\n".join(map(" ".join, rows)))
    return "either"


def a_class_beyond_names(rng: random.Random, root: Path) -> str:
    """A class index without a name."""
    path = _some_labels(rng, root)
    path.write_text(path.read_text() + "2 0.5 0.5 0.1 0.1\n")
    return "refused"


def labels_of_another_kind(rng: random.Random, root: Path) -> str:
    """A label file is gone, binary or a folder; or all labels are gone."""
    path = _some_labels(rng, root)
    path.unlink()
    kind = rng.randrange(4)
    if kind == 1:
        path.write_bytes(rng.randbytes(50))
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        shutil.rmtree(root / "labels")
    return "either"


# --- VOC


def _voc(root: Path, truth: dict[tuple[str, str], Boxes]) -> None:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    stems: dict[str, list[str]] = {split: [] for split in SPLITS}
    for (split, name), boxes in truth.items():
        stem = f"{split}-{Path(name).stem}"
        stems[split].append(stem)
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "JPEGImages" / f"{stem}.jpg")
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for label, x1, y1, x2, y2 in boxes
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        text = f"<annotation>{size}{objects}</annotation>"
        (root / "Annotations" / f"{stem}.xml").write_text(text)
    for split, listed in stems.items():
        (root / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(listed))


def _edit_xml(rng: random.Random, root: Path, edit: Callable[[str], str]) -> None:
    path = rng.choice(sorted(root.glob("Annotations/*.xml")))
    path.write_text(edit(path.read_text()))


def wrong_sizes_in_xml(rng: random.Random, root: Path) -> str:
    """Sizes that are absent, zero or wrong."""
    size = rng.choice(("", "<size/>", "<size><width>0</width></size>", "<size><width>x</width>"))
    size += "</size>" if size.endswith("</width>") else ""
    _edit_xml(rng, root, lambda text: re.sub(r"<size>.*</size>", size, text))
    return "same"


def other_image_suffix(rng: random.Random, root: Path) -> str:
    """Images of other suffixes; the format is that of the content."""
    for path in (root / "JPEGImages").iterdir():
        path.rename(path.with_suffix(rng.choice((".jfif", ".PNG", ".jpeg", ".jpe", ".tif"))))
    return "same"


def objects_repeat(rng: random.Random, root: Path) -> str:
    """An object twice, names between blanks, other elements."""
    pattern = re.compile(r"(<object>.*</object>)")
    extra = rng.choice(("", "<pose>x</pose>", "<object_count>3</object_count>"))
    _edit_xml(rng, root, lambda text: pattern.sub(rf"\1\1{extra}", text))
    _edit_xml(rng, root, lambda text: text.replace("<name>", "<name>\n "))
    return "same"


def listed_twice(rng: random.Random, root: Path) -> str:
    """A list with repeats, BOM and line ends of Windows."""
    path = root / "ImageSets/Main" / f"{rng.choice(list(SPLITS))}.txt"
    stems = path.read_text().split()
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*stems, stems[0], ""]).encode())
    return "same"


def a_node_is_odd(rng: random.Random, root: Path) -> str:
    """The text of a node is another one."""
    odd = rng.choice(("", "nan", "x", "-5", "0", "55", "300", "<a/>", "9" * 400))

    def edit(text: str) -> str:
        nodes = list(re.finditer(r"<(name|xmin|ymin|xmax|ymax)>[^<]*", text))
        node = rng.choice(nodes)
        return f"{text[: node.start()]}<{node[1]}>{odd}{text[node.end() :]}"

    _edit_xml(rng, root, edit)
    return "either"


def xml_is_cut(rng: random.Random, root: Path) -> str:
    """A file is cut, or gone."""
    if rng.random() < 0.5:
        rng.choice(sorted(root.glob("Annotations/*.xml"))).unlink()
    else:
        _edit_xml(rng, root, lambda text: text[: rng.randrange(len(text) - 1)])
    return "refused"


# --- images of any format


def _some_image(rng: random.Random, root: Path) -> Path:
    return rng.choice(sorted(path for path in root.rglob("*") if path.suffix in {".png", ".jpg"}))


def a_damaged_image(rng: random.Random, root: Path) -> str:
    """An image is cut, empty, or something else."""
    path = _some_image(rng, root)
    content = path.read_bytes()
    path.write_bytes(rng.choice((b"", content[: len(content) // 2], b"<html>", content[:10])))
    return "refused"


def an_image_is_gone(rng: random.Random, root: Path) -> str:
    """An image is missing: not in YOLO folders, which list what is there."""
    _some_image(rng, root).unlink()
    return "either" if (root / "labels").is_dir() else "refused"


def another_mode(rng: random.Random, root: Path) -> str:
    """Images with a palette, alpha, gray, 16 bits or EXIF data, whatever the suffix says."""
    for path in sorted(path for path in root.rglob("*") if path.suffix in {".png", ".jpg"}):
        mode = rng.choice(("L", "P", "RGBA", "LA", "1", "I;16", "CMYK"))
        image = Image.new("L", (WIDTH, HEIGHT)).convert("RGB" if mode == "CMYK" else "L")
        image = image.convert(mode)
        image.save(path, format="TIFF" if mode == "CMYK" else "PNG")
    return "same"


def rotated_by_exif(rng: random.Random, root: Path) -> str:
    """An image that its EXIF data turn; annotations may state its size, which is refused."""
    path = _some_image(rng, root)
    exif = Image.Exif()
    exif[0x0112] = rng.randrange(2, 9)
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, exif=exif)
    return "either"


def no_boxes_in_a_split(rng: random.Random, root: Path) -> str:
    """All labels of a split are empty; training needs some."""
    split = rng.choice(list(SPLITS))
    for path in root.glob(f"labels/{split}/*.txt"):
        path.write_text("")
    for path in root.glob(f"Annotations/{split}-*.xml"):
        path.write_text("<annotation/>")
    for path in root.glob(f"{split}.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    return "refused" if split == "train" else "either"


COCO: list[Mutation] = [
    *(ids_of_another_type, image_ids_are_names, odd_optional_keys, optional_keys_dropped),
    *(annotation_ids_repeat, image_ids_repeat, other_category_ids, empty_parent_of_roboflow),
    *(wrong_sizes, listed_in_folders, a_needed_value_is_odd, a_list_is_odd, boxes_elsewhere),
    two_jsons,
]
YOLO: list[Mutation] = [
    *(other_line_ends, rows_repeat, polygons_for_boxes, names_by_index, lists_and_patterns),
    *(a_row_is_odd, a_class_beyond_names, labels_of_another_kind),
]
VOC: list[Mutation] = [
    *(wrong_sizes_in_xml, other_image_suffix, objects_repeat, listed_twice, a_node_is_odd),
    xml_is_cut,
]
FILES: list[Mutation] = [
    *(a_damaged_image, an_image_is_gone, another_mode, rotated_by_exif, no_boxes_in_a_split)
]
