from __future__ import annotations

import errno
import shutil

import numpy as np
import pytest
import torch

from rtdetr_cli.cli.main import run
from rtdetr_cli.config.dataset import SPLITS, ShapesConfig
from rtdetr_cli.config.settings.convert import ConvertSettings
from rtdetr_cli.core.detections import Detections
from rtdetr_cli.core.errors import StorageError, UsageError, WeightsError
from rtdetr_cli.data.shapes import draw_shapes
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.engine.convert import convert
from rtdetr_cli.evaluation.coco import CocoEvaluator
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import load_checkpoint
from rtdetr_cli.weights.reader import open_weights


@pytest.fixture
def foreign(tiny_config, tmp_path, monkeypatch):
    """A training checkpoint with official v2 names, two classes."""
    monkeypatch.chdir(tmp_path)
    config = type(tiny_config.decoder)(hidden_dim=16, ffn_dim=32, num_layers=2)
    encoder = type(tiny_config.encoder)(hidden_dim=16, ffn_dim=32, num_csp_blocks=1)
    network = RTDETRNetwork(type(tiny_config)("x", tiny_config.backbone, encoder, config), 2)
    path = tmp_path / "foreign.pth"
    torch.save({"model": network.state_dict(), "optimizer": {"lr": 1e-4}}, path)
    return path, network


def test_a_foreign_file_becomes_one_of_ours(foreign, tmp_path, capsys):
    path, network = foreign
    assert convert(ConvertSettings(model=str(path))).samefile(tmp_path / "foreign.pt")
    found = load_checkpoint(tmp_path / "foreign.pt")
    again = RTDETRNetwork(found.config, 2)
    again.load_state_dict(found.weights)
    assert all(map(torch.equal, again.state_dict().values(), network.state_dict().values()))
    assert found.training is None
    out, err = capsys.readouterr()
    assert out == "foreign.pt\n"
    assert "official v2 names, rtdetr-custom, 2 classes, BatchNorm epsilon 1e-05" in err


@pytest.mark.parametrize(
    ("format", "ending"), [("official", ".pth"), ("safetensors", ".safetensors")]
)
def test_other_families_files_open_again_with_equal_weights(format, ending, foreign, capsys):
    path, network = foreign
    source = path.rename(path.with_name("source.bin"))
    written = convert(ConvertSettings(model=str(source), format=format))
    assert written.name == f"source{ending}"
    found = open_weights(written).weights
    assert found.keys() == network.state_dict().keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in network.state_dict().items())
    keys = "num_classes: 2, eval_spatial_size: [640, 640], num_queries: 300, eval_idx: 1"
    assert (keys in capsys.readouterr().err) is (format == "official")


def test_an_hgnetv2_is_refused_for_transformers(foreign, tmp_path):
    path, _ = foreign
    with pytest.raises(WeightsError, match="transformers has no RT-DETR with an HGNetv2"):
        convert(ConvertSettings(model=str(path), format="hf"))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("out", "format", "fits"),
    [("x.safetensors", "rtdetr", "*.pt"), ("x.pt", "safetensors", "*.safetensors")],
)
def test_a_suffix_of_another_format_is_refused(out, format, fits, foreign):
    path, _ = foreign
    with pytest.raises(UsageError) as caught:
        convert(ConvertSettings(model=str(path), out=out, format=format))
    assert str(caught.value) == f"out={out} does not fit format={format}, which writes {fits}"


def test_files_are_overwritten_only_with_out(foreign, tmp_path):
    path, _ = foreign
    (tmp_path / "foreign.pt").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"foreign\.pt exists already"):
        convert(ConvertSettings(model=str(path)))
    with pytest.raises(UsageError, match="is what is to be converted"):
        convert(ConvertSettings(model=str(path), out=str(path)))
    assert (tmp_path / "foreign.pt").read_bytes() == b"mine"
    convert(ConvertSettings(model=str(path), out="foreign.pt"))


