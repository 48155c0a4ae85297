"""half=true through the real command, on a trained network that is traced once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.onnx import half
from rtdetr_cli.backends.onnx.detector import OnnxDetector
from rtdetr_cli.backends.tensorrt.rules import find_faults
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.exporting import onnx as onnx_export
from rtdetr_cli.engine.exporting.request import output_path


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"format": "engine", "tf32": False}, "tf32 has no effect with half=true"),
        ({"format": "engine", "model": "best.onnx"}, r"half is fixed inside best\.onnx"),
    ],
)
def test_keys_without_effect_are_refused(keys, sentence):
    with pytest.raises(UsageError, match=sentence):
        ExportSettings(half=True, **keys)


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"model": "rtdetr-n.yaml"}, "rtdetr-n_half.onnx"),
        ({"model": "rtdetr-n.yaml", "format": "engine"}, "rtdetr-n_half.engine"),
        ({"model": "rtdetr-n.yaml", "output": "my.onnx"}, "my.onnx"),
    ],
)
def test_the_name_contains_half(keys, name):
    assert output_path(ExportSettings(half=True, **keys)) == Path(name)


@pytest.fixture(scope="module")
def exact(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float32 file of the trained network, beside its weights."""
    weights = tmp_path_factory.mktemp("half") / "best.pt"
    shutil.copy(shared_data / "weights" / "ultralytics_n_bccd.pt", weights)
    assert run(["export", f"model={weights}", "imgsz=320", "verify=false"]) == 0
    return weights.with_suffix(".onnx")


@pytest.fixture
def command(exact: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs `rtdetr export half=true` without tracing again; `spoil` changes the float32 graph."""

    def call(spoil: Callable[[onnx.GraphProto], None] = lambda graph: None) -> tuple[int, Path]:
        def write(path: Path, *_: object) -> int:
            model = onnx.load(exact)
            spoil(model.graph)
            onnx.save(model, path)
            return len(model.graph.node)

        monkeypatch.setattr(onnx_export, "write_onnx", write)
        data, output = shared_data / "bccd" / "data.yaml", tmp_path / "best_half.onnx"
        words = [f"model={exact.with_suffix('.pt')}", f"data={data}", f"output={output}"]
        return run(["export", *words, "imgsz=320", "half"]), output

    return call


@pytest.mark.slow
def test_a_trained_network_passes_and_reports_its_largest_float16(command, exact, capsys):
    code, path = command()
    assert code == 0
    report = json.loads(path.with_suffix(".report.json").read_text())
    assert (report["precision"], report["verdict"], report["overflows"]) == ("fp16", "passed", [])
    assert 100 < report["largest_float16"]["value"] < 5000
    assert "of 65504, in " in capsys.readouterr().out
    agreement = report["agreement"]
    assert agreement["ap"] == pytest.approx([0.4906, 0.4906], abs=0.003)
    assert agreement["box_drift_px"]["median"] < 0.08
    assert agreement["limits"]["score"] == 0.02
    assert path.stat().st_size < 0.52 * exact.stat().st_size
    assert find_faults(onnx.load(path)) == []
    detector = load_detector(str(path), "cpu")
    assert isinstance(detector, OnnxDetector)
    assert detector.notes.precision == "fp16"
    assert detector.names == load_detector(str(exact), "cpu").names


def exchange(graph: onnx.GraphProto, name: str, order: list[int], axis: int) -> None:
    """Reorder the slices of an input or output along an axis."""
    graph.initializer.append(numpy_helper.from_array(np.array(order), "order"))
    is_input = name in {value.name for value in graph.input}
    for node in graph.node:
        names = node.input if is_input else node.output
        for place, used in enumerate(names):
            if used == name:
                names[place] = "inner"
    ends = ([name], ["inner"]) if is_input else (["inner"], [name])
    node = helper.make_node("Gather", [*ends[0], "order"], ends[1], axis=axis)
    graph.node.insert(0 if is_input else len(graph.node), node)


def letterbox(graph: onnx.GraphProto) -> None:
    """Shrink the height to three quarters and fill up with gray."""
    rows = np.clip(np.arange(320) - 40, 0, 239) * 4 // 3
    exchange(graph, "images", rows.tolist(), axis=2)
    gray = np.zeros((1, 1, 320, 1), bool)
    gray[:, :, :40] = gray[:, :, 280:] = True
    for name, value in {"bars": gray, "gray": np.array(114 / 255, np.float32)}.items():
        graph.initializer.append(numpy_helper.from_array(value, name))
    graph.node[0].output[0] = "shrunk"
    graph.node.insert(1, helper.make_node("Where", ["bars", "gray", "shrunk"], ["inner"]))


FAULTS = {
    "blue before red": lambda graph: exchange(graph, "images", [2, 1, 0], axis=1),
    "letterboxed": letterbox,
    "x and y swapped": lambda graph: exchange(graph, "boxes", [1, 0, 3, 2], axis=2),
    "scores of other rows": lambda graph: exchange(graph, "scores", [*range(150, 300)] * 2, axis=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(command, capsys, fault):
    code, path = command(FAULTS[fault])
    assert code == 5
    assert "outputs differ from PyTorch" in capsys.readouterr().err
    assert not path.exists()
    assert path.with_suffix(".failed.onnx").is_file()


@pytest.mark.slow
def test_a_box_chain_in_float16_is_found(command, capsys, monkeypatch):
    chosen = half.exact_nodes

    def without_boxes(model: onnx.ModelProto) -> set[str]:
        return chosen(model) - half.walk(model, ["boxes"])

    monkeypatch.setattr(half, "exact_nodes", without_boxes)
    code, _ = command()
    assert code == 5
    assert "px of 640, at most 0.1 allowed" in capsys.readouterr().err
