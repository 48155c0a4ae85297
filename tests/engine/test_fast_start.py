"""What one prediction imports: a fast start, and exported files without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

SLOW = {"matplotlib", "scipy", "torchvision", "pycocotools", "hotcoco", "PIL.TiffImagePlugin"}
NETWORK = {"http.client", "ssl", "urllib.request"}
"""Of downloads and streams; torch imports them itself."""
COMMAND = """
import runpy, sys
try:
    runpy.run_module("rtdetr_cli", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
"""
OBJECT = """
from rtdetr_cli import RTDETR, Results
import sys
model = RTDETR(sys.argv[2].removeprefix("model="))
(results,) = model(sys.argv[3].removeprefix("source="), save=True, project=sys.argv[4][8:])
results.plot(), results.to_json(), results.boxes.xywhn, results.boxes.cpu().numpy(), model.names
"""
REPORT = """
print("\\nimported:", *sys.modules)
"""


def imported(program: str, model: Path, folder: Path) -> set[str]:
    """The modules that a process imports that predicts an image with everything it can write."""
    cv2.imwrite(str(folder / "a.png"), np.full((64, 64, 3), 128, np.uint8))
    keys = [f"model={model}", f"source={folder / 'a.png'}", f"project={folder / 'runs'}"]
    saves = ["save_txt", "save_crop", "conf=0.001", "classes=0"] if program == COMMAND else []
    done = subprocess.run(
        [sys.executable, "-c", program + REPORT, "predict", *keys, *saves],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list((folder / "runs").rglob("a.*"))
    return set(done.stdout.rpartition("imported:")[2].split())


@pytest.fixture
def toy(toy_graph, tmp_path) -> Path:
    onnx.save(onnx.parser.parse_model(toy_graph), tmp_path / "toy.onnx")
    return tmp_path / "toy.onnx"


@pytest.mark.parametrize("program", [COMMAND, OBJECT], ids=["command", "python"])
def test_an_onnx_file_needs_no_torch(program, toy, tmp_path):
    packages = imported(program, toy, tmp_path)
    assert "onnxruntime" in packages
    assert not packages & {"torch", "rich", "onnxscript", *NETWORK, *SLOW}


def test_an_openvino_folder_needs_no_torch(toy, tmp_path):
    openvino = pytest.importorskip("openvino")
    folder = tmp_path / "toy_openvino_model"
    openvino.save_model(openvino.convert_model(toy), folder / "toy.xml")
    packages = imported(COMMAND, folder, tmp_path)
    assert "openvino" in packages
    assert not packages & {"torch", "onnx", "onnxruntime", *SLOW}


WITHOUT = """
import sys
from importlib.abc import MetaPathFinder
class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "safetensors", "scipy", "torchvision"}:
            raise ModuleNotFoundError(f"No module named {name}", name=name)
sys.meta_path.insert(0, Missing())
"""


def test_an_onnx_file_runs_where_torch_is_not_installed(toy, tmp_path):
    program = f"{WITHOUT}{COMMAND}"
    assert "torch" not in imported(program, toy, tmp_path)


def test_weights_need_torch_only(checkpoint, tmp_path):
    packages = imported(COMMAND, checkpoint, tmp_path)
    assert "torch" in packages
    assert not packages & {"onnx", "onnxruntime", "openvino", "rich", *SLOW}
