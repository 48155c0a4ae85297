"""What `rtdetr check` prints of findings."""

from __future__ import annotations

import json

from rtdetr_cli.core.findings import Example, MarkedBox
from rtdetr_cli.data.kinds import make_finding
from rtdetr_cli.engine.checking.output import print_json, print_text, summary

PLACES = [Example(f"{number}.txt:1", "class 7") for number in range(25)]


def test_a_finding_is_its_message_some_places_and_what_to_do(capsys):
    finding = make_finding("box-near-identical", ("train", "val"), PLACES)
    print_text({}, [finding])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("Warning box-near-identical (train, val): 25. Boxes of one class")
    assert lines[2] == "  0.txt:1: class 7"
    assert lines[7] == "  ... and 20 more"
    assert lines[8].startswith("  To do: Keep one of each pair")
    assert lines[-1] == summary([finding]) == "0 errors, 1 warning, 0 notes"


def test_json_has_every_example_with_its_boxes(capsys):
    boxes = (MarkedBox((1, 2, 3, 4), "cat"),)
    finding = make_finding("class-unknown", ("val",), [*PLACES, Example("x", boxes=boxes)])
    print_json("my.yaml", {}, [finding])
    printed = json.loads(capsys.readouterr().out)
    assert (printed["errors"], printed["warnings"], printed["notes"]) == (1, 0, 0)
    (found,) = printed["findings"]
    assert len(found["examples"]) == 26
    assert found["examples"][-1]["boxes"] == [
        {"corners": [1, 2, 3, 4], "caption": "cat", "is_suspect": True}
    ]
