"""A folder, a pattern or a list gives its files, in a fixed order, and nothing else."""

import errno
import os
from pathlib import Path

import cv2
import numpy as np

from rtdetr_cli.media.paths import find_files
from rtdetr_cli.media.readers import read_file

IMAGE = np.zeros((4, 6, 3), np.uint8)


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), IMAGE)
    return path


def names(source, root):
    return [path.relative_to(root).as_posix() for path in find_files(str(source))]


def test_a_folder_gives_its_images_sorted_and_nothing_else(tmp_path):
    for name in ("b.PNG", "a.jpg", "._a.jpg", "sub/c.png"):
        write(tmp_path / name)
    write(tmp_path / "x.png").rename(tmp_path / "no_suffix")
    (tmp_path / "LICENSE").write_text("words")
    (tmp_path / "a.txt").write_text("0 .5 .5 1 1")
    assert names(tmp_path, tmp_path) == ["a.jpg", "b.PNG", "no_suffix"]


def test_a_pattern_may_search_subfolders(tmp_path):
    for name in ("1.png", "sub/2.png", "sub/deep/3.jpg"):
        write(tmp_path / name)
    (tmp_path / "notes.md").write_text("words")
    assert names(f"{tmp_path}/**/*", tmp_path) == ["1.png", "sub/2.png", "sub/deep/3.jpg"]
    assert names(f"{tmp_path}/*/*.png", tmp_path) == ["sub/2.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    write(tmp_path / "img[1].png")
    assert names(tmp_path / "img[1].png", tmp_path) == ["img[1].png"]


def test_a_csv_file_lists_paths_in_lines_or_between_commas(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / name)
    (tmp_path / "list.csv").write_text("a.png, b.png\nc.png\n")
    assert names(tmp_path / "list.csv", tmp_path) == ["a.png", "b.png", "c.png"]


def test_links_to_nothing_and_formats_that_cannot_be_read_are_found_so_that_they_are_named(
    tmp_path,
):
    write(tmp_path / "b.png")
    (tmp_path / "a.exr").write_bytes(b"v/1\1")
    (tmp_path / "c.jpg").symlink_to("c.jpg")
    (tmp_path / "d.mp4").symlink_to("absent")
    (tmp_path / "e").symlink_to("absent")
    (tmp_path / "folder.jpg").mkdir()
    assert names(tmp_path, tmp_path) == ["a.exr", "b.png", "c.jpg", "d.mp4"]
    errors = [one.error for path in find_files(str(tmp_path)) for one in read_file(path)]
    assert errors == [
        f"{tmp_path}/a.exr: cannot be read as an image (unknown image format)",
        "",
        f"{tmp_path}/c.jpg: cannot be read as an image (its links form a loop)",
        f"{tmp_path}/d.mp4: no such video",
    ]


def test_a_pattern_enters_each_folder_once_whatever_links_show_it_again(tmp_path):
    """With two links to a folder above, the `**` of glob does not end."""
    write(tmp_path / "a.png")
    write(tmp_path / "sub" / "b.png")
    write(tmp_path / ".hidden" / "c.png")
    write(tmp_path / "elsewhere" / "d.png")
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a.png", "sub", ".hidden"):
        (tmp_path / name).rename(root / name)
    (root / "sub" / "up").symlink_to("..")
    (root / "again").symlink_to("sub")
    (root / "other").symlink_to("../elsewhere")
    for pattern in ("**/*.png", "**/*", "**"):
        assert names(f"{root}/{pattern}", root) == ["a.png", "other/d.png", "sub/b.png"]
    assert names(f"{root}/**/sub/*.png", root) == ["sub/b.png"]
    write(root / "sub" / "sub" / "c.png")
    assert names(f"{root}/**/sub/**/c.png", root) == ["sub/sub/c.png"]


def test_a_pattern_may_begin_with_two_asterisks(tmp_path, monkeypatch):
    write(tmp_path / "sub" / "[1]" / "b.png")
    monkeypatch.chdir(tmp_path)
    assert find_files("**/*.png") == [Path("sub/[1]/b.png")]


def test_a_folder_that_a_pattern_cannot_enter_is_named(tmp_path, monkeypatch):
    write(tmp_path / "a.png")
    locked = tmp_path / "locked"
    locked.mkdir()
    scandir = os.scandir

    def refuse(path):  # root may enter every folder
        if os.fspath(path).rstrip("/") == str(locked):
            raise PermissionError(errno.EACCES, "Permission denied", str(locked))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(f"{tmp_path}/**/*.png", tmp_path) == ["a.png", "locked"]
    assert names(f"{tmp_path}/*.png", tmp_path) == ["a.png"]
