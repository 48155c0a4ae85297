"""The programs of deployment kits: they compute what ours do. The model is a toy made here.

tests/benchmarks/check_kits.py runs the same with real ones.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from rtdetr_cli.backends.onnx.int8 import quantize
from rtdetr_cli.cli.main import run
from rtdetr_cli.core.files import asset_dir
from rtdetr_cli.core.image import read_image, resize_image
from rtdetr_cli.core.structures import ModelOutput
from rtdetr_cli.nn.postprocess import top_detections

ROOT = Path(__file__).resolve().parents[3]
TEMPLATES = asset_dir("cfg") / "kits"


@pytest.fixture
def toy(fake_tensorrt: dict[str, Any], tmp_path: Path) -> Path:
    """Class = per cent of the image's mean: 101 of them."""
    return fake_tensorrt["save_toy"](tmp_path / "toy model.onnx")


def write(model: Path, kit: str) -> Path:
    assert run(["export", f"model={model}", f"kit={kit}"]) == 0
    return model.with_name(f"{model.stem}_{kit.replace('-', '_')}")


@pytest.fixture(scope="module")
def check_kits() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tests" / "benchmarks" / "check_kits.py"))


def program(name: str, *words: object) -> str:
    """What a program prints; the test is skipped where it is not installed."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not on this machine")
    done = subprocess.run([name, *map(str, words)], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


def compile_cpp(source: str, folder: Path, include: Path) -> Path:
    (folder / "test.cpp").write_text(source, encoding="utf-8")
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{folder}", f"-I{include}"]
    program("g++", *flags, folder / "test.cpp", "-o", folder / "test")
    return folder / "test"


@pytest.mark.parametrize("antialias", [True, False])
def test_python_resizes_images_as_training_does(antialias):
    resize = runpy.run_path(str(TEMPLATES / "onnxruntime-python" / "resize.py"))["resize"]
    for pixels, (height, width) in images():
        ours = resize_image(pixels, (height, width), antialias)
        theirs = resize(Image.fromarray(pixels), width, height, antialias)
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("antialias", [True, False])
def test_javascript_resizes_images_as_training_does(antialias, tmp_path):
    module = TEMPLATES / "onnxruntime-web" / "resize.mjs"
    script = f"""
        import {{ resize }} from {json.dumps(module.as_uri())};
        import {{ readFileSync }} from "node:fs";
        const cases = JSON.parse(readFileSync(process.argv[2]));
        const outputs = cases.map(([pixels, ...sizes]) =>
          Array.from(resize(Uint8Array.from(pixels), ...sizes, {str(antialias).lower()})));
        console.log(JSON.stringify(outputs));
    """
    (tmp_path / "test.mjs").write_text(script)
    cases = [
        (pixels.ravel().tolist(), *pixels.shape[1::-1], width, height)
        for pixels, (height, width) in images()
    ]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    outputs = json.loads(program("node", tmp_path / "test.mjs", tmp_path / "cases.json"))
    for (pixels, size_hw), output in zip(images(), outputs, strict=True):
        assert output == expected_pixels(pixels, size_hw, antialias).ravel().tolist()


def test_cpp_resizes_images_as_training_does(tmp_path):
    source = """
        #include "pillow_resize.hpp"
        #include <cstdio>
        int main() {
          int width, height, to_width, to_height, value;
          while (std::scanf("%d %d %d %d", &width, &height, &to_width, &to_height) == 4) {
            std::vector<uint8_t> pixels(3 * width * height);
            for (uint8_t& pixel : pixels) { if (std::scanf("%d", &value) == 1) pixel = value; }
            for (uint8_t pixel : pillow_resize(pixels, width, height, to_width, to_height))
              std::printf("%d ", pixel);
            std::printf("\\n");
          }
        }"""
    test = compile_cpp(source, tmp_path, TEMPLATES / "onnxruntime-cpp")
    words = []
    for pixels, (height, width) in images():
        words += [*pixels.shape[1::-1], width, height, *pixels.ravel().tolist()]
    done = subprocess.run(
        [test], input=" ".join(map(str, words)), capture_output=True, text=True, check=True
    )
    for (pixels, size_hw), line in zip(images(), done.stdout.splitlines(), strict=True):
        expected = expected_pixels(pixels, size_hw, antialias=True)
        assert list(map(int, line.split())) == expected.ravel().tolist()


def expected_pixels(pixels: np.ndarray, size_hw: tuple[int, int], antialias: bool) -> np.ndarray:
    """What the network sees, with rows first: Pillow 13 begins with columns in tall images."""
    at_once = resize_image(pixels, size_hw, antialias)
    if not antialias:
        return at_once
    rows_first = resize_image(pixels, (pixels.shape[0], size_hw[1]), antialias)
    expected = resize_image(rows_first, size_hw, antialias)
    assert np.abs(expected.astype(int) - at_once).max() <= 1
    return expected


def images() -> list[tuple[np.ndarray, tuple[int, int]]]:
    """Noise, which shows every weight, and (height, width) to shrink, grow or keep it to."""
    rng = np.random.default_rng(0)
    sides = [(50, 70), (7, 90), (33, 32), (1, 1), (64, 2), (100, 31), (32, 64), (64, 128)]
    targets = [(32, 64), (20, 20), (64, 96), (5, 3), (63, 40), (10, 62), (32, 64), (32, 64)]
    return [
        (rng.integers(0, 256, (*size, 3), np.uint8), target)
        for size, target in zip(sides, targets, strict=True)
    ]


def predicted(model: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """Output of `rtdetr predict`, in the form of check_kits.py."""
    capsys.readouterr()
    assert run(["predict", f"model={model}", f"source={image}", "save=false", "json"]) == 0
    (output,) = json.loads(capsys.readouterr().out)
    rows = output["detections"]
    assert len(rows) == 1
    return [(row["name"], row["confidence"], list(row["box"].values())) for row in rows]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A fine pattern, so that the mean depends on how it is resized."""
    pixels = np.random.default_rng(3).integers(0, 2, (110, 90, 1), np.uint8) * 255
    pixels[::9] = 255
    cv2.imwrite(str(tmp_path / "image.png"), pixels)
    return tmp_path / "image.png"


