"""A folder, a pattern or a list gives its files, in a fixed order, and nothing else."""

import cv2
import numpy as np

from rtdetr_cli.media.paths import find_files

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
