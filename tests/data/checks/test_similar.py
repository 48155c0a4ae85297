from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from rtdetr_cli.core.image import read_image
from rtdetr_cli.data.checks import similar
from rtdetr_cli.data.checks.similar import image_signature, similar_pairs


def thumbnails(images):
    return np.stack([image_signature(np.asarray(image)).thumbnail for image in images])


def pairs(images, *ends):
    found = similar_pairs(thumbnails(images), ends or (len(images),))
    return {(pair.first, pair.second): pair.mirrored for pair in found}


def saved_again(image, quality):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def cropped(image, fraction):
    width, height = image.size
    right, low = width * fraction / 2, height * fraction / 2
    return image.resize((width, height), box=(right, low, width - right, height - low))


CHANGES = {
    "JPEG quality 30": lambda image: saved_again(image, 30),
    "half the size": lambda image: image.resize((80, 60)),
    "square": lambda image: image.resize((160, 160)),
    "10 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "40 % darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "cropped by 2 %": lambda image: cropped(image, 0.02),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_image_that_was_saved_in_another_way_looks_the_same(change, scene):
    images = [Image.fromarray(scene(seed)) for seed in range(6)]
    changed = [change(image) for image in images]
    assert pairs(images + changed) == {(n, n + 6): False for n in range(6)}
    flipped = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in changed]
    assert pairs(images + flipped) == {(n, n + 6): True for n in range(6)}


def test_different_images_do_not_look_the_same(scene):
    assert pairs([scene(seed) for seed in range(100)]) == {}


@pytest.mark.parametrize("change", ["crop", "turn"])
def test_larger_changes_are_not_found(change, scene):
    """The limits that docs/datasets.md names."""
    image = Image.fromarray(scene(0))
    other = cropped(image, 0.1) if change == "crop" else image.transpose(Image.Transpose.ROTATE_180)
    assert pairs([image, other]) == {}


def test_another_object_in_the_same_scene_is_another_image(scene):
    for seed in range(20):
        images = [scene(seed), scene(seed)]
        for number, image in enumerate(images):
            place = image[40:52, 20 + 80 * number : 32 + 80 * number]  # a tenth of the height
            place[...] = 255 * (place.mean() < 128)
        assert pairs(images) == {}


def test_images_without_contrast_are_not_compared():
    rng = np.random.default_rng(0)
    flat = [np.full((40, 40, 3), level, np.uint8) for level in (0, 0, 9, 250)]
    noise = rng.normal(128, 20, (4, 200, 200, 3)).clip(0, 255).astype(np.uint8)
    assert pairs([*flat, *noise]) == {}


def test_all_images_of_two_splits_with_a_likeness_are_in_a_pair(scene):
    images = [scene(seed) for seed in (0, 1, 0, 2)] + [scene(seed) for seed in (3, 0, 0, 2)]
    found = pairs(images, 4, 8)
    assert {second for first, second in found if first < 4 <= second} == {5, 6, 7}
    assert {first for first, second in found if first < 4 <= second} == {0, 2, 3}
    assert {second for first, second in found if second < 4} == {2}
    assert {second for first, second in found if first >= 4} == {6}


def test_pairs_do_not_depend_on_the_blocks(scene, monkeypatch):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(scene(seed)) for seed in range(12)]
    images += [saved_again(images[n], 60) for n in range(12)]
    order = rng.permutation(24)
    images = [images[n] for n in order]
    expected = {
        tuple(sorted((order.tolist().index(n), order.tolist().index(n + 12)))) for n in range(12)
    }
    for rows, columns in ((512, 2048), (3, 5), (24, 1)):
        monkeypatch.setattr(similar, "_ROWS", rows)
        monkeypatch.setattr(similar, "_COLUMNS", columns)
        for ends in ((24,), (10, 24), (1, 2, 24), (0, 24)):
            assert set(pairs(images, *ends)) == expected


def test_the_digest_is_that_of_size_and_pixels(scene):
    image = scene(0)
    same, turned = image.copy(), image.reshape(160, 120, 3)
    assert image_signature(image).digest == image_signature(same).digest
    assert image_signature(image).digest != image_signature(turned).digest
    same[0, 0, 0] ^= 1
    assert image_signature(image).digest != image_signature(same).digest


def test_photographs_of_one_camera_are_told_apart(shared_data):
    """The one pair shows the same cells, focused differently; val has 37 and train has 38."""
    paths = sorted((shared_data / "bccd" / "images").rglob("*.jpg"))
    names = [path.stem for path in paths]
    found = pairs([read_image(path) for path in paths])
    assert [(names[first], names[second]) for first, second in found] == [
        ("BloodImage_00038", "BloodImage_00037")
    ]
