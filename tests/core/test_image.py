from __future__ import annotations

import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.core.image import _FORMATS as FORMATS
from rtdetr_cli.core.image import (
    IMAGE_SUFFIXES,
    images_in,
    read_image,
    read_image_size,
    resize_image,
    swap_red_blue,
    to_planes,
    to_rgb,
    to_tensor,
)

UNREADABLE = {
    "truncated_half.jpg",
    "truncated_header.jpg",
    "empty.jpg",
    "html.jpg",
    "bad_crc.png",
    "bomb_20000x10000.png",
}
SMALL = {"one_pixel.png", "sliver_3x1000.png"}


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_awkward_files_give_the_upright_bus_or_one_sentence(shared_data):
    folder = shared_data / "corner_cases"
    index = json.loads((folder / "index.json").read_text("utf-8"))
    for name, facts in index.items():
        if name in UNREADABLE:
            with pytest.raises(DataError, match=r"cannot be read as an image \(.+\)$"):
                read_image(folder / name)
            continue
        image = read_image(folder / name)
        width, height = facts["upright_size"]
        assert image.shape == (height, width, 3), name
        assert read_image_size(folder / name) == (height, width), name
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert image.flags.writeable
        # index.json: Pillow and OpenCV agree on a mean of 116 to 118 for all but the tiny ones.
        assert name in SMALL or 115 < image.mean() < 119, name


def test_every_suffix_of_the_formats_counts_as_an_image(tmp_path):
    Image.init()
    readable = {one for one, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert readable <= IMAGE_SUFFIXES
    for name in ("a.JFIF", "b.heic", "c.txt", ".d.png"):
        (tmp_path / name).touch()
    assert [path.name for path in images_in(str(tmp_path))] == ["a.JFIF", "b.heic"]


def test_an_image_that_needs_a_plug_in_names_it(tmp_path, monkeypatch):
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match=r"a\.heic: .* HEIF needs `pip install pillow-heif`"):
        read_image(tmp_path / "a.heic")


def test_the_bound_on_pixels_is_a_setting_that_its_error_names(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # restored after
    path = tmp_path / "a.png"
    Image.new("1", (1500, 1000)).save(path)
    monkeypatch.setenv("RTDETR_MAX_MEGAPIXELS", "1")
    with pytest.raises(DataError, match=r"more than 1 megapixels; RTDETR_MAX_MEGAPIXELS=1000 sets"):
        read_image_size(path)
    monkeypatch.setenv("RTDETR_MAX_MEGAPIXELS", "2")
    assert read_image(path).shape == (1000, 1500, 3)
    monkeypatch.setenv("RTDETR_MAX_MEGAPIXELS", "many")
    with pytest.raises(UsageError, match=r"MEGAPIXELS=many: expected a number of megapixels"):
        read_image(path)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"]
)
def test_every_mode_of_pillow_becomes_rgb(mode):
    gray = Image.new("L", (4, 3), 255)
    image = gray.convert("RGB").convert(mode) if mode in {"CMYK", "HSV"} else gray.convert(mode)
    if mode == "I;16":
        image = Image.fromarray(np.full((3, 4), 65535, np.uint16))
    assert to_rgb(image).shape == (3, 4, 3)
    assert to_rgb(image).min() > 250


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "CMYK", "I;16", "YCbCr"])
def test_a_large_image_is_converted_in_strips_to_the_same_pixels(mode, monkeypatch):
    colored = Image.merge("RGB", [Image.linear_gradient("L").rotate(turn) for turn in (0, 90, 180)])
    image = colored.convert("I").convert(mode) if mode == "I;16" else colored.convert(mode)
    image.getexif()[0x0112] = 6
    whole = to_rgb(image)
    monkeypatch.setattr("rtdetr_cli.core.image._STRIP_PIXELS", 256 * 10)
    np.testing.assert_array_equal(to_rgb(image), whole)


def test_the_first_of_several_images_in_a_file_is_read(tmp_path):
    for name in ("a.mpo", "b.gif", "c.tif", "d.webp", "e.apng"):
        frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
        kind = {"e.apng": "PNG"}.get(name)
        options = {"lossless": True} if name == "d.webp" else {}
        frames[0].save(tmp_path / name, kind, save_all=True, append_images=frames[1:], **options)
        assert read_image(tmp_path / name)[0, 0, 0] > 200, name


