"""Deployment kits: content of the folders, refused files, configurations against schemas."""

from __future__ import annotations

import configparser
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format
from onnx import parser

from rtdetr_cli.cli.main import run
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.export import KITS
from rtdetr_cli.core.files import asset_dir
from rtdetr_cli.engine.exporting import onnx as onnx_export
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[3]

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

"""Class names come from untrusted files."""

SHOWN = [
    'a "quote" \\',
    r"two\nlines\t\x1b[31m",
    "Straße 犬",
    "semi;colon",
    "</script><b>",
    "%s ??/ ??'",
    "@WIDTH@ $(id) `id`",
    "",
    r"\u202etxt.exe",
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

"""Keys of Gst-nvinfer that a detector may have (from a public copy of its property parser)."""


@pytest.fixture
def toy(fake_tensorrt: dict[str, Any], tmp_path: Path) -> Path:
    """The class is the mean of the image in percent: 101 classes."""
    return fake_tensorrt["save_toy"](tmp_path / "toy model.onnx", verdict="passed")


@pytest.fixture
def hostile(fake_tensorrt: dict[str, Any], tmp_path: Path) -> Path:
    names = {str(index): name for index, name in enumerate(NAMES)}
    return fake_tensorrt["save_toy"](tmp_path / "toy.onnx", names=names)


@pytest.fixture
def raw(fake_tensorrt: dict[str, Any], tmp_path: Path) -> Path:
    names = {str(index): name for index, name in enumerate(NAMES)}
    return fake_tensorrt["save_toy"](tmp_path / "raw.onnx", RAW, names=names)


def write(model: Path, kit: str) -> Path:
    assert run(["export", f"model={model}", f"kit={kit}"]) == 0
    return model.with_name(f"{model.stem}_{kit.replace('-', '_')}")


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
def test_a_kit_is_complete_and_substituted(toy, kit, files, capsys):
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


def test_exporting_weights_with_kit_writes_both(
    fake_tensorrt, tiny_config, tmp_path, monkeypatch, capsys
):
    weights = RTDETRNetwork(tiny_config, 1).state_dict()
    checkpoint = Checkpoint(tiny_config, {0: "a"}, weights, Preprocessing((32, 64), False))
    save_checkpoint(tmp_path / "best.pt", checkpoint)
    write_toy = fake_tensorrt["save_toy"]
    monkeypatch.setattr(onnx_export, "write_onnx", lambda path, *_: len(write_toy(path).name))
    words = [f"model={tmp_path / 'best.pt'}", "verify=false", "kit=onnxruntime-web", "json"]
    assert run(["export", *words]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["path"].endswith("best.onnx")
    assert "best.onnx itself was not compared with PyTorch" in printed.err
    copied = tmp_path / "best_onnxruntime_web" / "model.onnx"
    assert copied.read_bytes() == (tmp_path / "best.onnx").read_bytes()


def test_a_kit_is_rewritten_but_never_over_other_files(toy, capsys):
    folder = write(toy, "triton")
    (folder / "toy_model" / "config.pbtxt").write_text("older")
    assert "older" not in (write(toy, "triton") / "toy_model" / "config.pbtxt").read_text()
    (folder / "toy_model" / "2").mkdir()
    (folder / "toy_model" / "2" / "model.onnx").write_text("mine")
    assert run(["export", f"model={toy}", "kit=triton"]) == 5
    assert "it holds other files (toy_model/2/model.onnx)" in capsys.readouterr().err
    assert (folder / "toy_model" / "2" / "model.onnx").read_text() == "mine"


def test_hostile_names_stay_strings_in_json(hostile):
    for kit in ("onnxruntime-python", "onnxruntime-web", "triton"):
        text = (write(hostile, kit) / "model.json").read_text("ascii")
        assert json.loads(text)["names"] == SHOWN


def test_hostile_names_stay_lines_in_deepstream(raw):
    labels = (write(raw, "deepstream") / "labels.txt").read_text("utf-8")
    expected = [*SHOWN]
    expected[3], expected[7] = "semi,colon", "7"
    assert labels == "".join(f"{name}\n" for name in expected)


def test_the_triton_configuration_matches_its_schema(toy):
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


def test_deepstream_keys_are_documented_and_match_the_input(raw):
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
        (["model=x.engine", "kit=onnxruntime-cpp"], "for an engine give kit=triton"),
        (
            ["model=x.onnx", "kit=triton", "imgsz=64"],
            "imgsz has no effect: kit=triton uses x.onnx",
        ),
        (["model=x.onnx", "kit=triton", "verify=false"], "verify has no effect: kit=triton uses"),
        (["model=x.engine"], "is an exported file; give the weights"),
        (["model=x.engine", "kit=deepstream"], "kit=deepstream takes ONNX files"),
        (["model=x.pt", "kit=triton", "input=uint8"], "feeds float32; remove input=uint8"),
        (["model=x.pt", "kit=triton", "batch=4"], "needs a dynamic batch size; remove batch"),
        (["model=x.pt", "kit=triton", "postprocess=false"], "remove postprocess=false"),
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
    assert f"kit=deepstream needs a file {needed}; toy model.onnx is images" in error
    assert "export with postprocess=false" in error
    assert run(["export", f"model={raw}", "kit=onnxruntime-cpp"]) == 2
    assert f"; raw.onnx is {needed}" in capsys.readouterr().err
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
    is_missing = "size_hw" not in notes.get("preprocessing", ["size_hw"])
    reason = "no preprocessing.size_hw in its metadata" if is_missing else "damaged metadata"
    assert f"toy.onnx has {reason}" in capsys.readouterr().err
    toy.write_bytes(b"no graph")
    assert run(["export", f"model={toy}", "kit=triton"]) == 4
    assert "cannot be opened as ONNX" in capsys.readouterr().err


def test_a_third_party_engine_gets_no_kit(tmp_path, capsys):
    (tmp_path / "x.engine").write_bytes(b"plan")
    assert run(["export", f"model={tmp_path / 'x.engine'}", "kit=triton"]) == 5
    assert "x.engine has no notes" in capsys.readouterr().err


def test_a_file_of_the_official_repository_gets_a_kit(fake_tensorrt, tmp_path):
    """It has no notes: the size comes from its shapes, the names from COCO."""
    path = tmp_path / "official.onnx"
    onnx.save(parser.parse_model(fake_tensorrt["TOY"]), path)
    facts = json.loads((write(path, "onnxruntime-python") / "model.json").read_text())
    assert (facts["width"], facts["height"], facts["antialias"]) == (64, 32, True)
    assert (len(facts["names"]), facts["names"][5]) == (80, "bus")
