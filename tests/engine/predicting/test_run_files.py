"""Files are written behind the loop from copies; the run folder is made for the first Results."""

from functools import partial

import cv2
import numpy as np
import pytest
import torch

from rtdetr_cli.core.errors import StorageError
from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.predicting.run_files import RunFiles
from rtdetr_cli.media.writer import RunWriter


def results(name="a.png"):
    rows = torch.tensor([[1.0, 1, 9, 9, 0.5, 0]])
    painter = lambda image, boxes, names, style: image  # noqa: E731
    return Results(np.full((16, 16, 3), 200, np.uint8), name, {0: "dot"}, rows, painter=painter)


def test_nothing_is_made_without_results(tmp_path):
    RunFiles(partial(pytest.fail, "opened")).close()


def test_files_show_the_results_as_they_were_given(tmp_path):
    files = RunFiles(lambda: RunWriter(tmp_path, labels=True))
    given = [results(f"{number}.png") for number in range(20)]
    for one in given:
        assert files.write([one], [None]) == tmp_path
        one.orig_img[:] = 0
        one.boxes.data[:] = 0
    assert given[0].save_dir == str(tmp_path)
    files.close()
    for number in range(20):
        assert cv2.imread(str(tmp_path / f"{number}.jpg")).mean() == pytest.approx(200, abs=2)
        text = (tmp_path / "labels" / f"{number}.txt").read_text()
        assert text == "0 0.3125 0.3125 0.5 0.5\n"


def test_a_folder_that_cannot_be_written_is_an_error_of_its_own_type(tmp_path):
    (tmp_path / "file").write_text("")
    files = RunFiles(lambda: RunWriter(tmp_path / "file"))
    files.write([results()], [None])
    with pytest.raises(StorageError):
        files.finish()
    files.close()
