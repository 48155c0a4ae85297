"""The kind of a model follows from its name, and every mode decides it by the same function."""

from pathlib import Path

import pytest

from rtdetr_cli.api import RTDETR
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model_path import is_architecture, is_exported
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
