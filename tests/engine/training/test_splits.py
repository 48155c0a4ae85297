"""Validation images are those of the data set, a share of train drawn by the seed, or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.splits import VAL_IMAGES, load_data, open_split
from rtdetr_cli.engine.training.splits import hold_out, open_splits, write_held_out


def names(dataset: DetectionDataset | None) -> list[str]:
    assert dataset is not None
    return [record.path.name for record in dataset.records]


@pytest.fixture
def only_train(squares: Path, tmp_path: Path) -> Path:
    """The nine training images of `squares`, without a val split."""
    path = tmp_path / "only_train.yaml"
    path.write_text(f"path: {squares}\ntrain: images/train\nnames: [green, red]\n")
    return path


def test_a_share_of_train_is_held_out_by_the_seed(only_train: Path) -> None:
    first, again, other = (
        open_splits(TrainSettings(data=str(only_train), val_fraction=0.34, seed=seed))
        for seed in (0, 0, 1)
    )
    assert [len(split) for split in first] == [6, 3]
    assert sorted(names(first[0]) + names(first[1])) == [f"{number}.png" for number in range(9)]
    assert names(first[1]) == names(again[1]) == sorted(names(first[1]))
    assert names(first[1]) != names(other[1])


@pytest.mark.parametrize(("share", "held"), [(0.001, 1), (0.5, 4), (0.999, 8)])
def test_each_side_has_an_image(share: float, held: int, only_train: Path) -> None:
    split, _ = open_splits(TrainSettings(data=str(only_train), val=False))
    assert [len(part) for part in hold_out(split, share, 0)] == [9 - held, held]


def test_fraction_is_of_the_remaining_images(only_train: Path) -> None:
    settings = TrainSettings(data=str(only_train), val_fraction=0.34, fraction=0.5, single_cls=True)
    train_split, val_split = open_splits(settings)
    assert (len(train_split), len(val_split or [])) == (3, 3)
    assert not {*names(train_split)} & {*names(val_split)}
    assert train_split.names == val_split.names == {0: "object"}


def test_without_validation_the_val_split_is_not_opened(squares: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(f"path: {squares}\ntrain: images/train\nval: absent\nnames: [green, red]\n")
    train_split, val_split = open_splits(TrainSettings(data=str(path), val=False))
    assert (len(train_split), val_split) == (9, None)


def test_a_data_set_without_val_split_gets_one_sentence_with_both_keys(only_train: Path) -> None:
    with pytest.raises(DataError, match=r"no val split; val_fraction=0.1 .* val=false trains"):
        open_splits(TrainSettings(data=str(only_train)))


def test_val_fraction_beside_a_val_split_is_refused(squares: Path) -> None:
    settings = TrainSettings(data=str(squares / "data.yaml"), val_fraction=0.1)
    with pytest.raises(UsageError, match=r"val_fraction=0.1 has no effect, as .* has a val split"):
        open_splits(settings)


def test_drawn_shapes_have_a_val_split_unless_its_number_is_zero(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"shapes\.yaml has a val split"):
        open_splits(TrainSettings(data="shapes.yaml", val_fraction=0.1))
    path = tmp_path / "few.yaml"
    path.write_text("source: shapes\nnum_train: 4\nnum_val: 0\nnum_test: 0\n")
    with pytest.raises(DataError, match=r"few\.yaml: has no val split"):
        open_splits(TrainSettings(data=str(path)))


def test_a_single_coco_json_is_divided(squares: Path, tmp_path: Path) -> None:
    rows = [
        {"id": number + 1, "file_name": f"{number}.png", "height": 64, "width": 80}
        for number in range(9)
    ]
    boxes = [
        {"id": row["id"], "image_id": row["id"], "category_id": 7, "bbox": [1, 1, 9, 9], "area": 81}
        for row in rows
    ]
    boxes = [{**box, "iscrowd": 0} for box in boxes]
    content = {"images": rows, "annotations": boxes, "categories": [{"id": 7, "name": "cat"}]}
    (tmp_path / "images").symlink_to(squares / "images" / "train")
    (tmp_path / "labels.json").write_text(json.dumps(content))
    settings = TrainSettings(data=str(tmp_path / "labels.json"), val_fraction=0.34)
    train_split, val_split = open_splits(settings)
    assert (len(train_split), len(val_split or [])) == (6, 3)
    truth = val_split.ground_truth()
    assert {box["image_id"] for box in truth["annotations"]} == {
        record.image_id for record in val_split.records
    }


def test_a_single_image_cannot_be_divided(only_train: Path) -> None:
    split, _ = open_splits(TrainSettings(data=str(only_train), val=False))
    with pytest.raises(DataError, match="at least two training images"):
        hold_out(DetectionDataset(split.names, split.category_ids, split.records[:1]), 0.5, 0)


def test_the_list_has_a_path_a_line(only_train: Path, squares: Path, tmp_path: Path) -> None:
    _, val_split = open_splits(TrainSettings(data=str(only_train), val_fraction=0.2))
    write_held_out(tmp_path, val_split)
    lines = (tmp_path / VAL_IMAGES).read_text().splitlines()
    assert lines == [str(squares / "images" / "train" / name) for name in names(val_split)]
    again = tmp_path / "again.yaml"  # the list is a val split
    again.write_text(f"path: {squares}\nval: {tmp_path / VAL_IMAGES}\nnames: [green, red]\n")
    assert names(open_split(load_data(again), "val")) == names(val_split)


def test_classes_without_boxes_are_named_as_the_reason(squares: Path) -> None:
    settings = TrainSettings(data=str(squares / "data.yaml"), classes=())
    with pytest.raises(DataError, match=r"training split has no boxes of the chosen classes$"):
        open_splits(settings)
