"""A worker process: requests and replies, and its end."""

from __future__ import annotations

import pytest

from rtdetr_cli.engine.benchmarking.process import WorkerProcess


@pytest.mark.slow
def test_a_process_replies_with_its_error_and_then_with_its_end(tmp_path):
    process = WorkerProcess()
    first = {"model": str(tmp_path / "x.pt"), "device": "cpu", "half": False, "timeout": None}
    assert "x.pt" in process.ask(first)["error"]
    assert process.ask({"batch": 1, "calls": 1}) == {"error": "its process died"}
    process.close()
