"""Wheel, source distribution and the files about the project."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from rtdetr_cli.core.files import asset_dir
from rtdetr_cli.core.version import VERSION

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
    assert modules | {"rtdetr_cli/py.typed"} <= inside
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


def test_the_source_distribution_builds_the_same_wheel(wheel, tmp_path):
    sdist = pytest.importorskip("hatchling.builders.sdist", reason="hatchling builds it")
    (built,) = sdist.SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(built) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert {"Makefile", "constraints.txt", "tests", "docs", "docker", "CITATION.cff"} <= {
        path.name for path in source.iterdir()
    }
    builders = pytest.importorskip("hatchling.builders.wheel")
    folder = tmp_path / "built"
    (again,) = builders.WheelBuilder(str(source)).build(
        directory=str(folder), versions=["standard"]
    )
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == VERSION
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_image_is_built_from_files_that_exist(kind):
    text = (ROOT / "docker" / f"Dockerfile.{kind}").read_text("utf-8")
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ")]
    names = {name for names in copied for name in names if not name.startswith(("--", "/"))}
    assert {"rtdetr_cli", "models", "cfg", "pyproject.toml", "constraints.txt"} <= names
    allowed = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for name in names:
        assert (ROOT / name).exists()
        assert f"!{name}" in allowed
