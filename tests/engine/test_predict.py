"""Prediction: Results, lines, JSON and files; unreadable images are reported."""

import json
import signal
import threading
from functools import partial
from itertools import count as count_from
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.callbacks import PREDICT_EVENTS
from rtdetr_cli.core.detections import ALL_PAIRS, Detections
from rtdetr_cli.core.errors import BackendError, DataError, StorageError, UsageError
from rtdetr_cli.engine import predict as engine
from rtdetr_cli.engine.session.states import PredictState
from rtdetr_cli.media import readers
from rtdetr_cli.media.writer import RunWriter

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


class FakeDetector:
    """Finds the whole image (class 2, score .9), its left half (0, .5), its top half (1, .25)."""

    preprocessing = Preprocessing((64, 96), antialias=True)
    description = "a fake"
    size_is_free = True

    def __init__(self):
        self.names = {0: "person", 1: "car", 2: "bus"}
        self.batches = []
        self.network = None

    def detect(self, images, sizes_hw, max_det=300, selection=ALL_PAIRS):
        self.batches.append(images)
        found = (
            Detections(
                np.array([[0, 0, w, h], [0, 0, w / 2, h], [0, 0, w, h / 2]], np.float32),
                np.array([0.9, 0.5, 0.25], np.float32),
                np.array([2, 0, 1]),
            )
            for h, w in sizes_hw
        )
        return [one.of(selection) for one in found]


@pytest.fixture
def detector(monkeypatch):
    fake = FakeDetector()
    monkeypatch.setattr(engine, "open_detector", lambda settings: fake)
    return fake


def settings(source, root, **keys):
    return PredictSettings(source=str(source), project=str(root / "runs"), **keys)


def state(root, **keys):
    return PredictState(settings("-", root, **keys))


def write_images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        assert cv2.imwrite(str(folder / name), np.full((40, 30, 3), (200, 0, 0), np.uint8))
    return folder


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_lines_per_image_on_stdout_and_log_output_on_stderr(detector, tmp_path, capsys):
    source = write_images(tmp_path / "in", "a.png", "b.png")
    assert engine.predict(settings(source, tmp_path)) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"image 1/2 {source}/a.png: 30x40 1 person, 1 bus, ")
    assert lines[1].startswith(f"image 2/2 {source}/b.png: ")
    assert lines[0].endswith(" ms")
    assert "a fake\nSpeed: " in err
    assert "postprocess per image at 96x64\n" in err
    assert f"Results saved to {tmp_path}/runs/predict\n" in err
    assert written(tmp_path / "runs") == ["predict/a.png", "predict/b.png"]


def test_json_is_one_array_and_nothing_else(detector, tmp_path, capsys):
    source = write_images(tmp_path / "in", "a.png", "b.png")
    (source / "b.png").write_bytes(b"")
    assert engine.predict(settings(source, tmp_path, json=True, save=False)) == 3
    good, bad = json.loads(capsys.readouterr().out)
    assert (good["path"], good["width"], good["height"]) == (f"{source}/a.png", 30, 40)
    assert [row["name"] for row in good["detections"]] == ["bus", "person"]
    assert good["detections"][1]["box"] == {"x1": 0.0, "y1": 0.0, "x2": 15.0, "y2": 40.0}
    assert sorted(good["speed"]) == ["inference", "postprocess", "preprocess"]
    assert "the file is empty" in bad["error"]
    assert not (tmp_path / "runs").exists()


def test_unreadable_images_are_reported_and_the_exit_code_is_3(detector, tmp_path, capsys):
    source = write_images(tmp_path / "in", "a.png", "b.png", "c.png")
    (source / "b.png").write_text("<html>")
    assert engine.predict(settings(source, tmp_path, batch=2)) == 3
    out, err = capsys.readouterr()
    assert [line.split(" ")[1] for line in out.splitlines()] == ["1/3", "3/3"]
    assert f"Warning: {source}/b.png: cannot be read as an image (unknown image format)" in err
    assert written(tmp_path / "runs") == ["predict/a.png", "predict/c.png"]


