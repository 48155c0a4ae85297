"""Results keep the names and the meaning that Ultralytics' users know."""

import copy
import json
import pickle

import cv2
import numpy as np
import pytest
import torch

from rtdetr_cli.core.encoding import Encoding
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.results import Results

ROWS = torch.tensor([[10.0, 20.0, 50.0, 40.0, 0.9, 1.0], [-5.0, 90.0, 30.0, 110.0, 0.5, 0.0]])
NAMES = {0: "person", 1: "traffic light"}


HOSTILE_NAMES = (
    *("", " ", ".", "..", "../..", "/etc/passwd", "a/../../b", "C:\\x", "a\0b", "a\nb"),
    *("\x1b[31m", "\udcff", "\ud800", "\u202egpj", "CON", "nul.txt", "lpt1", "com¹", "aux ."),
    *("x.", "x ", ".x", "a" * 5000, "画" * 300, "e\u0301" * 150, '?*<>|"', "~", "-rf"),
)


def make_results(rows=ROWS, **options):
    image = np.arange(100 * 200 * 3, dtype=np.uint32).astype(np.uint8).reshape(100, 200, 3)
    return Results(image, "folder/street.png", NAMES, rows, **options)


def test_ids_are_in_rows_csv_and_labels(tmp_path):
    results = make_results()
    results.update(torch.tensor([[10.0, 20, 50, 40, 7, 0.9, 1]]))
    assert results.summary()[0]["track_id"] == 7
    assert results.to_csv().splitlines()[0].endswith(",x1,y1,x2,y2,track_id")
    results.save_txt(tmp_path / "a.txt")
    results.save_txt(tmp_path / "b.txt", save_conf=True)
    assert (tmp_path / "a.txt").read_text() == "1 0.15 0.3 0.2 0.2 7\n"
    assert (tmp_path / "b.txt").read_text() == "1 0.15 0.3 0.2 0.2 0.9 7\n"
    assert "track_id" not in make_results().summary()[0]


def test_results_are_a_sequence_of_single_detections():
    results = make_results()
    assert results.orig_shape == (100, 200)
    assert len(results) == 2
    assert [len(one) for one in results] == [1, 1]
    assert results[1].boxes.cls.tolist() == [0.0]
    assert len(results.new()) == 0
    for absent in ("masks", "probs", "keypoints", "obb", "semantic_mask", "depth"):
        assert getattr(results, absent) is None


def test_results_without_boxes_still_have_boxes():
    results = make_results(None)
    assert len(results.boxes) == 0
    assert results.summary() == []
    assert results.verbose() == "(no detections), "


def test_moving_results_makes_a_copy():
    results = make_results()
    assert isinstance(results.numpy().boxes.data, np.ndarray)
    assert isinstance(results.boxes.data, torch.Tensor)
    assert results.to(torch.float64).boxes.data.dtype == torch.float64
    assert results.to("cpu", torch.float16).boxes.data.dtype == torch.float16
    assert results.numpy().to(device="cpu", dtype=torch.float64).boxes.xyxy[0, 0] == 10
    assert results.cpu().boxes.xyxy.tolist() == results.boxes.xyxy.tolist()


def test_summary_json_and_csv_agree():
    results = make_results()
    row = {
        "name": "traffic light",
        "class": 1,
        "confidence": 0.9,
        "box": {"x1": 10.0, "y1": 20.0, "x2": 50.0, "y2": 40.0},
    }
    assert results.summary()[0] == row
    assert json.loads(results.to_json()) == results.summary()
    assert results.summary(normalize=True)[0]["box"]["x2"] == 0.25
    lines = results.to_csv().splitlines()
    assert lines[0] == "name,class,confidence,x1,y1,x2,y2"
    assert lines[1] == "traffic light,1,0.9,10.0,20.0,50.0,40.0"
    assert results.new().to_csv() == lines[0] + "\n"


def test_coco_results_have_ids_by_default_and_those_given():
    results = make_results()
    assert [row["image_id"] for row in results.to_coco()] == ["street", "street"]
    assert [row["category_id"] for row in results.to_coco()] == [2, 1]
    given = results.to_coco(139, category_ids=[1, 10])
    assert [(row["image_id"], row["category_id"]) for row in given] == [(139, 10), (139, 1)]
    results.frame, results.time_s, results.path = 12, 0.4, "road.mp4"
    assert results.to_coco()[0]["image_id"] == "road_12"


def test_verbose_counts_in_words():
    rows = torch.cat([ROWS, ROWS])
    results = make_results(rows)
    results.names[1] = "bus"
    assert results.verbose() == "2 persons, 2 bus, "


def test_labels_are_yolo_text_inside_the_image(tmp_path):
    path = make_results().save_txt(tmp_path / "labels" / "a.txt", save_conf=True)
    lines = (tmp_path / "labels" / "a.txt").read_text().splitlines()
    assert path == str(tmp_path / "labels" / "a.txt")
    assert lines == ["1 0.15 0.3 0.2 0.2 0.9", "0 0.075 0.95 0.15 0.1 0.5"]


