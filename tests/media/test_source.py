"""Everything a user calls a source becomes upright RGB images or one sentence."""

import io
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


def only(source):
    (found,) = open_source(source)
    return found


def test_a_file_is_one_image(tmp_path):
    found = only(str(write(tmp_path / "a.png")))
    assert found.path == str(tmp_path / "a.png")
    np.testing.assert_array_equal(found.image, BLUE_RGB)


def test_a_list_file_is_read_relative_to_its_folder(tmp_path):
    write(tmp_path / "images" / "a b.png")
    (tmp_path / "list.txt").write_text("\ufeff./images/a b.png\n\n", encoding="utf-8")
    (found,) = open_source(tmp_path / "list.txt")
    np.testing.assert_array_equal(found.image, BLUE_RGB)


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
        ("{root}/web.txt", r"web\.txt:1: no such image: http://10\.0\.0\.1/a\.jpg"),
        ("{root}/cameras.streams", r"cameras\.streams:2: file:///etc/passwd: file:// is not"),
        ("ftp://10.0.0.1/bus.jpg", r"ftp:// is not supported; expected rtsp, "),
        ("a" * 5000, r"^a{200}: File name too long$"),
    ],
)
def test_what_cannot_be_opened_is_named_at_once(tmp_path, source, sentence):
    write(tmp_path / "bus.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.txt").write_text("bus.jpg\nnope.jpg\n")
    (tmp_path / "blank.txt").write_text("\n")
    (tmp_path / "cameras.streams").write_text("rtsp://10.0.0.1/live\nfile:///etc/passwd\n")
    (tmp_path / "web.txt").write_text("http://10.0.0.1/a.jpg\n")  # lists name files only
    with pytest.raises(DataError, match=sentence):
        open_source(source.format(root=tmp_path))


def test_a_memoryview_is_an_image_not_the_numbers_of_cameras(tmp_path):
    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), np.zeros((4, 6, 3), np.uint8))
    (found,) = open_source(memoryview(path.read_bytes()))
    assert found.image.shape == (4, 6, 3)


def test_an_empty_text_is_not_the_current_folder(tmp_path, monkeypatch):
    """`source=$IMAGE` with an unset variable."""
    monkeypatch.chdir(tmp_path)
    assert cv2.imwrite("a.png", np.zeros((4, 6, 3), np.uint8))
    for source in ("", [""]):
        with pytest.raises(DataError, match=r"an empty text; the current folder is source=\."):
            open_source(source)
    assert len(list(open_source("."))) == 1


def test_a_list_that_holds_itself_is_refused():
    endless = [np.zeros((8, 8, 3), np.uint8)]
    endless.append(endless)
    for source in (endless, iter([endless])):
        with pytest.raises(UsageError, match="a list that holds itself"):
            list(open_source(source))


def test_an_empty_list_and_a_foreign_type_are_refused():
    with pytest.raises(DataError, match="empty list"):
        open_source([])
    for source in ({}, [{}], {"a.jpg"}, [None], 1.5):
        with pytest.raises(UsageError, match=r"a source of type (dict|set|NoneType|float)"):
            open_source(source)


def test_a_generator_is_read_item_by_item_and_may_hold_anything(tmp_path):
    write(tmp_path / "a.png")
    taken = []

    def items():
        for item in (str(tmp_path / "a.png"), BLUE_BGR, "nope.jpg", [BLUE_BGR, BLUE_BGR]):
            taken.append(1)
            yield item

    source = open_source(items())
    assert source.total is None
    found = iter(source)
    assert next(found).path == str(tmp_path / "a.png")
    assert len(taken) == 1
    rest = list(found)
    assert [one.path for one in rest] == ["image1.jpg", "nope.jpg", "image2.jpg", "image3.jpg"]
    assert rest[1].error.startswith("nope.jpg: no such file or folder")


def test_bytes_and_file_objects_hold_an_image_or_an_animation(tmp_path):
    path = write(tmp_path / "a.png")
    with path.open("rb") as stream:
        found = list(open_source([path.read_bytes(), stream, io.BytesIO(path.read_bytes())]))
    assert [one.path for one in found] == ["image0.jpg", str(path), "image2.jpg"]
    for one in found:
        np.testing.assert_array_equal(one.image, BLUE_RGB)
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert [one.frame for one in open_source((tmp_path / "a.gif").read_bytes())] == [1, 2]
    assert "image0.jpg: cannot be read as an image" in only(b"words").error
    with path.open(encoding="latin-1") as stream:
        assert "is opened for text; open it with mode 'rb'" in only(stream).error
    assert "cannot be read" in only(stream).error  # closed


def test_a_batch_array_is_so_many_images():
    found = list(open_source(np.stack([BLUE_BGR, BLUE_BGR])))
    assert [one.path for one in found] == ["image0.jpg", "image1.jpg"]


@pytest.fixture
def stdin(monkeypatch):
    """Gives bytes to standard input."""

    def give(content):
        stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)))
        monkeypatch.setattr("sys.stdin", stream)

    return give


def test_standard_input_is_an_image(tmp_path, stdin):
    for suffix in ("png", "jpg", "bmp", "ppm", "webp", "tif"):
        stdin(write(tmp_path / f"a.{suffix}").read_bytes())
        found = only("-")
        assert found.path == "stdin"
        assert found.image.shape == (4, 6, 3), suffix
    stdin(b"")
    assert "stdin: cannot be read as an image" in only("-").error


def test_standard_input_is_a_list_of_files_and_nothing_else(tmp_path, stdin):
    one, two = write(tmp_path / "P6 a.png"), write(tmp_path / "\u00e9 *.png")
    stdin(f"{one}\r\n\nnope.jpg\nhttp://127.0.0.1:9/a.jpg\n{two}".encode())
    found = list(open_source("-"))
    assert [item.image is not None for item in found] == [True, False, False, True]
    assert found[1].error == "nope.jpg: no such image"
    assert found[2].error.endswith("no such image")


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


def test_only_files_and_arrays_are_local(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    image = np.zeros((4, 4, 3), np.uint8)
    address = "http://127.0.0.1:9/a.jpg"  # by its suffix an image, which is not fetched yet
    assert open_source([str(tmp_path), image]).is_local
    assert not open_source([str(tmp_path), address]).is_local
    assert not open_source(iter([image])).is_local
    assert not open_source("rtsp://127.0.0.1:9/live").is_local
