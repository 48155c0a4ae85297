"""The words of a command line become keys and values."""

from pathlib import Path

import pytest

from rtdetr_cli.cli.arguments import parse_arguments
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import UsageError


@pytest.mark.parametrize(
    ("words", "pairs"),
    [
        (["source=bus.jpg"], {"source": "bus.jpg"}),
        (["--source=bus.jpg"], {"source": "bus.jpg"}),
        (["--source", "bus.jpg"], {"source": "bus.jpg"}),
        (["--source", "a=b.jpg"], {"source": "a=b.jpg"}),
        ([r"source=C:\images\a=b.jpg"], {"source": r"C:\images\a=b.jpg"}),
        (["source=a b.jpg"], {"source": "a b.jpg"}),
        (["classes=[0,2,5]"], {"classes": "[0,2,5]"}),
        (["save_txt"], {"save_txt": "true"}),
        (["--save_txt"], {"save_txt": "true"}),
        (["--save-txt", "--conf", "0.3"], {"save_txt": "true", "conf": "0.3"}),
        (["--save-txt", "conf=0.3"], {"save_txt": "true", "conf": "0.3"}),
        (["--save", "false"], {"save": "false"}),
        (["save", "source=x"], {"save": "true", "source": "x"}),
        (["source="], {"source": ""}),
        (["cfg=my.yaml"], {"cfg": "my.yaml"}),
        (["--cfg", "my.yaml"], {"cfg": "my.yaml"}),
        ([], {}),
    ],
)
def test_forms(words: list[str], pairs: dict[str, str]) -> None:
    assert parse_arguments(PredictSettings, words) == pairs


def test_resume_takes_a_word_only_with_an_equals_sign() -> None:
    assert parse_arguments(TrainSettings, ["--resume", "data=x"]) == {"resume": "true", "data": "x"}
    assert parse_arguments(TrainSettings, ["resume=last.pt"]) == {"resume": "last.pt"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["conf"], "predict: conf needs a value, conf=..."),
        (["--conf"], "predict: conf needs a value, conf=..."),
        (["--conf", "--save"], "predict: conf needs a value, conf=..."),
        (["cnf=0.3"], "cnf is not a key of predict; did you mean conf?"),
        (["--cnf", "0.3"], "cnf is not a key of predict; did you mean conf?"),
        (["epochs=3"], "epochs is not a key of predict; it is one of train"),
        (["bus.jpg"], "bus.jpg is not key=value of predict; write source=bus.jpg"),
        (["best.pt"], "best.pt is not key=value of predict; write model=best.pt"),
        (["tests"], "tests is not key=value of predict; write source=tests"),
        (
            ["detect"],
            "detect is not key=value of predict; write `rtdetr predict` or `rtdetr detect predict`",
        ),
        (["-c=3"], "-c=3 is not key=value of predict"),
        (["no/folder"], "no/folder is not key=value of predict; there is no such file or folder"),
        (["conf=1", "--conf=0"], "predict: conf is given twice"),
    ],
)
def test_mistakes(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tests").mkdir()
    with pytest.raises(UsageError) as caught:
        parse_arguments(PredictSettings, words)
    assert str(caught.value) == sentence
