from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from rtdetr_cli.config.dataset import DatasetConfig
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.data.yolo import label_path, list_images, read_image_list, read_yolo

NAMES = {0: "cat", 1: "dog"}


def read(folder):
    return read_yolo(list_images(folder / "images"), NAMES)


def test_boxes_are_pixels_of_the_image(yolo_folder):
    dataset = read(yolo_folder("1 0.5 0.5 0.5 0.25\n\n0 0.25 0.25 0.5 0.5\n"))
    record = dataset.records[0]
    assert record.size_hw == (40, 60)
    assert record.labels.tolist() == [1, 0]
    np.testing.assert_allclose(record.boxes_xyxy, [[15, 15, 45, 25], [0, 0, 30, 20]])
    assert not record.iscrowd.any()


def test_image_without_label_file_is_background(yolo_folder):
    dataset = read(yolo_folder("0 .5 .5 .1 .1", None, ""))
    assert [len(record.labels) for record in dataset.records] == [1, 0, 0]
    assert dataset.records[1].boxes_xyxy.shape == (0, 4)


def test_polygons_become_boxes_and_boxes_without_area_go(yolo_folder):
    dataset = read(yolo_folder("0 0.1 0.2 0.5 0.3 0.4 0.8\n1 .5 .5 0 .2\n"))
    np.testing.assert_allclose(dataset.records[0].boxes_xyxy, [[6, 8, 30, 32]], rtol=1e-6)
    assert [re.sub(r"\(first: .*/", "(", note) for note in dataset.notes] == [
        "polygons converted to boxes: 1 (0.txt:1)",
        "boxes without area dropped: 1 (0.txt:2)",
    ]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("0 .5 .5 .1", "4 columns, expected 5: class cx cy w h"),
        ("0 .5 .5 .1 .1 .9", "6 columns, expected 5: class cx cy w h"),
        ("2 .5 .5 .1 .1", r"class 2 is out of range, expected 0\.\.1"),
        ("-1 .5 .5 .1 .1", "class -1 is out of range"),
        ("0.5 .5 .5 .1 .1", r"class 0\.5 is out of range"),
        ("0 nan .5 .1 .1", "NaN or infinity"),
        ("0 .5 inf .1 .1", "NaN or infinity"),
        ("cat .5 .5 .1 .1", "`cat .5 .5 .1 .1` are not all numbers"),
        ("0 .5 .5 -.1 .1", "negative width or height"),
        ("0 1.01 .5 .1 .1", r"box outside the image \(left, top, right, bottom = 0\.96, "),
        ("0 300 200 50 50", "box outside the image"),
    ],
)
def test_wrong_label_is_named_with_file_and_line(yolo_folder, line, sentence):
    folder = yolo_folder("0 .5 .5 .1 .1\n" + line)
    with pytest.raises(DataError, match=r"labels/train/0\.txt:2: " + sentence):
        read(folder)


def test_further_mistakes_are_counted(yolo_folder):
    with pytest.raises(DataError, match=r"0\.txt:1: .*\(and 2 more errors\)$"):
        read(yolo_folder("0 1\n0 2\n", "9 .5 .5 .1 .1"))


def test_rounding_beyond_the_border_is_clipped(yolo_folder):
    record = read(yolo_folder("0 0.5 0.5 1.001 1.001")).records[0]
    np.testing.assert_array_equal(record.boxes_xyxy, [[0, 0, 60, 40]])


def test_a_box_that_overhangs_by_less_than_half_is_clipped_with_a_note(yolo_folder):
    dataset = read(yolo_folder("0 0.99 0.5 0.1 1"))
    np.testing.assert_allclose(dataset.records[0].boxes_xyxy, [[56.4, 0, 60, 40]], rtol=1e-6)
    assert dataset.notes[0].startswith("boxes that overhang the image clipped to it: 1 (first: ")


def test_rows_that_repeat_are_dropped_with_a_note(yolo_folder):
    dataset = read(yolo_folder("0 .5 .5 .1 .1\n1 .5 .5 .1 .1\n0 0.50 .5 .1 .1\n"))
    assert dataset.records[0].labels.tolist() == [0, 1]
    assert [note.rpartition(" (")[0] for note in dataset.notes] == ["rows that repeat dropped: 1"]


def test_byte_order_marks_and_line_ends_of_windows_are_read(yolo_folder):
    folder = yolo_folder("", "")
    (folder / "labels/train/0.txt").write_bytes(b"\xef\xbb\xbf1 .5 .5 .1 .1\r\n0 .5 .5 .1 .1\r\n")
    (folder / "list.txt").write_bytes(b"\xef\xbb\xbfimages/train/0.png\r\nimages/train/1.png\r\n")
    dataset = read_yolo(read_image_list(folder / "list.txt", folder), NAMES)
    assert [record.labels.tolist() for record in dataset.records] == [[1, 0], []]


def test_an_image_listed_twice_is_taken_once(yolo_folder):
    images = list_images(yolo_folder("0 .5 .5 .1 .1", "") / "images")
    dataset = read_yolo([*images, images[0]], NAMES)
    assert len(dataset) == 2
    assert dataset.notes[0].startswith("images listed more than once taken once: 1 (first: ")


