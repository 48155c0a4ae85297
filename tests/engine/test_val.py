"""Validation through the real command."""

from __future__ import annotations

import json
import re
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtdetr_cli.api import RTDETR
from rtdetr_cli.cli.main import run
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.structures import Batch, Target
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.engine.val import evaluate


def val(checkpoint: Path, data: Path, project: Path, *more: str) -> list[str]:
    words = [f"model={checkpoint}", f"data={data}", f"project={project}", "imgsz=64", "workers=0"]
    return ["val", *words, "device=cpu", *more]


def stats_of(truth_rows: dict[str, Any], predictions: Path) -> list[float]:
    """The twelve numbers by pycocotools itself."""
    truth = COCO()
    truth.dataset = truth_rows
    truth.createIndex()
    oracle = COCOeval(truth, truth.loadRes(str(predictions)), "bbox")
    oracle.evaluate()
    oracle.accumulate()
    oracle.summarize()
    return list(oracle.stats)


def renamed(squares: Path, root: Path, prefix: str) -> Path:
    """The data set with other file names; val has the images 0.png to 3.png."""
    shutil.copytree(squares, root)
    for path in [*root.glob("*/val/*")]:
        path.rename(path.with_name(prefix + path.name))
    return root / "data.yaml"


@pytest.mark.parametrize(
    ("prefix", "first"), [("", 0), ("00001", 10), ("frame_", "frame_0")], ids=str
)
def test_predictions_of_a_yolo_set_have_file_names_and_classes_from_1(
    prefix, first, checkpoint, squares, tmp_path, capsys
):
    """The convention of Ultralytics; pycocotools takes such ids, texts too."""
    data = renamed(squares, tmp_path / "set", prefix)
    words = val(checkpoint, data, tmp_path, "save_json", "json", "batch=3", "plots=false")
    assert run(words) == 0
    printed = json.loads(capsys.readouterr().out)
    predictions = tmp_path / "val" / "predictions.json"
    row = json.loads(predictions.read_text())[0]
    assert (row["image_id"], row["file_name"]) == (first, f"{prefix}0.png")

    truth = open_split(load_data(data), "val").ground_truth()
    for image in truth["images"]:
        stem = Path(image["file_name"]).stem
        image["new id"] = int(stem) if stem.isdecimal() else stem
    new_ids = {image["id"]: image["new id"] for image in truth["images"]}
    for image in truth["images"]:
        image["id"] = image["new id"]
    for box in truth["annotations"]:
        box["image_id"] = new_ids[box["image_id"]]
        box["category_id"] += 1
    for category in truth["categories"]:
        category["id"] += 1
    stats = stats_of(truth, predictions)
    assert list(printed["stats"].values()) == pytest.approx(stats, abs=1e-3)
    assert stats[8] > 0.01  # AR100: some random boxes overlap squares


def test_predictions_of_a_coco_json_have_its_ids(checkpoint, squares, tmp_path, capsys):
    truth = open_split(load_data(squares / "data.yaml"), "val").ground_truth()
    for rows, key in ((truth["images"], "id"), (truth["annotations"], "image_id")):
        for row in rows:
            row[key] += 500
    for rows, key in ((truth["categories"], "id"), (truth["annotations"], "category_id")):
        for row in rows:
            row[key] = 40 + 3 * row[key]
    labels = tmp_path / "val.json"
    labels.write_text(json.dumps(truth))
    data = tmp_path / "data.yaml"
    lines = {"train": labels.name, "val": labels.name, "path": str(tmp_path)}
    shutil.copytree(squares / "images" / "val", tmp_path / "images")
    for image in truth["images"]:
        image["file_name"] = f"images/{image['file_name']}"
    labels.write_text(json.dumps(truth))
    data.write_text(yaml.safe_dump({**lines, "names": ["green", "red"]}))
    words = val(checkpoint, data, tmp_path, "save_json", "json", "plots=false")
    assert run(words) == 0
    printed = json.loads(capsys.readouterr().out)
    predictions = tmp_path / "val" / "predictions.json"
    rows = json.loads(predictions.read_text())
    assert {row["category_id"] for row in rows} == {40, 43}
    assert {(row["image_id"], row["file_name"]) for row in rows} == {
        (501 + number, f"{number}.png") for number in range(4)
    }
    assert list(printed["stats"].values()) == pytest.approx(stats_of(truth, predictions), abs=1e-3)


