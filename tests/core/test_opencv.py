"""OpenCV that is missing or cannot be loaded is one sentence with the line that mends it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("raised", "sentence"),
    [
        (
            "ModuleNotFoundError(\"No module named 'cv2'\")",
            "Error: OpenCV is missing: pip install opencv-python, or opencv-python-headless on "
            "a server",
        ),
        (
            "ImportError('libGL.so.1: cannot open shared object file')",
            "Error: OpenCV cannot be loaded (libGL.so.1: cannot open shared object file); on a "
            "server: pip uninstall -y opencv-python; pip install --force-reinstall --no-deps "
            "opencv-python-headless",
        ),
    ],
)
def test_an_opencv_that_cannot_be_loaded_is_one_sentence(raised, sentence, tmp_path):
    (tmp_path / "cv2.py").write_text(f"raise {raised}\n")  # as a container without libGL does
    found = subprocess.run(
        [sys.executable, "-m", "rtdetr_cli", "predict", "model=rtdetr-n.yaml", "source=a.jpg"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (found.returncode, found.stderr.strip()) == (5, sentence)
