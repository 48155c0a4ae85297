"""Deployment kits: what is in the folders, and that their programs compute what ours do.

The model is a toy made here; tests/benchmarks/check_kits.py runs the same with real ones.
"""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
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
from google.protobuf import text_format
from onnx import parser
from PIL import Image

from rtdetr_cli.cli.main import run
from rtdetr_cli.config.export_settings import KITS
from rtdetr_cli.core.files import asset_dir
from rtdetr_cli.core.image import read_image, resize_image
from rtdetr_cli.core.structures import ModelOutput
from rtdetr_cli.nn.postprocess import top_detections

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = asset_dir("cfg") / "kits"
NAMES = [
    'a "quote" \\',
    "two\nlines\t\x1b[31m",
    "Straße 犬",
    "semi;colon",
    "</script><b>",
    "%s ??/ ??'",
    "@WIDTH@ $(id) `id`",
    "",
    "\u202etxt.exe",
]
"""Class names come from strangers' files."""
SHOWN = [
    'a "quote" \\',
    "two lines  [31m",
    "Straße 犬",
    "semi;colon",
    "</script><b>",
    "%s ??/ ??'",
    "@WIDTH@ $(id) `id`",
    "",
    " txt.exe",
]
RAW = """<ir_version: 8, opset_import: ["" : 17]>
raw (float[N,3,32,64] images) => (float[N,5,9] logits, float[N,5,4] boxes) {
  mean = ReduceMean<axes = [1, 2, 3], keepdims = 0>(images)
  axes = Constant<value = int64[2] {1, 2}>()
  cell = Unsqueeze(mean, axes)
  rows = Constant<value = int64[3] {1, 5, 9}>()
  logits = Expand(cell, rows)
  corners = Constant<value = int64[3] {1, 5, 4}>()
  boxes = Expand(cell, corners)
}"""
"""The contract without post-processing."""
PROPERTIES = """
    gie-unique-id process-mode interval labelfile-path gpu-id output-tensor-meta batch-size
    network-mode model-engine-file int8-calib-file workspace-size output-blob-names network-type
    infer-dims output-io-formats layer-device-precision model-color-format net-scale-factor offsets
    mean-file maintain-aspect-ratio symmetric-padding scaling-filter scaling-compute-hw
    network-input-order input-tensor-from-meta custom-lib-path parse-bbox-func-name onnx-file
    num-detected-classes cluster-mode force-implicit-batch-dim filter-out-class-ids"""
CLASS_ATTRIBUTES = """
    threshold pre-cluster-threshold post-cluster-threshold eps group-threshold minBoxes
    dbscan-min-score roi-top-offset roi-bottom-offset detected-min-w detected-min-h detected-max-w
    detected-max-h border-color bg-color nms-iou-threshold topk"""
DOCUMENTED = {"property": PROPERTIES.split(), "class-attrs-all": CLASS_ATTRIBUTES.split()}
"""Keys of Gst-nvinfer that a detector may have (DeepStream 6.2 to 9.0, Gst-nvinfer's page)."""


@pytest.fixture
def toy(fake_tensorrt: dict[str, Any], tmp_path: Path) -> Path:
    """Class = per cent of the picture's mean, modulo nothing: 101 classes."""
    return fake_tensorrt["save_toy"](tmp_path / "toy model.onnx", verdict="passed")


@pytest.fixture
def hostile(fake_tensorrt: dict[str, Any], tmp_path: Path) -> Path:
    names = {str(index): name for index, name in enumerate(NAMES)}
    return fake_tensorrt["save_toy"](tmp_path / "toy.onnx", names=names)


@pytest.fixture
def raw(fake_tensorrt: dict[str, Any], tmp_path: Path) -> Path:
    names = {str(index): name for index, name in enumerate(NAMES)}
    return fake_tensorrt["save_toy"](tmp_path / "raw.onnx", RAW, names=names)


@pytest.fixture(scope="module")
def check_kits() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tests" / "benchmarks" / "check_kits.py"))


def write(model: Path, kit: str) -> Path:
    assert run(["export", f"model={model}", f"kit={kit}"]) == 0
    return model.with_name(f"{model.stem}_{kit.replace('-', '_')}")


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


def test_every_template_is_short():
    files = [path for path in TEMPLATES.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path.relative_to(TEMPLATES).parts[0] for path in files} == set(KITS)
    for path in files:
        assert len(path.read_text("utf-8").splitlines()) <= 150, path