def test_inconsistent_tensors_are_reported_and_nothing_is_written(foreign, tmp_path):
    path, network = foreign
    state = network.state_dict()
    state["decoder.dec_score_head.1.bias"] = torch.zeros(9)
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"is \(9,\) .*\(nearest is rtdetr-n: \d+"):
        convert(ConvertSettings(model=str(path)))
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Six, four and two images of 96x96 pixels in shapes/: YOLO labels, three classes."""
    monkeypatch.chdir(tmp_path)
    draw_shapes(ShapesConfig(6, 4, 2, 96), tmp_path).path.rename("shapes")
    return tmp_path / "shapes"


def convert_data(data, format, out, **keys):
    return convert(ConvertSettings(data=str(data), format=format, out=str(out), **keys))


def ap(dataset):
    """AP of the same detections, some shifted and some wrong, against the given boxes."""
    rng = np.random.default_rng(0)
    evaluator = CocoEvaluator(dataset.ground_truth(), dataset.category_ids)
    for record in dataset.records:
        kept = rng.random(len(record.labels)) < 0.8
        shift = rng.normal(0, 4, (kept.sum(), 4)).astype(np.float32)
        wrong = np.array([[10, 10, 90, 80]], np.float32)
        boxes = np.concatenate([record.boxes_xyxy[kept] + shift, wrong])
        labels = np.append(record.labels[kept], 0)
        found = Detections(boxes, rng.random(len(labels)), labels)
        evaluator.update(record.image_id, found)
    return evaluator.compute().box.stats


def assert_same_data(first, second):
    """Require the same classes, files and sizes, and boxes equal to the last bit of float32."""
    assert second.names == first.names
    for record, expected in zip(second.records, first.records, strict=True):
        assert record.path.read_bytes() == expected.path.read_bytes()
        assert record.size_hw == expected.size_hw
        assert np.array_equal(record.labels, expected.labels)
        assert np.array_equal(record.boxes_xyxy, expected.boxes_xyxy)
    assert ap(second) == ap(first)


def there_and_back(source):
    """YOLO -> COCO -> VOC -> YOLO; the data sets of each step by split."""
    places = [source]
    for format in ("coco", "voc", "yolo"):
        places.append(convert_data(places[-1], format, f"as-{format}"))
    return {split: [open_split(load_data(one), split) for one in places] for split in SPLITS[:2]}


def test_there_and_back_over_all_formats_loses_nothing(drawn):
    for first, *others in there_and_back(drawn).values():
        assert first.names == {0: "disc", 1: "square", 2: "triangle"}
        assert first.num_boxes >= 8
        for other in others:
            assert_same_data(first, other)


def test_there_and_back_with_real_cells_loses_nothing(shared_data, tmp_path, monkeypatch):
    """Every 20th image of bccd, 640x480 pixels; all of it gives the same (docs/datasets.md)."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / "bccd" / kind / split).mkdir(parents=True)
            for path in sorted((shared_data / "bccd" / kind / split).iterdir())[::20]:
                shutil.copyfile(path, tmp_path / "bccd" / kind / split / path.name)
    yaml = (shared_data / "bccd/data.yaml").read_text("utf-8").replace("test: images/test\n", "")
    (tmp_path / "bccd/data.yaml").write_text(yaml, "utf-8")
    for first, *others in there_and_back(tmp_path / "bccd").values():
        assert first.num_boxes > 50
        assert 0.1 < ap(first)["AP"] < 0.9
        for other in others:
            assert_same_data(first, other)


def test_one_json_is_train_and_val_and_written_once(drawn, capsys):
    coco = convert_data(drawn, "coco", "coco")
    out = convert_data(coco / "annotations/instances_val.json", "voc", "voc")
    assert [path.name for path in (out / "ImageSets/Main").iterdir()] == ["train.txt"]
    config = load_data(out)
    assert config.train == config.val == ("ImageSets/Main/train.txt",)
    assert "train: 4 images, " in capsys.readouterr().err


def test_a_merged_json_is_not_in_train_and_val(drawn):
    """Without a YAML it is both splits; in a merged data set that would be a leak."""
    coco = convert_data(drawn, "coco", "coco")
    json = str(coco / "annotations/instances_test.json")
    both = load_data(convert_data(json, "yolo", "both", merge=(json,)))
    assert both.train == both.val
    assert len(open_split(both, "train")) == 4
    mixed = load_data(convert_data(drawn, "yolo", "mixed", merge=(json,)))
    sizes = [len(open_split(mixed, split)) for split in SPLITS]
    assert sizes == [6 + 2, 4, 2]