def test_images_of_the_same_name_are_said_to_share_an_id(checkpoint, squares, tmp_path, capsys):
    shutil.copytree(squares, tmp_path / "set")
    for kind in ("images", "labels"):
        shutil.copytree(squares / kind / "val", tmp_path / "set" / kind / "val" / "more")
    words = val(checkpoint, tmp_path / "set" / "data.yaml", tmp_path, "save_json", "plots=false")
    assert run(words) == 0
    assert "images of the same name share an image_id" in capsys.readouterr().err


def test_a_run_folder_holds_plots_and_three_batches_and_the_speed_is_printed(
    checkpoint, squares, tmp_path, capsys
):
    assert run(val(checkpoint, squares / "data.yaml", tmp_path, "batch=1")) == 0
    names = {path.name for path in (tmp_path / "val").iterdir()}
    batches = {f"val_batch{n}_{kind}.jpg" for n in range(3) for kind in ("labels", "pred")}
    assert names == batches | {
        *("BoxPR_curve.png", "BoxF1_curve.png", "BoxP_curve.png", "BoxR_curve.png"),
        *("confusion_matrix.png", "confusion_matrix_normalized.png", "reliability.png"),
    }
    speed = r"Speed: \d+\.\d ms preprocess, \d+\.\d ms inference, \d+\.\d ms postprocess per image"
    assert re.search(speed, capsys.readouterr().err)


@pytest.mark.parametrize("workers", [0, 1])
def test_speed_has_every_stage_wherever_images_are_loaded(workers, checkpoint, squares, tmp_path):
    model = RTDETR(checkpoint, device="cpu")
    keys = {"imgsz": 64, "project": str(tmp_path), "workers": workers, "plots": False}
    metrics = model.val(data=str(squares / "data.yaml"), **keys)
    assert list(metrics.speed) == ["preprocess", "inference", "loss", "postprocess"]
    assert metrics.speed["loss"] == 0
    assert 0 < metrics.speed["preprocess"] < metrics.speed["inference"]
    assert metrics.speed["postprocess"] > 0
    assert metrics.save_dir is None


def test_metrics_name_their_run_folder(checkpoint, squares, tmp_path):
    model = RTDETR(checkpoint, device="cpu")
    keys = {"imgsz": 64, "project": str(tmp_path), "workers": 0, "plots": False}
    metrics = model.val(data=str(squares / "data.yaml"), save_json=True, **keys)
    assert metrics.save_dir == tmp_path / "val"


def test_metrics_of_a_training_name_its_run_folder(tiny_yaml, squares, tmp_path):
    keys = {"imgsz": 64, "project": str(tmp_path), "workers": 0, "plots": False}
    model = RTDETR(tiny_yaml, device="cpu")
    metrics = model.train(data=str(squares / "data.yaml"), epochs=1, batch=3, **keys)
    assert metrics.save_dir == tmp_path / "train"


def test_neither_images_nor_detections_of_earlier_batches_are_kept(squares):
    """Only the rows of the evaluator may grow with the split."""
    dataset = open_split(load_data(squares / "data.yaml"), "val")
    target = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    tensors: list[list[weakref.ref[torch.Tensor]]] = []

    class Batches:
        def __len__(self) -> int:
            return len(dataset)

        def __iter__(self):
            for one in dataset.records:
                images = torch.zeros(1, 3, 32, 32)
                tensors.append([weakref.ref(images)])
                yield Batch(images, [target], [one.image_id], [one.size_hw], [str(one.path)])
                del images

    class Detector:
        def detect(self, images, sizes_hw, max_det):
            earlier = [kept() for batch in tensors[:-2] for kept in batch]  # one is loaded ahead
            assert earlier == [None] * len(earlier)
            found = Detections(np.ones((1, 4)), np.ones(1), np.zeros(1, np.int64))
            tensors[-1] += map(weakref.ref, (found.boxes_xyxy, found.scores, found.labels))
            return [found]

    evaluate(Detector(), dataset, Batches())
    assert len(tensors) == len(dataset) >= 4


def test_fewer_decoder_layers_and_queries_run(checkpoint, squares, tmp_path, capsys):
    data = squares / "data.yaml"
    run(val(checkpoint, data, tmp_path, "json", "plots=false"))
    full = json.loads(capsys.readouterr().out)
    words = ("json", "plots=false", "decoder_layers=1", "num_queries=5")
    assert run(val(checkpoint, data, tmp_path, *words)) == 0
    fast = json.loads(capsys.readouterr().out)
    assert fast["stats"]["AR100"] != full["stats"]["AR100"]
    assert run(val(checkpoint, data, tmp_path, "decoder_layers=9")) == 2
    assert "3 decoder layers" in capsys.readouterr().err


