"""Tracking: ids in lines, JSON, labels and MOT files, from one loop with predict."""

import json

import cv2
import numpy as np
import pytest

from rtdetr_cli.cli.main import run as run_command
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.engine import predict as engine
from rtdetr_cli.engine import track as tracking
from rtdetr_cli.engine.predicting.tracking import Trackers


class MovingSquare:
    """Finds a square 5 pixels further right in each frame, and one that stands."""

    preprocessing = Preprocessing((64, 96), antialias=True)
    description = "a fake"
    size_is_free = True
    names = {0: "person", 1: "car"}  # noqa: RUF012  (a fake)
    network = None
    seen = 0

    def detect(self, images, sizes_hw, max_det=300, selection=None):
        found = []
        for _ in sizes_hw:
            x = 5.0 * self.seen
            rows = np.array([[x, 10, x + 10, 20], [40, 40, 60, 60], [5, 45, 10, 50]], np.float32)
            scores = np.array([0.9, 0.2, 0.05], np.float32)
            found.append(Detections(rows, scores, np.array([1, 0, 0])))
            self.seen += 1
        return found


@pytest.fixture
def run(monkeypatch, tmp_path, opened_trackers):
    monkeypatch.setattr(engine, "open_detector", lambda settings: MovingSquare())
    monkeypatch.setattr(tracking, "open_trackers", lambda settings: Trackers(opened_trackers[0]))

    def run_one(source, **keys):
        keys = {"project": str(tmp_path / "runs"), **keys}
        return tracking.track(TrackSettings(source=str(source), **keys))

    return run_one


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "walk"
    path.mkdir()
    for number in range(3):
        cv2.imwrite(str(path / f"{number}.png"), np.zeros((80, 100, 3), np.uint8))
    return path


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "road.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (100, 80))
    for _ in range(4):
        writer.write(np.zeros((80, 100, 3), np.uint8))
    writer.release()
    return path


def test_a_clip_counts_tracks_and_writes_ids_in_all_files(run, clip, tmp_path, capsys):
    assert run(clip, save_txt=True, save_conf=True, save_mot=True) == 0
    assert "road.avi: 4 frames 100x80, 1 person, 1 car, " in capsys.readouterr().out
    root = tmp_path / "runs" / "track"
    label = (root / "labels" / "road_2.txt").read_text().splitlines()[0]
    assert label == "1 0.1 0.1875 0.1 0.125 0.9 1"
    lines = (root / "mot" / "road.txt").read_text().splitlines()
    assert len(lines) == 8  # the score 0.05 is below conf
    assert lines[2] == "2,1,5.00,10.00,10.00,10.00,0.9000,-1,-1,-1"


def test_the_command_runs_with_the_library(checkpoint, clip, tmp_path, capsys):
    pytest.importorskip("trackers", reason="pip install 'rtdetr-cli[track]'")
    keys = ["conf=0", "imgsz=64", "device=cpu", "tracker=bytetrack.yaml", "track_high_thresh=0"]
    command = ["track", f"model={checkpoint}", f"source={clip}", f"project={tmp_path}", *keys]
    assert run_command([*command, "save_mot"]) == 0
    assert "road.avi: 4 frames 100x80, " in capsys.readouterr().out
    text = (tmp_path / "track" / "mot" / "road.txt").read_text()
    frames = {line.split(",")[0] for line in text.splitlines()}
    assert frames == {"2", "3", "4"}  # an object gets its id in its second frame


@pytest.mark.parametrize("batch", [1, 2])
def test_json_has_the_id_of_each_box(run, folder, batch, capsys):
    assert run(folder, json=True, save=False, batch=batch) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [[one["track_id"] for one in row["detections"]] for row in rows] == [[1, 2]] * 3
    assert [row["detections"][0]["box"]["x1"] for row in rows] == [0, 5, 10]
