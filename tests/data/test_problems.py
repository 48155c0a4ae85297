from __future__ import annotations

import time
from pathlib import Path

import pytest

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.findings import Example, Severity
from rtdetr_cli.data.dataset import read_sizes
from rtdetr_cli.data.problems import MAX_LISTED, SKIPPED, Problems, check_overhang, write_skipped


@pytest.mark.parametrize(
    ("corners", "verdict"),
    [
        ([0, 0, 60, 40], None),
        ([-0.9, 0, 60.9, 40], None),  # rounding
        ([50, 0, 70, 40], "clipped"),  # half of it
        ([50, 0, 71, 40], "outside"),
        ([-30, -20, 31, 21], "outside"),  # a quarter inside
        ([61, 0, 62, 40], "outside"),
        ([60, 0, 60.5, 40], "outside"),  # within the tolerance, but nothing is left of it
    ],
)
def test_a_box_may_be_half_outside(corners, verdict):
    assert check_overhang(corners, (40, 60), 1.0) == verdict


def test_all_errors_are_kept_and_the_first_is_the_message():
    problems = Problems()
    for number in range(MAX_LISTED + 5):
        problems.add("label-malformed", f"wrong {number}", " here")
    with pytest.raises(DataError, match=r"^x: wrong 0 here \(and 1004 more errors\)$") as caught:
        problems.raise_if_any("x: ")
    assert caught.value.problems[1] == "x: wrong 1 here"
    assert caught.value.problems[-1] == "x: 5 more errors"


def test_only_errors_of_images_name_the_key_that_skips_them():
    problems = Problems("error")
    problems.reject(Path("a.png"), "box-negative", "1.txt:2", "bad box")
    with pytest.raises(
        DataError, match=r"^1\.txt:2: bad box; bad_images=skip leaves such images out$"
    ):
        problems.raise_if_any()
    problems.add("category-malformed", "ids", "bad")
    with pytest.raises(DataError, match=r"^1\.txt:2: bad box \(and 1 more error\)$"):
        problems.raise_if_any()


def test_skipped_images_are_listed_with_the_first_reason(tmp_path):
    problems = Problems("skip")
    problems.reject(tmp_path / "a.png", "box-negative", "1.txt:2", "bad box")
    problems.reject(tmp_path / "a.png", "class-unknown", "1.txt:3", "bad class")
    problems.raise_if_any()
    assert problems.notes() == ["images left out by bad_images=skip: 1 (first: 1.txt:2: bad box)"]
    write_skipped(tmp_path, problems.skipped)
    assert (tmp_path / SKIPPED).read_text() == f"{tmp_path / 'a.png'}\t1.txt:2: bad box\n"


def test_without_skipped_images_there_is_no_list(tmp_path):
    write_skipped(tmp_path, {})
    assert not (tmp_path / SKIPPED).exists()


def test_images_that_cannot_be_read_are_listed_in_their_order(tmp_path, monkeypatch):
    def slow_first(path: Path) -> tuple[int, int]:
        time.sleep(0.05 * (path.name == "0.jpg"))
        raise DataError(path.name)

    monkeypatch.setattr("rtdetr_cli.data.dataset.read_image_size", slow_first)
    problems = Problems("error")
    images = [tmp_path / f"{number}.jpg" for number in range(4)]
    assert read_sizes(images, problems) == [None] * 4
    assert [error.partition(": ")[2] for error in problems.errors] == [
        "0.jpg",
        "1.jpg",
        "2.jpg",
        "3.jpg",
    ]


def test_errors_and_corrections_are_findings_by_kind(tmp_path):
    problems = Problems("report")
    image = tmp_path / "a.png"
    problems.reject(image, "class-unknown", str(tmp_path / "a.txt:3"), "class 7")
    problems.add("label-malformed", "annotations[2]", " has no bbox")
    problems.mend("box-clipped", "annotations[3]", "boxes clipped", image)
    problems.mend("box-clipped", "annotations[4]", "boxes clipped")
    found = {one.id: one for one in problems.findings("x.json: ")}
    assert [(one.count, one.severity) for one in found.values()] == [
        (1, Severity.ERROR),
        (1, Severity.ERROR),
        (2, Severity.NOTE),
    ]
    assert found["class-unknown"].examples == (
        Example(str(tmp_path / "a.txt:3"), "class 7", (image,)),
    )
    assert found["label-malformed"].examples == (Example("x.json: annotations[2]", "has no bbox"),)
    assert [one.where for one in found["box-clipped"].examples] == [
        "x.json: annotations[3]",
        "x.json: annotations[4]",
    ]
    assert [one.images for one in found["box-clipped"].examples] == [(image,), ()]


def test_with_report_only_fatal_errors_are_raised_and_images_that_open_are_kept():
    problems = Problems("report")
    problems.reject(Path("a.png"), "class-unknown", "a.txt:3", "class 7")
    problems.reject(Path("b.png"), "image-unreadable", "b.png", "empty")
    problems.raise_if_any()
    assert problems.skipped == {Path("b.png"): "b.png: empty"}
    with pytest.raises(DataError, match=r"^a\.txt:3: class 7 \(and 1 more error\)") as caught:
        problems.raise_if_any(is_fatal=True)
    assert [one.id for one in caught.value.findings] == ["class-unknown", "image-unreadable"]


def test_images_left_out_are_one_finding_with_their_reasons():
    problems = Problems("skip")
    problems.reject(Path("a.png"), "class-unknown", "a.txt:3", "class 7")
    problems.reject(Path("a.png"), "class-unknown", "a.txt:4", "class 7")
    (found,) = problems.findings()
    assert (found.id, found.count) == ("image-skipped", 1)
    assert found.examples == (Example("a.png", "a.txt:3: class 7"),)
