"""A copy of an image has the format, quality and colors of the original's file."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from rtdetr_cli.core.encoding import copy_suffix, encoding_for, encoding_of, write_encoded
from rtdetr_cli.core.errors import UsageError

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def opened(format, image=RGB, **options):
    content = io.BytesIO()
    image.save(content, format, **options)
    return Image.open(content)


def copied(original, path):
    """Write a copy as the run folder does, and open it."""
    encoding = encoding_of(original)
    write_encoded(path, RGB, encoding)
    return encoding, Image.open(io.BytesIO(path.read_bytes()))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "JPEG2000", "PPM"])
def test_a_copy_has_the_format_of_the_original(format, tmp_path):
    encoding, copy = copied(opened(format), tmp_path / "copy")
    assert copy.format == format
    assert encoding.change == ""
    lossy = format in {"JPEG", "WEBP"}
    assert np.array_equal(copy, RGB) is not lossy


@pytest.mark.parametrize(
    ("quality", "expected"), [(1, 90), (75, 90), (90, 90), (93, 93), (100, 100)]
)
def test_a_jpeg_keeps_its_quality_from_90_on(quality, expected):
    assert encoding_of(opened("JPEG", quality=quality)).options["quality"] == expected


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpeg_of_the_same_quality_has_the_same_tables_and_sampling(subsampling, tmp_path):
    original = opened("JPEG", quality=96, subsampling=subsampling)
    _, copy = copied(original, tmp_path / "copy.jpg")
    assert copy.quantization == original.quantization
    assert copy.layer == original.layer


def test_a_lossless_webp_stays_lossless(tmp_path):
    with_profile = opened("WEBP", lossless=True, icc_profile=ICC)  # pixels are not the first chunk
    for original in (opened("WEBP", lossless=True), with_profile):
        assert np.array_equal(copied(original, tmp_path / "copy.webp")[1], RGB)
    assert "lossless" not in encoding_of(opened("WEBP", icc_profile=ICC)).options


@pytest.mark.parametrize("compression", ["packbits", "tiff_lzw", "tiff_adobe_deflate"])
def test_a_tiff_keeps_its_compression(compression, tmp_path):
    _, copy = copied(opened("TIFF", compression=compression), tmp_path / "copy.tif")
    assert copy.info["compression"] == compression


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_color_profile_of_rgb_is_kept_and_of_other_values_is_not(format, tmp_path):
    _, copy = copied(opened(format, icc_profile=ICC), tmp_path / "copy")
    assert copy.info["icc_profile"] == ICC
    cmyk = ICC[:16] + b"CMYK" + ICC[20:]
    assert encoding_of(opened(format, icc_profile=cmyk)).icc_profile == b""


def test_formats_that_are_not_written_become_one_that_is():
    gif, ico = encoding_of(opened("GIF")), encoding_of(opened("ICO"))
    assert (gif.format, gif.change) == ("PNG", "is PNG, because GIF is not written")
    assert ico.format == "PNG"
    photo = opened("PNG")
    photo.format = "HEIF"  # what pillow-heif sets
    assert (encoding_of(photo).format, encoding_of(photo).options) == ("JPEG", {"quality": 95})
    assert encoding_of(opened("MPO")).format == "JPEG"


def test_an_avif_is_jpeg_where_there_is_no_encoder(monkeypatch):
    photo = opened("PNG")
    photo.format = "AVIF"
    monkeypatch.setitem(Image.SAVE, "AVIF", None)
    assert encoding_of(photo).format == "AVIF"
    monkeypatch.delitem(Image.SAVE, "AVIF")
    assert encoding_of(photo).format == "JPEG"


def test_16_bits_are_said():
    gray = Image.fromarray(np.zeros((4, 4), np.uint16))
    assert encoding_of(opened("PNG", gray)).change == "has 8 bits per channel instead of 16"
    assert encoding_of(opened("PNG", gray.convert("L"))).change == ""


def test_pixels_in_memory_have_no_encoding():
    assert encoding_of(RGB) is None
    assert encoding_for(Path("x.png"), None) is None


@pytest.mark.parametrize(
    ("own", "format", "size_hw", "suffix"),
    [
        ("a.jpeg", "JPEG", (9, 9), ".jpeg"),
        ("A.JPG", "JPEG", (9, 9), ".JPG"),
        ("really_a_jpeg.png", "JPEG", (9, 9), ".jpg"),
        ("a.tiff", "TIFF", (9, 9), ".tiff"),
        ("gray.pgm", "PPM", (9, 9), ".ppm"),
        ("wide.jpg", "JPEG", (9, 70000), ".png"),
        ("wide.webp", "WEBP", (9, 16384), ".png"),
    ],
)
def test_a_copy_keeps_its_suffix_if_its_format_has_it(own, format, size_hw, suffix):
    assert copy_suffix(Path(own), encoding_of(opened(format)), size_hw) == suffix


def test_frames_and_arrays_are_jpeg():
    assert copy_suffix(Path("walk.gif"), None, (9, 9)) == ".jpg"


def test_another_format_keeps_the_color_profile():
    original = encoding_of(opened("PNG", icc_profile=ICC))
    assert encoding_for(Path("x.png"), original) is original
    jpeg = encoding_for(Path("x.JPEG"), original)
    assert (jpeg.format, jpeg.icc_profile, jpeg.options) == ("JPEG", ICC, {"quality": 95})
    assert encoding_for(Path("x.docx"), original) is None


def test_what_cannot_be_encoded_is_one_sentence(tmp_path):
    wide = Image.new("RGB", (70000, 1))
    with pytest.raises(UsageError, match=r"cannot write 70000x1 pixels as .*x\.jpg: "):
        write_encoded(tmp_path / "x.jpg", wide, encoding_of(opened("JPEG")))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_header_gives_the_usual_encoding():
    """Mutated JPEG files open without a table of luma steps, or with two channels."""
    photo = opened("JPEG", quality=97)
    photo.quantization, photo.layer = {1: [16] * 64}, photo.layer[:2]
    assert encoding_of(photo).options == {"quality": 95}
    photo.info["icc_profile"] = (1, 2)  # a TIFF tag of another type
    assert encoding_of(photo).icc_profile == b""


def test_a_webp_of_endless_chunks_is_not_read_to_its_end():
    webp = opened("WEBP")
    webp.fp = io.BytesIO(b"RIFF1234WEBP" + bytes(8_000_000))
    assert "lossless" not in encoding_of(webp).options
    assert webp.fp.tell() == 0
