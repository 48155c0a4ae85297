"""ONNX files through the detector: third-party files and variants of ours, written as text."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import parser
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtdetr_cli.backends.load import load_detector, preprocessing_for
from rtdetr_cli.backends.onnx.detector import OnnxDetector, UnchangedDetector
from rtdetr_cli.cli.main import run
from rtdetr_cli.core.errors import BackendError, UsageError, WeightsError
from rtdetr_cli.core.image import read_image, resize_image, to_tensor


def save(path: Path, text: str, batch: object = "N", **metadata: str) -> Path:
    model = parser.parse_model(text.replace("[N,", f"[{batch},"))
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


@pytest.fixture
def toy(tmp_path: Path, toy_graph: str) -> Path:
    return save(tmp_path / "toy.onnx", toy_graph)


def gray(*percents: int) -> torch.Tensor:
    return torch.stack([torch.full((3, 32, 64), percent / 100) for percent in percents])


def test_a_third_party_file_has_the_size_of_its_graph_and_the_names_of_coco(toy):
    detector = load_detector(str(toy), device="cpu")
    assert detector.preprocessing.size_hw == (32, 64)
    assert detector.preprocessing.antialias  # as in the official code
    assert len(detector.names) == 80
    assert detector.names[5] == "bus"
    assert "CPU" in detector.description
    assert onnxruntime.__version__ in detector.description


@pytest.mark.parametrize("kind", [OnnxDetector, UnchangedDetector])
def test_copies_and_pickles_open_the_file_again(toy, kind, monkeypatch):
    monkeypatch.chdir(toy.parent)
    detector = kind(Path(toy.name), "cpu", timeout=60)
    monkeypatch.chdir("/")  # where a relative path is another file
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        assert type(other) is kind
        assert other.description == detector.description
        assert other.detect(gray(30), [(4, 5)])[0].labels.tolist() == [30]
    toy.unlink()
    with pytest.raises(WeightsError, match=r"toy\.onnx"):
        copy.copy(detector)


@pytest.mark.parametrize("batch", ["N", 1, 2, 7])
def test_a_fixed_batch_is_split_and_padded(toy_graph, tmp_path, batch):
    detector = OnnxDetector(save(tmp_path / "toy.onnx", toy_graph, batch), "cpu")
    sizes_hw = [(10 * n, n) for n in range(1, 6)]
    found = detector.detect(gray(11, 22, 33, 44, 55), sizes_hw)
    assert [one.labels.tolist() for one in found] == [[11], [22], [33], [44], [55]]
    assert [one.boxes_xyxy[0].tolist() for one in found] == [
        [width, height, width, height] for height, width in sizes_hw
    ]
    assert found[2].scores.tolist() == pytest.approx([0.33], abs=1e-5)


def test_max_det_and_no_images(toy):
    detector = OnnxDetector(toy, "cpu")
    assert len(detector.detect(gray(3), [(1, 1)], max_det=0)[0]) == 0
    assert detector.detect(gray(3)[:0], []) == []


def test_speed_settings_are_rejected_for_a_file(toy):
    with pytest.raises(UsageError, match="fixed inside"):
        load_detector(str(toy), decoder_layers=2)


def test_a_class_without_a_name_is_dropped_with_one_warning(toy, capsys):
    detector = OnnxDetector(toy, "cpu")
    for _ in range(2):
        found = detector.detect(gray(1, 99), [(1, 1)] * 2)
        assert [one.labels.tolist() for one in found] == [[1], []]
    assert capsys.readouterr().err == (
        "Warning: toy.onnx returned class 99: COCO's (the file has none) end at 79; "
        "such detections are dropped\n"
    )


def test_class_names_of_third_party_files_and_our_notes_are_read(tmp_path, toy_graph):
    theirs = OnnxDetector(save(tmp_path / "theirs.onnx", toy_graph, names="{0: 'cell'}"), "cpu")
    assert (theirs.names, theirs.notes) == ({0: "cell"}, None)
    assert "class names: from the file" in theirs.description
    notes = {"names": json.dumps({"0": "bléu"}), "preprocessing": '{"antialias": false}'}
    ours = OnnxDetector(save(tmp_path / "ours.onnx", toy_graph, rtdetr_format="1", **notes), "cpu")
    assert ours.names == {0: "bléu"}
    assert not ours.preprocessing.antialias
    with pytest.raises(WeightsError, match="format version 2; this rtdetr reads 1"):
        OnnxDetector(save(tmp_path / "later.onnx", toy_graph, rtdetr_format="2"), "cpu")
    with pytest.raises(WeightsError, match="damaged metadata"):
        OnnxDetector(save(tmp_path / "bad.onnx", toy_graph, rtdetr_format="1", names="{"), "cpu")


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("labels", "output0", r"output0 tensor\(int64\)"),
        ("int64[N,2] orig_target_sizes", "int32[N,2] orig_target_sizes", "int32"),
        ("float[N,3,32,64]", "float[N,3,H,W]", r"\['N', 3, 'H', 'W'\]"),
    ],
)
def test_an_unknown_contract_is_rejected_with_its_inputs(toy_graph, tmp_path, before, after, found):
    path = save(tmp_path / "other.onnx", toy_graph.replace(before, after))
    with pytest.raises(WeightsError, match=found) as caught:
        OnnxDetector(path, "cpu")
    assert "other.onnx has inputs images tensor(float)" in str(caught.value)
    assert "supported are the official export" in str(caught.value)


def test_a_file_that_is_not_onnx_is_one_sentence(tmp_path):
    path = tmp_path / "noise.onnx"
    path.write_bytes(b"no model at all")
    with pytest.raises(WeightsError, match=r"noise\.onnx cannot be opened as ONNX") as caught:
        OnnxDetector(path, "cpu")
    assert "\n" not in str(caught.value)


def test_an_image_of_another_size_is_one_sentence(toy):
    with pytest.raises(BackendError, match=r"toy\.onnx failed on 1 image"):
        OnnxDetector(toy, "cpu").detect(torch.zeros(1, 3, 64, 64), [(1, 1)])


def test_a_missing_package_is_reported_with_the_pip_command(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r'pip install "rtdetr-cli\[onnx\]"'):
        OnnxDetector(toy, "cpu")


def test_conflicting_packages_of_onnx_runtime_are_reported(toy, tmp_path, monkeypatch, capsys):
    OnnxDetector(toy, "cpu")
    assert capsys.readouterr().err == ""
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / f"{name}-1.30.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: {name.replace('_', '-')}\nVersion: 1.30\n")
    monkeypatch.syspath_prepend(tmp_path)
    OnnxDetector(toy, "cpu")
    assert "onnxruntime and onnxruntime-gpu overwrite each other" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_missing_device_is_rejected(toy):
    with pytest.raises(BackendError, match="device=0 is not available"):
        OnnxDetector(toy, "0")


VARIANT = """<ir_version: 8, opset_import: ["" : 17]>
variant (uint8[N,H,W,3] images, int64[N,2] orig_target_sizes)
    => (int64[N,1] labels, float[N,1,4] boxes, float[N,1] scores) {
  one = Constant<value = int64[1] {1}>()
  pixels = Cast<to = 1>(images)
  mean = ReduceMean<axes = [1, 2, 3], keepdims = 0>(pixels)
  row = Unsqueeze(mean, one)
  scores = Sigmoid(row)
  labels = Cast<to = 7>(row)
  sizes = Cast<to = 1>(orig_target_sizes)
  corners = Concat<axis = 1>(sizes, sizes)
  boxes = Unsqueeze(corners, one)
}"""
RAW = """<ir_version: 8, opset_import: ["" : 17]>
raw (float[N,3,64,64] images) => (float[N,1,2] logits, float[N,1,4] boxes) {
  one = Constant<value = int64[1] {1}>()
  zero = Constant<value = int64[1] {0}>()
  mean = ReduceMean<axes = [1, 2, 3], keepdims = 0>(images)
  row = Unsqueeze(mean, one)
  minus = Neg(row)
  pair = Concat<axis = 1>(row, minus)
  logits = Unsqueeze(pair, one)
  wide = Concat<axis = 1>(row, row, row, row)
  boxes = Unsqueeze(wide, one)
}"""
OURS = {"rtdetr_format": "1", "preprocessing": '{"size_hw": [96, 64], "antialias": false}'}


def test_our_variant_with_uint8_and_free_sides_opens(tmp_path):
    detector = OnnxDetector(save(tmp_path / "x.onnx", VARIANT, **OURS), "cpu")
    assert (detector.size_is_free, detector.preprocessing.size_hw) == (True, (96, 64))
    assert preprocessing_for(detector, (32, 64)).size_hw == (32, 64)
    images = torch.full((2, 3, 32, 64), 7.4 / 255)
    images[1] = 21.6 / 255  # rounded, not cut off
    found = detector.detect(images, [(5, 6), (7, 8)])
    assert [one.labels.tolist() for one in found] == [[7], [22]]
    assert found[1].boxes_xyxy.tolist() == [[8, 7, 8, 7]]


def test_imgsz_selects_the_size_of_a_file_with_free_sides(toy, tmp_path, capsys):
    names = json.dumps({str(n): str(n) for n in range(256)})
    model = save(tmp_path / "x.onnx", VARIANT, names=names, **OURS)
    Image.new("RGB", (50, 40), (30, 30, 30)).save(tmp_path / "gray.png")
    words = [f"model={model}", f"source={tmp_path}/gray.png", "save=false", "imgsz=32,96"]
    assert run(["predict", *words, "device=cpu"]) == 0
    assert "1 30" in capsys.readouterr().out  # one object of class 30
    assert run(["predict", f"model={toy}", *words[1:]]) == 2
    assert "takes 32x64 only" in capsys.readouterr().err


def test_our_variant_without_postprocessing_opens(tmp_path):
    notes = {**OURS, "names": '{"0": "a", "1": "b"}'}
    detector = OnnxDetector(save(tmp_path / "x.onnx", RAW, **notes), "cpu")
    assert (detector.size_is_free, detector.preprocessing.size_hw) == (False, (64, 64))
    found = detector.detect(torch.full((1, 3, 64, 64), 0.5), [(100, 200)])[0]
    assert found.labels.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.622459, 0.377541], abs=1e-5)  # of 0.5, -0.5
    assert found.boxes_xyxy[0].tolist() == pytest.approx([50, 25, 150, 75])


@pytest.mark.parametrize("text", [VARIANT, RAW])
def test_our_variants_need_our_metadata(tmp_path, text):
    with pytest.raises(WeightsError, match="supported are"):
        OnnxDetector(save(tmp_path / "x.onnx", text), "cpu")


def test_a_trained_third_party_file_finds_the_bus(shared_data):
    detector = OnnxDetector(shared_data / "weights" / "deimv2_hgnetv2_atto_coco.onnx", "cpu")
    assert detector.preprocessing.size_hw == (320, 320)
    pixels = read_image(shared_data / "media" / "bus.jpg")
    image = to_tensor(resize_image(pixels, (320, 320), antialias=True))
    found = detector.detect(image[None], [pixels.shape[:2]])[0]
    sure = found.keep(found.scores > 0.5)
    assert sorted(detector.names[label] for label in sure.labels.tolist()) == [
        "bus",
        *["person"] * 4,
    ]
    bus = sure.boxes_xyxy[sure.labels == 5][0]
    assert bus.tolist() == pytest.approx([20, 230, 805, 745], abs=25)  # seen on the image


@pytest.mark.slow
def test_val_of_a_third_party_file_equals_a_reference_by_hand(shared_data, capsys):
    model = shared_data / "weights" / "deimv2_hgnetv2_atto_coco.onnx"
    annotations = shared_data / "coco128" / "annotations" / "instances_train2017.json"
    words = [f"model={model}", f"data={annotations}", "workers=0", "plots=false", "json"]
    assert run(["val", *words]) == 0
    stats = json.loads(capsys.readouterr().out)["stats"]

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    truth = COCO(str(annotations))
    categories, rows = sorted(truth.cats), []
    for image_id, entry in truth.imgs.items():
        path = shared_data / "coco128" / "images" / "train2017" / entry["file_name"]
        image = Image.open(path).convert("RGB")
        pixels = np.asarray(image.resize((320, 320), Image.Resampling.BILINEAR), np.float32)
        feed = {
            "images": pixels.transpose(2, 0, 1)[None] / 255,
            "orig_target_sizes": np.array([image.size]),
        }
        for label, box, score in zip(*(a[0] for a in session.run(None, feed)), strict=True):
            x0, y0, x1, y1 = box.tolist()
            place = {"image_id": image_id, "category_id": categories[label]}
            rows.append({**place, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": float(score)})
    oracle = COCOeval(truth, truth.loadRes(rows), "bbox")
    oracle.evaluate()
    oracle.accumulate()
    oracle.summarize()
    assert list(stats.values()) == pytest.approx(list(oracle.stats), abs=1e-3)
    assert stats["AP"] == pytest.approx(0.315, abs=0.001)  # both, when this was written