def test_a_source_without_a_readable_image_fails_and_leaves_no_folder(detector, tmp_path):
    source = write_images(tmp_path / "in", "a.png", "b.png")
    for file in source.iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image"):
        engine.predict(settings(source / "a.png", tmp_path))
    with pytest.raises(DataError, match="none of the 2 images could be read"):
        engine.predict(settings(source, tmp_path))
    assert not (tmp_path / "runs").exists()


def test_a_wrong_path_is_found_before_the_model_is_opened(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "open_detector", lambda settings: pytest.fail("opened"))
    with pytest.raises(DataError, match="no such file"):
        engine.predict(settings(tmp_path / "nope.jpg", tmp_path))


def test_images_of_the_same_name_get_separate_files(detector, tmp_path):
    for folder in ("a", "b"):
        write_images(tmp_path / "in" / folder, "1.png")
    keys = {"save_txt": True, "save_conf": True, "save_crop": True}
    assert engine.predict(settings(f"{tmp_path}/in/**/*", tmp_path, **keys)) == 0
    run = tmp_path / "runs" / "predict"
    crops = [
        f"crops/{name}/{stem}-{row}.jpg"
        for name, row in (("bus", 1), ("person", 2))
        for stem in ("1", "1-2")
    ]
    assert written(run) == sorted(["1.png", "1-2.png", "labels/1.txt", "labels/1-2.txt", *crops])
    assert (run / "labels" / "1.txt").read_text() == "2 0.5 0.5 1 1 0.9\n0 0.25 0.5 0.5 1 0.5\n"


def test_conf_classes_and_max_det_filter_detections(detector, tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)

    def found(**keys):
        (results,) = engine.stream_results(detector, image, state(tmp_path, save=False, **keys))
        return [int(label) for label in results.boxes.cls]

    assert found() == [2, 0]  # the score .25 is not above conf=0.25
    assert found(conf=0.2) == [2, 0, 1]
    assert found(conf=0.9) == []
    assert found(conf=0.0, max_det=1) == [2]
    assert found(conf=0.0, max_det=1, classes=(0, 1)) == [0]
    assert found(conf=0.0, classes=(detector.names[1], 0)) == [0, 1]
    with pytest.raises(UsageError, match=r"classes: 3 is neither a class of the model .* 0 to 2"):
        found(classes=(3,))


