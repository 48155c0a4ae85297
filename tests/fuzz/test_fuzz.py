"""Some cases of every kind in the fast tests; `make fuzz` runs 2,000 of each."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

CAMPAIGN = runpy.run_path(str(Path(__file__).parent / "campaign.py"), run_name="campaign")


@pytest.mark.parametrize("kind", CAMPAIGN["KINDS"])
def test_damaged_inputs_are_accepted_or_refused_in_a_sentence(kind: str) -> None:
    tally = CAMPAIGN["run_kind"](kind, 100)

    assert not tally.findings, "\n".join([tally.line(), *tally.findings])
