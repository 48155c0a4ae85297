"""Training through the real command, on files, at toy size."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml

from rtdetr_cli.api import RTDETR
from rtdetr_cli.cli.main import run
from rtdetr_cli.data import image_cache, loader
from rtdetr_cli.engine.training.run_log import RunLog
from rtdetr_cli.weights.checkpoint import load_checkpoint

LOSSES = ["train/loss", "train/loss_vfl", "train/loss_bbox", "train/loss_giou"]


def command(model: Path, data: Path, project: Path, *more: str) -> list[str]:
    """The arguments of a toy training; `more` replaces keys."""
    words = [
        f"model={model}", f"data={data / 'data.yaml'}", f"project={project}", "imgsz=64",
        "batch=4", "workers=0", "device=cpu", "plots=false", "epochs=1", *more,
    ]  # fmt: skip
    return ["train", *{word.partition("=")[0]: word for word in words}.values()]


def read_rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "results.csv").read_text().splitlines()))


def test_the_run_folder_has_all_documented_files(tiny_yaml, squares, tmp_path, capsys):
    words = command(tiny_yaml, squares, tmp_path / "runs", "epochs=2", "plots=true", "json")
    assert run(words) == 0
    folder = tmp_path / "runs" / "train"
    images = {
        "labels.jpg", "train_batch0.jpg", "val_batch0_labels.jpg", "val_batch0_pred.jpg",
        "results.png", "BoxPR_curve.png", "confusion_matrix.png",
    }  # fmt: skip
    assert images <= {path.name for path in folder.iterdir()}
    rows = read_rows(folder)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row[name]) > 0 for row in rows for name in LOSSES)
    assert {"metrics/AP", "metrics/AP50", "lr", "time", "data_wait"} <= rows[0].keys()
    printed = capsys.readouterr()
    assert json.loads(printed.out)["num_images"] == 4
    assert "recipe: AdamW lr" in printed.err
    assert "  2/2  " in printed.err
    best = torch.load(folder / "weights" / "best.pt", weights_only=True)
    assert best["names"] == {0: "green", 1: "red"}
    assert best["training"] is None
    assert not [
        path for path in folder.rglob(".*") if path.is_file()
    ]  # no temporary files are left


def test_the_loss_falls(tiny_yaml, squares, tmp_path):
    assert (
        run(command(tiny_yaml, squares, tmp_path / "runs", "epochs=30", "val_every=30", "batch=3"))
        == 0
    )
    rows = read_rows(tmp_path / "runs" / "train")
    first, last = (sum(float(r["train/loss"]) for r in part) for part in (rows[:3], rows[-3:]))
    assert last < 0.95 * first


def test_recipe_deim_trains_with_its_loss_and_cached_images(tiny_yaml, squares, tmp_path, capsys):
    more = ("recipe=deim", "epochs=2", "cache=ram", "val_every=2")
    assert run(command(tiny_yaml, squares, tmp_path / "runs", *more)) == 0
    printed = capsys.readouterr().err
    assert "mosaic 0.5 and mixup 0.5 in epochs 1 to 1" in printed
    assert "loss mal" in printed
    rows = read_rows(tmp_path / "runs" / "train")
    assert all(float(row["train/loss_mal"]) > 0 for row in rows)
    assert "train/loss_vfl" not in rows[0]
    assert "  giou    mal     l1      P      R   AP50      AP" in printed


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ([], "lr_scale=2 has no effect without pretrained weights"),
        (["lr=1e-4", "backbone_lr=1e-5"], "lr_scale=2 has no effect with both lr and backbone_lr"),
    ],
)
def test_lr_scale_is_rejected_without_an_official_rate(
    more, reason, tiny_yaml, squares, tmp_path, capsys
):
    assert run(command(tiny_yaml, squares, tmp_path / "runs", "lr_scale=2", *more)) == 2
    assert reason in capsys.readouterr().err


def stop_in_epoch(number: int, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after the steps of an epoch, before its checkpoint."""
    append = RunLog.append

    def interrupted(self: RunLog, row: dict[str, float]) -> None:
        if row["epoch"] == number:
            raise KeyboardInterrupt
        append(self, row)

    patch.setattr(RunLog, "append", interrupted)


