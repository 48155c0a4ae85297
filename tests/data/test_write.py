from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from rtdetr_cli.core.errors import DataError, StorageError
from rtdetr_cli.data.collection import Box, Collection, LabelledImage
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.data.write import write_collection

from .conftest import save_image

FORMATS = ["coco", "yolo", "voc"]


@pytest.fixture
def source(tmp_path):
    """A function that makes an image of 60x40 pixels in src/ with the given boxes."""

    def make(name, *boxes, image_id=None):
        path = save_image(tmp_path / "src" / name)
        return LabelledImage(path, (40, 60), image_id, boxes)

    return make


def box(label, *xywh, crowd=False, number=None):
    return Box(label, xywh, xywh[2] * xywh[3], crowd, number)


def write(tmp_path, format, splits, names=("cat", "dog"), images="copy", ids=None):
    out = tmp_path / "out"
    out.mkdir()
    return out, write_collection(out, Collection(names, ids, splits), format, images, {})


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_opens_with_the_same_boxes(format, source, tmp_path):
    odd = (1 / 3, 0.1, 50.123456789, 39.9)  # no finite decimals
    splits = {
        "train": [source("a.jpg", box(1, 0, 0, 60, 40), box(0, *odd)), source("b.jpg")],
        "val": [source("c.jpg", box(1, 5, 6, 7, 8))],
    }
    out, _ = write(tmp_path, format, splits)
    for data in (out, out / "data.yaml"):
        config = load_data(data)
        for split, images in splits.items():
            dataset = open_split(config, split)
            assert dataset.names == {0: "cat", 1: "dog"}
            for record, image in zip(dataset.records, images, strict=True):
                assert record.path.read_bytes() == image.path.read_bytes()
                assert record.labels.tolist() == [one.label for one in image.boxes]
                expected = np.array([one.xywh for one in image.boxes]).reshape(-1, 4)
                expected[:, 2:] += expected[:, :2]
                # Nine decimals of YOLO text are 3e-8 px here; float32 has 4e-6 px.
                np.testing.assert_allclose(record.boxes_xyxy, expected, rtol=0, atol=4e-6)


@pytest.mark.parametrize(("format", "crowds"), [("coco", 1), ("voc", 1), ("yolo", 0)])
def test_crowds_stay_where_the_format_has_them(format, crowds, source, tmp_path):
    images = [source("a.jpg", box(0, 1, 2, 3, 4), box(1, 0, 0, 60, 40, crowd=True))]
    out, notes = write(tmp_path, format, {"train": images})
    (record,) = open_split(load_data(out), "train").records
    assert record.iscrowd.tolist() == [False, True][: 1 + crowds]
    lost = ["YOLO text cannot hold, left out: 1 crowd or difficult boxes"]
    assert notes == ([] if crowds else lost)


