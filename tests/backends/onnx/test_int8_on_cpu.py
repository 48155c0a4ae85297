"""int8 computes what the file says on every CPU, also on x86 without VNNI, as qemu-user has it.

The session that the reader opens is compared with the graph as it is in the file, run without any
optimisation, on feature maps of a real image.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from rtdetr_cli.backends.onnx.calibration import Observer
from rtdetr_cli.backends.onnx.graph import GraphOptions
from rtdetr_cli.backends.onnx.int8 import plan, quantize
from rtdetr_cli.backends.onnx.writer import write_onnx
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.image import read_image, resize_image, to_tensor
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

SIDE = 64
COMPARE = """
import json, sys
import numpy, onnxruntime
from pathlib import Path
from rtdetr_cli.backends.onnx.int8_on_cpu import restated_for_cpu
from rtdetr_cli.backends.onnx.session import open_session

path, image = Path(sys.argv[1]), numpy.load(sys.argv[2])
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
as_written = onnxruntime.InferenceSession(restated_for_cpu(path), options)
read, _ = open_session(path, "cpu")
names = [value.name for value in read.get_outputs()]
expected, found = (session.run(names, {"images": image}) for session in (as_written, read))
shares = {
    name: float(abs(one - other).max() / abs(other).max())
    for name, one, other in zip(names, found, expected)
}
json.dump(shares, sys.stdout)
"""
"""Prints the error of each output relative to the largest value of the unoptimised one."""


@pytest.fixture(scope="module")
def int8_file(shared_data, tiny_config, tmp_path_factory) -> tuple[Path, Path]:
    """An int8 network that also returns the feature maps of its encoder, and an image for it."""
    folder = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    path, image = folder / "net.onnx", folder / "image.npy"
    network = RTDETRNetwork(tiny_config, 2).eval()
    raw = GraphOptions(postprocess=False)
    write_onnx(path, network, {0: "a", 1: "b"}, Preprocessing((SIDE, SIDE), False), raw)
    pixels = resize_image(read_image(shared_data / "media" / "bus.jpg"), (SIDE, SIDE), True)
    images = to_tensor(pixels)[None]
    np.save(image, images.numpy())
    observer = Observer(path, plan(onnx.load(path).graph).readers)
    observer.detect(images, [(SIDE, SIDE)])
    largest = {name: one.percentile(100) for name, one in observer.histograms.items()}
    model = quantize(onnx.load(path), largest)
    model.metadata_props.add(key="precision", value=json.dumps("int8"))
    for name in encoder_maps(model.graph):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    onnx.save(model, path)
    return path, image


def encoder_maps(graph: onnx.GraphProto) -> list[str]:
    """Outputs of the encoder that the decoder reads."""
    made = {name: node.name for node in graph.node for name in node.output}
    read = [name for node in graph.node if node.name.startswith("decoder") for name in node.input]
    return [name for name in dict.fromkeys(read) if made.get(name, "").startswith("encoder")]


def compare(files: tuple[Path, Path], *emulator: str) -> dict[str, float]:
    run = subprocess.run(
        [*emulator, sys.executable, "-c", COMPARE, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_fused_integers_equal_the_file_on_this_cpu(int8_file):
    shares = compare(int8_file)
    assert len(shares) == 5  # logits, boxes and the three maps
    assert max(shares.values()) < 1e-4


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="saturating kernels are of x86")
@pytest.mark.parametrize("cpu", ["Haswell", "Skylake-Server"])
def test_fused_integers_equal_the_file_without_vnni(int8_file, cpu):
    emulator = shutil.which("qemu-x86_64")
    if not emulator:
        pytest.skip("qemu-x86_64 (Debian's qemu-user) is not installed")
    shares = compare(int8_file, emulator, "-cpu", cpu)
    assert max(shares.values()) < 1e-4
