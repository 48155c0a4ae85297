"""Tracks as text in the format of the MOT challenge."""

import numpy as np
import pytest
import torch

from rtdetr_cli.core.errors import StorageError
from rtdetr_cli.core.results import Results
from rtdetr_cli.media.item import Clip
from rtdetr_cli.media.mot_writer import MotWriter
from rtdetr_cli.media.writer import RunWriter


def results(path, frame, *rows):
    found = Results(np.zeros((40, 60, 3), np.uint8), path, {0: "car"}, torch.tensor(rows))
    found.frame = frame
    return found


ROW = (1.0, 2.5, 11.0, 22.5, 3, 0.75, 0)
LINE = "3,1.00,2.50,10.00,20.00,0.7500,-1,-1,-1\n"


def test_a_line_has_frame_id_corner_size_and_score(tmp_path):
    writer = MotWriter(tmp_path / "mot" / "a.txt")
    writer.write(results("a.mp4", 7, ROW, (0.0, 0, 5, 5, 1, 0.5, 0)))
    writer.close()
    text = (tmp_path / "mot" / "a.txt").read_text()
    assert text == f"7,{LINE}7,1,0.00,0.00,5.00,5.00,0.5000,-1,-1,-1\n"


def test_a_file_per_clip_and_per_folder_of_images(tmp_path):
    writer = RunWriter(tmp_path, images=False, tracks=True)
    first, second = Clip("x/a.mp4", 10.0), Clip("y/a.mp4", 10.0)
    for clip, frame in ((first, 1), (second, 1), (second, 2)):
        writer.write(results(clip.path, frame, ROW), clip)
    for path, frame in (("z/img1/1.jpg", 1), ("z/img1/2.jpg", 2), ("image0.jpg", 1)):
        writer.write(results(path, frame, ROW))
    writer.close()
    files = {path.name: path.read_text() for path in (tmp_path / "mot").iterdir()}
    assert files == {
        "a.txt": f"1,{LINE}",
        "a-2.txt": f"1,{LINE}2,{LINE}",
        "img1.txt": f"1,{LINE}2,{LINE}",
        "images.txt": f"1,{LINE}",
    }


def test_a_folder_that_cannot_be_written_ends_with_one_sentence(tmp_path):
    (tmp_path / "mot").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        MotWriter(tmp_path / "mot" / "a.txt")
