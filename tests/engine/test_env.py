"""Output of `rtdetr env`."""

from __future__ import annotations

import json

import torch

from rtdetr_cli import __version__
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.settings.modes import EnvSettings
from rtdetr_cli.engine.env import env


def test_cpu_threads_packages_and_cache_are_named(set_cpu, tmp_path, monkeypatch, capsys):
    set_cpu("avx2", "avx512_bf16")
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.pt").write_bytes(bytes(3_000_000))
    found = env(EnvSettings())
    assert found["rtdetr"] == f"{__version__}, Apache-2.0"
    assert found["CPU"] == "made up: avx2, avx512_bf16"
    assert found["cores"].endswith(f"for this process, {torch.get_num_threads()} threads")
    assert found["torch"].startswith(torch.__version__.split("+")[0])
    assert "CPU" in found["onnxruntime"]
    assert found["  weights"] == "3 MB"
    printed = capsys.readouterr().out
    assert all(text in printed for text in found.values())


def test_json_is_one_object(capsys):
    assert run(["env", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["RTDETR_HOME"]