def test_a_model_that_knows_no_class_is_rejected(checkpoint, squares, tmp_path, capsys):
    other = tmp_path / "other.yaml"
    other.write_text(f"path: {squares}\nval: images/val\nnames: [blue, white, black]\n")
    assert run(val(checkpoint, other, tmp_path)) == 2
    error = capsys.readouterr().err
    assert "the model knows 2 classes (green, red)" in error
    assert "the data set 3 (blue, white, black)" in error


def test_classes_that_the_model_does_not_know_are_listed_and_not_counted(
    checkpoint, squares, tmp_path, capsys
):
    """Green boxes get a name that the model lacks: what is left is the AP of red alone."""
    other = tmp_path / "other.yaml"
    other.write_text(f"path: {squares}\nval: images/val\nnames: [blue, red, black]\n")
    keys = ("json", "plots=false")
    assert run(val(checkpoint, squares / "data.yaml", tmp_path, "classes=red", *keys)) == 0
    red = json.loads(capsys.readouterr().out)
    assert run(val(checkpoint, other, tmp_path, *keys)) == 0
    shown = capsys.readouterr()
    printed = json.loads(shown.out)
    assert printed["stats"] == red["stats"]
    assert printed["stats"]["AR100"] > 0
    remark = "the model does not know blue, black; 4 boxes of the data set are not counted"
    assert printed["remarks"] == [remark]
    assert "by name: 1 of 3, of 2 that the model has" in shown.err
    assert run(val(checkpoint, other, tmp_path, "plots=false")) == 0
    assert capsys.readouterr().err.count(remark) == 1


def test_a_model_of_several_classes_is_measured_as_one_of_a_single_class(
    checkpoint, squares, tmp_path, capsys
):
    """Against pycocotools on the detections of both classes, each box once, as one class."""
    data, keys = squares / "data.yaml", ("json", "plots=false", "save_json")
    assert run(val(checkpoint, data, tmp_path, *keys)) == 0
    capsys.readouterr()
    assert run(val(checkpoint, data, tmp_path, "single_cls", *keys)) == 0
    printed = json.loads(capsys.readouterr().out)
    rows = json.loads((tmp_path / "val" / "predictions.json").read_text())
    best: dict[tuple[object, ...], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: -row["score"]):
        best.setdefault((row["image_id"], *row["bbox"]), {**row, "category_id": 1})
    assert len(best) < len(rows)  # some boxes have both classes
    merged = tmp_path / "merged.json"
    for row in best.values():
        row["image_id"] += 1
    merged.write_text(json.dumps([*best.values()]))
    truth = open_split(load_data(data), "val").ground_truth()
    for box in truth["annotations"]:
        box["category_id"] = 1
    truth["categories"] = [{"id": 1, "name": "object"}]
    expected = stats_of(truth, merged)
    assert list(printed["stats"].values()) == pytest.approx(expected, abs=1e-3)
    assert expected[8] > 0.01
    assert [row["name"] for row in printed["per_class"]] == ["object"]


def test_single_cls_with_classes_counts_detections_of_these_alone(
    checkpoint, squares, tmp_path, capsys
):
    stats = []
    for keys in (("classes=red",), ("classes=red", "single_cls")):
        assert run(val(checkpoint, squares / "data.yaml", tmp_path, *keys, "json")) == 0
        stats.append(json.loads(capsys.readouterr().out)["stats"])
    assert stats[0] == stats[1]
    assert stats[0]["AR100"] > 0


def test_classes_are_matched_by_name(checkpoint, squares, tmp_path, capsys):
    """The same boxes under exchanged numbers, and a class more in the model, give the same AP."""
    run(val(checkpoint, squares / "data.yaml", tmp_path, "json", "plots=false"))
    right = json.loads(capsys.readouterr().out)["stats"]
    for folder in ("images", "labels"):
        shutil.copytree(squares / folder, tmp_path / "data" / folder)
    for path in (tmp_path / "data/labels").rglob("*.txt"):
        rows = (row.split() for row in path.read_text().splitlines())
        path.write_text("\n".join(" ".join([str(1 - int(row[0])), *row[1:]]) for row in rows))
    other = tmp_path / "data" / "data.yaml"
    other.write_text("val: images/val\nnames: [red, green]\n")
    assert run(val(checkpoint, other, tmp_path, "json", "plots=false")) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["stats"] == right
    assert "classes of the data set are matched to those of the model by name" in printed.err


