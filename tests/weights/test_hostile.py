"""Hostile files: none runs code, exhausts memory, hangs or causes a traceback.

hostile.py builds them, judge.py opens them in processes of their own, under an audit hook.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWANCE = 64 * 2**20
"""Bytes besides twice the file: 48 MB for the tree, 16 MB for one tensor's storage."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the judge forks")


def judged(folder, *parts):
    judge = Path(__file__).with_name("judge.py")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",  # memory that is freed is given back, and so measured
    }
    done = subprocess.run(
        [sys.executable, judge, folder, *parts], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    return judged(tmp_path_factory.mktemp("hostile"), "crafted", "truncated", "200")


@pytest.fixture(scope="module")
def reports(verdict):
    return verdict["reports"]


def refused(report):
    return not report["opened"] or "sentence" in report.get("built", {})


def sentences(report):
    return [part["sentence"] for part in (report, report.get("built", {})) if "sentence" in part]


def ratio(report):
    """Memory over the constant, in sizes of the file."""
    return max(0, report["memory"] - ALLOWANCE) / max(1, report["size"])


def assert_harmless(verdict):
    """Properties of every file."""
    reports = verdict["reports"]
    assert verdict["left"] == []
    assert {r["name"]: r["events"] for r in reports if r["events"]} == {}
    crashes = {r["name"]: r["crash"] for r in (*reports, *built(reports)) if "crash" in r}
    assert crashes == {}
    assert [(r["name"], r["memory"]) for r in reports if ratio(r) > 2] == []
    for report in reports:
        for sentence in sentences(report):
            assert sentence.isprintable(), report["name"]
            assert 10 < len(sentence) <= 1000, report["name"]


def built(reports):
    return [{"name": r["name"], **r["built"]} for r in reports if "built" in r]


def print_summary(reports):
    opened = sum(report["opened"] for report in reports)
    slowest = max(reports, key=lambda report: report["seconds"])
    largest = max(reports, key=lambda report: report["memory"])
    print(  # noqa: T201  (shown by pytest -s)
        f"\n{len(reports)} files, {opened} opened, {len(reports) - opened} refused; slowest "
        f"{slowest['name']} {slowest['seconds']:.2f} s of CPU; most memory {largest['name']} "
        f"{largest['memory'] / 2**20:.1f} MB for a file of {largest['size'] / 2**20:.1f} MB"
    )


def test_no_file_does_harm(verdict):
    print_summary(verdict["reports"])
    assert len(verdict["reports"]) > 1000
    assert_harmless(verdict)


def test_good_files_open_and_bad_ones_do_not(reports):
    good = {r["good"]: r["digest"] for r in reports if r["name"].startswith("good-")}
    assert len(good) == 4
    wrong = [
        report["name"]
        for report in reports
        if (report["expect"] == "refuse" and not refused(report))
        or (report["expect"] == "same" and refused(report))
        or (
            report["expect"].startswith("same")
            and report["opened"]
            and report["digest"] != good[report["good"]]
        )
    ]
    assert wrong == []


def test_building_the_network_stays_within_the_memory_bound(reports):
    """The checkpoint, the network and its fused copy: within eight times the file."""
    large = [
        (report["name"], report["built_memory"])
        for report in reports
        if report.get("built_memory", 0) > 8 * report["size"] + ALLOWANCE
    ]
    assert large == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("reduce-os.system", "wants os.system, which no checkpoint needs"),
        ("memo-os.system", "wants os.system, which no checkpoint needs"),
        ("build-os.system", "wants os.system, which no checkpoint needs"),
        ("reduce-torch.storage._load_from_bytes", "wants torch.storage._load_from_bytes, which"),
        ("reduce-torch.nn.functional.relu", "wants torch.nn.functional.relu, which"),
        ("inst-os.system", "holds the pickle opcode INST, which is not supported"),
        ("pickle-ext1", "holds the pickle opcode EXT1, which is not supported"),
        ("pickle-laughs-as-a-name", "a name is not a string"),
        ("pickle-many-dicts", "its pickle expands to more than any model needs"),
        ("pickle-lists-of-a-list", "its pickle expands to more than any model needs"),
        ("pickle-colliding-keys", "a key of type int"),
        ("tensor-ten-gigabytes", "should have 10000000000 bytes and has 16"),
        ("tensor-stride-0", "a tensor is larger than its storage"),
        ("tensor-thousand-views", "its tensors are larger than the file"),
        ("zip-twice", "an entry appears twice"),
        ("zip-many-entries", "its directory is larger than in any checkpoint"),
        ("zip-encrypted", "is encrypted; torch checkpoints are not"),
        ("zip-wrong-sum", "Bad CRC-32"),
        ("lie-encoder-hidden_dim-1000000000", "encoder.hidden_dim must be at most 16384"),
        ("lie-stage-blocks", "blocks must be at most 512, found"),
        ("config-deep", "more than 32 levels deep"),
    ],
)
def test_the_message_names_the_problem(name, sentence, reports):
    report = next(report for report in reports if report["name"] == name)
    assert sentence in report["sentence"]


def test_the_judge_detects_a_file_that_runs_code(tmp_path):
    verdict = judged(tmp_path, "running")
    report = verdict["reports"][-1]
    assert any(event.startswith("os.system") for event in report["events"])
    assert [Path(path).name for path in verdict["left"]] == ["canary"]
    with pytest.raises(AssertionError):
        assert_harmless(verdict)


@pytest.mark.slow
def test_two_thousand_mutations_do_no_harm(tmp_path):
    verdict = judged(tmp_path, "2000")
    print_summary(verdict["reports"])
    assert len(verdict["reports"]) == 2004
    assert_harmless(verdict)
