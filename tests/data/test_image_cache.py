"""Cached images equal the decoded ones in all processes and follow changes of their files."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from rtdetr_cli.core.errors import BackendError, DataError, StorageError
from rtdetr_cli.core.image import read_image
from rtdetr_cli.data import image_cache as images_module
from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, make_record
from rtdetr_cli.data.image_cache import open_images
from rtdetr_cli.data.loader import LoaderConfig, TrainLoader
from rtdetr_cli.data.transforms import AugmentConfig

from .conftest import assert_same, epoch, save_image

SIZES = [(40, 60), (33, 21), (64, 32), (1, 1), (40, 60)]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def records(tmp_path):
    boxes = [LabelledBox(0, [0, 0, 20, 30])]
    return [
        make_record(number, save_image(tmp_path / f"{number}.png", *size, number), size, boxes)
        for number, size in enumerate(SIZES)
    ]


def count_decoded(monkeypatch):
    """The paths that are decoded from now on."""
    decoded = []

    def read(path):
        decoded.append(path)
        return read_image(path)

    monkeypatch.setattr(images_module, "read_image", read)
    return decoded


@pytest.mark.parametrize(("cache", "times"), [("off", 2), ("ram", 1), ("disk", 1)])
def test_each_image_is_decoded_once_and_is_what_the_file_holds(records, monkeypatch, cache, times):
    decoded = count_decoded(monkeypatch)
    images = open_images(records, cache)
    for _ in range(2):
        for position, record in enumerate(records):
            found = images.read(position)
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, read_image(record.path))
    assert len(decoded) == times * len(records)


def test_the_disk_serves_the_next_run(records, monkeypatch):
    for position in range(len(records)):
        open_images(records, "disk").read(position)
    decoded = count_decoded(monkeypatch)
    again = open_images(records, "disk")
    np.testing.assert_array_equal(again.read(2), read_image(records[2].path))
    assert decoded == []


@pytest.mark.parametrize("cache", ["off", "ram", "disk"])
def test_a_changed_image_is_seen(records, cache):
    images = open_images(records, cache)
    old = images.read(1).copy()
    path = save_image(records[1].path, *SIZES[1], seed=99)
    os.utime(path, ns=(0, 1))  # two writes within one tick of the clock have the same time
    assert (images.read(1) != old).any()
    np.testing.assert_array_equal(images.read(1), read_image(path))


@pytest.mark.parametrize("cache", ["off", "ram", "disk"])
@pytest.mark.parametrize("kept", [False, True])
def test_a_deleted_or_changed_image_is_reported(records, cache, kept):
    images = open_images(records, cache)
    if kept:
        images.read(0)
        images.read(1)
    records[0].path.unlink()
    with pytest.raises(DataError, match=r"0\.png: no such image"):
        images.read(0)
    save_image(records[1].path, 34, 21)
    with pytest.raises(DataError, match=r"1\.png: the upright image is 21x34 .* state 21x33"):
        images.read(1)


@pytest.mark.parametrize("damage", ["cut", "emptied", "another"])
def test_a_damaged_file_of_the_cache_is_made_again(records, home, monkeypatch, damage):
    images = open_images(records[:1], "disk")
    images.read(0)
    (kept,) = home.rglob("*.npy")
    if damage == "another":
        np.save(kept, np.zeros((2, 2, 3), np.uint8))
    else:
        kept.write_bytes(kept.read_bytes()[: 500 if damage == "cut" else 0])
    decoded = count_decoded(monkeypatch)
    for _ in range(2):
        np.testing.assert_array_equal(images.read(0), read_image(records[0].path))
    assert len(decoded) == 1
    assert list(home.rglob("*.npy")) == [kept]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_batches_are_the_same_with_and_without(records, cache, workers):
    dataset = DetectionDataset({0: "cat"}, [0], records)
    dense = AugmentConfig(mosaic=0.5, mixup=0.5)
    for augment in (dense, AugmentConfig(0, 0, 0, 0)):
        configs = [
            LoaderConfig(2, (40, 60), 3, workers, augment, cache=kind) for kind in ("off", cache)
        ]
        without, kept = (TrainLoader(dataset, config) for config in configs)
        for number in range(3):
            assert_same(epoch(without, number), epoch(kept, number))


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_what_one_worker_decodes_all_processes_have(records, monkeypatch, start_method):
    monkeypatch.setattr(images_module.multiprocessing, "get_start_method", lambda: start_method)
    dataset = DetectionDataset({0: "cat"}, [0], records)
    loader = TrainLoader(dataset, LoaderConfig(1, (32, 32), workers=2, cache="ram"))
    whole = epoch(loader, 0)
    # The workers have all images: no file is opened any more, only looked at.
    decoded = count_decoded(monkeypatch)
    images = loader._loader.dataset._images
    for position, record in enumerate(records):
        np.testing.assert_array_equal(images.read(position), read_image(record.path))
    assert len(whole) == len(records)
    assert decoded == []


def test_too_little_memory_is_said_with_the_numbers(records, monkeypatch):
    needed = sum(height * width * 3 for height, width in SIZES)
    monkeypatch.setattr(images_module, "_GB", 1)
    monkeypatch.setattr(images_module, "free_memory", lambda: needed / 0.8)
    open_images(records, "ram")
    with pytest.raises(BackendError, match=r"in each of 2 processes, but"):
        open_images(records, "ram", copies=2)
    monkeypatch.setattr(images_module, "free_memory", lambda: 1000)
    with pytest.raises(
        BackendError,
        match=rf"cache=ram needs {needed}\.0 GB for 5 decoded images, but 800\.0 GB can be used "
        r"\(80% of the free memory\); use cache=disk or cache=off",
    ):
        open_images(records, "ram")
    monkeypatch.setattr(images_module, "free_memory", lambda: None)  # unknown: not refused
    open_images(records, "ram")


def test_every_process_of_the_machine_needs_its_own_memory(records, monkeypatch):
    needed = sum(height * width * 3 for height, width in SIZES)
    monkeypatch.setattr(images_module, "free_memory", lambda: needed / 0.8)
    dataset = DetectionDataset({0: "cat"}, [0], records)
    config = LoaderConfig(2, (32, 32), workers=0, cache="ram", world_size=4)
    TrainLoader(dataset, config)  # the other three are on other machines
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(BackendError, match="in each of 2 processes"):
        TrainLoader(dataset, config)


def test_too_little_disk_is_said_and_what_is_there_already_is_not_counted(records, monkeypatch):
    for position in range(len(records)):
        open_images(records, "disk").read(position)
    usage = shutil.disk_usage("/")._replace(free=0)
    monkeypatch.setattr(images_module.shutil, "disk_usage", lambda _: usage)
    open_images(records, "disk")
    save_image(records[0].path, *SIZES[0], seed=77)
    os.utime(records[0].path, ns=(0, 1))
    monkeypatch.setattr(images_module, "_GB", 1)
    with pytest.raises(StorageError, match=r"needs 7200\.0 GB for 1 decoded images, but 0\.0 GB"):
        open_images(records, "disk")


def test_a_full_disk_is_one_sentence_from_any_process(records, home):
    dataset = DetectionDataset({0: "cat"}, [0], records)
    home.mkdir()
    (home / "cache").write_text("in the way")
    with pytest.raises(StorageError, match="a file has the name of its folder"):
        list(TrainLoader(dataset, LoaderConfig(2, (32, 32), workers=1, cache="disk")))


def test_an_image_that_does_not_decode_names_the_key_that_leaves_it_out(records):
    records[1].path.write_bytes(records[1].path.read_bytes()[:900])
    with pytest.raises(DataError, match=r"1\.png: .* \(.*\); bad_images=skip leaves such images"):
        open_images(records, "off").read(1)
