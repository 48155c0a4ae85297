"""Completion scripts: bash runs its script, the others are compared with the settings."""

import shutil
import subprocess
from pathlib import Path

import pytest

from rtdetr_cli.cli.commands import COMMANDS
from rtdetr_cli.cli.completion import _COMMANDS
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.fields import field_types
from rtdetr_cli.config.settings.modes import MODES

Captured = pytest.CaptureFixture[str]
has_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def script(shell: str, capsys: Captured) -> str:
    assert run(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.fixture
def candidates(tmp_path, capsys):
    """What bash offers after a command line, split into words as readline does at `=`."""
    (tmp_path / "rtdetr.bash").write_text(script("bash", capsys))
    (tmp_path / "bus image.jpg").touch()
    (tmp_path / "my.yaml").touch()

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"source ./rtdetr.bash; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            'complete -p rtdetr >/dev/null; _rtdetr; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", code], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.stderr == ""
        return [one for one in done.stdout.split("\n") if one]

    return complete


@has_bash
def test_bash_completes_modes_keys_values_and_files(candidates):
    assert set(candidates("rtdetr", "")) == {"detect", "checks", *MODES, *COMMANDS}
    assert candidates("rtdetr", "pr") == ["predict"]
    assert candidates("rtdetr", "detect", "trai") == ["train"]
    assert set(candidates("rtdetr", "val", "")) == {
        f"{k}=" for k in [*field_types(MODES["val"]), "cfg"]
    }
    assert candidates("rtdetr", "train", "epo") == ["epochs="]
    assert candidates("rtdetr", "detect", "train", "epo") == ["epochs="]
    assert candidates("rtdetr", "export", "format", "=") == ["onnx", "engine", "openvino"]
    assert candidates("rtdetr", "convert", "format", "=", "of") == ["official"]
    assert candidates("rtdetr", "predict", "save_txt", "=", "") == ["true", "false"]
    assert candidates("rtdetr", "train", "epochs", "=", "") == []
    assert candidates("rtdetr", "predict", "source", "=", "bus") == ["bus image.jpg"]
    assert candidates("rtdetr", "train", "data", "=", "my") == ["my.yaml"]
    assert {"coco8.yaml", "my.yaml"} <= set(candidates("rtdetr", "train", "data", "=", ""))
    assert candidates("rtdetr", "train", "model", "=", "rtdetr-r101") == ["rtdetr-r101.yaml"]
    assert candidates("rtdetr", "completion", "f") == ["fish"]
    assert candidates("rtdetr", "copy-cfg", "exp") == ["export"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_name_every_mode_and_key(shell: str, capsys: Captured) -> None:
    text = script(shell, capsys)
    for mode, cls in MODES.items():
        lines = [
            line for line in text.splitlines() if f"{mode})" in line or f"from {mode}'" in line
        ]
        assert any(all(key in line for key in field_types(cls)) for line in lines), mode
    assert "adamw" in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_accepted_by_their_shell(shell: str, capsys: Captured, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    path = tmp_path / "script"
    path.write_text(script(shell, capsys))
    assert subprocess.run([shell, "-n", path], capture_output=True, text=True).stderr == ""


def test_the_commands_are_those_that_exist() -> None:
    assert set(_COMMANDS) == {"checks", *COMMANDS}


def test_another_shell_is_refused(capsys: Captured) -> None:
    assert run(["completion", "powershell"]) == 2
    assert "rtdetr completion needs one of bash, zsh, fish" in capsys.readouterr().err
