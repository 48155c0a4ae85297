"""The kind of a model follows from its name, and every mode decides it by the same function."""

from pathlib import Path

import pytest

from rtdetr_cli.api import RTDETR
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model_path import is_architecture, is_exported, run_weights, why_foreign
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.config.settings.modes import MODES, InfoSettings
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.files import asset_dir
from rtdetr_cli.engine.exporting.request import output_path
from rtdetr_cli.engine.info import info
from rtdetr_cli.engine.training.recipe import starts_pretrained


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("net.yaml", (True, False)),
        ("NET.YAML", (True, False)),
        ("net.Yml", (True, False)),
        ("net.pt", (False, False)),
        ("net.ONNX", (False, True)),
        ("net.engine", (False, True)),
        ("net_openvino_model", (False, True)),
        ("yaml", (False, False)),
    ],
)
def test_the_suffix_decides_in_any_letter_case(model: str, expected: tuple[bool, bool]) -> None:
    assert (is_architecture(model), is_exported(model)) == expected


@pytest.mark.parametrize("name", ["net.yaml", "NET.YAML"])
def test_every_mode_takes_an_upper_case_yaml_for_an_architecture(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes((asset_dir("models") / "rtdetr-n.yaml").read_bytes())
    model = str(path)

    train = settings_from_pairs(TrainSettings, {"data": "x", "model": model, "pretrained": "x.pt"})
    assert starts_pretrained(train)
    assert not starts_pretrained(TrainSettings(data="x", model=model))
    for mode in ("val", "predict"):
        needed = {"data": "x"} if mode == "val" else {"source": "x"}
        with pytest.raises(UsageError, match="needs weights"):
            settings_from_pairs(MODES[mode], {"model": model, "backend": "auto", **needed})
    assert output_path(ExportSettings(model=model)).name == f"{path.stem}.onnx"
    assert info(InfoSettings(model=model)).origin == "architecture without weights"
    assert load_model_config(path).name == path.stem
    assert RTDETR(model).names[0] == "person"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("yolo11n.pt", "is a YOLO network"),
        ("YOLOv8n.yaml", "is a YOLO network"),
        ("rtdetr-resnet50.yaml", "the one of the paper is rtdetr-r50.yaml"),
        ("rtdetr-resnet101.pt", "the one of the paper is rtdetr-r101.pt"),
        ("rtdetr-l.pt", None),
        ("my-yolo.pt", None),
        ("deimv2-s", "has DINOv3 as backbone"),
        ("deimv2-n.yaml", None),
        ("rtdetrv4-l.yaml", "is dfine-l.yaml with `activation: silu`"),
        ("rtdetrv4-l.pt", None),
        ("deim-m.yaml", "is dfine-m.yaml with"),
        ("deim-l.pt", "did you mean deim-dfine-l.pt?"),
        ("deim-rtdetrv2-r50m.yaml", "is rtdetr-r50m.yaml with `activation: silu` and `position"),
        ("deim-rtdetrv2-r50m.pt", None),
    ],
)
def test_names_of_other_networks_are_known(name: str, reason: str | None) -> None:
    found = why_foreign(name)
    assert found is None if reason is None else found and reason in found


def test_a_run_folder_gives_its_best_weights(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    assert run_weights(tmp_path) is None
    (weights / "last.pt").touch()
    assert run_weights(tmp_path) == weights / "last.pt"
    (weights / "best.pt").touch()
    assert run_weights(tmp_path) == run_weights(weights) == weights / "best.pt"


def test_their_architectures_get_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"rtdetr-resnet50\.yaml is Ultralytics' own ResNet network"
    ):
        load_model_config("rtdetr-resnet50.yaml")
    with pytest.raises(UsageError, match=r"yolo11n\.yaml is a YOLO network"):
        load_model_config("yolo11n.yaml")
    path = tmp_path / "mine.yaml"
    path.write_text("nc: 80\nbackbone:\n  - [-1, 1, HGStem, [32, 48]]\nhead: []\n")
    with pytest.raises(UsageError, match=r"mine\.yaml lists layers in Ultralytics' schema"):
        load_model_config(path)