def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(
    tiny_yaml, squares, tmp_path, monkeypatch
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(command(tiny_yaml, squares, whole, "epochs=3")) == 0
    with monkeypatch.context() as patch:
        stop_in_epoch(2, patch)
        assert run(command(tiny_yaml, squares, broken, "epochs=3")) == 130
    assert load_checkpoint(broken / "train/weights/last.pt").training["epoch"] == 1
    assert run(["train", "resume=true", f"project={broken}"]) == 0
    expected, found = (load_checkpoint(p / "train/weights/last.pt") for p in (whole, broken))
    for name, tensor in expected.weights.items():
        assert torch.equal(tensor, found.weights[name]), name
    for name, tensor in expected.training["network"].items():
        assert torch.equal(tensor, found.training["network"][name]), name
    moments = [c.training["optimizer"]["state"] for c in (expected, found)]
    assert all(
        torch.equal(moments[0][i]["exp_avg_sq"], moments[1][i]["exp_avg_sq"]) for i in moments[0]
    )
    untimed = [
        [{k: v for k, v in row.items() if k not in {"time", "data_wait"}} for row in rows]
        for rows in (c.training["rows"] for c in (expected, found))
    ]
    assert untimed[0] == untimed[1]


def test_resume_rejects_a_key_that_would_change_the_run(
    tiny_yaml, squares, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        stop_in_epoch(2, patch)
        run(command(tiny_yaml, squares, tmp_path / "runs", "epochs=2"))
    capsys.readouterr()
    assert run(["train", "resume=true", f"project={tmp_path / 'runs'}", "lr=0.5"]) == 2
    assert "lr" in capsys.readouterr().err


def test_resume_without_a_run_is_an_error(tmp_path, capsys):
    assert run(["train", "resume=true", f"project={tmp_path}"]) == 2
    assert "no run with a last.pt" in capsys.readouterr().err


def test_fine_tuning_keeps_class_rows_by_name(tiny_yaml, squares, tmp_path, capsys):
    assert run(command(tiny_yaml, squares, tmp_path / "runs", "epochs=1")) == 0
    other = tmp_path / "other.yaml"
    other.write_text(
        f"path: {squares}\ntrain: images/train\nval: images/val\nnames: [blue, Green, red]\n"
    )
    best = tmp_path / "runs" / "train" / "weights" / "best.pt"
    frozen = (f"data={other}", "lr=0", "backbone_lr=0")
    assert run(command(best, squares, tmp_path / "fine", *frozen)) == 0
    said = "2 of 3 class rows kept by name: Green, red; the others start from the mean"
    assert said in capsys.readouterr().err
    old, new = (
        load_checkpoint(p).weights["decoder.enc_score_head.weight"]
        for p in (best, tmp_path / "fine" / "train" / "weights" / "best.pt")
    )
    assert torch.equal(new[1], old[0])
    assert torch.equal(new[2], old[1])
    torch.testing.assert_close(new[0], old.mean(0))


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["epochs=0"], 2, "epochs must be at least 1"),
        (["epoch=3"], 2, "did you mean epochs"),
        (["data=nowhere.yaml"], 2, "nowhere.yaml"),
        (["model=nothing.pt"], 4, "nothing.pt"),
        (["device=cuda:7"], 5, "device=cuda:7"),
    ],
)
def test_bad_input_is_one_error_line_and_creates_no_folder(
    words, code, sentence, tiny_yaml, squares, tmp_path, capsys
):
    if words == ["device=cuda:7"] and torch.cuda.device_count() > 7:
        pytest.skip("this machine has eight CUDA devices")
    assert run(command(tiny_yaml, squares, tmp_path / "runs", *words)) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_recipe_sets_keys_and_the_command_line_wins(tiny_yaml, squares, tmp_path):
    assert run(command(tiny_yaml, squares, tmp_path, "recipe=official", "ema_ramp=7")) == 0
    args = yaml.safe_load((tmp_path / "train" / "args.yaml").read_text())
    assert (args["warmup_steps"], args["zoom_out"], args["schedule"]) == (2000, 0.5, "constant")
    assert (args["ema_ramp"], args["epochs"], args["imgsz"]) == (7, 1, 64)


