"""docs/python.md: its code compiles, its tables list every event and what exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rtdetr_cli import RTDETR
from rtdetr_cli.core.callbacks import EVENTS
from rtdetr_cli.engine.session.states import ExportState, PredictState, ValState
from rtdetr_cli.engine.training.events import TrainState

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def column(heading: str, number: int) -> list[str]:
    """The cells of a column of the table below a line of its head."""
    rows = PAGE.split(heading)[1].split("\n\n")[0].splitlines()[2:]
    return [row.strip("| ").split(" | ")[number] for row in rows]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_block_compiles_and_calls_only_methods_that_exist(block):
    tree = ast.parse(block)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "model"
    }
    model = RTDETR("rtdetr-n.yaml")
    assert {name for name in used if name not in dir(model)} == set()


def test_the_table_of_events_is_complete():
    listed = re.findall(r"`(\w+)`", " ".join(column("| event | when |", 0)))
    assert sorted(listed) == sorted(EVENTS)


def test_the_attributes_of_states_exist():
    cells = dict(
        zip(column("| state of | attributes |", 0), column("| state of |", 1), strict=True)
    )
    states = {"train": TrainState, "val": ValState, "predict": PredictState, "export": ExportState}
    assert cells.keys() == states.keys()
    for name, state in states.items():
        known = {*dir(state), *state.__annotations__, *attributes_set_in_init(state)}
        assert set(re.findall(r"`(\w+)`", cells[name])) <= known


def attributes_set_in_init(state: type) -> set[str]:
    return set(state.__init__.__code__.co_names)
