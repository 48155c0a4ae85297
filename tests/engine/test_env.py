"""Output of `rtdetr env`."""

from __future__ import annotations

import json

import torch

from rtdetr_cli import __version__
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.settings.modes import EnvSettings
from rtdetr_cli.engine.env import env, nvidia_driver


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
    assert found["  free disk"].endswith(" GB")
    assert found["memory"].endswith(" GB available")
    assert "rtdetr models" in found["licences"]
    printed = capsys.readouterr().out
    assert all(text in printed for text in found.values())


def test_json_is_one_object(capsys):
    assert run(["env", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["home folder"]


def test_nothing_names_the_home_folder_of_the_user(tmp_path, monkeypatch, capsys):
    """The output is pasted into public bug reports."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path / "not" / "there"))
    found = env(EnvSettings())
    assert found["home folder"] == found["RTDETR_HOME"] == "~/not/there"
    assert str(tmp_path) not in capsys.readouterr().out


def test_the_driver_is_read_from_its_file(tmp_path):
    """The line of the NVIDIA kernel module, in its open and its closed form."""
    file = tmp_path / "version"
    assert nvidia_driver(file) is None
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12\n")
    assert nvidia_driver(file) == "535.183.01"
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release\n")
    assert nvidia_driver(file) == "580.65.06"
