"""COCO's 80 classes have the ids of its own files."""

from rtdetr_cli.core.coco_classes import COCO_CATEGORY_IDS, COCO_NAMES, category_ids


def test_ids_are_those_of_cocos_own_files():
    """From instances_val2017.json: person 1, stop sign 13, bottle 44, toothbrush 90."""
    by_name = {COCO_NAMES[label]: number for label, number in enumerate(COCO_CATEGORY_IDS)}
    expected = {"person": 1, "fire hydrant": 11, "stop sign": 13, "bottle": 44, "toothbrush": 90}
    assert {name: by_name[name] for name in expected} == expected
    assert len(COCO_NAMES) == len(COCO_CATEGORY_IDS) == 80


def test_other_classes_count_from_1():
    assert category_ids({0: "cell", 1: "person"}) == {0: 1, 1: 2}
    assert category_ids(COCO_NAMES)[79] == 90
