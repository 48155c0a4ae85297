"""The end of a run: time, best epoch, worst classes, files and the next commands."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.engine.training.summary import describe_end


def metrics(*classes: tuple[str, float]) -> SimpleNamespace:
    return SimpleNamespace(per_class=[SimpleNamespace(name=name, ap=ap) for name, ap in classes])


@pytest.fixture
def run(tmp_path: Path) -> SimpleNamespace:
    """Three epochs in an hour; best.pt has 1.5 MB."""
    folder = tmp_path / "my run"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "best.pt").write_bytes(bytes(1_500_000))
    (folder / "weights" / "last-previous.pt").touch()
    for name in ("results.csv", "results.png", "skipped.txt", "labels.jpg", "BoxPR_curve.png"):
        (folder / name).touch()
    aps = (0.1, 0.5, 0.4)
    rows = [{"epoch": epoch, "metrics/AP": ap} for epoch, ap in enumerate(aps, start=1)]
    return SimpleNamespace(
        run_dir=folder,
        settings=TrainSettings(data="coco8.yaml", classes=(0, 2)),
        progress=SimpleNamespace(rows=rows),
        pace=SimpleNamespace(elapsed=3723.0),
    )


def test_the_end_of_a_run(run) -> None:
    nan = float("nan")
    found = metrics(("cat", 0.5), ("dog", 0.1), ("owl", nan), ("bee", 0.2), ("cow", 0.3))
    first, worst, files, weights, others, following, *commands = describe_end(run, found)
    assert first == "3 epochs in 1:02:03; best epoch 2, AP 0.5000"
    assert worst == "worst classes by AP: dog 0.100, bee 0.200, cow 0.300"
    assert files == f"files in {run.run_dir}:"
    assert weights == "  weights/best.pt (1.5 MB)"
    assert others == "  results.png, results.csv, skipped.txt, 2 images"
    assert following == "next:"
    model = f"'model={run.run_dir}/weights/best.pt'"  # quoted, as its folder has a space
    assert commands == [
        f"  rtdetr val {model} data=coco8.yaml classes=0,2",
        f"  rtdetr predict {model} source=your.jpg",
        f"  rtdetr export {model} format=onnx",
    ]


def test_a_run_without_validation_names_no_best_epoch_and_no_val_command(run) -> None:
    first, *_, predict, export = describe_end(run, None)
    assert first == (
        "3 epochs in 1:02:03; nothing was validated: best.pt has the weights of the last epoch"
    )
    assert (predict.split()[1], export.split()[1]) == ("predict", "export")
    assert not [line for line in _ if "rtdetr val" in line]


def test_a_run_that_a_callback_ended_before_its_first_validation(run) -> None:
    run.progress.rows = [{"epoch": 1}]
    assert describe_end(run, metrics(("cat", 0.5)))[0] == "1 epoch in 1:02:03"
