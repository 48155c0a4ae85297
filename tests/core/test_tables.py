"""Tables as CSV, JSON and data frames."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.tables import Table

ROWS = [{"name": "a,b", "box": {"x1": 1.5, "y1": 2.0}}, {"name": "細", "box": {"x1": 0, "y1": 1}}]


class Two(Table):
    columns = ("name", "x1", "y1")

    def __init__(self, rows):
        self.rows = rows

    def summary(self, normalize=False, decimals=5):
        return self.rows


def test_csv_spreads_boxes_and_quotes_commas():
    assert Two(ROWS).to_csv() == 'name,x1,y1\n"a,b",1.5,2.0\n細,0,1\n'
    assert Two([]).to_csv() == "name,x1,y1\n"


def test_json_is_the_summary():
    assert json.loads(Two(ROWS).to_json()) == ROWS
    assert "細" in Two(ROWS).to_json()


@pytest.mark.parametrize(
    ("installed", "used"),
    [(("pandas", "polars"), "pandas"), (("pandas",), "pandas"), (("polars",), "polars")],
)
def test_a_data_frame_is_of_the_first_installed_library(installed, used, monkeypatch):
    for library in ("pandas", "polars"):
        made = SimpleNamespace(DataFrame=lambda rows, library=library: (library, rows))
        monkeypatch.setitem(sys.modules, library, made if library in installed else None)
    assert Two(ROWS).to_df() == (used, ROWS)


def test_a_data_frame_without_a_library_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(BackendError, match="pandas or polars: pip install pandas"):
        Two(ROWS).to_df()
