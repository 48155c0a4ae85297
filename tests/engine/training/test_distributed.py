"""Several workers train like one process, also when one of them dies.

Every job is real: torchrun, or `device=cpu,cpu`, starts processes that communicate by gloo.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rtdetr_cli.cli.main import run
from rtdetr_cli.config.model import FDRDecoderConfig
from rtdetr_cli.weights.checkpoint import load_checkpoint
from tests.engine.conftest import write_architecture
from tests.engine.test_train import command, read_rows

from .test_resume import ends_alike

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
STANDALONE = ["--standalone", "--nproc-per-node=2"]
WORKER = Path(__file__).with_name("worker.py")


def start(line: list[str], cwd: Path | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(line, env=environment, cwd=cwd, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    try:
        out, said = process.communicate(timeout=240)
    finally:
        process.terminate()  # the launcher stops its workers
    assert process.returncode == code, said
    return out, said


def workers_of(launcher: subprocess.Popen[str]) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.is_file():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def module_yaml(tiny_config, tmp_path_factory) -> Path:
    """The tiny architecture, for all jobs of this file."""
    return write_architecture(tiny_config, tmp_path_factory.mktemp("tiny") / "tiny.yaml")


@pytest.fixture(scope="module")
def found(module_yaml, squares, tmp_path_factory) -> tuple[dict, dict]:
    return as_one_and_as_two(module_yaml, squares, tmp_path_factory.mktemp("runs"))


def as_one_and_as_two(architecture: Path, data: Path, project: Path) -> tuple[dict, dict]:
    """Results of worker.py as one and as two processes; steps of six and three of nine images."""
    words = command(architecture, data, project, "epochs=20", "batch=6",
                    "num_denoising=0", "warmup_steps=0", "multi_scale=true")[1:]  # fmt: skip
    jobs = [start([sys.executable, str(WORKER), *words])]
    jobs.append(start([*TORCHRUN, *STANDALONE, str(WORKER), *words]))
    alone, two = (json.loads(finish(job)[0]) for job in jobs)
    assert (alone["world_size"], two["world_size"]) == (1, 2)
    return alone, two


def test_two_workers_have_the_losses_of_one_process(found):
    alone, two = found
    for step, (expected, loss) in enumerate(zip(alone["losses"], two["losses"], strict=True)):
        assert loss == pytest.approx(expected, rel=1e-5, abs=1e-7), step
    assert alone["losses"][0]["loss"] != pytest.approx(alone["losses"][-1]["loss"], rel=1e-2)


def test_two_workers_have_the_losses_of_distributions_of_one_process(
    tiny_config, squares, tmp_path
):
    decoder = FDRDecoderConfig(hidden_dim=16, ffn_dim=32, num_layers=3, num_heads=2, num_queries=20)
    path = write_architecture(replace(tiny_config, decoder=decoder), tmp_path / "fdr.yaml")
    alone, two = as_one_and_as_two(path, squares, tmp_path)
    for step, (expected, loss) in enumerate(zip(alone["losses"], two["losses"], strict=True)):
        assert loss == pytest.approx(expected, rel=1e-9, abs=1e-15), step
    assert alone["losses"][-1]["loss_fgl"] > 0 < alone["losses"][-1]["loss_ddf"]
    assert two["weights"][0] == two["weights"][1]
    assert all(0 < loss < 1000 for loss in two["without_boxes"])


def test_a_worker_without_boxes_does_not_block_the_others(found):
    assert all(0 < loss < 1000 for loss in found[1]["without_boxes"])


def test_all_workers_have_the_same_weights_at_the_end(found):
    weights = found[1]["weights"]
    assert weights[0] == weights[1]


def test_workers_have_different_seeds_and_the_first_that_of_one_process(found):
    alone, two = found
    assert two["seeds"][0] == alone["seeds"][0] != two["seeds"][1]


def test_a_step_that_is_not_finite_in_one_worker_is_skipped_by_all(found):
    assert found[1]["skipped"] == [True, True]


def test_a_signal_to_one_worker_stops_all_at_the_same_step(found):
    assert found[1]["stopped"] == [True, True]


def test_two_workers_validate_to_the_metrics_and_losses_of_one_process(found):
    alone, two = found
    assert alone["metrics"]["val/loss_giou"] > 0
    assert two["metrics"] == pytest.approx(alone["metrics"], abs=1e-6)


KEYS = ("epochs=4", "batch=4", "save_steps=1", "val_every=4")  # 2 steps an epoch


@pytest.fixture(scope="module")
def whole(squares, tmp_path_factory, module_yaml) -> Path:
    """An uninterrupted job of two workers."""
    project = tmp_path_factory.mktemp("whole")
    assert run(command(module_yaml, squares, project, *KEYS, "device=cpu,cpu")) == 0
    return project


def test_device_starts_a_worker_for_each(whole, capfd):
    assert len(read_rows(whole / "train")) == 4
    assert load_checkpoint(whole / "train/weights/last.pt").training["step"] == 8


def test_a_killed_worker_ends_the_job_and_one_process_resumes_it(module_yaml, squares, tmp_path):
    words = command(module_yaml, squares, tmp_path, *KEYS, "epochs=400", "device=cpu,cpu")
    job = start([sys.executable, "-m", "rtdetr_cli", *words])
    wait_for(tmp_path / "train/weights/last-previous.pt", job)
    os.kill(workers_of(job)[-1], signal.SIGKILL)
    _, said = finish(job, code=5)
    assert "Error: worker 1 was killed by SIGKILL" in said
    assert "Traceback" not in said
    step = load_checkpoint(tmp_path / "train/weights/last.pt").training["step"]
    words = ["train", "resume=true", f"project={tmp_path}", "device=cpu", "time=0.000001"]
    assert run(words) == 0
    assert load_checkpoint(tmp_path / "train/weights/last.pt").training["step"] > step


def test_torchrun_restarts_a_job_that_lost_a_worker(whole, module_yaml, squares, tmp_path):
    words = command(module_yaml, squares, tmp_path, *KEYS, "resume=true")
    line = [*TORCHRUN, *STANDALONE, "--max-restarts=1", "-m", "rtdetr_cli", *words]
    job = start(line)
    wait_for(tmp_path / "train/weights/last-previous.pt", job)
    os.kill(workers_of(job)[-1], signal.SIGKILL)
    _, said = finish(job)
    assert "there is no run to resume yet; starting one" in said
    assert "resuming" in said
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
    assert ends_alike(tmp_path, whole)


def test_sigterm_to_one_worker_saves_and_ends_all(module_yaml, squares, tmp_path):
    words = command(module_yaml, squares, tmp_path, *KEYS, "epochs=400", "device=cpu,cpu")
    job = start([sys.executable, "-m", "rtdetr_cli", *words])
    wait_for(tmp_path / "train/weights/last-previous.pt", job)
    os.kill(workers_of(job)[-1], signal.SIGTERM)
    _, said = finish(job, code=143)
    assert said.count("and saved; `rtdetr train resume=") == 1


def test_two_nodes_train_together_and_one_writes(whole, module_yaml, squares, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    rendezvous = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d",
               f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=test"]  # fmt: skip
    jobs = []
    for node in range(2):
        folder = tmp_path / str(node)
        folder.mkdir()
        words = command(module_yaml, squares, Path("runs"), *KEYS)
        jobs.append(start([*TORCHRUN, *rendezvous, "-m", "rtdetr_cli", *words], cwd=folder))
    said = [finish(job) for job in jobs]
    written = [path for path in tmp_path.glob("*/runs")]
    assert len(written) == 1
    assert ends_alike(written[0], whole)
    assert sorted(" 4/4  " in error for _, error in said) == [False, True]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["batch=5"], 2, "batch=5 is that of all 2 workers together and must be a multiple of 2"),
        (["device=cpu,0"], 2, "device=cpu,0 must name different GPUs, or cpu only"),
    ],
)
def test_a_batch_or_devices_that_cannot_be_shared_are_rejected(
    words, code, sentence, module_yaml, squares, tmp_path, capsys
):
    line = command(module_yaml, squares, tmp_path / "runs", "device=cpu,cpu", *words)
    assert run(line) == code
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