def test_turned_jpegs_show_the_same_image(shared_data):
    folder = shared_data / "corner_cases"
    sixth, eighth = (
        read_image(folder / f"exif_orient_{value}.jpg").astype(int) for value in (6, 8)
    )
    assert np.abs(sixth - eighth).mean() < 8  # turned before compression, hence not equal


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jpg: no such image"):
        read_image(tmp_path / "nowhere.jpg")


def test_folder_is_no_image(tmp_path):
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_image_size(tmp_path)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, axis=0)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    expected = (ramp >> 8).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert (read_image(tmp_path / "ramp.png") == expected).all()


def test_float_pixels_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match="float pixels"):
        read_image(tmp_path / "float.tif")


def test_given_pillow_image_stays_as_it_is():
    image = Image.fromarray(noise(4, 6))
    image.getexif()[0x0112] = 6
    assert to_rgb(image).shape == (6, 4, 3)
    assert image.size == (6, 4)


@pytest.mark.parametrize("size_hw", [(32, 64), (50, 30), (200, 160), (97, 131)])
def test_antialiased_resize_equals_pillow(size_hw):
    image = noise(97, 131)
    expected = Image.fromarray(image).resize(size_hw[::-1], Image.Resampling.BILINEAR)
    assert (resize_image(image, size_hw, antialias=True) == np.asarray(expected)).all()
    fast = resize_image(image, size_hw, antialias=True, exact=False).astype(int)
    assert np.abs(fast - np.asarray(expected)).max() <= 1
    assert (fast == np.asarray(expected)).mean() > 0.98


def test_resize_without_antialias_picks_neighbours():
    image = np.zeros((8, 8, 3), np.uint8)
    image[0::4] = 200  # antialiasing would see these rows, OpenCV's four neighbours do not
    assert resize_image(image, (2, 2), antialias=False).max() == 0
    assert resize_image(image, (2, 2), antialias=True).max() > 0


def test_to_tensor_is_planes_in_zero_to_one():
    image = noise(3, 5)
    tensor = to_tensor(image)
    assert tensor.shape == (3, 3, 5)
    assert tensor.dtype == torch.float32
    assert tensor[2, 1, 4].item() == pytest.approx(image[1, 4, 2] / 255)


def test_postscript_named_jpg_is_not_given_to_an_interpreter(tmp_path):
    """Pillow runs Ghostscript on EPS files, whatever they are called."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(DataError, match="unknown image format"):
        read_image_size(path)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_damaged_avif_is_a_sentence(tmp_path):
    path = tmp_path / "a.avif"
    Image.linear_gradient("L").resize((19, 13)).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-20] + bytes(20))
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_image(path)


def test_a_image_that_is_too_large_for_the_memory_is_a_sentence(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def refuse(_):
        raise MemoryError

    monkeypatch.setattr("rtdetr_cli.core.image.to_rgb", refuse)
    with pytest.raises(DataError, match="not enough memory"):
        read_image(tmp_path / "a.png")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="special files of Unix")
def test_a_device_is_not_read(tmp_path):
    (tmp_path / "a.png").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="is a device, expected a file"):
        read_image(tmp_path / "a.png")


def test_threads_that_read_leave_the_filters_of_warnings_as_they_were(tmp_path):
    for number in range(8):
        Image.fromarray(noise(40, 40, number)).save(tmp_path / f"{number}.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: read_image(tmp_path / f"{n % 8}.png"), range(400)))
    assert warnings.filters == before


def test_planes_are_the_tensor_without_pytorch():
    image = noise(30, 20)
    np.testing.assert_array_equal(to_planes(image), to_tensor(image).numpy())


@pytest.mark.parametrize("size", [(1, 1), (30, 20), (1, 3000)])
def test_red_and_blue_are_swapped_in_a_new_array(size):
    image = noise(*size)
    swapped = swap_red_blue(image)
    np.testing.assert_array_equal(swapped, image[..., ::-1])
    assert swapped.flags.c_contiguous
    np.testing.assert_array_equal(swap_red_blue(swapped), image)
