"""What a command does where stdout, the disk, the home or the names are not as they should be."""

import errno
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetr_cli import __version__
from rtdetr_cli.cli import main as door

Captured = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]
COMMAND = f"'{sys.executable}' -m rtdetr_cli"
posix = pytest.mark.skipif(sys.platform == "win32", reason="a shell and files of Unix")


def shell(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=folder, env=environment
    )


@posix
@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("--version >&-", 5, "Error: cannot write to stdout: it is closed\n"),
        ("--version >/dev/full", 5, "Error: cannot write to stdout: no space left on the device\n"),
        ("models >/dev/full", 5, "Error: cannot write to stdout: no space left on the device\n"),
        ("models json=true >&-", 5, "Error: cannot write to stdout: it is closed\n"),
        ("trian 2>&-", 2, ""),
        ("trian 2>/dev/full", 2, ""),
    ],
)
def test_a_stream_that_is_closed_or_full(
    words: str, code: int, sentence: str, tmp_path: Path
) -> None:
    done = shell(f"{COMMAND} {words}", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", sentence)


@posix
@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "<&-"])
def test_results_need_no_other_stream(closed: str, tmp_path: Path) -> None:
    done = shell(f"{COMMAND} --version {closed}", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


@posix
@pytest.mark.parametrize("words", ["models", "train --help"])
def test_a_reader_that_has_ended_ends_the_command_quietly(words: str, tmp_path: Path) -> None:
    done = shell(f"{COMMAND} {words} | true; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert (done.returncode, done.stderr) == (141, "")  # 128 + SIGPIPE, as the system's tools


OPENS = """
from rtdetr_cli.core import console
console.open_streams()
with open("file", "w") as file:
    print(file.fileno() > 2, file=file)
"""


@posix
def test_no_file_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    shell(f"exec '{sys.executable}' - >&- 2>&- <<'END'\n{OPENS}\nEND", tmp_path)
    assert (tmp_path / "file").read_text() == "True\n"


@posix
def test_a_current_folder_that_is_gone(tmp_path: Path) -> None:
    done = shell(f"mkdir a; cd a; rmdir ../a; {COMMAND} models", tmp_path)
    assert done.returncode == 5
    assert done.stderr.startswith("Error: the current folder cannot be used: ")
    assert done.stderr.count("\n") == 1


def test_a_home_that_nobody_has(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("RTDETR_HOME", "~nobody-here/x")
    assert door.run(["models"]) == 2
    assert "the home folder of ~nobody-here is not known" in capsys.readouterr().err


@posix
def test_a_fifo_in_place_of_settings_is_not_opened(tmp_path: Path, capsys: Captured) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    assert door.run(["predict", "source=x", f"cfg={tmp_path}/a.yaml"]) == 2
    assert (
        capsys.readouterr().err == f"Error: {tmp_path}/a.yaml is a pipe (FIFO), expected a file\n"
    )


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        (OSError(errno.ENAMETOOLONG, "", "xx.pt"), "xx.pt: the name is too long"),
        (OSError(errno.ENOSPC, "", "a"), "a: no space left on the device"),
        (OSError(errno.EMFILE, "", "a"), "a: too many files are open"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary folder"), "No usable temporary fol"),
    ],
)
def test_what_the_machine_refuses_is_no_defect(
    refusal: OSError, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def run(_: object) -> int:
        raise refusal

    monkeypatch.setitem(door.RUN, "models", (run, ()))
    assert door.run(["models"]) == 5
    assert capsys.readouterr().err.startswith(f"Error: {sentence}")


def test_a_file_that_we_lost_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(door.RUN, "models", (lambda _: len(Path("absent").read_text()), ()))
    with pytest.raises(FileNotFoundError):
        door.run(["models"])


def raised() -> ValueError:
    with pytest.raises(ValueError, match="bad") as caught:
        int("bad\x1b[31m name\nsecond line")
    return caught.value


@posix
def test_the_log_of_a_defect_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    error = raised()
    door._keep_traceback(ValueError, error, error.__traceback__)
    door._keep_traceback(ValueError, error, error.__traceback__)
    logs = list(tmp_path.glob("rtdetr-*.log"))
    assert [stat.S_IMODE(log.stat().st_mode) for log in logs] == [0o600, 0o600]
    assert all("Traceback" in log.read_text() for log in logs)
    lines = capsys.readouterr().err.splitlines()
    assert all(r"bad\x1b[31m name" in line and "(a bug; details" in line for line in lines)


def test_a_defect_without_a_temporary_folder_is_a_sentence_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    error = raised()
    door._keep_traceback(ValueError, error, error.__traceback__)
    said = capsys.readouterr().err
    assert "(a bug; no file for details: " in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["\x1b[31mtrian"], r"\x1b[31mtrian is not a mode"),
        (["train", "\x1b]0;owned\x07=1"], r"\x1b]0;owned\x07=1 is not key=value of train"),
        (["train", "data=a\nError: b"], r"data set a\nError: b does not exist"),
        (["predict", "source=a", "cfg=a\u202e.yaml"], r"a\u202e.yaml does not exist"),
    ],
)
def test_what_was_typed_reaches_the_terminal_as_text(
    words: list[str], sentence: str, capsys: Captured
) -> None:
    assert door.run(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"Error: {sentence}")
    assert said.count("\n") == 1


def test_a_key_of_a_yaml_reaches_the_terminal_as_text(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "a.yaml").write_text('"\\e[31mkey\\e]0;owned\\a": 1\n')
    assert door.run(["predict", "source=x", f"cfg={tmp_path}/a.yaml"]) == 2
    assert r"\x1b[31mkey\x1b]0;owned\x07 is not a key of predict" in capsys.readouterr().err


@posix
def test_a_full_disk_leaves_no_half_image(tmp_path: Path) -> None:
    """A file size limit of 4 KiB simulates a full disk; the annotated image is larger."""
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    words = "predict model=rtdetr-n.yaml source=a.png imgsz=32 device=cpu project=runs"
    done = shell(f"ulimit -f 4; {COMMAND} {words}", tmp_path)
    assert done.returncode == 5
    sentence = "Error: cannot write runs/predict/a.png: the file would be larger than allowed"
    assert done.stderr.splitlines()[-1] == sentence
    assert list((tmp_path / "runs" / "predict").iterdir()) == []