def test_labels_of_a_image_without_boxes_are_an_empty_file(tmp_path):
    make_results(None).save_txt(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == ""


@pytest.mark.parametrize(("name", "folder"), [("cabinet/shelf", "cabinet_shelf"), ("..", "_")])
def test_crops_go_to_class_folders_with_the_row_of_the_box(name, folder, tmp_path):
    results = make_results(torch.cat([ROWS, torch.tensor([[300.0, 5, 310, 9, 0.3, 0]])]))
    results.names[1] = name
    results.save_crop(tmp_path, "street.png")
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    assert found == [f"{folder}/street-1.jpg", "person/street-2.jpg"]
    assert cv2.imread(str(tmp_path / found[0])).shape == (20, 40, 3)


@pytest.mark.parametrize(
    "names",
    [
        {0: "a/b", 1: "a:b"},
        {0: "Car", 1: "car"},
        {0: "caf\u00e9", 1: "cafe\u0301"},  # composed and decomposed
        {0: "cell", 1: "cell"},
        {0: "", 1: "."},
        {0: "画" * 300, 1: "画" * 301},
        {0: "car-1", 1: "car", 2: "CAR"},
        {1: "0"},  # class 0 has no name
    ],
)
def test_crops_of_two_classes_never_share_a_folder(names, tmp_path):
    results = make_results()  # of the classes 1 and 0
    results.names = names
    results.save_crop(tmp_path, "a.jpg")
    folders = [path.parent.name for path in tmp_path.rglob("*.jpg")]
    assert len({folder.casefold() for folder in folders}) == 2


def test_crops_are_written_for_every_class_name(tmp_path):
    results = make_results()
    for number, name in enumerate(HOSTILE_NAMES):
        results.names = {0: name, 1: "b"}
        results.save_crop(tmp_path / str(number), f"{name}.jpg")
        inside = list((tmp_path / str(number)).rglob("*.jpg"))
        assert len(inside) == 2, ascii(name)
        assert all(len(path.relative_to(tmp_path).parts) == 3 for path in inside), ascii(name)
    assert all(path.name.isdecimal() for path in tmp_path.iterdir())  # nothing beside them


def test_plot_needs_a_painter_and_knows_its_options(tmp_path):
    with pytest.raises(UsageError, match="needs a painter"):
        make_results().plot()
    results = make_results(painter=lambda image, boxes, names, style: 255 - image)
    with pytest.raises(UsageError, match=r"linewidth is not an option.*did you mean line_width"):
        results.plot(linewidth=3)
    with pytest.raises(UsageError, match="expected class or instance"):
        results.plot(color_mode="rainbow")
    drawn = results.plot(line_width=3)
    np.testing.assert_array_equal(drawn, 255 - results.orig_img)
    assert results.plot(pil=True).getpixel((0, 0)) == tuple(drawn[0, 0, ::-1].tolist())
    assert results.save(tmp_path / "x.png") == str(tmp_path / "x.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "x.png")), drawn)


def test_plot_saves_and_takes_the_options_of_other_tasks(tmp_path, monkeypatch):
    results = make_results(painter=lambda image, boxes, names, style: 255 - image)
    plain = results.plot()
    saved = results.plot(save=True, filename=tmp_path / "x.png", txt_color=(0, 0, 0), masks=False)
    np.testing.assert_array_equal(saved, plain)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "x.png")), plain)
    monkeypatch.chdir(tmp_path)
    results.encoding = Encoding("PNG")
    results.plot(save=True)
    assert (tmp_path / "results_street.png").exists()
    shown = []
    show = lambda image, title: shown.append(title)  # noqa: E731
    monkeypatch.setattr("rtdetr_cli.core.results.show_image", show)
    assert results.plot(show=True, pil=True).size == (200, 100)
    results.show()
    assert shown == ["folder/street.png"] * 2


def test_the_default_font_of_ultralytics_is_the_default_font():
    fonts = []
    painter = lambda image, boxes, names, style: fonts.append(style.font) or image  # noqa: E731
    results = make_results(painter=painter)
    results.plot(font="Arial.ttf", im_gpu=None)
    results.plot(font="other.ttf")
    assert fonts == [None, "other.ttf"]


ATTRIBUTES = """boxes cpu cuda depth keypoints masks names new numpy obb orig_img orig_shape path
    plot probs save save_crop save_dir save_txt semantic_mask show speed summary to to_csv to_df
    to_json update verbose"""
BOXES_ATTRIBUTES = """cls conf cpu cuda data id is_track numpy orig_shape shape to xywh xywhn xyxy
    xyxyn"""


def test_every_public_name_of_ultralytics_exists():
    """The names: dir() of a Results and its Boxes of Ultralytics 8.4.190, run as a black box."""
    results = make_results()
    assert [name for name in ATTRIBUTES.split() if not hasattr(results, name)] == []
    assert [name for name in BOXES_ATTRIBUTES.split() if not hasattr(results.boxes, name)] == []
    results.update(boxes=ROWS[:1])
    assert len(results) == 1


def test_a_image_that_cannot_be_encoded_is_one_sentence(tmp_path):
    results = make_results(painter=lambda image, boxes, names, style: image)
    with pytest.raises(UsageError, match=r"cannot write 200x100 pixels as .*x\.docx"):
        results.save(tmp_path / "x.docx")
    assert list(tmp_path.iterdir()) == []


def test_absent_names_say_so_and_copies_work():
    results = make_results()
    with pytest.raises(AttributeError, match=r"have no keys$"):  # keypoints are None
        results.keys  # noqa: B018
    with pytest.raises(AttributeError, match=r"have no sumary; did you mean summary\?"):
        results.sumary  # noqa: B018
    assert not hasattr(results, "speeds")
    for twin in (copy.deepcopy(results), pickle.loads(pickle.dumps(results))):
        assert twin.summary() == results.summary()