@pytest.fixture
def int8(fake_tensorrt: dict[str, Any], tmp_path: Path) -> Path:
    """The toy with its mean computed by a convolution in int8, all of whose weights are equal.

    For white, products with 255 are added: with weights of 127 two of them exceed 16 bits, and
    the score would be a third on a CPU without VNNI.
    """
    mean = "mean = ReduceMean<axes = [1, 2, 3], keepdims = 0>"
    layers = "a = Conv(images, w0)\n  r = Relu(a)\n  m = Conv(r, w1)\n  "
    text = fake_tensorrt["TOY"].replace(f"{mean}(images)", f"{layers}{mean}(m)")
    path = fake_tensorrt["save_toy"](tmp_path / "int8.onnx", text, precision="int8")
    model = onnx.load(path)
    names = {"a": "backbone/stem/Conv", "m": "backbone/stages/0/Conv"}
    for node in model.graph.node:
        node.name = names.get(node.output[0], node.output[0])
    for name, shape in {"w0": (4, 3, 1, 1), "w1": (1, 4, 1, 1)}.items():
        weight = np.full(shape, 0.9 / shape[1], np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    onnx.save(quantize(model, {"images": 1.0, "r": 1.0}), path)
    return path


@pytest.mark.parametrize("kit", ["onnxruntime-python", "onnxruntime-cpp", "onnxruntime-web"])
def test_on_a_cpu_int8_has_activations_of_uint8(int8, kit):
    zeros = {
        one.name: numpy_helper.to_array(one)
        for one in onnx.load(write(int8, kit) / "model.onnx").graph.initializer
        if one.name.endswith("_zero")
    }
    assert {name: str(value.dtype) for name, value in zeros.items()} == {
        **dict.fromkeys(("images_zero", "r_zero"), "uint8"),
        **dict.fromkeys(("w0_zero", "w1_zero"), "int8"),
    }
    assert (zeros["images_zero"], zeros["r_zero"]) == (128, 0)


def test_triton_gets_the_int8_file_unchanged(int8):
    copied = write(int8, "triton") / "int8" / "1" / "model.onnx"
    assert copied.read_bytes() == int8.read_bytes()


@pytest.mark.slow
def test_python_computes_int8_exactly_on_a_cpu_without_vnni(int8, check_kits, tmp_path):
    """On Intel's Haswell of 2013 as QEMU emulates it (`apt-get install qemu-user`)."""
    if shutil.which("qemu-x86_64") is None or platform.machine() != "x86_64":
        pytest.skip("needs qemu-x86_64 on x86-64")
    white = tmp_path / "white.png"
    Image.new("RGB", (90, 110), "white").save(white)
    program_of_kit = write(int8, "onnxruntime-python") / "detect.py"
    emulated = ("qemu-x86_64", "-cpu", "Haswell")
    printed = program(*emulated, sys.executable, program_of_kit, white)
    assert printed == program(sys.executable, program_of_kit, white)
    ((_, score, _),) = check_kits["parse"](printed)
    assert score == pytest.approx(0.9**2, abs=0.02)


@pytest.mark.parametrize("antialias", [True, False])
def test_python_prints_the_boxes_of_predict(
    fake_tensorrt, check_kits, image, antialias, tmp_path, capsys
):
    shrinks = {"size_hw": [32, 64], "antialias": antialias}
    toy = fake_tensorrt["save_toy"](tmp_path / "toy.onnx", preprocessing=shrinks)
    ours = predicted(toy, image, capsys)
    theirs = check_kits["run_python"](write(toy, "onnxruntime-python"), image)
    assert max(check_kits["largest_difference"](ours, theirs)) <= 0.51e-4
    means = [resize_image(read_image(image), (32, 64), way).mean() / 255 for way in (True, False)]
    assert abs(means[0] - means[1]) > 1e-3  # the score depends on how the image was resized
    assert theirs[0][1:] == (pytest.approx(means[not antialias], abs=1e-4), [90, 110, 90, 110])


def test_cpp_prints_the_boxes_of_predict(toy, check_kits, image, capsys):
    """RTDETR_ORT: an unpacked release of ONNX Runtime, with its headers."""
    place = os.environ.get("RTDETR_ORT")
    if not place or shutil.which("cmake") is None:
        pytest.skip("needs CMake, OpenCV for C++, and ONNX Runtime for C++ in RTDETR_ORT")
    ours = predicted(toy, image, capsys)
    theirs = check_kits["run_cpp"](write(toy, "onnxruntime-cpp"), image, Path(place))
    assert max(check_kits["largest_difference"](ours, theirs)) <= 0.51e-4


def test_the_web_prints_the_boxes_of_predict(toy, check_kits, image, capsys):
    """RTDETR_NODE_MODULES: made by `npm install onnxruntime-web sharp`."""
    place = os.environ.get("RTDETR_NODE_MODULES")
    if not place or shutil.which("node") is None:
        pytest.skip("needs Node, and onnxruntime-web and sharp in RTDETR_NODE_MODULES")
    ours = predicted(toy, image, capsys)
    kit = write(toy, "onnxruntime-web")
    (kit / "node_modules").symlink_to(place)
    theirs = check_kits["run_node"](kit, image)
    assert max(check_kits["largest_difference"](ours, theirs)) <= 0.51e-4


def test_hostile_names_stay_strings_in_cpp(fake_tensorrt, tmp_path):
    names = ['a "quote" \\', "Straße 犬", "%s ??/ ??'", "@WIDTH@", "", "1\\0"]
    hostile = fake_tensorrt["save_toy"](tmp_path / "toy.onnx", names=dict(enumerate(names)))
    kit = write(hostile, "onnxruntime-cpp")
    source = """
        #include "model.hpp"
        #include <cstdio>
        int main() {
          for (const char* name : kNames) std::printf("%s\\n", name);
          std::printf("%d %d %d\\n", kWidth, kHeight, kAntialias);
        }"""
    test = compile_cpp(source, tmp_path, kit)
    lines = subprocess.run([test], capture_output=True, encoding="utf-8", check=True).stdout
    assert lines.splitlines() == [*names, "64 32 0"]


def test_tritons_client_sends_what_the_server_takes(toy, monkeypatch):
    if not all(map(importlib.util.find_spec, ("tritonclient", "gevent"))):
        pytest.skip("tritonclient[http] makes the request")
    kit = write(toy, "triton")
    monkeypatch.syspath_prepend(str(kit))
    monkeypatch.delitem(sys.modules, "resize", raising=False)
    client = runpy.run_path(str(kit / "client.py"))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    images, sizes = client["make_inputs"](Image.fromarray(pixels))
    assert (images.name(), images.datatype(), images.shape()) == ("images", "FP32", [1, 3, 32, 64])
    assert (sizes.name(), sizes.datatype(), sizes.shape()) == (
        "orig_target_sizes",
        "INT64",
        [1, 2],
    )
    assert client["FACTS"]["name"] == "toy_model"


NVDSINFER = """#pragma once
// What the parser uses of DeepStream's header, by its documented names.
#include <vector>
enum NvDsInferDataType { FLOAT = 0, HALF = 1, INT8 = 2, INT32 = 3 };
struct NvDsInferDims { unsigned int numDims; unsigned int d[8]; unsigned int numElements; };
struct NvDsInferLayerInfo {
  NvDsInferDataType dataType; NvDsInferDims inferDims; int bindingIndex;
  const char* layerName; void* buffer; int isInput;
};
struct NvDsInferNetworkInfo { unsigned int width; unsigned int height; unsigned int channels; };
struct NvDsInferParseDetectionParams {
  unsigned int numClassesConfigured; std::vector<float> perClassPreclusterThreshold;
};
struct NvDsInferParseObjectInfo {
  unsigned int classId; float left; float top; float width; float height;
  float detectionConfidence;
};
typedef bool (*NvDsInferParseCustomFunc)(
    const std::vector<NvDsInferLayerInfo>&, const NvDsInferNetworkInfo&,
    const NvDsInferParseDetectionParams&, std::vector<NvDsInferParseObjectInfo>&);
#define CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(name) \\
  [[maybe_unused]] static NvDsInferParseCustomFunc check_##name = name
"""


def test_deepstreams_parser_finds_what_our_post_processing_finds(tmp_path):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 6, 3, generator=generator) * 2
    boxes = torch.rand(1, 6, 4, generator=generator) * 0.4 + torch.tensor([0.3, 0.3, 0, 0])
    source = f"""
        #include "nvdsinfer_custom_impl.h"
        #include "nvdsinfer_rtdetr.cpp"
        #include <cstdio>
        float logits[] = {{{", ".join(map(str, logits.ravel().tolist()))}}};
        float boxes[] = {{{", ".join(map(str, boxes.ravel().tolist()))}}};
        int main() {{
          std::vector<NvDsInferLayerInfo> layers{{
              {{FLOAT, {{2, {{6, 4}}, 24}}, 1, "boxes", boxes, 0}},
              {{FLOAT, {{2, {{6, 3}}, 18}}, 2, "logits", logits, 0}}}};
          NvDsInferParseDetectionParams params{{3, {{0.5F, 0.5F, 0.5F}}}};
          std::vector<NvDsInferParseObjectInfo> objects;
          if (!NvDsInferParseRTDETR(layers, {{64, 32, 3}}, params, objects)) return 1;
          for (const auto& one : objects)
            std::printf("%u %f %f %f %f %f\\n", one.classId, one.detectionConfidence, one.left,
                        one.top, one.left + one.width, one.top + one.height);
          layers.pop_back();
          return NvDsInferParseRTDETR(layers, {{64, 32, 3}}, params, objects) ? 2 : 0;
        }}"""
    (tmp_path / "nvdsinfer_custom_impl.h").write_text(NVDSINFER)
    test = compile_cpp(source, tmp_path, TEMPLATES / "deepstream")
    lines = subprocess.run([test], capture_output=True, text=True, check=True).stdout.splitlines()
    found = sorted((list(map(float, line.split())) for line in lines), key=lambda row: -row[1])
    (expected,) = top_detections(ModelOutput(logits, boxes), [(32, 64)], 300)
    expected = expected.keep(expected.scores >= 0.5)
    assert len(found) == len(expected) > 4
    assert [row[0] for row in found] == expected.labels.tolist()
    np.testing.assert_allclose([row[1] for row in found], expected.scores, atol=1e-5, rtol=0)
    clipped = expected.boxes_xyxy.clip(0, [64, 32, 64, 32])
    np.testing.assert_allclose([row[2:] for row in found], clipped, atol=1e-4, rtol=0)