def test_the_detector_gets_rgb_at_its_own_size_or_at_imgsz(detector, tmp_path):
    image = np.full((40, 30, 3), (255, 0, 51), np.uint8)  # BGR
    keys = {"save": False, "batch": 2}
    results = list(engine.stream_results(detector, [image] * 3, state(tmp_path, **keys)))
    assert [len(batch) for batch in detector.batches] == [2, 1]
    assert detector.batches[0].shape == (2, 3, 64, 96)
    assert detector.batches[0].dtype == np.float32
    np.testing.assert_allclose(detector.batches[0][0, :, 5, 5], [0.2, 0.0, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(results[0].orig_img, image)
    assert results[0].plot().shape == (40, 30, 3)
    list(engine.stream_results(detector, image, state(tmp_path, save=False, imgsz=(32, 64))))
    assert detector.batches[-1].shape == (1, 3, 32, 64)
    detector.size_is_free = False
    with pytest.raises(UsageError, match="the exported file takes 64x96 only"):
        list(engine.stream_results(detector, image, state(tmp_path, save=False, imgsz=32)))


def test_rect_shapes_every_image_of_a_batch_and_every_frame(detector, road, tmp_path):
    """96 pixels are the longer side: 96 * 40 / 80 = 48 and 96 * 48 / 64 = 72 are nearest to 64."""
    images = [np.zeros(size, np.uint8) for size in ((40, 80, 3), (80, 40, 3), (40, 80, 3))]
    keys = {"save": False, "rect": True}
    results = list(engine.stream_results(detector, images, state(tmp_path, batch=3, **keys)))
    assert [batch.shape for batch in detector.batches] == [(2, 3, 64, 96), (1, 3, 96, 64)]
    assert [one.boxes.xyxy[0].tolist() for one in results] == [
        [0, 0, 80, 40],
        [0, 0, 40, 80],
        [0, 0, 80, 40],
    ]
    detector.batches.clear()
    assert engine.predict(settings(road, tmp_path, batch=4, vid_stride=2, **keys)) == 0
    assert {batch.shape[1:] for batch in detector.batches} == {(3, 64, 96)}
    assert len(detector.batches[0]) == 4


def test_augment_averages_what_four_variants_of_each_image_show(detector, tmp_path):
    """The person is in the left half of all variants, in two of the image and two mirrored ones."""
    images, keys = [np.zeros((40, 80, 3), np.uint8)] * 2, {"save": False, "augment": True}
    results = list(
        engine.stream_results(detector, images, state(tmp_path, batch=2, conf=0.2, **keys))
    )
    assert [batch.shape for batch in detector.batches] == [
        (4, 3, 64, 96),
        (2, 3, 64, 64),
        (2, 3, 64, 128),
    ]
    for result in results:
        assert result.boxes.conf.tolist() == pytest.approx([0.9, 0.25, 0.25, 0.25])
        rows = np.column_stack([result.boxes.cls, result.boxes.xyxy]).astype(int)
        assert set(map(tuple, rows.tolist())) == {
            (2, 0, 0, 80, 40),
            (1, 0, 0, 80, 20),
            (0, 0, 0, 40, 40),
            (0, 40, 0, 80, 40),
        }


class Halves:
    """A file of 40000 x 30000 pixels; what is read of it is small and gray."""

    def __init__(self):
        self.boxes = []

    def placeholder(self):
        return np.broadcast_to(np.uint8(0), (30000, 40000, 3))

    def part(self, box):
        self.boxes.append(box)
        return np.full((30, 40, 3), 128, np.uint8)


def test_a_large_image_is_read_by_tiles_and_never_whole(detector, tmp_path, monkeypatch, capsys):
    large, path = Halves(), tmp_path / "a.tif"
    path.touch()
    monkeypatch.setattr(readers, "find_large", lambda path: large)
    keys = {"tiles": "2x1", "tile_overlap": 0, "json": True, "save": False}
    assert engine.predict(settings(path, tmp_path, **keys)) == 0
    assert large.boxes == [(0, 0, 40000, 30000), (0, 0, 20000, 30000), (20000, 0, 40000, 30000)]
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["width"], row["height"]) == (40000, 30000)
    assert {"x1": 20000.0, "y1": 0.0, "x2": 30000.0, "y2": 30000.0} in [
        one["box"] for one in row["detections"]
    ]
    out = tmp_path / "rows"
    (tmp_path / "m.onnx").touch()
    keys |= {"json": False, "out": str(out), "model": str(tmp_path / "m.onnx")}
    assert engine.predict(PredictSettings(source=str(path), **keys)) == 0
    (part,) = out.glob("*.jsonl")
    assert json.loads(part.read_text())["width"] == 40000
    with pytest.raises(DataError, match=r"a\.tif: is read by parts and not drawn; give save=false"):
        engine.predict(settings(path, tmp_path, tiles="2x1"))
    assert not (tmp_path / "runs").exists()


def test_a_stream_reads_only_as_far_as_it_is_iterated(detector, tmp_path):
    source = write_images(tmp_path / "in", "a.png", "b.png")
    results = engine.stream_results(detector, str(source), state(tmp_path, save=False))
    assert detector.batches == []
    next(results)
    assert len(detector.batches) == 1
    with pytest.raises(DataError, match="no such file"):
        engine.stream_results(detector, "nope.jpg", state(tmp_path))


@pytest.fixture
def road(tmp_path):
    """A video of 7 frames at 20 per second, 64x48."""
    return write_video(tmp_path / "in" / "road.mp4", 7)


def write_video(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 20, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 6 * number, np.uint8))
    writer.release()
    return path


