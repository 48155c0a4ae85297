from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.image import read_image, resize_image, to_tensor
from rtdetr_cli.data.dataset import DetectionDataset, LabelledBox, make_record
from rtdetr_cli.data.loader import EvalLoader, LoaderConfig, TrainLoader, multi_scale_sizes
from rtdetr_cli.data.transforms import AugmentConfig

from .conftest import assert_same, epoch, save_image

CONFIG = LoaderConfig(batch=2, size_hw=(32, 64), seed=3, workers=0)


@pytest.fixture
def dataset(tmp_path):
    boxes = [LabelledBox(1, [10, 10, 40, 30]), LabelledBox(0, [0, 0, 60, 40], crowd=True)]
    records = [
        make_record(number, save_image(tmp_path / f"{number}.png", seed=number), (40, 60), boxes)
        for number in range(5)
    ]
    return DetectionDataset({0: "cat", 1: "dog"}, [0, 1], records)


def test_batch_is_what_the_network_takes(dataset):
    batch = epoch(TrainLoader(dataset, CONFIG))[0]
    assert batch.images.shape == (2, 3, 32, 64)
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous()
    assert 0.4 < batch.images.max() <= 1
    assert batch.sizes_hw == [(40, 60)] * 2
    assert batch.targets[0].boxes_cxcywh.dtype == torch.float32
    assert batch.targets[0].labels.dtype == torch.int64


def test_number_of_workers_changes_nothing(dataset):
    scales = ((32, 32), (64, 32))
    alone = TrainLoader(dataset, LoaderConfig(2, (32, 64), seed=3, workers=0, multi_scale=scales))
    helped = TrainLoader(dataset, LoaderConfig(2, (32, 64), seed=3, workers=2, multi_scale=scales))
    for number in (0, 1):
        assert_same(epoch(alone, number), epoch(helped, number))


def test_epoch_taken_up_at_a_step_goes_on_as_it_would_have(dataset):
    loader = TrainLoader(dataset, CONFIG)
    whole = epoch(loader, 4)
    assert_same(whole[1:], epoch(loader, 4, start_step=1))
    assert_same(whole, epoch(loader, 4))


DENSE = AugmentConfig(mosaic=0.5, mixup=0.5)


def test_mosaic_and_mixup_depend_on_neither_workers_nor_where_the_epoch_is_taken_up(dataset):
    scales = ((32, 32), (64, 32))
    configs = [
        LoaderConfig(2, (32, 64), 3, workers, DENSE, multi_scale=scales) for workers in (0, 2)
    ]
    alone, helped = (TrainLoader(dataset, config) for config in configs)
    for number in (0, 1):
        whole = epoch(alone, number)
        assert_same(whole, epoch(helped, number))
        assert_same(whole[1:], epoch(helped, number, start_step=1))


def most_boxes(loader, number, strong=True):
    """In the data set every image has one box that is trained on."""
    targets = [one.targets for one in epoch(loader, number, strong)]
    return max(len(target.labels) for batch in targets for target in batch)


@pytest.mark.parametrize(
    ("config", "most"),
    [
        (AugmentConfig(0, 0, 0, 0, mosaic=1), 4),
        (AugmentConfig(0, 0, 0, 0, mixup=1), 2),
        (AugmentConfig(0, 0, 0, 0, mosaic=1, mixup=1), 8),
        (AugmentConfig(0, 0, 0, 0), 1),
    ],
)
def test_samples_hold_the_boxes_of_other_images(dataset, config, most):
    loader = TrainLoader(dataset, LoaderConfig(2, (96, 96), workers=0, augment=config))
    found = [most_boxes(loader, number) for number in range(6)]
    assert max(found) == most


def test_dense_epochs_have_a_beginning_and_an_end(dataset):
    config = AugmentConfig(0, 0, 0, 0, mosaic=1, mixup=1)
    loader = TrainLoader(
        dataset, LoaderConfig(2, (96, 96), workers=0, augment=config, dense_epochs=(1, 3))
    )
    found = [most_boxes(loader, number) > 1 for number in range(5)]
    assert found == [False, True, True, False, False]
    assert most_boxes(loader, 1, strong=False) == 1


def test_before_the_dense_epochs_only_the_flip_and_after_them_the_rest():
    config = LoaderConfig(2, (96, 96), augment=DENSE, dense_epochs=(1, 3))
    stages = [config.augment_in(number, strong=True) for number in range(4)]
    assert stages == [DENSE.weak(), DENSE, DENSE, AugmentConfig()]


def test_a_batch_of_one_image_is_not_mixed_with_itself(dataset):
    config = LoaderConfig(1, (64, 64), workers=0, augment=AugmentConfig(0, 0, 0, 0, mixup=1))
    assert most_boxes(TrainLoader(dataset, config), 0) == 1


def test_half_of_the_batches_are_mixed(dataset):
    config = LoaderConfig(2, (8, 8), workers=0, augment=AugmentConfig(0, 0, 0, 0, mixup=0.5))
    loader = TrainLoader(dataset, config)
    sizes = [len(one.targets[0].labels) for number in range(60) for one in epoch(loader, number)]
    assert np.mean(np.array(sizes) == 2) == pytest.approx(0.5, abs=0.18)  # 120 batches, 4 sigma


