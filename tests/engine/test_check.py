"""`rtdetr check` through the real command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rtdetr_cli.cli.main import run


@pytest.fixture
def broken(squares: Path, tmp_path: Path) -> Path:
    """One image, train and val, with a good row and three bad ones."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    image = next((squares / "images" / "val").iterdir())
    (tmp_path / "images" / "a.png").write_bytes(image.read_bytes())
    rows = "7 0.5 0.5 0.2 0.2\n0 1\n1 nan 0 0 0\n0 0.5 0.5 0.2 0.2\n"
    (tmp_path / "labels" / "a.txt").write_text(rows)
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [green, red]\n")
    return tmp_path / "data.yaml"


def test_a_clean_data_set_is_counted(squares, capsys):
    assert run(["check", f"data={squares / 'data.yaml'}", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["splits"]["train"] == {
        "images": 9,
        "images_without_boxes": 0,
        "boxes": {"green": 9, "red": 4},
        "images_left_out": {},
    }
    assert (printed["errors"], printed["warnings"]) == (0, 0)


def test_every_error_is_printed_with_its_place_and_the_command_fails(broken, capsys):
    assert run(["check", f"data={broken}"]) == 3
    printed = capsys.readouterr()
    for line, kind in ((1, "class-unknown"), (2, "label-malformed"), (3, "box-not-finite")):
        assert f"Error {kind} (train, val): 1. " in printed.out
        assert f"a.txt:{line}: " in printed.out
    assert printed.err.startswith(f"Error: {broken}: 3 errors, ")


def test_json_has_all_findings_the_worst_first(broken, capsys):
    assert run(["check", f"data={broken}", "json"]) == 3
    findings = json.loads(capsys.readouterr().out)["findings"]
    order = ["error", "warning", "note"]
    assert [order.index(one["severity"]) for one in findings] == sorted(
        order.index(one["severity"]) for one in findings
    )
    (one,) = (
        one for one in findings if (one["id"], one["splits"]) == ("class-unknown", ["train", "val"])
    )
    assert one["count"] == 1
    assert one["examples"][0]["where"].endswith("labels/a.txt:1")
    assert one["examples"][0]["what"] == "class 7 is out of range, expected 0..1"
    assert one["examples"][0]["images"][0].endswith("a.png")


def test_bad_images_skip_leaves_the_image_out_and_says_so(broken, squares, capsys):
    good = squares / "images" / "val" / "0.png"
    (broken.parent / "images" / "b.png").write_bytes(good.read_bytes())
    (broken.parent / "labels" / "b.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert run(["check", f"data={broken}", "bad_images=skip", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["splits"]["val"]["images"] == 1
    (reason,) = printed["splits"]["val"]["images_left_out"].values()
    assert reason.endswith("a.txt:1: class 7 is out of range, expected 0..1")
    assert "image-skipped" in {one["id"] for one in printed["findings"]}


def test_strict_fails_on_warnings(squares, tmp_path, capsys):
    text = (squares / "data.yaml").read_text().replace("val: images/val\n", "")
    (tmp_path / "data.yaml").write_text(f"path: {squares}\n{text}")
    assert run(["check", f"data={tmp_path / 'data.yaml'}"]) == 0
    assert "Warning val-missing (val): 1. There is no val split." in capsys.readouterr().out
    assert run(["check", f"data={tmp_path / 'data.yaml'}", "strict"]) == 3
    assert "strict=true" in capsys.readouterr().err


def test_a_model_does_not_hide_why_a_split_cannot_be_opened(squares, checkpoint, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    text = f"train: {squares}/images/train\nval: {tmp_path}/empty\nnames: [green, red]\n"
    (tmp_path / "data.yaml").write_text(text)
    assert run(["check", f"data={tmp_path / 'data.yaml'}", f"model={checkpoint}"]) == 3
    printed = capsys.readouterr()
    assert "Error split-empty (val): 1. " in printed.out
    assert "the labels are not searched" in printed.err


def test_a_model_searches_val_and_test_unless_told_otherwise(squares, checkpoint, capsys):
    words = [f"data={squares / 'data.yaml'}", f"model={checkpoint}", "device=cpu", "workers=0"]
    assert run(["check", *words, "imgsz=64", "json"]) == 0
    printed = capsys.readouterr()
    assert "searching the labels of val" in printed.err
    assert isinstance(json.loads(printed.out)["suspected_label_errors"], list)

    assert run(["check", *words, "split=test"]) == 2
    assert "has no split test; model can search split=train, split=val" in capsys.readouterr().err


def test_a_trained_model_finds_spoiled_labels(shared_data, tmp_path, capsys):
    """Twelve of bccd's test images; a white cell is labelled red."""
    source = shared_data / "bccd"
    for kind in ("images", "labels"):
        (tmp_path / kind / "test").mkdir(parents=True)
    for image in sorted((source / "images" / "test").iterdir())[:12]:
        shutil.copy(image, tmp_path / "images" / "test")
        shutil.copy(source / "labels" / "test" / f"{image.stem}.txt", tmp_path / "labels" / "test")
    label = sorted((tmp_path / "labels" / "test").iterdir())[0]
    rows = label.read_text().splitlines()
    white = next(number for number, row in enumerate(rows) if row.startswith("1 "))
    rows[white] = "0" + rows[white][1:]
    label.write_text("\n".join(rows))
    (tmp_path / "data.yaml").write_text("test: images/test\nnames: [RBC, WBC, Platelets]\n")
    model = shared_data / "weights" / "ultralytics_n_bccd.pt"

    words = [f"data={tmp_path / 'data.yaml'}", f"model={model}", "device=cpu", "workers=0"]
    run(["check", *words, "imgsz=320", "json"])
    printed = json.loads(capsys.readouterr().out)
    swaps = [
        one for one in printed["suspected_label_errors"] if one["id"] == "suspected-class-swap"
    ]
    assert swaps[0]["where"] == f"{label}:{white + 1}"
    scores = [one["score"] for one in printed["suspected_label_errors"]]
    assert scores == sorted(scores, reverse=True)
    (finding,) = (one for one in printed["findings"] if one["id"] == "suspected-class-swap")
    assert finding["examples"][0]["where"] == swaps[0]["where"]
    assert finding["severity"] == "warning"
