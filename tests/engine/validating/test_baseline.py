"""`baseline=` and `fail_if=` through the real command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rtdetr_cli.api import RTDETR
from rtdetr_cli.cli.main import run
from rtdetr_cli.core.errors import QualityError


@pytest.fixture
def words(checkpoint: Path, squares: Path, tmp_path: Path) -> list[str]:
    keys = {"model": checkpoint, "data": squares / "data.yaml", "project": tmp_path, "imgsz": 64}
    return ["val", *(f"{key}={value}" for key, value in keys.items()), "workers=0", "device=cpu"]


def test_a_metric_below_its_limit_ends_with_exit_code_1_after_the_numbers(words, capsys):
    assert run([*words, "plots=false", "fail_if=AP<0.9,AR100>0.99"]) == 1
    shown = capsys.readouterr()
    assert "AP50" in shown.out
    assert "fail_if: AP is 0.0" in shown.err
    assert "(AP<0.9)" in shown.err
    assert "AR100" not in shown.err.split("fail_if:")[1]
    assert run([*words, "plots=false", "fail_if=AP<0"]) == 0
    assert run([*words, "plots=false", "fail_if=AQ<0"]) == 2


def test_python_gets_an_error(checkpoint, squares, tmp_path):
    keys = {"imgsz": 64, "workers": 0, "plots": False, "project": str(tmp_path)}
    with pytest.raises(QualityError, match="recall is"):
        RTDETR(checkpoint, device="cpu").val(
            data=str(squares / "data.yaml"), fail_if="recall<1", **keys
        )


def test_an_earlier_result_gives_plain_differences_and_detections_an_interval(
    words, tmp_path, capsys
):
    assert run([*words, "plots=false", "json", "save_json"]) == 0
    first = capsys.readouterr().out
    (tmp_path / "metrics.json").write_text(first)
    stats = json.loads(first)["stats"]

    fewer = [*words, "plots=false", "json", "decoder_layers=1"]
    assert run([*fewer, f"baseline={tmp_path / 'metrics.json'}"]) == 0
    printed = json.loads(capsys.readouterr().out)
    ap50 = printed["baseline"][1]
    assert (ap50["a"], ap50["b"]) == (stats["AP50"], printed["stats"]["AP50"])
    assert ap50["difference"] == printed["stats"]["AP50"] - stats["AP50"]
    assert (ap50["low"], ap50["high"]) == (None, None)

    detections = f"baseline={tmp_path / 'val' / 'predictions.json'}"
    assert run([*fewer, detections]) == 0
    ap50 = json.loads(capsys.readouterr().out)["baseline"][1]
    assert ap50["a"] == pytest.approx(stats["AP50"], abs=1e-4)  # rounded in the file
    assert ap50["low"] <= ap50["high"]


def test_the_table_has_the_baseline_and_says_why_there_is_no_interval(words, tmp_path, capsys):
    stats = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), 0.5) | {"APl": -1}
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"stats": stats, "num_images": 3}))
    assert run([*words, "plots=false", "errors", f"baseline={path}"]) == 0
    shown = capsys.readouterr()
    assert "AP in points" in shown.out
    assert "50.0" in shown.out
    assert "have no interval" in shown.err
    assert "the baseline is of 3 images, this split has 4" in shown.err
    assert "background: no box near" in shown.out


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "does not exist"),
        ("{", "broken json"),
        ("{}", "is neither the output of"),
        ('{"stats": {"AP": "high"}}', "is neither the output of"),
        ("[3]", "is not a detection"),
    ],
)
def test_another_file_is_refused_before_the_model_is_opened(
    text, complaint, squares, tmp_path, capsys
):
    path = tmp_path / "other.json"
    if text is not None:
        path.write_text(text)
    words = ["val", "model=absent.pt", f"data={squares / 'data.yaml'}", f"baseline={path}"]
    assert run(words) == 3
    assert complaint in capsys.readouterr().err
