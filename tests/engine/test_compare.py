"""Comparison through the real command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rtdetr_cli.cli.main import run


@pytest.fixture
def perfect(squares: Path, tmp_path: Path) -> Path:
    """A predictions.json that finds every box of the split."""
    rows = []
    for path in (squares / "labels" / "val").iterdir():
        for line in path.read_text().splitlines():
            label, x, y, w, h = map(float, line.split())
            box = [80 * (x - w / 2), 64 * (y - h / 2), 80 * w, 64 * h]
            row = {"image_id": int(path.stem), "category_id": int(label) + 1, "bbox": box}
            rows.append(row | {"score": 0.9})
    (tmp_path / "perfect.json").write_text(json.dumps(rows))
    return tmp_path / "perfect.json"


@pytest.fixture
def worse(perfect: Path) -> Path:
    """The same without the image 2, and without the class red."""
    rows = json.loads(perfect.read_text())
    kept = [row for row in rows if row["image_id"] != 2 and row["category_id"] == 1]
    (perfect.parent / "worse.json").write_text(json.dumps(kept))
    return perfect.parent / "worse.json"


def test_two_files_of_detections(perfect, worse, squares, capsys):
    words = [str(worse), str(perfect), f"data={squares / 'data.yaml'}", "resamples=100"]
    assert run(["compare", *words, "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    ap = printed["metrics"][0]
    # green: 3 of 4 boxes, recall 0.75 reaches 76 of 101 steps; red: none
    assert (ap["a"], ap["b"]) == pytest.approx((76 / 101 / 2, 1.0), abs=1e-6)
    assert [(one["name"], one["b"]) for one in printed["per_class"]] == [
        ("green", pytest.approx(1)),
        ("red", pytest.approx(1)),
    ]
    first = printed["images"][0]
    assert (Path(first["path"]).name, first["f1_a"], first["f1_b"]) == ("2.png", 0.0, 1.0)
    assert {Path(one["path"]).name for one in printed["images"]} == {"1.png", "2.png", "3.png"}
    assert "4 images are too few" in printed["verdict"]

    assert run(["compare", *words, "images=1"]) == 0
    shown = capsys.readouterr()
    assert "2.png" in shown.out
    assert "1.png" not in shown.out
    assert "3 of 4 images differ, 1 are listed" in shown.err
    assert shown.out.splitlines()[-1].startswith("no difference can be shown: 4 images")


def test_a_model_against_a_file_and_against_itself(checkpoint, perfect, squares, capsys):
    words = [f"data={squares / 'data.yaml'}", "resamples=100", "imgsz=64", "workers=0", "json"]
    assert run(["compare", str(checkpoint), str(perfect), *words, "device=cpu"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["metrics"][0]["a"] < 0.1 < printed["metrics"][0]["b"]
    assert run(["compare", f"other={checkpoint}", str(checkpoint), *words, "device=cpu"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {one["difference"] for one in printed["metrics"]} <= {0.0, None}
    assert printed["images"] == []


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["a.pt", "b.pt"], 2, "compare needs data="),
        (["a.pt", "data=coco8"], 2, "compare needs other="),
        (["a.pt", "b.pt", "c.pt", "data=coco8"], 2, "c.pt is not key=value of compare"),
        (["a.pt", "b.pt", "data=coco8", "timeout=3"], 2, "neither model is an exported file"),
        (["a.pt", "b.pt", "data=coco8", "resampels=3"], 2, "did you mean resamples"),
        (["none.json", "none.json", "data={data}"], 3, "none.json: no such file"),
    ],
    ids=str,
)
def test_wrong_calls_end_with_a_sentence(words, code, sentence, squares, capsys):
    words = [word.format(data=squares / "data.yaml") for word in words]
    assert run(["compare", *words]) == code
    assert sentence in capsys.readouterr().err


def test_images_that_cannot_be_decoded_are_left_out(perfect, worse, squares, tmp_path, capsys):
    shutil.copytree(squares, tmp_path / "data")
    (tmp_path / "data" / "images" / "val" / "2.png").write_bytes(b"")
    words = [str(worse), str(perfect), f"data={tmp_path / 'data' / 'data.yaml'}", "resamples=100"]
    assert run(["compare", *words]) == 3
    assert "bad_images=skip leaves such images out" in capsys.readouterr().err
    assert run(["compare", *words, "bad_images=skip"]) == 0
    assert "3 images are too few" in capsys.readouterr().out


def test_detections_of_classes_that_the_data_set_lacks_count_for_no_other(
    checkpoint, squares, tmp_path, capsys
):
    """The model knows green and red. Red boxes are called blue here, so it finds none of them."""
    data = tmp_path / "data.yaml"
    data.write_text(f"path: {squares}\nval: images/val\nnames: [green, blue, black]\n")
    words = [f"data={data}", "resamples=100", "imgsz=64", "workers=0", "device=cpu", "json"]
    assert run(["compare", str(checkpoint), str(checkpoint), *words]) == 0
    shown = capsys.readouterr()
    _, blue, _ = json.loads(shown.out)["per_class"]
    assert (blue["name"], blue["a"]) == ("blue", 0)  # 0.0007 with those of red
    assert shown.err.count("the model does not know blue, black") == 2
