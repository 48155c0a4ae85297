"""The first command of a stranger: from an empty home and no data to trained weights."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.data.splits import load_data

ROOT = Path(__file__).parents[2]


def rtdetr(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder with a home of its own, without a terminal."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    environment["RTDETR_HOME"] = str(folder / "home")
    command = [sys.executable, "-m", "rtdetr_cli", *words]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_training_on_coco8_starts_from_nothing(server, shared_data, tmp_path):
    folder = shared_data / "coco8" / "images"
    server.files = {f"/train2017/{path.name}": path.read_bytes() for path in folder.rglob("*.jpg")}
    words = ["model=rtdetr-n.yaml", "data=coco8.yaml", "epochs=3", "imgsz=160", "device=cpu"]
    done = rtdetr(tmp_path, "train", *words, RTDETR_MIRROR=server.url)
    assert done.returncode == 0, done.stderr
    assert f"coco8.yaml: downloading 8 images from {server.url}/train2017/\n" in done.stderr
    assert "4 images with 13 boxes to train on, 4 to validate, 80 classes" in done.stderr
    assert sorted(server.paths) == sorted(server.files)
    assert (tmp_path / "runs/train/weights/best.pt").is_file()
    with (tmp_path / "runs/train/results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3
    assert {path.name for path in (tmp_path / "home/datasets").iterdir()} == {
        "coco8",
        ".coco8.lock",
    }


def test_a_large_data_set_is_not_downloaded_unasked(server, tmp_path):
    done = rtdetr(tmp_path, "train", "model=rtdetr-n.yaml", "data=coco", RTDETR_MIRROR=server.url)
    assert (done.returncode, done.stdout) == (3, "")
    urls = ("zips/train2017.zip", "zips/val2017.zip", "annotations/annotations_trainval2017.zip")
    assert done.stderr == (
        "Error: coco.yaml: not on this machine; download=true or RTDETR_YES=1 downloads 20.4 GB "
        f"from {', '.join(f'{server.url}/{url}' for url in urls)} "
        f"into {tmp_path}/home/datasets/coco\n"
    )
    assert server.paths == []


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("coco12", "data set coco12 does not exist; did you mean coco128?"),
        ("shape", "data set shape does not exist; did you mean shapes?"),
        (
            "xyz.yaml",
            "data set xyz.yaml does not exist; known are coco, coco128, coco8, shapes, voc",
        ),
        ("some/data.yaml", "data set some/data.yaml does not exist"),
    ],
)
def test_an_unknown_data_set_has_a_hint(data, sentence):
    with pytest.raises(UsageError) as caught:
        load_data(data)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("name", ["coco8", "coco8.yaml", "COCO8.yaml", "shapes", "voc", "VOC.yaml"])
def test_a_shipped_name_needs_no_suffix_and_no_case(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_data(name).is_shipped


@pytest.mark.parametrize("place", ["coco8", "coco8.yaml", "some/data.yaml", "some"])
def test_a_file_or_folder_of_that_name_wins(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = Path(place) if place.endswith(".yaml") else Path(place) / "data.yaml"
    own.parent.mkdir(exist_ok=True)
    own.write_text("path: x\ntrain: images\nnames: [a]\n")
    config = load_data(place)
    assert (config.names, config.is_shipped) == ({0: "a"}, False)
