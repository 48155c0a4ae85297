"""All splits of a data set, and what is wrong with those that cannot be opened."""

from __future__ import annotations

from rtdetr_cli.config.settings.check import CheckSettings
from rtdetr_cli.core.findings import Example
from rtdetr_cli.data.kinds import make_finding
from rtdetr_cli.engine.checking.opened import certain, open_all


def test_a_split_that_is_missing_does_not_hide_the_others(squares, tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(f"path: {squares}\ntrain: images/train\nval: images/vall\nnames: [a, b]\n")
    splits, findings = open_all(CheckSettings(data=str(path)))
    assert list(splits) == ["train"]
    (found,) = findings
    assert (found.id, found.splits, found.count) == ("split-missing", ("val",), 1)
    assert "did you mean val?" in found.examples[0].what


def test_images_with_a_wrong_label_are_kept_and_reported(squares, tmp_path):
    label = tmp_path / "labels" / "0.txt"
    for path in (tmp_path / "images", label.parent):
        path.mkdir()
    for number in (0, 1):
        image = squares / "images" / "train" / f"{number}.png"
        (tmp_path / "images" / image.name).write_bytes(image.read_bytes())
    label.write_text("0 0.5 0.5 0.2 0.2\n5 0.5 0.5 0.2 0.2\n")
    (tmp_path / "images" / "2.png").write_bytes(b"")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [a, b]\n")
    splits, findings = open_all(CheckSettings(data=str(tmp_path / "data.yaml")))
    assert [len(record.labels) for record in splits["train"].records] == [1, 0]
    assert sorted((one.id, one.splits) for one in findings) == [
        ("class-unknown", ("train",)),
        ("class-unknown", ("val",)),
        ("image-unreadable", ("train",)),
        ("image-unreadable", ("val",)),
    ]


def test_nothing_is_said_of_all_splits_if_one_cannot_be_opened(squares):
    config = CheckSettings(data=str(squares / "data.yaml"))
    splits, _ = open_all(config)
    unused = make_finding("class-unused", ("train", "val"), [Example("cow")])
    rare = make_finding("class-rare", ("train",), [Example("cow")])
    wrong = make_finding("class-unknown", ("val",), [Example("a.txt:1")])
    missing = make_finding("split-missing", ("test",), [Example("data.yaml")])
    assert certain(splits, [unused, rare, wrong]) == [unused, rare, wrong]
    assert certain(splits, [unused, rare, missing]) == [rare, missing]