def test_a_video_gets_one_line_and_an_annotated_video(detector, road, tmp_path, capsys):
    keys = {"save_txt": True, "save_crop": True, "save_frames": True, "vid_stride": 3, "batch": 2}
    assert engine.predict(settings(road, tmp_path, **keys)) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"video 1/1 {road}: 3 frames 64x48, 3 persons, 3 bus, ")
    assert out.count("\n") == 1
    assert [len(batch) for batch in detector.batches] == [2, 1]
    run = tmp_path / "runs" / "predict"
    assert written(run) == sorted(
        ["road.mp4"]
        + [f"road_frames/{frame}.jpg" for frame in (1, 4, 7)]
        + [f"labels/road_{frame}.txt" for frame in (1, 4, 7)]
        + [f"crops/bus/road_{frame}-1.jpg" for frame in (1, 4, 7)]
        + [f"crops/person/road_{frame}-2.jpg" for frame in (1, 4, 7)]
    )
    capture = cv2.VideoCapture(str(run / "road.mp4"))
    rate, frames = (capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
    assert frames == 3
    assert rate == pytest.approx(20 / 3, rel=0.01)


def test_frames_know_their_number_and_time_in_python(detector, road, tmp_path):
    still = np.zeros((8, 8, 3), np.uint8)
    keys = {"save": False, "vid_stride": 2, "batch": 3}
    results = list(engine.stream_results(detector, [str(road), still], state(tmp_path, **keys)))
    assert [one.frame for one in results] == [1, 3, 5, 7, None]
    assert [one.time_s for one in results[:4]] == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-3)
    assert {one.path for one in results[:4]} == {str(road)}
    assert results[1].save(tmp_path / "a.jpg") == str(tmp_path / "a.jpg")