def test_epochs_and_seeds_differ(dataset):
    orders = {
        tuple(i for batch in epoch(TrainLoader(dataset, config), number) for i in batch.image_ids)
        for config in (CONFIG, LoaderConfig(2, (32, 64), seed=4, workers=0))
        for number in range(3)
    }
    assert len(orders) > 3


def test_single_image_left_over_is_dropped_and_two_are_kept(dataset):
    for batch, sizes in ((2, [2, 2]), (3, [3, 2]), (1, [1] * 5), (8, [5])):
        loader = TrainLoader(dataset, LoaderConfig(batch, (32, 32), workers=0))
        found = epoch(loader)
        assert [len(one) for one in found] == sizes
        assert len(loader) == len(sizes)
        ids = [i for one in found for i in one.image_ids]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("world_size", "sizes"), [(2, [[2, 1], [1, 1]]), (3, [[1], [1], [1]])])
def test_processes_share_the_batches_of_one(world_size, sizes, dataset):
    """Image by image; of five, two are left over: too few for three processes."""
    scales = ((32, 32), (64, 32))
    config = LoaderConfig(3, (32, 64), seed=3, workers=0, multi_scale=scales)
    whole = epoch(TrainLoader(dataset, config), 4)
    shares = [
        epoch(TrainLoader(dataset, replace(config, rank=rank, world_size=world_size)), 4)
        for rank in range(world_size)
    ]
    assert [[len(batch) for batch in share] for share in shares] == sizes
    for step in range(len(shares[0])):
        for rank, share in enumerate(shares):
            assert share[step].image_ids == whole[step].image_ids[rank::world_size]
            assert torch.equal(share[step].images, whole[step].images[rank::world_size])


def test_fewer_images_than_processes_are_refused(dataset):
    with pytest.raises(DataError, match="5 images, too few for 6 workers"):
        TrainLoader(dataset, LoaderConfig(6, (32, 32), world_size=6))


def test_crowds_are_not_trained_on(dataset):
    config = LoaderConfig(5, (40, 60), workers=0, augment=AugmentConfig(0, 0, 0, 0))
    for target in epoch(TrainLoader(dataset, config))[0].targets:
        assert target.labels.tolist() == [1]
        np.testing.assert_allclose(target.boxes_cxcywh[0], [25 / 60, 0.5, 0.5, 0.5])


def test_official_sizes_of_multi_scale():
    # reference/official-rtdetr.md 5.1: 480 to 800 in steps of 32, 640 three times.
    expected = [480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800]
    assert multi_scale_sizes((640, 640)) == tuple((side, side) for side in expected)
    assert multi_scale_sizes((320, 640))[0] == (256, 480)


def test_each_batch_has_a_size_of_its_own_until_the_clean_epochs(dataset):
    scales = ((32, 32), (64, 32), (96, 96))
    loader = TrainLoader(dataset, LoaderConfig(1, (64, 64), workers=0, multi_scale=scales))
    sizes = {tuple(one.images.shape[2:]) for number in range(4) for one in epoch(loader, number)}
    assert sizes == set(scales)
    assert {tuple(one.images.shape[2:]) for one in epoch(loader, 0, strong=False)} == {(64, 64)}


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_image_is_one_sentence_from_any_process(dataset, workers):
    dataset.records[2].path.write_bytes(b"")
    with pytest.raises(DataError, match=r"2\.png: cannot be read as an image \(the file is empt"):
        list(TrainLoader(dataset, LoaderConfig(2, (32, 32), workers=workers)))


def test_image_of_another_size_than_annotated_is_named(dataset, tmp_path):
    save_image(tmp_path / "0.png", height=60, width=40)
    with pytest.raises(DataError, match=r"0\.png: the upright image is 40x60 .* state 60x40"):
        next(iter(EvalLoader(dataset, 2, Preprocessing((32, 32)))))


def test_no_images_no_training():
    with pytest.raises(DataError, match="no images"):
        TrainLoader(DetectionDataset({0: "cat"}, [0], []), CONFIG)


@pytest.mark.parametrize("antialias", [True, False])
def test_evaluation_reads_every_image_once_in_order(dataset, antialias):
    preprocessing = Preprocessing((32, 64), antialias)
    loader = EvalLoader(dataset, 2, preprocessing)
    batches = list(loader)
    assert [batch.image_ids for batch in batches] == [[0, 1], [2, 3], [4]]
    assert len(loader) == 3
    image = read_image(dataset.records[3].path)
    expected = to_tensor(resize_image(image, (32, 64), antialias))
    assert torch.equal(batches[1].images[1], expected)
    np.testing.assert_allclose(batches[1].targets[1].boxes_cxcywh, [[25 / 60, 0.5, 0.5, 0.5]])


def test_evaluation_images_go_to_the_device_as_bytes(dataset, monkeypatch):
    """The meta device stands in for a GPU; float images would be four times the bytes."""
    sent = []
    to = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *a: sent.append(self.dtype) or to(self, *a)
    )
    loader = EvalLoader(dataset, 5, Preprocessing((32, 64)), device=torch.device("meta"))
    (batch,) = loader
    assert (batch.images.device.type, batch.images.dtype) == ("meta", torch.float32)
    assert sent == [torch.uint8]
