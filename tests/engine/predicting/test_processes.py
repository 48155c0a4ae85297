"""One process per device: shares, devices, exit codes."""

import io
import json
from pathlib import Path

import pytest

from rtdetr_cli.cli.main import run
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.errors import BackendError, UsageError, WeightsError
from rtdetr_cli.engine.predicting import processes
from rtdetr_cli.engine.predicting.processes import arguments, device_names, predict_many


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Commands that would be started, with the exit codes that they get."""
    commands, codes = [], []

    class Process:
        def __init__(self, command, **_):
            commands.append(command[4:])
            self.stderr = io.BytesIO(b"a line\n")
            self.code = codes.pop(0) if codes else 0

        def wait(self, timeout=None):
            return self.code

        poll = wait

    monkeypatch.setattr(processes.subprocess, "Popen", Process)
    monkeypatch.setattr(processes, "open_folder", lambda settings: None)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return commands, codes


def settings(**keys):
    return PredictSettings(source="images", out="results", **keys)


def test_each_device_gets_a_share(started):
    assert predict_many(settings(device="0,1,2"), None) == 0
    assert [("device=1" in one, "shard=1/3" in one) for one in started[0]] == [
        (False, False),
        (True, True),
        (False, False),
    ]


def test_the_shares_of_the_devices_make_up_the_share_of_the_job(started):
    predict_many(settings(device="0,1", shard="1/4"), None)
    shards = [one.split("=")[1] for command in started[0] for one in command if "shard" in one]
    parts = [range(*map(int, shard.split("/")), 1) for shard in shards]
    assert shards == ["1/8", "5/8"]
    assert parts
    mine = {number for number in range(40) if number % 8 in {1, 5}}
    assert mine == {number for number in range(40) if number % 4 == 1}


@pytest.mark.parametrize(
    ("codes", "error"), [([0, 2], UsageError), ([4, 0], WeightsError), ([0, -9], BackendError)]
)
def test_a_failed_process_is_an_error(started, codes, error):
    started[1].extend(codes)
    with pytest.raises(error, match="resume=true continues"):
        predict_many(settings(device="0,1"), None)


def test_unreadable_images_of_a_process_are_no_failure(started):
    started[1].extend([0, 3])
    assert predict_many(settings(device="cpu,cpu"), None) == 3


def test_devices_are_told_apart():
    assert device_names("[0, 1]") == ["0", "1"]
    assert device_names("cpu,cpu") == ["cpu", "cpu"]
    assert device_names(None) == []
    with pytest.raises(UsageError, match="names a device twice"):
        device_names("0,0")


def test_the_arguments_give_the_same_settings():
    given = settings(conf="person:0.5", classes=(0, "car"), imgsz=(64, 96), half=True, resume=True)
    pairs = dict(one.split("=", 1) for one in arguments(given))
    assert settings_from_pairs(PredictSettings, pairs) == given


@pytest.mark.parametrize(
    ("device", "rank", "chosen"),
    [("cpu", "1", "cpu"), ("2,3", "1", "3"), ("cuda", "1", "cuda:1"), (None, "1", None)],
)
def test_a_worker_of_torchrun_uses_its_own_device(monkeypatch, device, rank, chosen):
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    seen = []
    monkeypatch.setattr(processes, "write_results", lambda one, _: seen.append(one.device) or 3)
    assert predict_many(settings(device=device), None) == 0  # unreadable images end no worker
    assert seen == [chosen]


def test_too_many_devices_for_the_workers_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="one device for each of the 2 workers"):
        predict_many(settings(device="0,1,2"), None)


@pytest.mark.slow
def test_two_processes_write_what_one_does(squares, checkpoint, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    words = [f"model={checkpoint}", f"source={squares}/images/train", "imgsz=64", "part_size=2"]
    command = ["predict", *words, "conf=0.001", "max_det=3"]
    assert run([*command, "out=one", "device=cpu"]) == 0
    assert run([*command, "out=two", "device=cpu,cpu"]) == 0
    one, two = (
        {path.name: path.read_bytes() for path in Path(o).iterdir()} for o in ("one", "two")
    )
    assert one == two
    assert len(json.loads(one["manifest.json"])["parts"]) == 5
    assert all(json.loads(line)["detections"] for line in one["part-000000.jsonl"].splitlines())
    assert "cpu: tiny, PyTorch" in capfd.readouterr().err
