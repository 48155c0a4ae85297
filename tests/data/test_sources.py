from __future__ import annotations

import re
from pathlib import Path

import pytest

from rtdetr_cli.config.dataset import DatasetConfig
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.data.sources import new_output


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("full", "fix=full exists and is not an empty folder"),
        ("full/a", "fix=full/a exists and is not an empty folder"),
        ("data/out", "fix=data/out is in the folder of the data set"),
        ("data", "fix=data is in the folder of the data set"),
        ("nul\0", r"fix=nul\x00 cannot be a folder"),
    ],
)
def test_an_output_that_would_harm_something_is_refused(out, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("full").mkdir()
    Path("full/a").write_text("")
    with pytest.raises(UsageError, match=re.escape(sentence)):
        new_output("fix", out, [DatasetConfig(tmp_path / "data")])


def test_an_absent_or_empty_folder_is_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    source = [DatasetConfig(tmp_path / "data")]
    assert new_output("fix", str(tmp_path / "new"), source) == tmp_path / "new"
    assert new_output("fix", str(tmp_path / "empty"), source) == tmp_path / "empty"