def test_predictions_have_the_ids_of_the_json_also_where_they_are_texts(
    checkpoint, squares, tmp_path
):
    """`AB` is no number, so that evaluation counts the image under one."""
    content = {
        "images": [{"id": "AB", "file_name": "0.png"}, {"id": "7", "file_name": "1.png"}],
        "annotations": [{"image_id": 7, "category_id": "g", "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": "g", "name": "green"}],
    }
    (tmp_path / "images").symlink_to(squares / "images" / "train")
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    assert run(val(checkpoint, path, tmp_path, "save_json", "plots=false", "name=v")) == 0
    rows = json.loads((tmp_path / "v" / "predictions.json").read_text())
    assert {row["image_id"] for row in rows} == {"AB", 7}
    assert {row["category_id"] for row in rows} == {"g", 2}  # red is not in the json


def test_skipped_images_are_listed_in_the_run_folder(checkpoint, squares, tmp_path, capsys):
    shutil.copytree(squares, tmp_path / "data")
    images = sorted((tmp_path / "data/images/val").iterdir())
    images[0].write_bytes(b"<html>")
    data = tmp_path / "data" / "data.yaml"
    assert run(val(checkpoint, data, tmp_path, "plots=false")) == 3
    assert "bad_images=skip leaves such images out" in capsys.readouterr().err
    assert run(val(checkpoint, data, tmp_path, "plots=false", "bad_images=skip", "name=s")) == 0
    assert "images left out by bad_images=skip: 1" in capsys.readouterr().err
    assert (tmp_path / "s" / "skipped.txt").read_text().startswith(f"{images[0]}\t")
    assert run(["check", f"data={data}", "bad_images=skip", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["splits"]["val"]
    assert list(found["images_left_out"]) == [str(images[0])]


def test_a_missing_split_is_named(checkpoint, squares, tmp_path, capsys):
    assert run(val(checkpoint, squares / "data.yaml", tmp_path, "split=test")) == 3
    assert "test" in capsys.readouterr().err


# Published metrics of a trained file, from its README: AP .4086 / AP50 .6947 on val and .3905 /
# .7013 on test with a score threshold of .001; without a threshold they may differ by .003.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "ap", "ap50"), [("val", 0.4086, 0.6947), ("test", 0.3905, 0.7013)]
)
def test_a_file_trained_by_ultralytics_keeps_its_ap(split, ap, ap50, shared_data, tmp_path, capsys):
    trained = shared_data / "weights" / "ultralytics_n_bccd.pt"
    words = [f"model={trained}", f"data={shared_data / 'bccd'}", f"split={split}", "json"]
    assert run(["val", *words, f"project={tmp_path}", "workers=0"]) == 0
    stats = json.loads(capsys.readouterr().out)["stats"]
    assert stats["AP"] == pytest.approx(ap, abs=0.003)
    assert stats["AP50"] == pytest.approx(ap50, abs=0.003)


def test_augmented_detections_are_those_of_predict(checkpoint, squares, tmp_path):
    """Both see each image mirrored and at three sizes; without augment they see other things."""
    found = {}
    for mode in ("augment", "augment=false"):
        words = val(checkpoint, squares / "data.yaml", tmp_path, mode, "save_json", f"name={mode}")
        words[words.index("imgsz=64")] = "imgsz=96"  # 64 and 128 are the other sizes
        assert run([*words, "plots=false"]) == 0
        rows = json.loads((tmp_path / mode / "predictions.json").read_text())
        scores = sorted((row["score"] for row in rows if row["image_id"] == 0), reverse=True)
        model = RTDETR(checkpoint)
        (result,) = model(
            squares / "images" / "val" / "0.png",
            imgsz=96,
            conf=0.0,
            augment=mode == "augment",
            device="cpu",
        )
        assert len(result.boxes) == len(scores) > 10
        np.testing.assert_allclose(result.boxes.conf.numpy(), scores, atol=1e-6)
        best = max((row for row in rows if row["image_id"] == 0), key=lambda row: row["score"])
        x, y, width, height = best["bbox"]
        expected = [x, y, x + width, y + height]
        np.testing.assert_allclose(result.boxes.xyxy[0].numpy(), expected, atol=0.01)
        found[mode] = scores
    assert found["augment"] != pytest.approx(found["augment=false"])
