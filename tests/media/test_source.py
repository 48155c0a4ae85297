"""Everything a user calls a source becomes upright RGB images or one sentence."""

import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, features

from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.media.source import ReadOptions, open_source

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


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_every_frame_of_an_animation_is_read_with_its_time(tmp_path, suffix):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    frames = [Image.new("RGB", (32, 24), color) for color in ("red", "lime", "blue")]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 200, 300])
    found = list(open_source(path))
    assert [(one.path, one.frame, one.time_s) for one in found] == [
        (str(path), 1, 0),
        (str(path), 2, pytest.approx(0.1)),
        (str(path), 3, pytest.approx(0.3)),
    ]
    for one, channel in zip(found, range(3), strict=True):
        assert one.image[5, 5].argmax() == channel
    assert found[0].clip is found[2].clip
    assert (found[0].clip.total, found[0].clip.fps) == (3, pytest.approx(10))
    assert [one.frame for one in open_source(path, ReadOptions(vid_stride=2))] == [1, 3]


def test_a_still_gif_is_an_image_and_a_cut_animation_keeps_its_first_frames(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 40, 40), np.uint8)
    frames = [Image.fromarray(one) for one in noise]
    frames[0].save(tmp_path / "one.gif")
    assert only(tmp_path / "one.gif").clip is None
    frames[0].save(tmp_path / "cut.gif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "cut.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(content[: len(content) // 2])
    *good, error = open_source(tmp_path / "cut.gif")
    assert [one.frame for one in good] == [1]
    assert "cut.gif: cannot be read as an image" in error.error


def test_further_pages_are_named(tmp_path, capsys):
    pages = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    assert only(tmp_path / "two.tif").image[0, 0].tolist() == [255, 0, 0]
    assert "two.tif: only the first of 2 pages is used" in capsys.readouterr().err


def test_arrays_are_bgr_and_pillow_and_tensors_are_rgb():
    tensor = torch.from_numpy(BLUE_RGB.copy()).permute(2, 0, 1)
    sources = [BLUE_BGR, Image.fromarray(BLUE_RGB), tensor, tensor[None] / 255, (BLUE_BGR[:2],)]
    images = list(open_source(sources))
    assert [found.path for found in images] == [f"image{i}.jpg" for i in range(5)]
    for found in images[:4]:
        np.testing.assert_array_equal(found.image, BLUE_RGB)
        assert found.image.flags.c_contiguous
    assert images[4].image.shape == (2, 6, 3)


def test_a_batch_of_tensors_is_so_many_images():
    assert open_source(torch.zeros(3, 3, 8, 8)).total == 3


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{root}/bos.jpg", r"bos\.jpg: no such file or folder; did you mean bus\.jpg\?$"),
        ("{root}/nowhere/bus.jpg", "no such file or folder$"),
        ("{root}/*.tif", "the pattern contains no images$"),
        ("{root}/empty", r"the folder contains no images; source='.*/empty/\*\*/\*' also searches"),
        ("{root}/bad.txt", r"bad\.txt:2: no such image: nope\.jpg"),
        ("{root}/blank.txt", "the list is empty"),
        ("{root}/cameras.streams", "streams are not supported"),
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
    (tmp_path / "cameras.streams").write_text("rtsp://10.0.0.1/live\n")
    with pytest.raises(DataError, match=sentence):
        open_source(source.format(root=tmp_path))


def test_an_empty_list_and_a_foreign_type_are_refused():
    with pytest.raises(DataError, match="empty list"):
        open_source([])
    with pytest.raises(UsageError, match="a source of type dict"):
        open_source([{}])


def test_a_damaged_image_or_video_does_not_stop_the_rest_of_a_folder(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.mp4").write_bytes(b"ftyp")
    good, empty, video = open_source(tmp_path)
    assert good.image is not None
    assert "b.png: cannot be read as an image (the file is empty)" in empty.error
    assert "c.mp4: cannot be read as a video" in video.error


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