def test_fraction_and_save_period(tiny_yaml, squares, tmp_path, capsys):
    words = command(
        tiny_yaml, squares, tmp_path, "epochs=3", "fraction=0.5", "single_cls", "save_period=2",
        "optimizer=sgd", "lr=0.01", "accumulate=2", "batch=2",
    )  # fmt: skip
    assert run(words) == 0
    assert "4 images with 5 boxes to train on, 4 to validate, 1 class" in capsys.readouterr().err
    weights = tmp_path / "train" / "weights"
    assert {path.name for path in weights.glob("epoch*.pt")} == {"epoch2.pt"}
    assert load_checkpoint(weights / "best.pt").names == {0: "object"}
    assert load_checkpoint(weights / "last.pt").training["step"] == 3  # 2 batches make a step
    assert run(["val", f"model={weights / 'best.pt'}", f"data={squares / 'data.yaml'}",
                "single_cls", f"project={tmp_path}", "plots=false"]) == 0  # fmt: skip


def test_patience_ends_the_run(tiny_yaml, squares, tmp_path, capsys):
    words = command(tiny_yaml, squares, tmp_path, "epochs=9", "patience=1", "lr=0", "ema_decay=0")
    assert run(words) == 0
    assert "no better AP than" in capsys.readouterr().err
    assert len(read_rows(tmp_path / "train")) == 2


def test_without_validation_the_last_weights_are_the_best(tiny_yaml, squares, tmp_path, capsys):
    more = ("epochs=2", "val=false", "plots=true", "time=0.0000001")  # the time ends it after one
    words = command(tiny_yaml, squares, tmp_path, *more)
    words.remove("epochs=2")
    assert run(words) == 0
    printed = capsys.readouterr()
    assert "on, no validation, 2 classes" in printed.err
    assert "time=1e-07 hours are over" in printed.err
    assert "best.pt has the weights of the last epoch" in printed.err
    assert printed.out == ""
    folder = tmp_path / "train"
    last, best = (load_checkpoint(folder / "weights" / name) for name in ("last.pt", "best.pt"))
    assert all(torch.equal(last.weights[name], best.weights[name]) for name in last.weights)
    assert not [column for column in read_rows(folder)[0] if column.startswith("metrics")]
    assert (folder / "results.png").is_file()
    assert not [*folder.glob("val_*")]


def test_python_gets_no_metrics_without_validation(tiny_yaml, squares, tmp_path, capsys):
    model = RTDETR(tiny_yaml, device="cpu")
    keys = {"data": squares / "data.yaml", "project": tmp_path, "imgsz": 64, "workers": 0}
    assert model.train(**keys, epochs=1, batch=4, val=False, plots=False) is None
    assert model.ckpt_path == str(tmp_path / "train" / "weights" / "best.pt")
    resumed = RTDETR(tmp_path / "train" / "weights" / "last.pt", device="cpu")
    assert resumed.train(resume=True) is None
    printed = capsys.readouterr().err
    assert "is finished, its epoch is done; nothing is left to do" in printed
    assert "scoring" not in printed


@pytest.mark.parametrize(
    ("key", "shown"), [("patience=1", "patience=1"), ("val_fraction=0.5", "val_fraction=0.5"),
                       ("json", "json=true"), ("val_every=2", "val_every=2")]
)  # fmt: skip
def test_keys_that_need_metrics_are_refused_without_validation(
    key, shown, tiny_yaml, squares, tmp_path, capsys
):
    words = command(tiny_yaml, squares, tmp_path, "val=false", "epochs=3", key)
    assert run(words) == 2
    assert f"{shown} has no effect with val=false" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_killed_loading_process_is_an_error(
    split, tiny_yaml, squares, tmp_path, monkeypatch, capsys
):
    real = loader.read_record_image

    def dying(record):
        if record.path.parent.name == split:
            os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out
        return real(record)

    for module in (loader, image_cache):
        monkeypatch.setattr(module, "read_record_image", dying)
    assert run(command(tiny_yaml, squares, tmp_path, "workers=1")) == 5
    error = capsys.readouterr().err.splitlines()[-1]
    assert "a data loading process was killed by the system" in error


def test_without_imgsz_the_size_is_that_of_the_architecture(tiny_yaml, squares, tmp_path):
    tiny_yaml.write_text(
        tiny_yaml.read_text().replace("imgsz: 640", "imgsz: 96").replace("loss: vfl", "loss: mal")
    )
    words = command(tiny_yaml, squares, tmp_path, "batch=8")
    words.remove("imgsz=64")
    assert run(words) == 0
    best = load_checkpoint(tmp_path / "train" / "weights" / "best.pt")
    assert best.preprocessing.size_hw == (96, 96)
    assert "imgsz: 96" in (tmp_path / "train" / "args.yaml").read_text()
    assert "train/loss_mal" in read_rows(tmp_path / "train")[0]
