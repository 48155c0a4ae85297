"""The kinds of problems, and findings made of them."""

from __future__ import annotations

import re
from pathlib import Path

from rtdetr_cli.core.findings import MAX_EXAMPLES, Example, Severity
from rtdetr_cli.data.kinds import KINDS, MAX_LISTED, make_finding, merge

EXAMPLES = [Example(f"{number}.txt:1") for number in range(MAX_LISTED + 5)]


def test_ids_are_words_and_texts_are_sentences():
    for kind, (_, message, advice) in KINDS.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", kind)
        assert message[0].isupper()
        assert advice[0].isupper()
        assert message.endswith(".")
        assert advice.endswith((".", "?"))


def test_of_errors_all_examples_are_kept_and_of_others_the_first():
    error = make_finding("class-unknown", ("train",), EXAMPLES)
    note = make_finding("box-clipped", ("train",), EXAMPLES)
    assert (len(error.examples), error.count) == (MAX_LISTED, MAX_LISTED + 5)
    assert (len(note.examples), note.count) == (MAX_EXAMPLES, MAX_LISTED + 5)


def test_findings_of_one_kind_are_joined():
    parts = [
        make_finding("box-clipped", (), EXAMPLES[:1], 3),
        make_finding("class-unknown", (), EXAMPLES[:1]),
        make_finding("box-clipped", (), EXAMPLES[1:2], 4),
    ]
    joined = merge(parts)
    assert [(one.id, one.count) for one in joined] == [("box-clipped", 7), ("class-unknown", 1)]
    assert joined[0].examples == tuple(EXAMPLES[:2])
    assert joined[0].severity is Severity.NOTE


def test_the_documentation_lists_every_kind_with_its_severity_and_message():
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text("utf-8")
    for kind, (severity, message, _) in KINDS.items():
        assert f"| `{kind}` | {severity.value} | {message} |\n" in page
