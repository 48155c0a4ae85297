"""Rows of D-FINE, DEIM, RT-DETRv4 and DEIMv2; test_catalog.py holds all rows."""

from __future__ import annotations

import pytest

from rtdetr_cli.weights.catalog_dfine import DETECTORS


@pytest.mark.parametrize(
    ("name", "ap", "parameters_m", "gflops", "latency_ms"),
    # the tables in the READMEs of the authors (../shared/reference/dfine.md, section 10)
    [
        ("dfine-x.pt", 55.8, 62, 202, 12.89),
        ("dfine-l-o365.pt", 57.3, 31, 91, 8.07),
        ("deim-rtdetrv2-r101.pt", 55.5, 76, 259, 13.66),
        ("rtdetrv4-s.pt", 49.8, 10, 25, 3.66),
        ("deimv2-pico.pt", 38.5, 1.5, 5.2, 2.13),
    ],
)
def test_rows_have_the_printed_numbers(name, ap, parameters_m, gflops, latency_ms):
    (entry,) = [entry for entry in DETECTORS if entry.name == name]
    assert (entry.ap, entry.parameters_m, entry.gflops) == (ap, parameters_m, gflops)
    assert entry.latency_ms == latency_ms


def test_there_are_32_files():
    assert len(DETECTORS) == 5 + 4 + 4 + 6 + 5 + 4 + 4
