"""Names of files and folders from texts of others."""

import pytest

from rtdetr_cli.core.file_names import class_folders, safe_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("traffic light", "traffic light"),
        ("画", "画"),
        ("cabinet/shelf", "cabinet_shelf"),
        ("..", "_"),
        ("", "_"),
        ("x. .", "x_"),
        ("CON", "_CON"),
        ("nul.tar.gz", "_nul.tar.gz"),
        ("LPT9", "_LPT9"),
        ("com10", "com10"),
        ("console", "console"),
        ("a\x1b[31m\udcff\u202eb", "a_[31m__b"),
        ("画" * 300, "画" * 66),  # 198 of 200 bytes
        ("x" * 198 + ". .", "x" * 198 + "_"),  # cut at a dot
    ],
)
def test_a_name_is_what_every_file_system_takes(text, name):
    assert safe_name(text) == name


def test_folders_keep_the_names_that_are_free():
    names = {0: "car", 1: "Car", 2: "car-1", 3: "bus"}
    assert class_folders(names) == {0: "car", 1: "Car-1", 2: "car-1-2", 3: "bus"}
