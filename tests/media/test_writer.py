"""A run folder holds one file per image, whatever the images are called."""

import json

import cv2
import numpy as np
import torch

from rtdetr_cli.core.encoding import Encoding
from rtdetr_cli.core.results import Results
from rtdetr_cli.media.draw import draw_boxes
from rtdetr_cli.media.item import Clip
from rtdetr_cli.media.writer import RunWriter


def results(path):
    rows = torch.tensor([[1.0, 2, 9, 8, 0.9, 0]])
    return Results(np.zeros((16, 16, 3), np.uint8), path, {0: "cell"}, rows, painter=draw_boxes)


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_images_of_the_same_name_do_not_overwrite_each_other(tmp_path):
    writer = RunWriter(tmp_path, labels=True, scores=True, crops=True)
    for path in ("a/1.jpg", "b/1.jpg", "b/1.PNG", "a/1-2.jpg"):
        writer.write(results(path))
    assert written(tmp_path) == sorted(
        f"{folder}{stem}{suffix}"
        for stem in ("1", "1-2", "1-3", "1-2-2")
        for folder, suffix in (("", ".jpg"), ("labels/", ".txt"), ("crops/cell/", "-1.jpg"))
    )
    assert (tmp_path / "labels" / "1.txt").read_text() == "0 0.3125 0.3125 0.5 0.375 0.9\n"


def test_what_is_drawn_already_is_written_as_it_is(tmp_path):
    """For the window of show=true, and for a frame that goes into the video and a file."""
    writer, calls = RunWriter(tmp_path, frames=True), []
    one, clip = results("a.png"), Clip("b.mp4", 10.0)
    one.encoding = Encoding("PNG")
    drawn = np.full((16, 16, 3), 77, np.uint8)
    writer.write(one, None, drawn)
    assert (cv2.imread(str(tmp_path / "a.png")) == 77).all()
    frame = results("b.mp4")
    frame.frame, frame.time_s = 1, 0.0
    frame._painter = lambda image, boxes, names, style: calls.append(style.boxes) or image
    writer.write(frame, clip)
    writer.close()
    assert written(tmp_path) == ["a.png", "b.mp4", "b_frames/1.jpg"]
    assert calls == [True, False]


def test_names_that_differ_in_case_only_are_kept_apart(tmp_path):
    writer = RunWriter(tmp_path)
    for path in ("BUS.jpg", "bus.jpg"):
        writer.write(results(path))
    assert written(tmp_path) == ["BUS.jpg", "bus-2.jpg"]


def test_coco_results_name_images_as_label_files_do(tmp_path):
    writer = RunWriter(tmp_path, images=False, labels=True, coco=True)
    for path in ("a/1.jpg", "b/1.jpg"):
        writer.write(results(path))
    writer.close()
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert [(row["image_id"], row["file_name"]) for row in rows] == [(1, "1.jpg"), ("1-2", "1.jpg")]
    assert written(tmp_path) == ["labels/1-2.txt", "labels/1.txt", "predictions.json"]


def test_only_what_is_asked_for_is_written_and_the_folder_is_told(tmp_path):
    one = results("a.b.jpg")
    RunWriter(tmp_path, images=False, labels=True).write(one)
    assert written(tmp_path) == ["labels/a.b.txt"]
    assert (tmp_path / "labels" / "a.b.txt").read_text().count(" ") == 4
    assert one.save_dir == str(tmp_path)


def test_very_long_and_undecodable_names_become_names_that_can_be_written(tmp_path):
    writer = RunWriter(tmp_path)
    writer.write(results(f"{'画' * 80}.jpg"))
    writer.write(results("a\udcff.jpg"))
    assert written(tmp_path) == ["a_.jpg", f"{'画' * 66}.jpg"]


def test_annotated_copies_have_the_format_of_the_image_and_changes_are_said_once(tmp_path, capsys):
    """Labels keep their stem whatever the suffix is; crops are JPEG."""
    writer, gif = RunWriter(tmp_path, labels=True), Encoding("PNG", change="is PNG")
    encodings = {"a.PNG": Encoding("PNG"), "b.jpg": Encoding("WEBP"), "c.gif": gif, "d.gif": gif}
    for path, encoding in encodings.items():
        one = results(path)
        one.encoding = encoding
        writer.write(one)
    images = [name for name in written(tmp_path) if not name.startswith("labels")]
    assert images == ["a.PNG", "b.webp", "c.png", "d.png"]
    assert (tmp_path / "b.webp").read_bytes()[8:12] == b"WEBP"
    assert capsys.readouterr().err == "c.gif: the annotated copy is PNG\n"
