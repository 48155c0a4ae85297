"""Timing in turns: which process runs which setting, and how often."""

from __future__ import annotations

import pytest

from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.engine.tradeoffs import latency
from rtdetr_cli.engine.tradeoffs.latency import time_settings
from rtdetr_cli.engine.tradeoffs.rows import Setting

SETTINGS = [Setting((64, 64), layers, queries) for layers in (1, 3) for queries in (5, 20)]


class FakeProcess:
    """Records requests; a call takes as many milliseconds as there are layers."""

    def __init__(self) -> None:
        self.requests: list[dict[str, object]] = []
        self.is_closed = False
        STARTED.append(self)

    def ask(self, request):
        self.requests.append(request)
        if "calls" not in request:
            return {"error": "no such file"} if request["model"] == "gone.pt" else {"ready": ""}
        return {"times_ms": [float(request["speed"][0])] * request["calls"]}

    def close(self):
        self.is_closed = True


STARTED: list[FakeProcess] = []


@pytest.fixture
def processes(monkeypatch):
    monkeypatch.setattr(latency, "WorkerProcess", FakeProcess)
    STARTED.clear()
    return STARTED


def test_every_setting_is_timed_equally_often_in_turns(processes):
    times_ms = time_settings(dict.fromkeys(SETTINGS, "a.pt"), "cpu", runs=8)
    assert times_ms == {one: [float(one.decoder_layers)] * 10 for one in SETTINGS}  # two turns
    (process,) = processes
    assert process.is_closed
    assert process.requests[0] == {
        "model": "a.pt", "half": False, "device": "cpu", "timeout": None, "size_hw": None
    }  # fmt: skip
    speeds = [one["speed"] for one in process.requests[1:]]
    order = [[one.decoder_layers, one.num_queries] for one in SETTINGS]
    assert speeds == [*order, *order, *order[2:], *order[:2]]  # warm-up, then rotated turns
    assert [one["calls"] for one in process.requests[1:]] == [3] * 4 + [6] * 8


def test_precisions_and_files_have_their_own_process(processes):
    files = {
        SETTINGS[0]: "a.pt",
        Setting((64, 64), 1, 5, half=True): "a.pt",
        Setting((64, 64), 1, 5, backend="onnx"): "a.onnx",
        Setting((64, 64), 1, 5, half=True, backend="openvino"): "a_openvino_model",
    }
    time_settings(files, None, runs=1)
    first = [one.requests[0] for one in processes]
    assert [(one["model"], one["half"], one["device"]) for one in first] == [
        ("a.pt", False, None),
        ("a.pt", True, None),
        ("a.onnx", False, "cpu"),
        ("a_openvino_model", False, "cpu"),  # its precision is in the file
    ]


def test_a_process_that_fails_ends_the_measurement(processes):
    with pytest.raises(BackendError, match=r"latency cannot be measured: no such file"):
        time_settings({SETTINGS[0]: "gone.pt"}, "cpu", runs=1)
    assert processes[0].is_closed