def test_a_damaged_video_among_others_keeps_its_frames_and_the_exit_code_is_3(
    detector, road, tmp_path, capsys
):
    content = write_video(road.parent / "cut.avi", 40).read_bytes()
    (road.parent / "cut.avi").write_bytes(content[: len(content) * 2 // 3])
    (road.parent / "bad.mkv").write_bytes(b"\x1aE\xdf\xa3" + b"x" * 100)
    assert engine.predict(settings(road.parent, tmp_path)) == 3
    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()] == [
        f"video 2/3 {road.parent}/cut.avi",
        f"video 3/3 {road}",
    ]
    assert f"Warning: {road.parent}/bad.mkv: cannot be read as a video" in err
    assert f"Warning: {road.parent}/cut.avi: the video is damaged" in err
    assert written(tmp_path / "runs") == ["predict/cut.mp4", "predict/road.mp4"]


def test_a_video_that_is_left_early_is_finished(detector, road, tmp_path):
    results = engine.stream_results(detector, str(road), state(tmp_path, save=True))
    next(results)
    next(results)
    results.close()
    capture = cv2.VideoCapture(str(tmp_path / "runs" / "predict" / "road.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 2


def test_callbacks_keep_their_order_and_thread_and_find_their_files(detector, tmp_path):
    source, run, calls = write_images(tmp_path / "in", "a.png", "b.png", "c.png"), [], []

    def note(event, state):
        images = [Path(one.path).stem for one in state.images]
        if event == "on_predict_batch_end":
            run.append([(state.save_dir / f"{stem}.png").is_file() for stem in images])
        calls.append((event, images[:], threading.current_thread() is threading.main_thread()))

    noted = state(tmp_path, save=True, batch=2)
    for event in PREDICT_EVENTS:
        noted.callbacks.add(event, partial(note, event))
    list(engine.stream_results(detector, str(source), noted))
    start, *batch, end = PREDICT_EVENTS
    assert calls == [
        (start, [], True),
        *((event, ["a", "b"], True) for event in batch),
        *((event, ["c"], True) for event in batch),
        (end, ["c"], True),
    ]
    assert run == [[True, True], [True]]


def running():
    return [one for one in threading.enumerate() if one.name.startswith("rtdetr-")]


def test_a_run_that_is_left_early_ends_its_threads(detector, tmp_path):
    source = write_images(tmp_path / "in", *(f"{number}.png" for number in range(40)))
    results = engine.stream_results(detector, str(source), state(tmp_path, save=True))
    for _ in zip(range(3), results, strict=False):
        pass
    assert running()
    results.close()
    assert running() == []
    assert len(written(tmp_path / "runs")) == 3
    assert len(detector.batches) == 3


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, also in a job of a shell in the background."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_ends_its_threads_and_keeps_its_files(detector, road, tmp_path, capsys):
    def detect(*args, **keys):
        if len(detector.batches) == 4:
            signal.raise_signal(signal.SIGINT)
        return FakeDetector.detect(detector, *args, **keys)

    detector.detect = detect
    with pytest.raises(KeyboardInterrupt):
        engine.predict(settings(road, tmp_path))
    assert running() == []
    assert capsys.readouterr().out.startswith(f"video 1/1 {road}: 4 frames")
    capture = cv2.VideoCapture(str(tmp_path / "runs" / "predict" / "road.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4


def test_a_full_disk_ends_the_run_with_its_own_error(detector, tmp_path, monkeypatch):
    source = write_images(tmp_path / "in", *(f"{number}.png" for number in range(40)))
    write, count = RunWriter.write, count_from(1)

    def full(writer, results, clip, drawn):
        if next(count) == 5:
            raise StorageError("no space left")
        write(writer, results, clip, drawn)

    monkeypatch.setattr(RunWriter, "write", full)
    with pytest.raises(StorageError, match="no space left"):
        engine.predict(settings(source, tmp_path))
    assert running() == []
    assert len(written(tmp_path / "runs")) == 4
    assert 5 <= len(detector.batches) <= 15  # at most eight wait


def test_show_ends_the_run_with_q(detector, tmp_path, monkeypatch, capsys):
    """Of three images the second is the last; what is found so far is printed and written."""
    keys = [ord(" "), ord("q")]
    monkeypatch.setattr(engine, "require_windows", lambda: None)
    for name in ("namedWindow", "resizeWindow", "imshow", "destroyWindow"):
        monkeypatch.setattr(cv2, name, lambda *args: None)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda title, which: 1.0)
    monkeypatch.setattr(cv2, "waitKey", lambda milliseconds: keys.pop(0) if keys else -1)
    source = write_images(tmp_path / "in", "a.png", "b.png", "c.png")
    assert engine.predict(settings(source, tmp_path, show=True, batch=1)) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert written(tmp_path / "runs") == ["predict/a.png", "predict/b.png"]


def test_without_a_screen_show_ends_before_anything_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("rtdetr_cli.core.screen.cv2.currentUIFramework", lambda: "")
    detector = lambda *args: pytest.fail("was opened")  # noqa: E731
    monkeypatch.setattr(engine, "open_detector", detector)
    with pytest.raises(BackendError, match="opencv-python-headless"):
        engine.predict(settings(tmp_path, tmp_path, show=True))
    with pytest.raises(BackendError, match="opencv-python-headless"):
        engine.stream_results(None, "a.jpg", PredictState(settings(tmp_path, tmp_path, show=True)))


def image_format(path):
    with Image.open(path) as image:
        return image.format


def test_every_corner_case_works_or_is_reported(detector, tmp_path, capsys):
    folder = SHARED / "corner_cases"
    if not folder.is_dir():
        pytest.skip("the corner cases in ../shared/data are absent")
    index = json.loads((folder / "index.json").read_text())
    unreadable = {name for name, entry in index.items() if entry["upright_size"] is None}
    unreadable |= {"truncated_half.jpg", "bad_crc.png", "bomb_20000x10000.png"}
    assert engine.predict(settings(folder, tmp_path, json=True)) == 3
    out, err = capsys.readouterr()
    rows = {Path(row["path"]).name: row for row in json.loads(out)}
    assert rows.keys() == index.keys()
    assert {name for name, row in rows.items() if "error" in row} == unreadable
    assert err.count("Warning: ") == len(unreadable) + 1  # and multipage.tif: one page
    assert rows["animated.gif"]["frame"] == 6
    files = written(tmp_path / "runs")
    assert "predict/animated.mp4" in files
    for name in index.keys() - unreadable:
        assert [rows[name]["width"], rows[name]["height"]] == index[name]["upright_size"], name
    still = [folder / name for name in index.keys() - unreadable - {"animated.gif"}]
    copies = [tmp_path / "runs" / name for name in files if not name.endswith(".mp4")]
    assert sorted(map(image_format, copies)) == sorted(map(image_format, still))
