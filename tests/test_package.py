"""The wheel: what is inside it, and that it finds its own files away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rtdetr_cli.core.files import asset_dir

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builders = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    (built,) = builders.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(built)


def test_a_checkout_reads_its_own_folders():
    assert asset_dir("models") == ROOT / "models"
    assert asset_dir("cfg") == ROOT / "cfg"


def test_the_wheel_carries_architectures_settings_and_licence(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for kind in ("models", "cfg"):
        shipped = {f"rtdetr_cli/{path.relative_to(ROOT)}" for path in (ROOT / kind).rglob("*.yaml")}
        assert shipped
        assert shipped <= inside
    kits = [path for path in (ROOT / "cfg" / "kits").rglob("*") if path.is_file()]
    shipped = {f"rtdetr_cli/{path.relative_to(ROOT).as_posix()}" for path in kits}
    assert "rtdetr_cli/cfg/kits/triton/@NAME@/config.pbtxt" in shipped
    assert {name for name in shipped if "__pycache__" not in name} <= inside
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "rtdetr_cli").rglob("*.py")}
    assert modules <= inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert not any(name.startswith(("tests/", "docs/")) for name in inside)


def test_an_unpacked_wheel_opens_its_architectures(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = (
        "from rtdetr_cli.core.files import asset_dir\n"
        "from rtdetr_cli.config.load import load_model_config\n"
        "import sys\n"
        "sys.stdout.write(f\"{asset_dir('models')} {load_model_config('rtdetr-l').name}\")\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == f"{tmp_path / 'rtdetr_cli' / 'models'} rtdetr-l"


def test_the_licence_is_the_whole_text():
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "APPENDIX: How to apply the Apache License to your work" in text
