"""The door: modes, help pages, exit codes, and how little is imported on the way."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rtdetr_cli import __version__
from rtdetr_cli.cli import main as door
from rtdetr_cli.config.fields import field_types
from rtdetr_cli.config.settings.modes import MODES
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import (
    BackendError,
    ConfigError,
    DataError,
    RTDETRError,
    StorageError,
    WeightsError,
)

Captured = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]


def python(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_front_page_lists_the_modes(words: list[str], capsys: Captured) -> None:
    assert door.run(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(f"  {mode} " in out for mode in MODES)


def test_version(capsys: Captured) -> None:
    assert door.run(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_mode_pages(mode: str, flag: str, capsys: Captured) -> None:
    assert door.run([mode, "x=3", flag]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {key} " in out for key in field_types(MODES[mode]))
    assert f"rtdetr {mode} " in out.split("Examples")[1]


def test_pages_fit_the_terminal(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    door.run(["train", "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 90


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "trian is not a mode; did you mean train?"),
        (["zzz"], "zzz is not a mode; modes are train, val, "),
        (["--data", "train"], "no mode is given; write for example `rtdetr val data=coco8.yaml`"),
        (["predict"], "predict needs source=, an image, a folder or a pattern, for example "),
        (["train"], "train needs data="),
        (["train", "data=x", "epoch=3"], "epoch is not a key of train; did you mean epochs?"),
        (["val", "--data", "x", "--imgsz", "0"], "val: imgsz must be at least 32"),
    ],
)
def test_wrong_usage_is_one_sentence_and_2(
    words: list[str], sentence: str, capsys: Captured
) -> None:
    assert door.run(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"Error: {sentence}")
    assert err.count("\n") == 1


def fake_mode(monkeypatch: pytest.MonkeyPatch, outcome: BaseException | int) -> list[Any]:
    """Replace `train` by a function that returns or raises; returns the list of its arguments."""
    given: list[Any] = []

    def run(settings: TrainSettings) -> int:
        given.append(settings)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setitem(door.RUN, "train", (run, ()))
    return given


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a"), 2),
        (DataError("a"), 3),
        (WeightsError("a"), 4),
        (BackendError("a"), 5),
        (StorageError("a"), 5),
    ],
)
def test_exit_codes(
    error: RTDETRError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    fake_mode(monkeypatch, error)
    assert door.run(["train", "data=x"]) == code
    assert capsys.readouterr() == ("", "Error: a\n")


def test_settings_and_codes_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    given = fake_mode(monkeypatch, 3)
    assert door.run(["train", "--data", "x.yaml", "epochs=7", "exist_ok"]) == 3
    assert given == [TrainSettings(data="x.yaml", epochs=7, exist_ok=True)]


def test_interrupted_is_130(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    fake_mode(monkeypatch, KeyboardInterrupt())
    assert door.run(["train", "data=x"]) == 130
    assert "Error" not in capsys.readouterr().err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mode(monkeypatch, DataError("a"))
    monkeypatch.setenv("RTDETR_DEBUG", "1")
    with pytest.raises(DataError):
        door.run(["train", "data=x"])


DEFECT = """
import sys
from rtdetr_cli.cli import main as door
door.RUN["train"] = (lambda settings: 1 // 0, ())
sys.argv = ["rtdetr", "train", "data=x"]
door.main()
"""


def test_a_defect_is_one_sentence_and_a_file(tmp_path: Path) -> None:
    done = python("-c", DEFECT, TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ZeroDivisionError: ")
    assert done.stderr.count("\n") == 1
    (log,) = tmp_path.glob("rtdetr-*.log")
    assert str(log) in done.stderr
    assert "Traceback" in log.read_text()


UNSEARCHED = """
import gc, sys
from rtdetr_cli.cli import main as door
sys.argv = ["rtdetr", "version"]
assert not gc.get_freeze_count()
try:
    door.main()
finally:
    assert gc.get_freeze_count() > 1000
"""


def test_the_end_of_the_process_does_not_search_for_garbage() -> None:
    assert python("-c", UNSEARCHED).stderr == ""


LIGHT = """
import resource, sys
from rtdetr_cli.cli.main import run
assert run(sys.argv[1:]) == 0
heavy = {"torch", "numpy", "cv2", "PIL", "scipy", "yaml", "pydantic"} & set(sys.modules)
assert not heavy, heavy
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the standard library cannot measure it there")
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_is_light_and_quick(words: list[str]) -> None:
    """Processor time, so that a busy machine cannot fail it; the design asks for 0.4 s."""
    seconds = []
    while len(seconds) < 3 and min(seconds, default=1.0) >= 0.4:
        done = python("-c", LIGHT, *words)
        assert done.returncode == 0, done.stderr
        seconds.append(float(done.stderr))
    assert min(seconds) < 0.4


def test_package_is_the_command() -> None:
    done = python("-m", "rtdetr_cli", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import rtdetr_cli, sys; assert not {'torch', 'numpy', 'typer'} & set(sys.modules)"
    assert python("-c", code).returncode == 0


IMPORTING = """
import runpy, signal, sys
name, module, handler = sys.argv[1:]
from importlib.abc import MetaPathFinder
class Interrupt(MetaPathFinder):
    def find_spec(self, wanted, path=None, target=None):
        if wanted == module:
            signal.raise_signal(getattr(signal, name))
sys.meta_path.insert(0, Interrupt())
signal.signal(signal.SIGINT, getattr(signal, handler))
sys.argv[1:] = ["info", "model=rtdetr-n.yaml"]
runpy.run_module("rtdetr_cli", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("name", "module", "handler", "code"),
    [
        ("SIGINT", "typer", "default_int_handler", 130),
        ("SIGINT", "rtdetr_cli.engine.info", "default_int_handler", 130),
        ("SIGTERM", "typer", "default_int_handler", -signal.SIGTERM),  # 143 in a shell
        ("SIGINT", "typer", "SIG_IGN", 0),
    ],
)
def test_a_signal_while_modules_are_imported_ends_quietly(name, module, handler, code):
    """A job in the background of a shell ignores SIGINT, which holds for its imports, too."""
    command = [sys.executable, "-c", IMPORTING, name, module, handler]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    assert bool(done.stdout) == (code == 0)