def test_data_sets_are_merged_and_split(drawn, capsys):
    other = convert_data(drawn, "coco", "other", classes=("triangle", 0))
    out = convert_data(
        drawn, "yolo", "both", merge=(str(other),), split=(0.5, 0.3, 0.2), seed=1, group=r"^(\d+)"
    )
    config = load_data(out)
    assert config.names == {0: "disc", 1: "square", 2: "triangle"}
    homes = {}
    for split in SPLITS:
        for record in open_split(config, split).records:
            homes.setdefault(record.path.name[:4], []).append(split)
    assert sorted(map(len, homes.values())) == [2, 2, 4, 4, 6, 6]  # 0000.jpg is in each split
    assert all(len({*found}) == 1 for found in homes.values())
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(other), str(out)]
    assert "images renamed: 18 (first: " in captured.err


def test_drawn_shapes_are_written_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "source: shapes\nnum_train: 2\nnum_val: 1\nnum_test: 1\nsize: 64\n"
    (tmp_path / "few.yaml").write_text(text, "utf-8")
    out = convert_data("few.yaml", "voc", "voc", images="link")
    assert len(open_split(load_data(out), "train")) == 2


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("shapes/new", "out=shapes/new is in the folder of the data set, "),
        ("shapes", "out=shapes exists and is not an empty folder; name a new one"),
        ("file", "out=file exists and is not an empty folder"),
        ("a\0b", r"out=a\x00b cannot be a folder"),
    ],
)
def test_a_folder_that_may_not_be_written_is_refused(out, sentence, drawn, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        convert_data(drawn, "coco", out)
    assert sentence in str(caught.value)


def test_an_empty_folder_is_filled(drawn, tmp_path):
    (tmp_path / "empty").mkdir()
    assert (convert_data(drawn, "coco", "empty") / "data.yaml").is_file()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "x"), "cannot write .*new: no space left on the device"),
        (KeyboardInterrupt("stop"), "stop"),
    ],
)
def test_nothing_half_written_stays(error, sentence, drawn, tmp_path, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr("rtdetr_cli.data.write.shutil.copyfileobj", fail)
    before = {*tmp_path.iterdir()}
    with pytest.raises((StorageError, KeyboardInterrupt), match=sentence):
        convert_data(drawn, "coco", "new")
    assert {*tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("data=shapes format=voc out=voc images=link", 0, "val: 4 images, "),
        ("data=shapes format=voc", 2, "convert: data= needs out="),
        ("data=shapes format=voc out=shapes", 2, "out=shapes exists and is not an empty folder"),
        ("data=shapes format=voc out=voc classes=9", 2, "classes: 9 is neither a class"),
        ("data=none.yaml format=voc out=voc", 2, "none.yaml"),
        ("data=shapes format=voc out=voc split=0.9,0.1 group=(z)", 3, "group=(z) does not match"),
    ],
)
def test_the_command(words, code, sentence, drawn, tmp_path, capsys):
    assert run(["convert", *words.split()]) == code
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.out == (f"{tmp_path / 'voc'}\n" if code == 0 else "")
    assert (tmp_path / "voc").exists() is (code == 0)


def test_images_that_cannot_be_used_are_left_out_and_listed(drawn, tmp_path, capsys):
    first = sorted((drawn / "images" / "train").iterdir())[0]
    first.write_bytes(first.read_bytes()[:200])
    words = ["convert", f"data={drawn}", "format=coco", f"out={tmp_path / 'out'}"]
    assert run(words) == 3
    assert "bad_images=skip leaves such images out" in capsys.readouterr().err
    assert run([*words, "bad_images=skip"]) == 0
    assert "train: 5 images" in capsys.readouterr().err
    assert len(open_split(load_data(tmp_path / "out"), "train")) == 5
    (line,) = (tmp_path / "out" / "skipped.txt").read_text().splitlines()
    assert line.startswith(f"{first.absolute()}\t")
