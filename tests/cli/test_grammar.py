"""The mode of a command line, in this toolkit's words and in those of Ultralytics."""

from pathlib import Path

import pytest

from rtdetr_cli.cli.grammar import find_mode
from rtdetr_cli.cli.main import run
from rtdetr_cli.core.errors import UsageError

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("line", "mode", "rest"),
    [
        ("", "help", ""),
        ("train data=x", "train", "data=x"),
        ("detect train data=x", "train", "data=x"),
        ("task=detect mode=train data=x", "train", "data=x"),
        ("data=x mode=train task=detect epochs=3", "train", "data=x epochs=3"),
        ("--task=detect --mode=val --data x", "val", "--data x"),
        ("detect mode=predict source=x", "predict", "source=x"),
        ("train mode=train task=detect data=x", "train", "data=x"),
        ("train data = x epochs =3 lr= 0.1", "train", "data=x epochs=3 lr=0.1"),
        ("mode = train data=x", "train", "data=x"),
        ("predict source= save=false", "predict", "source= save=false"),
        ("predict source=a=b.jpg", "predict", "source=a=b.jpg"),
        ("checks", "env", ""),
        ("mode=checks json", "env", "json"),
        ("help train", "help", "train"),
        ("-V", "version", ""),
        ("-v", "version", ""),
        ("--version", "version", ""),
        ("copy-cfg", "copy-cfg", ""),
    ],
)
def test_a_mode_is_found(line: str, mode: str, rest: str) -> None:
    assert find_mode(line.split()) == (mode, rest.split())


@pytest.mark.parametrize("line", ["model=a.pt source=b.jpg", "--model a.pt --source b.jpg"])
def test_a_source_without_a_mode_is_predicted_and_said(line: str, capsys: Captured) -> None:
    assert find_mode(line.split()) == ("predict", line.split())
    assert capsys.readouterr().err == "no mode is given; source= means predict\n"


def test_a_settings_file_may_name_the_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("default_copy.yaml").write_text("task: detect\nmode: export\n")
    words = ["cfg=default_copy.yaml", "imgsz=320"]
    assert find_mode(words) == ("export", words)
    assert capsys.readouterr().err == "no mode is given; default_copy.yaml says export\n"
    Path("default_copy.yaml").write_text("imgsz: 320\n")
    with pytest.raises(UsageError, match="no mode is given; write for example `rtdetr val cfg="):
        find_mode(words)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("segment train data=x", "task segment is not supported: RT-DETR detects objects"),
        ("task=obb mode=train", "task obb is not supported: RT-DETR detects objects"),
        ("train task=classify", "task classify is not supported: RT-DETR detects objects"),
        ("model=a.pt data=b", "no mode is given; write for example `rtdetr val model=a.pt data=b`"),
        ("data=b epochs=3", "no mode is given; write for example `rtdetr train data=b epochs=3`"),
        ("train mode=val data=x", "mode=val, but the command is `rtdetr train`; give one mode"),
        ("mode=val mode=train", "mode=val and mode=train; give one mode"),
        ("tune data=x", "tune is not a mode: there is no search for hyperparameters"),
        ("mode=trian data=x", "trian is not a mode; did you mean train?"),
        ("mode=zzz", "zzz is not a mode; modes are"),
    ],
)
def test_what_is_not_a_mode_is_one_sentence(line: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_mode(line.split())
    assert str(caught.value).startswith(sentence)


def test_a_file_instead_of_a_mode_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bus.jpg").touch()
    with pytest.raises(UsageError, match=r"for example `rtdetr predict source=bus\.jpg`"):
        find_mode(["bus.jpg"])


def test_the_whole_command_in_their_words(capsys: Captured) -> None:
    """Order of task and mode does not matter; the settings of the mode are checked as always."""
    assert run(["task=detect", "epoch=3", "mode=train"]) == 2
    assert "epoch is not a key of train; did you mean epochs?" in capsys.readouterr().err