def test_keypoints_behind_a_box_are_not_a_polygon(yolo_folder):
    folder = yolo_folder("0 .5 .5 .2 .2 .1 .1 2 .9 .9 2\n")
    boxes = read_yolo(list_images(folder / "images"), NAMES, None, 6).records[0].boxes_xyxy
    np.testing.assert_allclose(boxes, [[24, 16, 36, 24]])


def test_bad_images_are_left_out_and_the_rest_keeps_its_numbers(yolo_folder):
    folder = yolo_folder("7 .5 .5 .1 .1", "1 .5 .5 .1 .1", "", "")
    (folder / "images/train/2.png").write_bytes(b"<html>")
    images = list_images(folder / "images")
    dataset = read_yolo(images, NAMES, "skip")
    assert [(record.path.name, record.image_id) for record in dataset.records] == [
        ("1.png", 2),
        ("3.png", 4),
    ]
    assert [path.name for path in dataset.skipped] == ["2.png", "0.png"]
    with pytest.raises(DataError, match=r"\(and 1 more error\); bad_images=skip leaves such"):
        read_yolo(images, NAMES, "error")


def test_labels_are_found_in_their_folder_and_beside_images_of_one_set(yolo_folder):
    folder = yolo_folder("0 .5 .5 .1 .1", None)
    (folder / "images/train/1.txt").write_text("1 .5 .5 .1 .1", "utf-8")
    assert [record.labels.tolist() for record in read(folder).records] == [[0], [1]]


def test_undecodable_image_is_named(yolo_folder):
    folder = yolo_folder("0 .5 .5 .1 .1", "")
    (folder / "images/train/1.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"1\.png: cannot be read as an image"):
        read(folder)


def test_no_label_file_at_all_is_an_error(yolo_folder):
    with pytest.raises(DataError, match=r"none of the 2 images has a label file; expected .*0\.t"):
        read(yolo_folder(None, None))


def test_binary_label_file_is_an_error(yolo_folder):
    folder = yolo_folder("")
    (folder / "labels/train/0.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"0\.txt: is not a text file"):
        read(folder)


def test_labels_beside_the_images_are_found(yolo_folder):
    folder = yolo_folder(None)
    (folder / "images/train/0.txt").write_text("1 .5 .5 .1 .1", "utf-8")
    assert read(folder).num_boxes == 1


def test_last_images_folder_becomes_labels():
    assert label_path(Path("/images/x/images/a/b.c.jpg")) == Path("/images/x/labels/a/b.c.txt")
    assert label_path(Path("flat/images.jpg")) == Path("flat/images.txt")


def test_list_names_images_relative_to_itself_or_the_root(yolo_folder):
    folder = yolo_folder("", "")
    listing = folder / "lists" / "train.txt"
    listing.parent.mkdir()
    listing.write_text("../images/train/0.png\n\nimages/train/1.png\n", "utf-8")
    assert [path.name for path in read_image_list(listing, folder)] == ["0.png", "1.png"]


def test_ground_truth_has_coco_form(yolo_folder):
    truth = read(yolo_folder("1 0.5 0.5 0.5 0.25", "0 .5 .5 1 1")).ground_truth()
    assert truth["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    assert truth["images"][1] == {"id": 2, "file_name": "1.png", "height": 40, "width": 60}
    assert truth["annotations"][0] == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [15, 15, 30, 10],
        "area": 300,
        "iscrowd": 0,
    }
    assert truth["annotations"][1]["id"] == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="special files of Unix")
def test_special_files_are_named_and_not_opened(yolo_folder):
    folder = yolo_folder("0 .5 .5 .1 .1", "0 .5 .5 .1 .1")
    os.mkfifo(folder / "images/train/2.png")
    with pytest.raises(DataError, match=r"2\.png: is a pipe \(FIFO\), expected a file"):
        read(folder)
    (folder / "images/train/2.png").unlink()
    (folder / "labels/train/1.txt").unlink()
    (folder / "labels/train/1.txt").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"1\.txt: is a device, expected a file"):
        read(folder)
    with pytest.raises(DataError, match="/dev/zero: is a device"):
        load_data("/dev/zero")


def test_a_label_file_beyond_all_reason_is_not_read(yolo_folder):
    folder = yolo_folder("0 .5 .5 .1 .1")
    with (folder / "labels/train/0.txt").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(DataError, match=r"0\.txt: is larger than the limit of 16 MiB"):
        read(folder)


@pytest.mark.parametrize("line", ["x" * 300, "images/" + "x/" * 3000, "a\0.png"])
def test_a_listed_name_that_no_file_can_have_is_a_sentence(yolo_folder, line):
    folder = yolo_folder("0 .5 .5 .1 .1")
    (folder / "train.txt").write_text(line, "utf-8")
    with pytest.raises(DataError):
        open_split(DatasetConfig(folder, train=("train.txt",), names=NAMES), "train")


def test_the_root_of_the_file_system_is_not_searched() -> None:
    with pytest.raises(DataError, match="/ is the root of the file system"):
        list_images(Path("/"))


def test_images_are_listed_by_name_with_those_of_subfolders(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.JPG", "a/d.txt", ".e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "f.png").mkdir()  # reported when it is read
    assert list_images(tmp_path) == [tmp_path / name for name in ("a/c.JPG", "b.png", "f.png")]
