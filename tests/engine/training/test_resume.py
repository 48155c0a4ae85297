"""A run stopped anywhere and resumed is bit-identical to an uninterrupted one."""

from __future__ import annotations

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rtdetr_cli.cli.main import run
from rtdetr_cli.engine import train as loop
from rtdetr_cli.engine.training import early_stopping as stopping
from rtdetr_cli.weights.checkpoint import load_checkpoint
from tests.engine.conftest import write_architecture
from tests.engine.test_train import command

KEYS = ("epochs=3", "batch=2", "save_steps=2", "val_every=2")  # 9 images: 4 steps an epoch
MOMENTS = (3, 6, 8)  # in an epoch, on its save, at its end


def words(model: Path, data: Path, project: Path, *more: str) -> list[str]:
    return command(model, data, project, *KEYS, *more)


def raise_at(steps: set[int], error: type[BaseException], patch: pytest.MonkeyPatch) -> None:
    """Raise before each of these steps, once."""
    real, left = loop.train_step, set(steps)

    def dying(run, criterion, batch):
        if run.progress.step in left:
            left.remove(run.progress.step)
            raise error
        return real(run, criterion, batch)

    patch.setattr(loop, "train_step", dying)


def equal(first: object, second: object) -> bool:
    """Bit-identical, through dicts and lists."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


def ends_alike(project: Path, whole: Path) -> bool:
    outcomes = []
    for folder in (project / "train", whole / "train"):
        last = load_checkpoint(folder / "weights" / "last.pt")
        best = load_checkpoint(folder / "weights" / "best.pt")
        rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
        for row in (*rows, *last.training["rows"]):
            del row["time"], row["data_wait"]
        del last.training["settings"]
        outcomes.append([last.weights, last.training, best.weights, rows])
    return equal(*outcomes)


@pytest.fixture(scope="module")
def module_yaml(tiny_config, tmp_path_factory) -> Path:
    """The tiny architecture, for all runs of this file."""
    return write_architecture(tiny_config, tmp_path_factory.mktemp("tiny") / "tiny.yaml")


@pytest.fixture(scope="module")
def whole(squares, tmp_path_factory, module_yaml) -> Path:
    """The uninterrupted run."""
    project = tmp_path_factory.mktemp("whole")
    assert run(words(module_yaml, squares, project)) == 0
    return project


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_dies_at_any_step_resumes_bit_identical(
    workers, whole, module_yaml, squares, tmp_path, monkeypatch
):
    raise_at(set(MOMENTS), KeyboardInterrupt, monkeypatch)
    assert run(words(module_yaml, squares, tmp_path, f"workers={workers}")) == 130
    positions = []
    for _ in MOMENTS:
        last = load_checkpoint(tmp_path / "train" / "weights" / "last.pt").training
        positions.append((last["step"], last["sums"]["steps"]))
        code = run(["train", "resume=true", f"project={tmp_path}"])
    assert positions == [(2, 2), (6, 2), (8, 0)]
    assert code == 0
    assert ends_alike(tmp_path, whole)


def test_finished_batches_are_not_loaded_again(module_yaml, squares, tmp_path, monkeypatch):
    raise_at({3}, KeyboardInterrupt, monkeypatch)
    run(words(module_yaml, squares, tmp_path))
    seen = []
    real = loop.train_step
    monkeypatch.setattr(
        loop, "train_step", lambda r, c, b: seen.append(r.progress.step) or real(r, c, b)
    )
    run(["train", "resume=true", f"project={tmp_path}"])
    assert seen == list(range(2, 12))


def test_a_run_folder_in_use_by_another_process_is_rejected(
    whole, module_yaml, squares, tmp_path, capsys
):
    shutil.copytree(whole / "train", tmp_path / "train")
    holder = (
        "import sys; from pathlib import Path; from rtdetr_cli.core.lock import claimed\n"
        "with claimed(Path(sys.argv[1]), 'is held'): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "train")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout.readline() == b"held\n"
        before = (tmp_path / "train" / "args.yaml").stat().st_mtime_ns
        assert run(words(module_yaml, squares, tmp_path, "exist_ok=true")) == 2
        assert "is being trained by another process" in capsys.readouterr().err
        assert (tmp_path / "train" / "args.yaml").stat().st_mtime_ns == before
        other.kill()  # the system releases the lock, although the file remains
    assert run(words(module_yaml, squares, tmp_path, "exist_ok=true")) == 0


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
    ],
)
def test_a_signal_saves_between_steps_and_exits(
    number, code, whole, module_yaml, squares, tmp_path, monkeypatch, capsys
):
    before = signal.signal(number, signal.default_int_handler)
    real = loop.train_step

    def signalled(run, criterion, batch):
        if run.progress.step == 4:
            signal.raise_signal(number)
        return real(run, criterion, batch)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "train_step", signalled)
            try:
                found = run(words(module_yaml, squares, tmp_path))
            except SystemExit as end:
                found = end.code
        assert signal.getsignal(number) is signal.default_int_handler  # a second one ends at once
    finally:
        signal.signal(number, before)
    assert found == code
    assert "stopped in epoch 2 after step 5" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "train/weights/last.pt").training["step"] == 5
    assert run(["train", "resume=true", f"project={tmp_path}"]) == 0
    assert ends_alike(tmp_path, whole)


def test_a_signal_does_not_wait_for_the_end_of_validation(
    whole, module_yaml, squares, tmp_path, monkeypatch
):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "evaluate", lambda *_: signal.raise_signal(signal.SIGINT))
            assert run(words(module_yaml, squares, tmp_path)) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    state = load_checkpoint(tmp_path / "train/weights/last.pt").training
    assert (state["epoch"], state["sums"]["steps"]) == (1, 4)
    assert run(["train", "resume=true", f"project={tmp_path}"]) == 0
    assert ends_alike(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_can_be_resumed(number, whole, module_yaml, squares, tmp_path):
    line = [sys.executable, "-m", "rtdetr_cli", *words(module_yaml, squares, tmp_path, "workers=2")]
    process = subprocess.Popen(line, start_new_session=True, stderr=subprocess.PIPE, text=True)
    previous = tmp_path / "train" / "weights" / "last-previous.pt"
    while not previous.is_file():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, number) if number == signal.SIGTERM else process.kill()
    _, said = process.communicate()
    assert process.returncode == (143 if number == signal.SIGTERM else -signal.SIGKILL), said
    assert run(["train", "resume=true", f"project={tmp_path}"]) == 0
    assert ends_alike(tmp_path, whole)
    assert not list((tmp_path / "train").rglob(".*"))


@pytest.fixture
def stopped(module_yaml, squares, tmp_path, monkeypatch) -> Path:
    """A run that died before step 6: last.pt is of step 6, last-previous.pt of step 4."""
    data = tmp_path / "data"
    shutil.copytree(squares, data)
    with monkeypatch.context() as patch:
        raise_at({6}, KeyboardInterrupt, patch)
        run(words(module_yaml, data, tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.mark.parametrize("damage", ["torn", "one bit", "absent"])
def test_a_damaged_checkpoint_falls_back_to_the_previous_one(damage, stopped, whole, capsys):
    last = stopped / "train" / "weights" / "last.pt"
    content = bytearray(last.read_bytes())
    if damage == "absent":
        last.unlink()
    elif damage == "torn":
        last.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
    capsys.readouterr()
    assert run(["train", "resume=true", f"project={stopped}"]) == 0
    said = capsys.readouterr().err
    assert "continuing from the previous state" in said
    assert "after step 4: 1 of 3 epochs and 0 steps" in said
    assert last.with_name("last-damaged.pt").is_file() == (damage != "absent")


def test_a_full_disk_keeps_the_previous_checkpoint(stopped, capsys):
    last = stopped / "train" / "weights" / "last.pt"
    before = last.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    capsys.readouterr()
    try:  # the system refuses to write beyond a tenth of the file
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 10, limits[1]))
        code = run(["train", "resume=true", f"project={stopped}"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 5
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    assert len(error) == 1
    assert (
        "last.pt: the file would be larger than allowed; the previous state is intact" in error[0]
    )
    assert last.read_bytes() == before
    assert run(["train", "resume=true", f"project={stopped}"]) == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: (data / "images/train/8.png").unlink(), "9 then, 8 now"),
        (
            lambda data: (data / "labels/val/0.txt").write_text("0 .5 .5 .1 .1"),
            "the labels of the val split changed",
        ),
        (
            lambda data: shutil.copy(data / "images/train/1.png", data / "images/train/0.png"),
            "the image files of the train split changed",
        ),
        (
            lambda data: (data / "data.yaml").write_text(
                (data / "data.yaml").read_text().replace("green", "blue")
            ),
            "the class names of the train split changed",
        ),
    ],
)
def test_changed_data_are_rejected(change, sentence, stopped, capsys):
    change(stopped.parent / "data")
    capsys.readouterr()
    assert run(["train", "resume=true", f"project={stopped}"]) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert sentence in error
    assert "since the run was started" in error


def test_the_data_set_may_move(stopped, whole):
    moved = (stopped.parent / "data").rename(stopped.parent / "elsewhere")
    place = f"data={moved / 'data.yaml'}"
    assert run(["train", "resume=true", f"project={stopped}", place]) == 0


@pytest.mark.parametrize("key", ["epochs=72", "lr=0.5", "seed=1", "model=rtdetr-l.pt"])
def test_a_key_that_would_change_the_run_is_rejected_even_at_its_default(key, stopped, capsys):
    assert run(["train", "resume=true", f"project={stopped}", key]) == 2
    name, _, value = key.partition("=")
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"was started with {name}=" in error
    assert f"change it to {value}" in error


def test_resuming_a_finished_run_reports_it(whole, module_yaml, squares, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "copy")
    capsys.readouterr()
    assert run(["train", "resume=true", f"project={tmp_path / 'copy'}"]) == 0
    assert "is finished, all 3 epochs are done" in capsys.readouterr().err
    assert ends_alike(tmp_path / "copy", whole)


def test_a_finished_run_continues_as_fine_tuning_in_a_new_folder(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    last = tmp_path / "train" / "weights" / "last.pt"
    before = last.read_bytes()
    capsys.readouterr()
    assert run(["train", f"resume={last}", "epochs=5", "lr=0", "backbone_lr=0"]) == 0
    said = capsys.readouterr().err
    assert (
        "train is finished, all 3 epochs are done; fine-tuning from its last.pt for 2 more, to 5 in"
        " all: a new run with a schedule of its own"
    ) in said
    assert "cosine after 0 of 8 steps" in said  # four steps an epoch, from the start
    assert last.read_bytes() == before
    longer = load_checkpoint(tmp_path / "train2" / "weights" / "last.pt")
    settings = longer.training["settings"]
    assert (settings["model"], settings["resume"], settings["epochs"]) == (str(last), False, 2)
    assert (settings["imgsz"], settings["batch"], settings["val_every"]) == (64, 2, 2)
    frozen = "decoder.enc_score_head.weight"  # lr=0 keeps the averaged weights of the first run
    assert torch.equal(longer.weights[frozen], load_checkpoint(last).weights[frozen])


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_finished_run_is_not_shortened(epochs, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    code = run(["train", "resume=true", f"project={tmp_path}", f"epochs={epochs}"])
    assert code == (0 if epochs == 3 else 2)  # its own number scores it again
    assert ("cannot change it to 1" in capsys.readouterr().err) == (epochs == 1)


def test_a_stopped_run_with_other_epochs_is_refused_with_the_way_out(stopped, capsys):
    last = stopped / "train" / "weights" / "last.pt"
    assert run(["train", f"resume={last}", "epochs=9"]) == 2
    assert (
        f"{last} was started with epochs=3; a resumed run cannot change it to 9; model={last} "
        "instead of resume starts a new run from its weights"
    ) in capsys.readouterr().err


@pytest.mark.parametrize("form", ["model=last.pt", "model=folder", "newest of any name"])
def test_ways_to_name_the_run(form, stopped, whole, capsys):
    folder = (stopped / "train").rename(stopped / "other")
    words = {
        "model=last.pt": [f"model={folder}/weights/last.pt"],
        "model=folder": [f"model={folder}"],
        "newest of any name": [f"project={stopped}"],
    }
    capsys.readouterr()
    assert run(["train", *words[form], "resume"]) == 0
    assert f"resuming {folder} after step 6" in capsys.readouterr().err


def test_a_name_limits_the_search_to_its_runs(stopped, capsys):
    assert run(["train", "resume=true", f"project={stopped}", "name=exp"]) == 2
    assert f"no run with a last.pt in {stopped}/exp*" in capsys.readouterr().err


def test_a_run_without_val_split_resumes_bit_identical(
    module_yaml, squares, tmp_path, monkeypatch, capsys
):
    data = tmp_path / "data"
    shutil.copytree(squares, data)
    (data / "data.yaml").write_text("train: images/train\nnames: [green, red]\n")
    kinds = {"held out": ("val_fraction=0.3",), "none": ("val=false", "val_every=1")}
    for kind, more in kinds.items():
        whole, broken = tmp_path / f"{kind} whole", tmp_path / f"{kind} broken"
        assert run(words(module_yaml, data, whole, *more)) == 0
        with monkeypatch.context() as patch:
            raise_at({3}, KeyboardInterrupt, patch)
            assert run(words(module_yaml, data, broken, *more)) == 130
        assert run(["train", "resume=true", f"project={broken}"]) == 0
        assert ends_alike(broken, whole)
        held = whole / "train" / "val_images.txt"
        assert held.is_file() == (kind == "held out")
        assert (
            not held.is_file()
            or held.read_text() == (broken / "train" / "val_images.txt").read_text()
        )


def test_the_number_of_epochs_for_time_is_set_once_and_kept_on_resume(
    module_yaml, squares, tmp_path, monkeypatch, capsys
):
    real, steps = loop.train_step, []
    pace = [100.0]

    def counted(run, criterion, batch):
        steps.append(run.progress.step)
        return real(run, criterion, batch)

    monkeypatch.setattr(loop, "train_step", counted)
    monkeypatch.setattr(stopping, "clock", lambda: pace[0] * len(steps))
    words = command(module_yaml, squares, tmp_path, "batch=4", "time=0.25", "patience=9")
    words.remove("epochs=1")  # two steps of 100 s are an epoch: 900 s hold 4
    words.remove(f"project={tmp_path}")
    assert run([*words, f"project={tmp_path / 'whole'}"]) == 0
    said = capsys.readouterr().err
    assert "200 s an epoch: time=0.25 hours hold 4 epochs" in said
    assert "cosine after 0 of 8 steps" in said
    assert " 4/4  " in said
    last = load_checkpoint(tmp_path / "whole/train/weights/last.pt").training
    assert (last["step"], last["settings"]["epochs"], last["settings"]["patience"]) == (8, 4, 0)
    assert last["rows"][-1]["lr"] < 0.1 * 1e-3  # the end of the cosine
    steps.clear()
    with monkeypatch.context() as patch:
        raise_at({5}, KeyboardInterrupt, patch)
        assert run([*words, f"project={tmp_path / 'broken'}"]) == 130
    pace[0] = 1.0  # a faster machine changes nothing
    assert run(["train", "resume=true", f"project={tmp_path / 'broken'}"]) == 0
    assert ends_alike(tmp_path / "broken", tmp_path / "whole")


def test_epochs_together_with_time_are_rejected(module_yaml, squares, tmp_path, capsys):
    assert run(command(module_yaml, squares, tmp_path, "time=2")) == 2
    assert "epochs=1 has no effect with time=2" in capsys.readouterr().err
