"""One file gives one image, or every frame of an animation with its time."""

import numpy as np
import pytest
from PIL import Image, features

from rtdetr_cli.media import readers
from rtdetr_cli.media.readers import read_file, read_in_memory


def single(path):
    (found,) = read_file(path)
    return found


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_every_frame_of_an_animation_is_read_with_its_time(tmp_path, suffix):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    frames = [Image.new("RGB", (32, 24), color) for color in ("red", "lime", "blue")]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 200, 300])
    found = list(read_file(path))
    assert [(one.path, one.frame, one.time_s) for one in found] == [
        (str(path), 1, 0),
        (str(path), 2, pytest.approx(0.1)),
        (str(path), 3, pytest.approx(0.3)),
    ]
    for one, channel in zip(found, range(3), strict=True):
        assert one.image[5, 5].argmax() == channel
    assert found[0].clip is found[2].clip
    assert (found[0].clip.total, found[0].clip.fps) == (3, pytest.approx(10))
    assert [one.frame for one in read_file(path, 2)] == [1, 3]


def test_a_still_gif_is_an_image_and_a_cut_animation_keeps_its_first_frames(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 40, 40), np.uint8)
    frames = [Image.fromarray(one) for one in noise]
    frames[0].save(tmp_path / "one.gif")
    assert single(tmp_path / "one.gif").clip is None
    frames[0].save(tmp_path / "cut.gif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "cut.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(content[: len(content) // 2])
    *good, error = read_file(tmp_path / "cut.gif")
    assert [one.frame for one in good] == [1]
    assert "cut.gif: cannot be read as an image" in error.error


def test_further_pages_are_named(tmp_path, capsys):
    pages = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    assert single(tmp_path / "two.tif").image[0, 0].tolist() == [255, 0, 0]
    assert "two.tif: only the first of 2 pages is used" in capsys.readouterr().err


def test_a_still_image_has_its_encoding_and_pixels_in_memory_have_none(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", lossless=True)
    (in_memory,) = read_in_memory(Image.open(tmp_path / "a.webp"), "a.webp")
    for one in (single(tmp_path / "a.webp"), in_memory):
        assert one.encoding.format == "WEBP"
        assert one.encoding.options["lossless"]
    (drawn,) = read_in_memory(Image.new("RGB", (8, 8)), "image0.jpg")
    assert drawn.encoding is None


def test_none_comes_before_a_large_image_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (20, 10)).save(path)
    monkeypatch.setattr(readers, "LARGE_BYTES", 599)  # of 20 x 10 x 3
    waiting = read_file(path)
    assert next(waiting) is None
    (found,) = waiting
    assert found.image.shape == (10, 20, 3)
    monkeypatch.setattr(readers, "LARGE_BYTES", 600)
    Image.new("RGB", (20, 10)).save(path)
    assert single(path).image.shape == (10, 20, 3)
