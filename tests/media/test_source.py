"""Everything a user calls a source becomes upright RGB images or one sentence."""

import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.media.source import open_source

BLUE_BGR = np.full((4, 6, 3), (255, 0, 0), np.uint8)
BLUE_RGB = BLUE_BGR[..., ::-1]


def write(path, image=BLUE_BGR):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def names(source, root):
    paths = (found.path for found in open_source(source))
    return [path.removeprefix(f"{root}/") for path in paths]


def only(source):
    (found,) = open_source(source)
    return found


def test_a_file_is_one_image(tmp_path):
    found = only(str(write(tmp_path / "a.png")))
    assert found.path == str(tmp_path / "a.png")
    np.testing.assert_array_equal(found.image, BLUE_RGB)


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


def test_a_list_file_is_read_relative_to_its_folder(tmp_path):
    write(tmp_path / "images" / "a b.png")
    (tmp_path / "list.txt").write_text("\ufeff./images/a b.png\n\n", encoding="utf-8")
    (found,) = open_source(tmp_path / "list.txt")
    np.testing.assert_array_equal(found.image, BLUE_RGB)


def test_a_csv_file_lists_paths_in_lines_or_between_commas(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / name)
    (tmp_path / "list.csv").write_text("a.png, b.png\nc.png\n")
    assert names(tmp_path / "list.csv", tmp_path) == ["a.png", "b.png", "c.png"]


def test_an_animation_says_that_one_frame_is_used(tmp_path, capsys):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "one.gif")
    (found,) = open_source(tmp_path / "two.gif")
    assert found.image[0, 0].tolist() == [255, 0, 0]
    assert "two.gif: only the first frame is used" in capsys.readouterr().err
    list(open_source(tmp_path / "one.gif"))
    assert capsys.readouterr().err == ""


def test_arrays_are_bgr_and_pillow_and_tensors_are_rgb():
    tensor = torch.from_numpy(BLUE_RGB.copy()).permute(2, 0, 1)
    sources = [BLUE_BGR, Image.fromarray(BLUE_RGB), tensor, tensor[None] / 255, (BLUE_BGR[:2],)]
    images = list(open_source(sources))
    assert [found.path for found in images] == [f"image{i}.jpg" for i in range(5)]
    for found in images[:4]:
        np.testing.assert_array_equal(found.image, BLUE_RGB)
        assert found.image.flags.c_contiguous
    assert images[4].image.shape == (2, 6, 3)


def test_gray_and_alpha_arrays_are_taken_as_opencv_means_them():
    gray = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for array in (gray, gray[..., None]):
        np.testing.assert_array_equal(only(array).image, np.stack([gray] * 3, axis=2))
    alpha = np.dstack([BLUE_BGR, gray])
    np.testing.assert_array_equal(only(alpha).image, BLUE_RGB)


def test_a_pillow_image_is_turned_upright():
    image = Image.fromarray(BLUE_RGB)
    image.getexif()[0x0112] = 6
    assert only(image).image.shape == (6, 4, 3)


def test_a_batch_of_tensors_is_so_many_images():
    assert len(open_source(torch.zeros(3, 3, 8, 8))) == 3


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (np.zeros((4, 4, 3), np.float32), "an array of float32; expected uint8"),
        (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\); expected \(H, W, 3\) BGR"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (torch.full((3, 4, 4), 255.0), "must hold RGB in 0..1"),
        (torch.full((3, 4, 4), torch.nan), "must hold RGB in 0..1"),
        (torch.zeros(1, 4, 4), r"shape \(1, 4, 4\); expected \(B, 3, H, W\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "a tensor of torch.int64"),
    ],
)
def test_what_is_no_image_says_what_was_expected(source, sentence):
    found = only(source)
    assert found.image is None
    with pytest.raises(DataError, match=sentence):
        raise DataError(found.error)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{root}/bos.jpg", r"bos\.jpg: no such file or folder; did you mean bus\.jpg\?$"),
        ("{root}/nowhere/bus.jpg", "no such file or folder$"),
        ("{root}/*.tif", "the pattern contains no images$"),
        ("{root}/empty", r"the folder contains no images; source='.*/empty/\*\*/\*' also searches"),
        ("{root}/bad.txt", r"bad\.txt:2: no such image: nope\.jpg"),
        ("{root}/blank.txt", "the list is empty"),
        ("{root}/road.mp4", "video sources are not supported"),
        ("{root}/cameras.streams", "video sources are not supported"),
        ("https://example.com/bus.jpg", "network sources are not supported"),
        ("rtsp://10.0.0.1/live", "network sources are not supported"),
        ("a" * 5000, r"^a{200}: File name too long$"),
        ("0", "cameras, screens and network sources are not supported"),
    ],
)
def test_what_cannot_be_opened_is_named_at_once(tmp_path, source, sentence):
    write(tmp_path / "bus.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.txt").write_text("bus.jpg\nnope.jpg\n")
    (tmp_path / "blank.txt").write_text("\n")
    (tmp_path / "road.mp4").write_bytes(b"ftyp")
    (tmp_path / "cameras.streams").write_text("rtsp://10.0.0.1/live\n")
    with pytest.raises(DataError, match=sentence):
        open_source(source.format(root=tmp_path))


def test_an_empty_list_and_a_foreign_type_are_refused():
    with pytest.raises(DataError, match="empty list"):
        open_source([])
    with pytest.raises(UsageError, match="a source of type dict"):
        open_source([{}])


def test_a_video_or_a_damaged_file_does_not_stop_the_rest_of_a_folder(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.mp4").write_bytes(b"ftyp")
    good, empty, video = open_source(tmp_path)
    assert good.image is not None
    assert "b.png: cannot be read as an image (the file is empty)" in empty.error
    assert "video sources are not supported" in video.error


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="special files of Unix")
def test_a_fifo_is_named_and_does_not_stop_the_others(tmp_path):
    write(tmp_path / "b.png")
    os.mkfifo(tmp_path / "a.jpg")
    fifo, found = open_source(str(tmp_path))
    assert fifo.error == f"{tmp_path}/a.jpg: is a pipe (FIFO), expected a file"
    assert found.image is not None
    (tmp_path / "list.txt").write_text("a.jpg\nb.png\n")
    for source in (tmp_path / "a.jpg", tmp_path / "list.txt", "/dev/zero"):
        with pytest.raises(DataError, match="expected a file"):
            open_source(str(source))