@pytest.mark.parametrize(
    ("kit", "files"),
    [
        ("onnxruntime-python", {"detect.py", "resize.py", "model.json", "model.onnx"}),
        (
            "onnxruntime-cpp",
            {"main.cpp", "pillow_resize.hpp", "model.hpp", "CMakeLists.txt", "model.onnx"},
        ),
        (
            "onnxruntime-web",
            {"index.html", "detector.mjs", "resize.mjs", "detect.mjs", "model.json", "model.onnx"},
        ),
        (
            "triton",
            {
                "client.py",
                "resize.py",
                "model.json",
                "toy_model/config.pbtxt",
                "toy_model/1/model.onnx",
            },
        ),
    ],
)
def test_a_kit_is_whole_and_filled_in(toy, kit, files, capsys):
    folder = write(toy, kit)
    assert f"kit={kit} in {folder}; README.md" in capsys.readouterr().err
    found = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    assert found.keys() == files | {"README.md"}
    for name, path in found.items():
        if name.endswith(".onnx"):
            assert path.read_bytes() == toy.read_bytes()
        else:
            text = path.read_text("utf-8")
            assert "@WIDTH@" not in text
            assert "@NAME@" not in text
            assert name.endswith((".json", ".hpp")) or len(text.splitlines()) <= 150
    readme = (folder / "README.md").read_text("utf-8")
    assert kit == "triton" or ("32" in readme and "64" in readme)


def test_a_kit_is_written_anew_but_never_over_other_files(toy, capsys):
    folder = write(toy, "triton")
    (folder / "toy_model" / "config.pbtxt").write_text("older")
    assert "older" not in (write(toy, "triton") / "toy_model" / "config.pbtxt").read_text()
    (folder / "toy_model" / "2").mkdir()
    (folder / "toy_model" / "2" / "model.onnx").write_text("mine")
    assert run(["export", f"model={toy}", "kit=triton"]) == 5
    assert "it holds other files (toy_model/2/model.onnx)" in capsys.readouterr().err
    assert (folder / "toy_model" / "2" / "model.onnx").read_text() == "mine"


@pytest.mark.parametrize("antialias", [True, False])
def test_python_shrinks_pictures_as_training_does(antialias):
    resize = runpy.run_path(str(TEMPLATES / "onnxruntime-python" / "resize.py"))["resize"]
    for pixels, (height, width) in pictures():
        ours = resize_image(pixels, (height, width), antialias)
        theirs = resize(Image.fromarray(pixels), width, height, antialias)
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("antialias", [True, False])
def test_javascript_shrinks_pictures_as_training_does(antialias, tmp_path):
    module = TEMPLATES / "onnxruntime-web" / "resize.mjs"
    script = f"""
        import {{ resize }} from {json.dumps(module.as_uri())};
        import {{ readFileSync }} from "node:fs";
        const cases = JSON.parse(readFileSync(process.argv[2]));
        const answers = cases.map(([pixels, ...sizes]) =>
          Array.from(resize(Uint8Array.from(pixels), ...sizes, {str(antialias).lower()})));
        console.log(JSON.stringify(answers));
    """
    (tmp_path / "test.mjs").write_text(script)
    cases = [
        (pixels.ravel().tolist(), *pixels.shape[1::-1], width, height)
        for pixels, (height, width) in pictures()
    ]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    answers = json.loads(program("node", tmp_path / "test.mjs", tmp_path / "cases.json"))
    for (pixels, size_hw), answer in zip(pictures(), answers, strict=True):
        assert answer == expected_pixels(pixels, size_hw, antialias).ravel().tolist()


def test_cpp_shrinks_pictures_as_training_does(tmp_path):
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
    for pixels, (height, width) in pictures():
        words += [*pixels.shape[1::-1], width, height, *pixels.ravel().tolist()]
    done = subprocess.run(
        [test], input=" ".join(map(str, words)), capture_output=True, text=True, check=True
    )
    for (pixels, size_hw), line in zip(pictures(), done.stdout.splitlines(), strict=True):
        expected = expected_pixels(pixels, size_hw, antialias=True)
        assert list(map(int, line.split())) == expected.ravel().tolist()


def expected_pixels(pixels: np.ndarray, size_hw: tuple[int, int], antialias: bool) -> np.ndarray:
    """What the network sees, with rows first: Pillow 13 begins with columns in tall pictures."""
    at_once = resize_image(pixels, size_hw, antialias)
    if not antialias:
        return at_once
    rows_first = resize_image(pixels, (pixels.shape[0], size_hw[1]), antialias)
    expected = resize_image(rows_first, size_hw, antialias)
    assert np.abs(expected.astype(int) - at_once).max() <= 1
    return expected


