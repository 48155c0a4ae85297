"""Faults planted into the int8 form of a trained network, and the verdict on each."""

from __future__ import annotations

import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization.calibrate import CalibrationDataReader, MinMaxCalibrater
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.onnx.calibration import Observer
from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.onnx.int8 import plan, quantize
from rtdetr_cli.backends.onnx.writer import write_onnx
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.core.image import Pixels, read_image, resize_image, to_tensor
from rtdetr_cli.engine.exporting.images import Images, find_calibration, find_images
from rtdetr_cli.engine.exporting.verdict import LIMITS, Agreement, Predictions, judge, run_detector

PERCENTILE = 99.9
pytestmark = pytest.mark.slow


@dataclass
class Trained:
    """A float file, its images and PyTorch's detections on them."""

    path: Path
    detector: TorchDetector
    train: list[Pixels]
    images: Images
    expected: Predictions

    @property
    def model(self) -> onnx.ModelProto:
        return onnx.load(self.path)

    def ranges(self, images: list[Pixels]) -> dict[str, float]:
        observer = Observer(self.path, plan(self.model.graph).readers)
        run_detector(observer, Images(images), self.detector.preprocessing)
        return {name: one.percentile(PERCENTILE) for name, one in observer.histograms.items()}

    def judge(self, model: onnx.ModelProto) -> Agreement:
        path = self.path.with_name("tried.onnx")
        onnx.save(model, path)
        found = run_detector(OnnxDetector(path, "cpu"), self.images, self.detector.preprocessing)
        return judge(self.expected, found, LIMITS["int8"])


@pytest.fixture(scope="module")
def trained(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("int8")
    data = shutil.copytree(shared_data / "bccd", folder / "bccd") / "data.yaml"
    detector = load_detector(str(shared_data / "weights" / "ultralytics_n_bccd.pt"), "cpu")
    assert isinstance(detector, TorchDetector)
    path = folder / "float.onnx"
    write_onnx(path, detector.network, detector.names, detector.preprocessing)
    images = find_images(str(data), 16)
    paths = find_calibration(str(data), images).sources[::8]
    train = [read_image(one) for one in paths if isinstance(one, Path)]
    expected = run_detector(detector, images, detector.preprocessing)
    return Trained(path, detector, train, images, expected)


@pytest.fixture(scope="module")
def right(trained: Trained) -> onnx.ModelProto:
    return quantize(trained.model, trained.ranges(trained.train))


def test_the_right_form_passes(trained, right):
    agreement = trained.judge(right)
    assert agreement.faults == []
    assert agreement.matched < 0.99  # not a float file


def test_exchanged_corners_are_caught(trained, right):
    model = onnx.ModelProto.FromString(right.SerializeToString())
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name == "boxes":
                node.output[place] = "straight"
    order = numpy_helper.from_array(np.array([1, 0, 3, 2]), "order")
    model.graph.initializer.append(order)
    model.graph.node.append(
        onnx.helper.make_node("Gather", ["straight", "order"], ["boxes"], axis=2)
    )
    assert not trained.judge(model).passes


def test_a_decoder_in_8_bits_is_caught(trained):
    """As written by a quantizer that does not exclude the decoder."""
    model, path = trained.model, trained.path
    calibrator = MinMaxCalibrater(path, augmented_model_path=str(path.with_name("more.onnx")))
    calibrator.augment_graph()
    calibrator.create_inference_session()
    size_hw = trained.detector.preprocessing.size_hw
    with redirect_stdout(None):
        for pixels in trained.train[:8]:
            image = to_tensor(resize_image(pixels, size_hw, antialias=False))[None].numpy()
            calibrator.collect_data(
                One({"images": image, "orig_target_sizes": np.array([size_hw])})
            )
    kinds = ["Gemm", "MatMul", "Conv", "Add", "Sub", "Mul", "Sigmoid", "LayerNormalization"]
    nodes = [node.name for node in model.graph.node if node.name.startswith("decoder/")]
    quantizer = QDQQuantizer(
        save_and_reload_model_with_shape_infer(model),
        True,
        False,
        TensorProto.INT8,
        TensorProto.INT8,
        calibrator.compute_data(),
        nodes,
        [],
        kinds,
        {"ActivationSymmetric": True},
    )
    wrong = quantizer.quantize_model()
    for entry in list(wrong.metadata_props):
        if entry.key == "onnx.infer":  # written by ONNX Runtime, not JSON
            wrong.metadata_props.remove(entry)
    agreement = trained.judge(wrong)
    assert [fault for fault in agreement.faults if fault.startswith("median box shift")]
    assert agreement.matched < 0.9


class One(CalibrationDataReader):
    def __init__(self, feed: dict[str, np.ndarray]) -> None:
        self.feeds = [feed]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.feeds.pop() if self.feeds else None


def test_ranges_of_black_images_are_caught(trained):
    dark = [np.zeros_like(image) for image in trained.train[:2]]
    assert not trained.judge(quantize(trained.model, trained.ranges(dark))).passes


@pytest.mark.parametrize("fault", ["letterboxed", "blue first"])
def test_calibration_on_wrongly_prepared_images_only_adds_drift(trained, right, fault):
    """The ranges are slightly off: no detection is lost, boxes drift a little more."""
    wrong = [letterbox(one) if fault == "letterboxed" else one[..., ::-1] for one in trained.train]
    wrong = [np.ascontiguousarray(one) for one in wrong]
    agreement = trained.judge(quantize(trained.model, trained.ranges(wrong)))
    assert 0.8 < agreement.matched < trained.judge(right).matched
    assert agreement.lost + agreement.new < 0.05 * agreement.detections


def letterbox(image: Pixels) -> Pixels:
    """The image in a gray square."""
    height, width = image.shape[:2]
    square = np.full((max(height, width),) * 2 + (3,), 114, np.uint8)
    square[:height, :width] = image
    return square
