from __future__ import annotations

import time
from pathlib import Path

import pytest

from rtdetr_cli.core.errors import DataError
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
        problems.add(f"wrong {number}")
    with pytest.raises(DataError, match=r"^x: wrong 0 \(and 1004 more errors\)$") as caught:
        problems.raise_if_any("x: ")
    assert caught.value.problems[1] == "x: wrong 1"
    assert caught.value.problems[-1] == "x: 5 more errors"


def test_only_errors_of_images_name_the_key_that_skips_them():
    problems = Problems("error")
    problems.reject(Path("a.png"), "bad box")
    with pytest.raises(DataError, match=r"^bad box; bad_images=skip leaves such images out$"):
        problems.raise_if_any()
    problems.add("bad ids")
    with pytest.raises(DataError, match=r"^bad box \(and 1 more error\)$"):
        problems.raise_if_any()


def test_skipped_images_are_listed_with_the_first_reason(tmp_path):
    problems = Problems("skip")
    problems.reject(tmp_path / "a.png", "bad box")
    problems.reject(tmp_path / "a.png", "bad class")
    problems.raise_if_any()
    assert problems.notes() == ["images left out by bad_images=skip: 1 (first: bad box)"]
    write_skipped(tmp_path, problems.skipped)
    assert (tmp_path / SKIPPED).read_text() == f"{tmp_path / 'a.png'}\tbad box\n"


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
    assert problems.errors == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
