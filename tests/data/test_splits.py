from __future__ import annotations

import shutil

import pytest

from rtdetr_cli.config.dataset import DatasetConfig
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.data.splits import load_data, open_split


def test_yaml_folder_and_json_open_the_same_data(shared_data):
    root = shared_data / "coco8"
    by_yaml = open_split(load_data(root / "data.yaml"), "val")
    by_folder = open_split(load_data(root), "val")
    assert [record.path for record in by_yaml.records] == [r.path for r in by_folder.records]
    by_json = open_split(load_data(root / "annotations" / "instances_val.json"), "val")
    assert by_json.num_boxes == by_yaml.num_boxes == 17
    assert by_json.names == by_yaml.names


def test_missing_folder_names_the_nearest(yolo_folder):
    folder = yolo_folder("0 .5 .5 .1 .1", split="vals")
    with pytest.raises(
        DataError, match=r"data\.yaml: val: .*images/val does not exist; did you mea"
    ):
        open_split(load_data(folder), "val")


def test_missing_split_names_those_there_are(yolo_folder):
    config = load_data(yolo_folder("0 .5 .5 .1 .1"))
    with pytest.raises(DataError, match="has no test split, only train, val"):
        open_split(config, "test")


def test_missing_root_says_so(tmp_path):
    config = DatasetConfig(tmp_path / "gone", train=("images",), names={0: "cat"})
    with pytest.raises(DataError, match=r"its folder .*gone does not exist"):
        open_split(config, "train")


def test_folder_without_images_is_an_error(yolo_folder):
    folder = yolo_folder("0 .5 .5 .1 .1")
    (folder / "images/val").mkdir()
    with pytest.raises(DataError, match="images/val: no images in it"):
        open_split(load_data(folder), "val")


def test_bare_folder_without_anything_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"no data\.yaml in it"):
        load_data(tmp_path)


def test_file_of_another_kind_is_an_error(yolo_folder):
    folder = yolo_folder("0 .5 .5 .1 .1")
    (folder / "images/val").write_text("")
    with pytest.raises(DataError, match=r"neither a folder, a \.txt list nor a \.json"):
        open_split(load_data(folder), "val")


def test_roboflow_coco_export_opens_as_it_comes(coco_json):
    path = coco_json()
    root = path.parents[1]
    for split in ("train", "valid"):
        (root / split).mkdir(exist_ok=True)
        shutil.copy(path, root / split / "_annotations.coco.json")
    shutil.copytree(root / "train", root / "valid", dirs_exist_ok=True)
    config = load_data(root)
    assert config.test is None
    val = open_split(config, "val")
    assert val.names == {0: "cat", 1: "dog"}
    assert val.records[0].path == root / "valid" / "a.png"


def test_roboflow_yolo_export_opens_as_it_comes(yolo_folder):
    folder = yolo_folder("1 .5 .5 .1 .1")
    for kind in ("images", "labels"):
        (folder / "train").mkdir(exist_ok=True)
        (folder / kind / "train").rename(folder / "train" / kind)
    (folder / "data.yaml").write_text("train: ../train/images\nnc: 2\nnames: ['cat', 'dog']\n")
    assert open_split(load_data(folder), "train").num_boxes == 1


def test_json_may_name_its_image_folder(coco_json):
    path = coco_json()
    root = path.parents[1]
    (root / "train").rename(root / "photos")
    names = {0: "cat", 1: "dog"}
    config = DatasetConfig(root, train=("annotations/instances_train.json", "photos"), names=names)
    assert open_split(config, "train").records[0].path == root / "photos" / "a.png"


def test_txt_list_opens(yolo_folder):
    folder = yolo_folder("0 .5 .5 .1 .1", "1 .5 .5 .1 .1")
    (folder / "train.txt").write_text("./images/train/1.png\n")
    config = DatasetConfig(folder, train=("train.txt",), names={0: "cat", 1: "dog"})
    assert open_split(config, "train").records[0].labels.tolist() == [1]


def test_an_address_is_no_data_set():
    with pytest.raises(
        DataError, match=r"data=https://x\.org/coco8\.yaml is an address; download it"
    ):
        load_data("https://x.org/coco8.yaml")