def test_coco_keeps_ids_and_numbers_of_the_source(source, tmp_path):
    flat = Box(0, (5, 5, 0, 3), 0.25, False, 8)  # without an area, but in the source
    image = source("a.jpg", Box(1, (1.5, 2, 10, 20), 99, False, 5), flat, image_id=30)
    out, notes = write(tmp_path, "coco", {"val": [image]}, ids=(3, 7))
    content = json.loads((out / "annotations/instances_val.json").read_text("utf-8"))
    assert content["images"] == [{"id": 30, "file_name": "a.jpg", "width": 60, "height": 40}]
    assert content["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    first, second = content["annotations"]
    assert first == {
        "id": 5,
        "image_id": 30,
        "category_id": 7,
        "bbox": [1.5, 2, 10, 20],
        "area": 99,
        "iscrowd": 0,
    }
    assert (second["id"], second["bbox"], second["area"]) == (8, [5, 5, 0, 3], 0.25)
    assert notes == []


def written_ids(out, split):
    content = json.loads((out / f"annotations/instances_{split}.json").read_text("utf-8"))
    return [[entry["id"] for entry in content[key]] for key in ("images", "annotations")]


@pytest.mark.parametrize(
    ("image_ids", "numbers", "train", "val", "notes"),
    [
        ((4, 0), (7, 9), [[4, 0], [7, 9]], [[4], [7]], 0),  # of each file, as COCO has them
        ((4, 4), (7, 9), [[1, 2], [7, 9]], [[3], [7]], 1),  # two merged files
        ((4, 0), (0, 9), [[4, 0], [1, 2]], [[4], [3]], 0),  # COCO never matches the id 0
        ((None, None), (None, None), [[1, 2], [1, 2]], [[3], [3]], 0),
    ],
)
def test_coco_ids_are_kept_or_numbered_from_one(
    image_ids, numbers, train, val, notes, source, tmp_path
):
    first, second = (
        source(name, box(0, 1, 1, 2, 2, number=number), image_id=image_id)
        for name, number, image_id in zip(("a.jpg", "b.jpg"), numbers, image_ids, strict=True)
    )
    out, found = write(tmp_path, "coco", {"train": [first, second], "val": [first]})
    assert (written_ids(out, "train"), written_ids(out, "val")) == (train, val)
    assert found == ["image ids repeat in a split, so all are numbered again"] * notes


def test_yolo_text_has_six_decimals_where_these_are_exact(source, tmp_path):
    image = source("a.jpg", box(1, 15, 10, 30, 20), box(0, 0, 0, 20, 10))
    out, _ = write(tmp_path, "yolo", {"train": [image, source("b.jpg")]})
    assert (out / "labels/train/a.txt").read_text("utf-8") == (
        "1 0.500000 0.500000 0.500000 0.500000\n0 0.166666667 0.125000 0.333333333 0.250000\n"
    )
    assert (out / "labels/train/b.txt").read_text("utf-8") == ""


def test_voc_says_that_it_cannot_hold_boxes_of_one_pixel(source, tmp_path):
    image = source("a.jpg", box(1, 3, 3, 1, 9), box(0, 5, 5, 9, 0.5), box(0, 2, 3, 1.5, 5))
    out, notes = write(tmp_path, "voc", {"train": [image]})
    root = ElementTree.parse(out / "Annotations/a.xml").getroot()
    assert [[edge.text for edge in node] for node in root.iterfind("object/bndbox")] == [
        ["3", "4", "3.5", "8"]
    ]
    assert "Pascal VOC cannot hold, left out: 2 boxes up to one pixel wide or high" in notes


def test_voc_counts_pixels_from_one(source, tmp_path):
    image = source("a b.jpg", box(1, 3e-7, 0, 60, 40), box(0, 2.5, 3, 4, 5))
    out, notes = write(tmp_path, "voc", {"train": [image]})
    root = ElementTree.parse(out / "Annotations/a_b.xml").getroot()
    found = [[edge.text for edge in node] for node in root.iterfind("object/bndbox")]
    assert found == [["1", "1", "60", "40"], ["3.5", "4", "6.5", "8"]]
    assert root.findtext("filename") == "a_b.jpg"
    assert [node.text for node in root.find("size")] == ["60", "40", "3"]
    assert (out / "ImageSets/Main/train.txt").read_text("utf-8") == "a_b\n"
    assert notes == [
        "boxes with parts of pixels, written as decimals: 1",
        f"images renamed: 1 (first: {image.path} -> a_b.jpg)",
    ]


@pytest.mark.parametrize("format", ["yolo", "voc"])
def test_boxes_are_clipped_and_those_without_area_left_out(format, source, tmp_path):
    image = source("a.jpg", box(0, -0.9, 0, 61.5, 40), box(1, 5, 5, 0, 5))
    out, notes = write(tmp_path, format, {"train": [image]})
    (record,) = open_split(load_data(out), "train").records
    assert record.boxes_xyxy.tolist() == [[0, 0, 60, 40]]
    assert "left out: 1 boxes without area" in notes[0]


@pytest.mark.parametrize("format", FORMATS)
def test_images_of_one_name_are_all_kept(format, source, tmp_path):
    images = [source(f"{at}/x.jpg", box(label, 1, 1, 9, 9)) for label, at in enumerate("ab")]
    images += [source("X.jpg"), source("con.jpg"), source("-2/x-2.jpg")]
    out, notes = write(tmp_path, format, {"train": images})
    records = open_split(load_data(out), "train").records
    found = {record.path.name: record.labels.tolist() for record in records}
    assert found == {"x.jpg": [0], "x-2.jpg": [1], "X-3.jpg": [], "_con.jpg": [], "x-2-2.jpg": []}
    moved = images[1].path
    assert notes[-1] == f"images renamed: 4 (first: {moved} -> x-2.jpg)"


@pytest.mark.parametrize(("format", "second"), [("coco", "a.png"), ("yolo", "a-2.png")])
def test_names_that_differ_in_the_suffix_share_no_label_file(format, second, source, tmp_path):
    splits = {"train": [source("a.jpg", box(0, 1, 1, 9, 9)), source("a.png")]}
    out, _ = write(tmp_path, format, splits)
    assert sorted(path.name for path in (out / "images/train").iterdir()) == sorted(
        ["a.jpg", second]
    )
    records = open_split(load_data(out), "train").records
    assert sum(len(record.labels) for record in records) == 1


def test_voc_has_one_file_for_an_image_of_two_splits(source, tmp_path):
    image = source("a.jpg", box(0, 1, 1, 9, 9))
    other = source("b.jpg")
    out, notes = write(tmp_path, "voc", {"train": [image, other], "val": [image]})
    assert len([*(out / "JPEGImages").iterdir()]) == 2
    assert (out / "ImageSets/Main/val.txt").read_text("utf-8") == "a\n"
    assert notes == []


@pytest.mark.parametrize(
    "name", ["1e3", "no", "a: b", "#1", "null", "\u00fc \"q'", "\x7f", "\U0001f600"]
)
def test_every_name_of_a_class_is_read_as_it_was(name, source, tmp_path):
    out, _ = write(tmp_path, "yolo", {"train": [source("a.jpg")]}, names=(name, "x"))
    assert load_data(out).names == {0: name, 1: "x"}


def test_data_yaml_leaves_the_place_to_the_reader(source, tmp_path):
    """A relative `path` is below the current folder, not the file, in other tools."""
    out, _ = write(tmp_path, "yolo", {"train": [source("a.jpg")]})
    assert yaml.safe_load((out / "data.yaml").read_text("utf-8")) == {
        "train": "images/train",
        "names": {0: "cat", 1: "dog"},
    }


def test_links_lead_to_the_source(source, tmp_path):
    image = source("a.jpg")
    out, _ = write(tmp_path, "yolo", {"train": [image]}, images="link")
    written = out / "images/train/a.jpg"
    assert written.is_symlink()
    assert written.samefile(image.path)


def test_where_symbolic_links_need_a_privilege_hard_links_are_made(source, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    image = source("a.jpg")
    out, _ = write(tmp_path, "yolo", {"train": [image]}, images="link")
    assert (out / "images/train/a.jpg").samefile(image.path)
    monkeypatch.setattr("os.link", refuse)
    (tmp_path / "two").mkdir()
    with pytest.raises(StorageError, match=r"cannot link .*a\.jpg: .*; use images=copy"):
        write(tmp_path / "two", "yolo", {"train": [image]}, images="link")


def test_without_images_only_labels_are_written(source, tmp_path):
    out, notes = write(tmp_path, "voc", {"train": [source("a.jpg")]}, images="none")
    assert [*(out / "JPEGImages").iterdir()] == []
    assert notes == ["images=none: those of train belong into JPEGImages"]
    (tmp_path / "two").mkdir()
    images = [source("x/a.jpg"), source("y/a.jpg")]
    with pytest.raises(DataError, match=r"images=none: .*y/a\.jpg -> a-2\.jpg needs another name"):
        write(tmp_path / "two", "voc", {"train": images}, images="none")


def test_voc_names_are_escaped(source, tmp_path):
    names = ("a<b", "&amp; {x}")
    out, _ = write(tmp_path, "voc", {"train": [source("a&b.jpg", box(1, 1, 1, 9, 9))]}, names)
    dataset = open_split(load_data(out), "train")
    assert (tuple(dataset.names.values()), dataset.records[0].labels.tolist()) == (names, [1])
    root = ElementTree.parse(out / "Annotations/a&b.xml").getroot()
    assert root.findtext("filename") == "a&b.jpg"


def test_a_json_of_one_folder_finds_its_images_there(source, tmp_path):
    image = source("a b.jpg", box(1, 1, 2, 3, 4))
    splits = {"train": [image], "val": [source("x/a.jpg"), source("y/b.jpg")]}
    out, notes = write(tmp_path, "coco", splits, images="none")
    assert notes == [
        f"images=none: images of train stay in {image.path.parent}",
        "images=none: those of val belong into images/val",
    ]
    (record,) = open_split(load_data(out), "train").records
    assert record.path == image.path
    assert record.boxes_xyxy.tolist() == [[1, 2, 4, 6]]


def test_what_a_format_has_no_place_for_is_an_error(source, tmp_path):
    with pytest.raises(DataError, match="has a character that XML cannot hold"):
        write(tmp_path, "voc", {"train": [source("a.jpg")]}, names=("a\x01", "b"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("format", FORMATS)
def test_names_stay_in_the_folder(format, source, tmp_path):
    names = ["..\\x.jpg", "a:b.jpg", "line\nbreak.jpg", ".hidden.jpg", "n" * 240 + ".jpg", " .jpg"]
    images = [source(name, box(0, 1, 1, 5, 5)) for name in names]
    out, _ = write(tmp_path, format, {"train": images})
    assert {path.name for path in tmp_path.iterdir()} == {"src", "out"}
    dataset = open_split(load_data(out), "train")
    assert (len(dataset), dataset.num_boxes) == (len(names), len(names))


def test_a_missing_image_is_named(source, tmp_path):
    image = source("a.jpg")
    image.path.unlink()
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read, No such file"):
        write(tmp_path, "yolo", {"train": [image]})


def test_an_image_without_a_suffix_is_an_error(source, tmp_path):
    image = source("a.jpg")
    bare = image.path.rename(image.path.with_suffix(""))
    nameless = LabelledImage(bare, (40, 60), None, ())
    with pytest.raises(DataError, match="has no suffix of an image"):
        write(tmp_path, "yolo", {"train": [nameless]})
