from __future__ import annotations

import json
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
    with pytest.raises(DataError, match=r"neither a folder, an image, a \.txt list nor"):
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


def test_classes_are_matched_by_name_over_all_splits(coco_json):
    """A val split with other ids and fewer classes; a test split with one more."""
    path = coco_json()
    values = json.loads(path.read_text())
    cat = {"id": 1, "name": "cat"}
    box = {"id": 1, "image_id": 30, "category_id": 1, "bbox": [1, 2, 3, 4]}
    for split, extra in (("val", []), ("test", [{"id": 2, "name": "cow"}])):
        changed = values | {"categories": [cat, *extra], "annotations": [box]}
        (path.parent / f"{split}.json").write_text(json.dumps(changed))
    jsons = [(f"annotations/{name}.json", "train") for name in ("instances_train", "val", "test")]
    config = DatasetConfig(path.parents[1], *jsons)
    train, val, test = (open_split(config, split) for split in ("train", "val", "test"))
    assert train.names == val.names == test.names == {0: "cat", 1: "dog", 2: "cow"}
    assert (train.category_ids, val.category_ids) == ([3, 7, 8], [1, 2, 3])
    assert val.records[0].labels.tolist() == [0]
    assert train.records[0].labels.tolist() == [1, 0]


@pytest.mark.parametrize("has_own_parent", [True, False])
def test_only_an_empty_parent_of_all_others_is_left_out(coco_json, has_own_parent):
    """The parent that Roboflow adds is not used by any split; a class that is used by one stays."""
    path = coco_json()
    values = json.loads(path.read_text())
    top = {"id": 0, "name": "pets", "supercategory": "pets" if has_own_parent else "none"}
    others = [{**one, "supercategory": "pets"} for one in values["categories"]]
    values["categories"] = [top, *others]
    path.write_text(json.dumps(values))
    (path.parent / "val.json").write_text(json.dumps(values))
    jsons = [(f"annotations/{name}.json", "train") for name in ("instances_train", "val")]
    config = DatasetConfig(path.parents[1], *jsons)
    assert len(open_split(config, "train").names) == (3 if has_own_parent else 2)
    values["annotations"][0]["category_id"] = 0
    (path.parent / "val.json").write_text(json.dumps(values | {"info": {}}))
    assert open_split(config, "train").names == {0: "pets", 1: "cat", 2: "dog"}


def test_several_jsons_are_one_split(coco_json):
    path = coco_json()
    shutil.copy(path, path.parent / "more.json")
    entries = ("annotations/instances_train.json", "annotations/more.json", "train")
    dataset = open_split(DatasetConfig(path.parents[1], train=entries), "train")
    assert [record.image_id for record in dataset.records] == [1, 2, 3, 4]
    truth = dataset.ground_truth()["annotations"]
    assert [(one["id"], one["image_id"]) for one in truth] == [(1, 1), (2, 1), (3, 3), (4, 3)]
    assert dataset.notes[0] == "2 jsons read as one split, with image ids from 1 to 4"


def test_patterns_lists_and_single_images_name_a_split(yolo_folder):
    folder = yolo_folder("0 .5 .5 .1 .1", "1 .5 .5 .1 .1")
    (folder / "images" / "more").mkdir()
    shutil.copy(folder / "images/train/0.png", folder / "images/more/x.png")
    names = {0: "cat", 1: "dog"}
    for entries, count in ((("images/*",), 3), (("**/1.png",), 1), (("images/train/1.png",), 1)):
        assert len(open_split(DatasetConfig(folder, entries, names=names), "train")) == count
    with pytest.raises(DataError, match=r"the pattern .*images/x\* matches nothing"):
        open_split(DatasetConfig(folder, ("images/x*",), names=names), "train")


def test_skip_leaves_out_truncated_images_which_only_decoding_shows(yolo_folder):
    folder = yolo_folder("0 .5 .5 .1 .1", "1 .5 .5 .1 .1")
    path = folder / "images/train/0.png"
    path.write_bytes(path.read_bytes()[:2000])
    dataset = open_split(load_data(folder, bad_images="skip"), "train")
    assert [record.path.name for record in dataset.records] == ["1.png"]
    assert "image file is truncated" in dataset.skipped[path]
    (folder / "images/train/1.png").write_bytes(b"")
    with pytest.raises(DataError, match="train: none of its images can be used"):
        open_split(load_data(folder, bad_images="skip"), "train")


def test_an_address_is_no_data_set():
    with pytest.raises(
        DataError, match=r"data=https://x\.org/coco8\.yaml is an address; download it"
    ):
        load_data("https://x.org/coco8.yaml")
