"""Tables of names; test_foreign.py and test_parity.py have every name of every family."""

from __future__ import annotations

from rtdetr_cli.weights import name_tables as tables


def test_every_rule_has_a_number_for_each_number_of_the_other_side():
    for table in (tables.HUGGING_FACE, tables.HUGGING_FACE_DFINE, tables.PADDLE_NAMES):
        for foreign, hub in table:
            assert foreign.count("*") == hub.count("*"), foreign
