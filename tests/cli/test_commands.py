"""help, version, settings, cfg and copy-cfg through the real command."""

from pathlib import Path

import pytest

from rtdetr_cli import __version__
from rtdetr_cli.cli.commands import COMMANDS
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.modes import MODES
from rtdetr_cli.config.settings.train import TrainSettings

Captured = pytest.CaptureFixture[str]


def printed(line: str, capsys: Captured, code: int = 0) -> tuple[str, str]:
    assert run(line.split()) == code
    out, err = capsys.readouterr()
    return out, err


def test_help_of_a_mode_is_its_page(capsys: Captured) -> None:
    page, _ = printed("help val", capsys)
    assert page == printed("val --help", capsys)[0]
    front, _ = printed("help", capsys)
    assert front == printed("--help", capsys)[0]
    assert all(f"\n  {name} " in front for name in COMMANDS)
    assert "vla is not a mode; did you mean val?" in printed("help vla", capsys, code=2)[1]


@pytest.mark.parametrize("line", ["version", "-V", "-v", "--version"])
def test_version(line: str, capsys: Captured) -> None:
    assert printed(line, capsys) == (f"{__version__}\n", "")


def test_settings_show_the_home_folder_and_variables_with_a_tilde(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("RTDETR_HOME", "/home/somebody/big/disk")
    monkeypatch.setenv("RTDETR_OFFLINE", "1")
    monkeypatch.delenv("RTDETR_MIRROR", raising=False)
    out, _ = printed("settings", capsys)
    assert "There is no settings file" in out
    assert "home folder      ~/big/disk\n" in out
    assert "RTDETR_OFFLINE   1 (no network" in out.replace("1 (1: ", "1 (")
    assert "RTDETR_MIRROR    not set" in out
    assert "/home/somebody" not in out
    assert "there is no settings file to change" in printed("settings x=1", capsys, code=2)[1]


@pytest.mark.parametrize("mode", MODES)
def test_cfg_prints_the_defaults_of_every_mode(mode: str, capsys: Captured) -> None:
    out, err = printed(f"cfg {mode}", capsys)
    assert out.startswith(f"# Defaults of `rtdetr {mode}`")
    assert err == ""


def test_cfg_without_a_mode_is_of_train(capsys: Captured) -> None:
    out, err = printed("cfg", capsys)
    assert out.startswith("# Defaults of `rtdetr train`")
    assert err.startswith("the settings of train; `rtdetr cfg MODE` for val, ")


def test_copy_cfg_writes_a_file_that_cfg_reads_and_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    out, err = printed("copy-cfg train", capsys)
    assert out == "train_copy.yaml\n"
    assert "rtdetr train cfg=train_copy.yaml" in err
    pairs = {"cfg": "train_copy.yaml", "data": "x.yaml"}
    assert settings_from_pairs(TrainSettings, pairs) == TrainSettings(data="x.yaml")
    Path("train_copy.yaml").write_text("epochs: 3\n")
    assert "train_copy.yaml exists already" in printed("copy-cfg", capsys, code=2)[1]
    assert Path("train_copy.yaml").read_text() == "epochs: 3\n"
    assert [path.name for path in tmp_path.iterdir()] == ["train_copy.yaml"]
