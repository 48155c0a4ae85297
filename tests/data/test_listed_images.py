"""Images fetched one by one: each is verified, and labels are as published."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest

from rtdetr_cli.core import small_download
from rtdetr_cli.core.errors import DataError, DownloadError
from rtdetr_cli.core.files import asset_dir
from rtdetr_cli.data import listed_images
from rtdetr_cli.data.listed_images import ListedImage, fetch_images, read_table, write_labels


def png(height: int = 32, width: int = 48, gray: int = 0) -> bytes:
    return cv2.imencode(".png", np.full((height, width, 3), gray, np.uint8))[1].tobytes()


def listed(name: str, content: bytes, labels: str = "") -> ListedImage:
    checksum = hashlib.sha256(content).hexdigest()
    return ListedImage(PurePosixPath(f"images/val/{name}"), (32, 48), checksum, labels)


def shipped(name: str) -> list[ListedImage]:
    return read_table(asset_dir("cfg") / "datasets" / f"{name}.txt")


@pytest.mark.parametrize(("name", "images", "boxes"), [("coco8", 8, 30), ("coco128", 128, 929)])
def test_shipped_tables_have_every_image_and_box(name, images, boxes):
    """30 boxes are 13 + 17 of the two splits; 929 is what the data set is known for."""
    table = shipped(name)
    assert len({one.place for one in table}) == images
    assert sum(one.labels.count("\n") for one in table) == boxes
    head = (asset_dir("cfg") / "datasets" / f"{name}.txt").read_text("utf-8")
    assert "CC BY 4.0" in head
    assert "photographs are under the licences of their authors" in head


def test_coco8_is_a_part_of_coco128():
    """So its images are of COCO train2017 too, those to validate on included."""
    large = {one.place.name: (one.size_hw, one.sha256, one.labels) for one in shipped("coco128")}
    for one in shipped("coco8"):
        assert large[one.place.name] == (one.size_hw, one.sha256, one.labels)


@pytest.mark.parametrize("name", ["coco8", "coco128"])
def test_shipped_labels_and_checksums_are_those_of_the_data_set(shared_data, tmp_path, name):
    table, root = shipped(name), shared_data / name
    assert all(one.is_in(root) for one in table)
    write_labels(table, tmp_path)
    published = {path.relative_to(root) for path in (root / "labels").rglob("*.txt")}
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.txt")}
    assert written == published
    assert all((root / path).read_bytes() == (tmp_path / path).read_bytes() for path in written)


def test_images_arrive_and_are_kept(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(listed_images, "LINE_EVERY_S", 0.0)
    contents = {f"/x/{number}.png": png(gray=number) for number in range(20)}
    server.files = dict(contents)
    images = [listed(place[3:], content, "0 .5 .5 1 1\n") for place, content in contents.items()]
    fetch_images(images, f"{server.url}/x/", tmp_path, "x")
    assert all(one.is_in(tmp_path) for one in images)
    assert sorted(server.paths) == sorted(contents)
    assert "x: 20 of 20 images\n" in capsys.readouterr().err
    write_labels(images, tmp_path)
    assert (tmp_path / "labels/val/7.txt").read_text() == "0 .5 .5 1 1\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<html>log in", r"^2\.png cannot be read as an image \(unknown image format\)$"),
        (b"", r"^2\.png cannot be read as an image \(the file is empty\)$"),
        (png()[:60], r"^2\.png cannot be read as an image \("),
        (png(48, 32), r"^2\.png has 32x48 pixels, not 48x32$"),
    ],
)
def test_a_wrong_image_is_named_and_not_kept(server, tmp_path, content, sentence):
    server.files = {"/1.png": png(), "/2.png": content}
    images = [listed("1.png", png()), listed("2.png", png())]
    with pytest.raises(DataError, match=sentence):
        fetch_images(images, f"{server.url}/", tmp_path, "x")
    assert {path.name for path in tmp_path.rglob("*.png")} == {"1.png"}


def test_another_checksum_alone_is_a_warning(server, tmp_path, capsys):
    server.files = {"/1.png": png(gray=9)}
    fetch_images([listed("1.png", png())], f"{server.url}/", tmp_path, "x")
    assert (tmp_path / "images/val/1.png").read_bytes() == png(gray=9)
    assert "Warning: 1.png is not the recorded file (SHA-256" in capsys.readouterr().err


def test_a_refusal_names_the_image(server, tmp_path, monkeypatch):
    monkeypatch.setattr(small_download, "PAUSES_S", ())
    server.files = {"/1.png": png()}
    with pytest.raises(DownloadError, match=r"^2\.png: the server returned 404"):
        fetch_images([listed("2.png", png())], f"{server.url}/", Path(tmp_path), "x")