def pictures() -> list[tuple[np.ndarray, tuple[int, int]]]:
    """Noise, which shows every weight, and (height, width) to shrink, grow or keep it to."""
    rng = np.random.default_rng(0)
    sides = [(50, 70), (7, 90), (33, 32), (1, 1), (64, 2), (100, 31), (32, 64), (64, 128)]
    targets = [(32, 64), (20, 20), (64, 96), (5, 3), (63, 40), (10, 62), (32, 64), (32, 64)]
    return [
        (rng.integers(0, 256, (*size, 3), np.uint8), target)
        for size, target in zip(sides, targets, strict=True)
    ]


def predicted(model: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """What `rtdetr predict` answers, as check_kits.py has it."""
    capsys.readouterr()
    assert run(["predict", f"model={model}", f"source={picture}", "save=false", "json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    rows = answer["detections"]
    assert len(rows) == 1
    return [(row["name"], row["confidence"], list(row["box"].values())) for row in rows]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Few pixels differ, so that the mean depends on how it is shrunk."""
    pixels = np.random.default_rng(3).integers(0, 2, (110, 90, 1), np.uint8) * 255
    pixels[::9] = 255
    cv2.imwrite(str(tmp_path / "picture.png"), pixels)
    return tmp_path / "picture.png"


@pytest.mark.parametrize("antialias", [True, False])
def test_python_prints_the_boxes_of_predict(
    fake_tensorrt, check_kits, picture, antialias, tmp_path, capsys
):
    shrinks = {"size_hw": [32, 64], "antialias": antialias}
    toy = fake_tensorrt["save_toy"](tmp_path / "toy.onnx", preprocessing=shrinks)
    ours = predicted(toy, picture, capsys)
    theirs = check_kits["run_python"](write(toy, "onnxruntime-python"), picture)
    assert max(check_kits["largest_difference"](ours, theirs)) <= 0.51e-4
    means = [resize_image(read_image(picture), (32, 64), way).mean() / 255 for way in (True, False)]
    assert abs(means[0] - means[1]) > 1e-3  # the score tells how the picture was shrunk
    assert theirs[0][1:] == (pytest.approx(means[not antialias], abs=1e-4), [90, 110, 90, 110])


def test_cpp_prints_the_boxes_of_predict(toy, check_kits, picture, capsys):
    """RTDETR_ORT: an unpacked release of ONNX Runtime, with its headers."""
    place = os.environ.get("RTDETR_ORT")
    if not place or shutil.which("cmake") is None:
        pytest.skip("needs CMake, OpenCV for C++, and ONNX Runtime for C++ in RTDETR_ORT")
    ours = predicted(toy, picture, capsys)
    theirs = check_kits["run_cpp"](write(toy, "onnxruntime-cpp"), picture, Path(place))
    assert max(check_kits["largest_difference"](ours, theirs)) <= 0.51e-4


def test_the_web_prints_the_boxes_of_predict(toy, check_kits, picture, capsys):
    """RTDETR_NODE_MODULES: made by `npm install onnxruntime-web sharp`."""
    place = os.environ.get("RTDETR_NODE_MODULES")
    if not place or shutil.which("node") is None:
        pytest.skip("needs Node, and onnxruntime-web and sharp in RTDETR_NODE_MODULES")
    ours = predicted(toy, picture, capsys)
    kit = write(toy, "onnxruntime-web")
    (kit / "node_modules").symlink_to(place)
    theirs = check_kits["run_node"](kit, picture)
    assert max(check_kits["largest_difference"](ours, theirs)) <= 0.51e-4


def test_hostile_names_stay_texts_in_json(hostile):
    for kit in ("onnxruntime-python", "onnxruntime-web", "triton"):
        text = (write(hostile, kit) / "model.json").read_text("ascii")
        assert json.loads(text)["names"] == SHOWN


def test_hostile_names_stay_texts_in_cpp(hostile, tmp_path):
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
    assert lines.splitlines() == [*SHOWN, "64 32 0"]


def test_hostile_names_stay_lines_in_deepstream(raw):
    labels = (write(raw, "deepstream") / "labels.txt").read_text("utf-8")
    expected = [*SHOWN]
    expected[3], expected[7], expected[8] = "semi,colon", "7", "txt.exe"
    assert labels == "".join(f"{name}\n" for name in expected)


def test_tritons_configuration_is_one_by_its_schema(toy):
    config = text_format.Parse(
        (write(toy, "triton") / "toy_model" / "config.pbtxt").read_text(), triton_schema()
    )
    assert (config.name, config.platform) == ("toy_model", "onnxruntime_onnx")
    assert (config.backend, config.default_model_filename) == ("onnxruntime", "model.onnx")
    assert config.max_batch_size == 8
    fields = {
        one.name: (one.DESCRIPTOR.fields_by_name["data_type"], one.data_type, list(one.dims))
        for one in (*config.input, *config.output)
    }
    kinds = {
        name: (kind.enum_type.values_by_number[number].name, dims)
        for name, (kind, number, dims) in fields.items()
    }
    assert kinds == {
        "images": ("TYPE_FP32", [3, 32, 64]),
        "orig_target_sizes": ("TYPE_INT64", [2]),
        "labels": ("TYPE_INT64", [1]),
        "boxes": ("TYPE_FP32", [1, 4]),
        "scores": ("TYPE_FP32", [1]),
    }


def triton_schema() -> Any:
    """An empty ModelConfig of the server's protocol; the package needs gRPC, this file does not."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or package.origin is None:
        pytest.skip("tritonclient has the schema")
    place = Path(package.origin).parent / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", place)
    module = sys.modules.get("model_config_pb2") or importlib.util.module_from_spec(spec)
    if "model_config_pb2" not in sys.modules:
        sys.modules["model_config_pb2"] = module
        spec.loader.exec_module(module)
    return module.ModelConfig()


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


def test_deepstreams_keys_are_documented_and_say_what_is_fed(raw):
    kit = write(raw, "deepstream")
    config = configparser.ConfigParser(strict=True, interpolation=None)
    config.optionxform = str
    config.read(kit / "config_infer_primary.txt", encoding="utf-8")
    assert set(config.sections()) == DOCUMENTED.keys()
    for section, known in DOCUMENTED.items():
        assert set(config[section]) <= set(known), section
    found = config["property"]
    assert (found["onnx-file"], found["infer-dims"]) == ("model.onnx", "3;32;64")
    assert (found["num-detected-classes"], found["batch-size"]) == ("9", "8")
    assert float(found["net-scale-factor"]) == pytest.approx(1 / 255, rel=1e-6)
    assert (found["maintain-aspect-ratio"], found["model-color-format"]) == ("0", "0")
    assert found["output-blob-names"] == "logits;boxes"
    for key in ("onnx-file", "labelfile-path"):
        assert (kit / found[key]).is_file()
    source = (kit / "nvdsinfer_rtdetr.cpp").read_text()
    assert f"bool {found['parse-bbox-func-name']}(" in source
    assert f"\n{found['custom-lib-path']}:" in (kit / "Makefile").read_text()


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
    expected = expected.keep((expected.scores >= 0.5).nonzero()[:, 0])
    assert len(found) == len(expected) > 4
    assert [row[0] for row in found] == expected.labels.tolist()
    torch.testing.assert_close(
        torch.tensor([row[1] for row in found]), expected.scores, atol=1e-5, rtol=0
    )
    clipped = expected.boxes_xyxy.clamp(min=0).minimum(torch.tensor([64.0, 32, 64, 32]))
    torch.testing.assert_close(torch.tensor([row[2:] for row in found]), clipped, atol=1e-4, rtol=0)


def test_an_engine_goes_with_triton(tensorrt, fake_tensorrt, tmp_path):
    tensorrt()
    toy = fake_tensorrt["save_toy"](tmp_path / "toy model.onnx", verdict="passed", num_queries=5)
    assert run(["export", f"model={toy}", "format=engine", "batch=4", "kit=triton"]) == 0
    folder = toy.with_name("toy model_triton") / "toy_model"
    assert (folder / "1" / "model.plan").read_bytes() == toy.with_suffix(".engine").read_bytes()
    text = (folder / "config.pbtxt").read_text()
    assert 'platform: "tensorrt_plan"' in text
    assert "max_batch_size: 4" in text
    shutil.rmtree(folder.parent)
    assert run(["export", f"model={toy.with_suffix('.engine')}", "kit=triton"]) == 0
    assert (folder / "config.pbtxt").read_text() == text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model=x.pt", "kit=tritn"], "kit must be one of triton, deepstream, onnxruntime-cpp"),
        (["model=x.pt", "format=engine", "kit=onnxruntime-web"], "kit=onnxruntime-web takes ONNX"),
        (["model=x.engine", "kit=onnxruntime-cpp"], "an engine goes with kit=triton"),
        (
            ["model=x.onnx", "kit=triton", "imgsz=64"],
            "imgsz has no effect: kit=triton takes x.onnx",
        ),
        (["model=x.onnx", "kit=triton", "verify=false"], "verify has no effect: kit=triton takes"),
        (["model=x.engine"], "is an exported file; give the weights"),
        (["model=x.engine", "kit=deepstream"], "kit=deepstream takes ONNX files"),
        (["model=x.pt", "kit=triton", "input=uint8"], "feeds float32; leave input=uint8 away"),
        (["model=x.pt", "kit=triton", "batch=4"], "needs a free batch; leave batch away"),
        (["model=x.pt", "kit=triton", "postprocess=false"], "leave postprocess=false away"),
        (["model=x.pt", "kit=deepstream"], "kit=deepstream needs postprocess=false"),
    ],
)
def test_keys_that_do_not_go_together(words, sentence, capsys):
    assert run(["export", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_file_with_other_inputs_and_outputs_gets_no_kit(
    fake_tensorrt, toy, raw, tmp_path, capsys
):
    assert run(["export", f"model={toy}", "kit=deepstream"]) == 2
    error = capsys.readouterr().err
    needed = "images tensor(float) -> logits tensor(float), boxes tensor(float)"
    assert f"kit=deepstream needs a file {needed}, and toy model.onnx is images" in error
    assert "export with postprocess=false" in error
    assert run(["export", f"model={raw}", "kit=onnxruntime-cpp"]) == 2
    assert f"and raw.onnx is {needed}" in capsys.readouterr().err
    foreign = tmp_path / "yolo.onnx"
    text = """<ir_version: 8, opset_import: ["" : 17]>
        yolo (float[N,3,64,64] images) => (float[1,84,84] output0) {
          sides = Constant<value = int64[3] {1, 84, 84}>()
          mean = ReduceMean<axes = [1, 2, 3], keepdims = 0>(images)
          output0 = Expand(mean, sides)
        }"""
    onnx.save(parser.parse_model(text), foreign)
    assert run(["export", f"model={foreign}", "kit=triton"]) == 4
    onnx.save(parser.parse_model(fake_tensorrt["TOY"].replace("float[N", "float[4")), foreign)
    assert run(["export", f"model={foreign}", "kit=triton"]) == 2
    assert "yolo.onnx has a fixed batch" in capsys.readouterr().err
    assert not list(tmp_path.glob("*_*"))


@pytest.mark.parametrize(
    "notes",
    [
        {"names": {"1000000000000": "far"}},
        {"names": {"0": "a", "2": "c"}},
        {"names": {}},
        {"names": ["a", "b"]},
        {"preprocessing": {"size_hw": "32"}},
        {"preprocessing": {"antialias": True}},
    ],
)
def test_damaged_notes_are_one_sentence(fake_tensorrt, tmp_path, notes, capsys):
    toy = fake_tensorrt["save_toy"](tmp_path / "toy.onnx", **notes)
    assert run(["export", f"model={toy}", "kit=triton"]) == 4
    assert "toy.onnx has damaged metadata" in capsys.readouterr().err
    toy.write_bytes(b"no graph")
    assert run(["export", f"model={toy}", "kit=triton"]) == 4
    assert "cannot be opened as ONNX" in capsys.readouterr().err


def test_an_engine_of_others_gets_no_kit(tmp_path, capsys):
    (tmp_path / "x.engine").write_bytes(b"plan")
    assert run(["export", f"model={tmp_path / 'x.engine'}", "kit=triton"]) == 5
    assert "x.engine has no notes" in capsys.readouterr().err


def test_a_file_of_the_official_repository_gets_a_kit(fake_tensorrt, tmp_path):
    """It has no notes: its shapes tell the size, and COCO's names are taken."""
    path = tmp_path / "official.onnx"
    onnx.save(parser.parse_model(fake_tensorrt["TOY"]), path)
    facts = json.loads((write(path, "onnxruntime-python") / "model.json").read_text())
    assert (facts["width"], facts["height"], facts["antialias"]) == (64, 32, True)
    assert (len(facts["names"]), facts["names"][5]) == (80, "bus")
