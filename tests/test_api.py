"""The Python class RTDETR: the interface of Ultralytics without its sticky state."""

import pickle
import traceback
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch

import rtdetr_cli
from rtdetr_cli import RTDETR, Results
from rtdetr_cli.backends.torch import build_network
from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.callbacks import PREDICT_EVENTS
from rtdetr_cli.core.errors import (
    BackendError,
    ConfigError,
    RTDETRError,
    UsageError,
    WeightsError,
)
from rtdetr_cli.core.structures import ModelOutput
from rtdetr_cli.engine import val
from rtdetr_cli.engine.predicting.tracking import Trackers
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
NAMES = {0: "person", 1: "bus"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint of rtdetr-n with random weights, made for 64x96 pixels."""
    torch.manual_seed(0)
    config = load_model_config("rtdetr-n")
    network = build_network(config, len(NAMES))
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_checkpoint(
        path, Checkpoint(config, NAMES, network.state_dict(), Preprocessing(size_hw=(64, 96)))
    )
    return path


@pytest.fixture(scope="module")
def model(weights):
    return RTDETR(weights, device="cpu")


def scores(results):
    (one,) = results
    return one.boxes.conf


def test_a_call_returns_a_list_of_results_best_first(model):
    (results,) = model(IMAGE, conf=0.0)
    assert isinstance(results, Results)
    assert results.orig_shape == (48, 64)
    assert results.names == model.names == NAMES
    assert all(a >= b for a, b in pairwise(results.boxes.conf.tolist()))
    assert set(results.speed) == {"preprocess", "inference", "postprocess"}
    assert results.plot().shape == (48, 64, 3)


def test_stream_returns_a_generator_but_opens_the_source_at_once(model):
    results = model.predict([IMAGE, IMAGE], stream=True)
    assert iter(results) is results
    assert len(list(results)) == 2
    with pytest.raises(RTDETRError, match="no such file"):
        model.predict("nope.jpg", stream=True)


def test_tracks_continue_from_call_to_call_with_persist(weights, monkeypatch):
    class Counting:
        count = 0

        def update(self, boxes, image_bgr, time_s):
            self.count += 1
            return np.full(len(boxes), self.count)

    monkeypatch.setattr(
        "rtdetr_cli.engine.predicting.calls.open_trackers",
        lambda settings, persist=False: Trackers(lambda fps: Counting(), persist),
    )
    model = RTDETR(weights, device="cpu")
    ids = [model.track(IMAGE, persist=True, conf=0)[0].boxes.id.unique() for _ in range(2)]
    assert ids == [1, 2]
    assert model.predictor.args.mode == "track"
    results = model.track([IMAGE, IMAGE], stream=True, conf=0)
    assert [(one.frame, int(one.boxes.id[0])) for one in results] == [(1, 1), (2, 2)]
    assert pickle.loads(pickle.dumps(model)).track(IMAGE, persist=True, conf=0)[0].frame == 1


def test_the_network_is_accessible_and_runs_in_float64(weights):
    network = RTDETR(weights, device="cpu").model
    assert not network.training
    with torch.inference_mode():
        output = network.double()(torch.zeros(2, 3, 64, 96, dtype=torch.float64))
    assert isinstance(output, ModelOutput)
    assert output.pred_logits.shape[::2] == (2, 2)
    assert output.pred_boxes.dtype == torch.float64


def test_speed_settings_apply_to_one_call_only(model):
    full = scores(model(IMAGE, conf=0.0))
    short = scores(model(IMAGE, conf=0.0, decoder_layers=1, num_queries=20, max_det=300))
    assert len(short) == 40  # 20 queries, 2 classes
    torch.testing.assert_close(scores(model(IMAGE, conf=0.0)), full, rtol=0, atol=0)
    with pytest.raises(UsageError, match="decoder_layers=9"):
        model(IMAGE, decoder_layers=9)
    torch.testing.assert_close(scores(model(IMAGE, conf=0.0)), full, rtol=0, atol=0)


def test_a_failed_call_changes_nothing(model):
    before = scores(model(IMAGE, conf=0.0))
    with pytest.raises(BackendError, match="device=cuda:99"):
        model(IMAGE, device="cuda:99")
    assert model.device == torch.device("cpu")
    torch.testing.assert_close(scores(model(IMAGE, conf=0.0)), before, rtol=0, atol=0)


def test_files_are_written_only_with_save(model, tmp_path):
    model(IMAGE, project=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    (results,) = model(IMAGE, project=str(tmp_path), save=True)
    assert results.save_dir == str(tmp_path / "predict")
    assert (tmp_path / "predict" / "image0.jpg").is_file()


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"confidence": 0.5}, r"confidence is not a key of predict; did you mean conf\?"),
        ({"conf": 2}, "conf must be at most 1"),
        ({"imgsz": 0}, "must be at least 32"),
        ({"json": True}, r"use results\[0\]\.to_json"),
        ({"model": "x.pt"}, "model is set by RTDETR"),
        ({"classes": [5]}, "classes: 5 is neither a class of the model .* 0 to 1"),
    ],
)
def test_wrong_keys_are_refused_as_on_the_command_line(model, keys, sentence):
    with pytest.raises(UsageError, match=sentence):
        model(IMAGE, **keys)


def test_verbose_prints_a_line_per_image(model, capsys):
    model([IMAGE, IMAGE], verbose=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[1].startswith("image 2 image1.jpg: 64x48 ")


def test_an_architecture_is_built_on_demand(capsys):
    model = RTDETR("rtdetr-n.yaml", device="cpu")
    assert "random" not in capsys.readouterr().err
    first = scores(model(IMAGE, imgsz=64, conf=0.0))
    assert "random" in capsys.readouterr().err
    one_layer = model(IMAGE, imgsz=64, conf=0.0, decoder_layers=3)
    torch.testing.assert_close(scores(one_layer), first)  # the same random weights


def test_load_opens_other_weights(weights):
    model = RTDETR("rtdetr-n.yaml", device="cpu")
    assert model.load(weights) is model
    assert model.names == NAMES
    assert model.fuse() is model


@pytest.mark.parametrize("pretrained", [{}, {"pretrained": True}, {"pretrained": None}])
def test_training_starts_from_the_loaded_weights(weights, monkeypatch, pretrained):
    def stop(settings, _):
        raise UsageError(str(settings.pretrained))

    monkeypatch.setattr("rtdetr_cli.engine.train.train", stop)
    model = RTDETR("rtdetr-n.yaml", device="cpu").load(weights)
    with pytest.raises(UsageError) as caught:
        model.train(data="x", **pretrained)
    assert str(caught.value) == str(weights)


def test_what_cannot_be_opened_fails_at_once(tmp_path):
    with pytest.raises(ConfigError):
        RTDETR("rtdetr-q.yaml")
    (tmp_path / "x.pt").write_text("words")
    with pytest.raises(WeightsError):
        RTDETR(tmp_path / "x.pt")


# Attributes of Ultralytics' model object (../shared/reference/ultralytics-rtdetr.md, section 5.4),
# and what each is here: "call" a method, "value" an attribute, "none" one that is None until the
# call that makes it, or the reason in its AttributeError.
THEIRS = {
    **dict.fromkeys(("__call__", "predict", "val", "train", "export", "benchmark"), "call"),
    **dict.fromkeys(("embed", "info", "fuse", "load", "save", "reset_weights"), "call"),
    **dict.fromkeys(("add_callback", "clear_callback", "reset_callbacks"), "call"),
    **dict.fromkeys(("to", "cpu", "cuda", "half", "float", "eval"), "call"),
    **dict.fromkeys(("state_dict", "parameters", "named_parameters"), "call"),
    **dict.fromkeys(("names", "device", "transforms", "model", "ckpt", "ckpt_path"), "value"),
    **dict.fromkeys(("overrides", "task", "callbacks"), "value"),
    **dict.fromkeys(("trainer", "predictor", "metrics"), "none"),
    "model.names": "value",
    "model.yaml": "value",
    "model.stride": "value",
    "track": "call",
    "tune": "docs/python.md has it with optuna",
    "task_map": "there is one task, detect",
}


@pytest.mark.parametrize(("name", "kind"), THEIRS.items())
def test_every_attribute_of_ultralytics_works_or_has_its_reason(name, kind, model):
    if kind not in {"call", "value", "none"}:
        assert not hasattr(model, name)
        with pytest.raises(AttributeError, match=f"RTDETR has no {name}: .*{kind}"):
            getattr(model, name)
        return
    found = attrgetter(name)(model)  # fails in __getattr__ if it does not exist
    assert callable(found) is (kind == "call" or name == "model")
    assert kind == "none" or found is not None


def test_what_a_call_makes_is_none_before(weights):
    model = RTDETR(weights, device="cpu")
    assert model.trainer is model.predictor is model.metrics is None
    model(IMAGE)
    assert model.predictor.seen == 1


def test_an_unknown_attribute_is_named_with_the_nearest(model):
    with pytest.raises(AttributeError, match=r"RTDETR has no predicts; did you mean predict\?"):
        model.predicts  # noqa: B018


def test_the_network_describes_itself_outside_of_its_state_dict(model):
    before = list(model.state_dict())
    network = model.model
    assert network.names == NAMES
    assert network.yaml["decoder"]["hidden_dim"] == 128  # models/rtdetr-n.yaml
    assert network.stride.tolist() == [8, 16, 32]
    assert list(network.state_dict()) == before
    assert len(list(model.parameters())) == len(dict(model.named_parameters())) > 100


def test_overrides_are_defaults_of_every_call_with_such_a_key(weights):
    model = RTDETR(weights, device="cpu")
    assert model.overrides == {"task": "detect", "model": str(weights)}
    model.overrides["max_det"] = 3
    assert len(scores(model(IMAGE, conf=0.0))) == 3
    assert len(scores(model(IMAGE, conf=0.0, max_det=5))) == 5
    model.overrides["confidence"] = 0.5
    with pytest.raises(UsageError, match="confidence is not a key of predict"):
        model(IMAGE)


def test_a_call_without_a_source_says_what_to_give(model):
    with pytest.raises(UsageError, match=r"predict needs a source: .*model\(\"bus\.jpg\"\)"):
        model()
    with pytest.raises(UsageError, match="a camera or stream has no end: give stream=True"):
        model(0)
    with pytest.raises(UsageError, match=r"embed is a method: model\.embed\(source\)"):
        model(IMAGE, embed=[4])
    assert len(model(IMAGE, embed=None)) == 1


def test_predict_events_see_and_change_the_results(weights, tmp_path):
    model, seen = RTDETR(weights, device="cpu"), []
    for event in PREDICT_EVENTS:
        model.add_callback(event, lambda state, event=event: seen.append((event, state.seen)))

    def pair(state):
        paths, images, _ = state.batch
        assert paths == [one.path for one in state.results]
        assert all((image == IMAGE).all() for image in images)  # BGR, as it was given
        state.results = zip(state.results, images, strict=True)

    model.add_callback("on_predict_batch_end", pair)
    (tmp_path / "broken.png").write_text("no image")
    source = [IMAGE, str(tmp_path / "broken.png"), IMAGE]
    pairs = model(source, batch=2)  # as in the example of Ultralytics' documentation on callbacks
    assert [(type(one), image.shape) for one, image in pairs] == [(Results, (48, 64, 3))] * 2
    batch = PREDICT_EVENTS[1:4]
    events = [PREDICT_EVENTS[0], *batch, *batch, PREDICT_EVENTS[4]]
    assert [event for event, _ in seen] == events
    assert [number for _, number in seen] == [0, 0, 0, 2, 2, 2, 3, 3]
    assert model.predictor.args.batch == 2
    model.clear_callback("on_predict_batch_end")
    assert isinstance(model(IMAGE)[0], Results)
    model.reset_callbacks()
    assert not any(model.callbacks.values())
    model.add_callback("on_predict_batch_end", lambda state: setattr(state, "results", []))
    with pytest.raises(UsageError, match="a callback has left 0 results of 1 images"):
        model(IMAGE)


@pytest.mark.slow
def test_export_events_have_the_file(weights, tmp_path):
    model, seen = RTDETR(weights, device="cpu"), []
    model.add_callback(
        "on_export_start", lambda state: seen.append((state.args.format, state.file))
    )
    model.add_callback("on_export_end", lambda state: seen.append(state.file))
    path = model.export(output=str(tmp_path / "x.onnx"))
    assert seen == [("onnx", None), Path(path)]


def test_val_remembers_and_predict_does_not(weights, monkeypatch):
    model, calls = RTDETR(weights, device="cpu"), []
    validated = object()
    monkeypatch.setattr(val, "validate", lambda settings, _: calls.append(settings) or validated)
    assert model.val(data="a.yaml", imgsz=64, batch=2, conf=0.5) is validated
    assert model.metrics is validated
    model.val(batch=3)
    assert (calls[1].data, calls[1].imgsz, calls[1].batch, calls[1].conf) == ("a.yaml", 64, 3, 0)
    model.val(data="b.yaml")
    assert (calls[2].data, calls[2].imgsz, calls[2].batch) == ("b.yaml", None, 16)
    model(IMAGE)
    assert (model.predictor.args.batch, model.predictor.args.imgsz) == (1, None)


def test_the_task_may_be_named(weights):
    assert RTDETR(weights, "cpu", task="detect", verbose=False).task == "detect"
    with pytest.raises(UsageError, match="task=segment is not supported: RT-DETR detects objects"):
        RTDETR(weights, task="segment")


def test_python_adds_no_guess_to_a_reason(model):
    with pytest.raises(AttributeError) as caught:
        model.tune(IMAGE)
    last = "".join(traceback.format_exception(caught.value)).rstrip().splitlines()[-1]
    assert last.endswith("docs/python.md has it with optuna")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("benchmark", r'but a method: RTDETR\("rtdetr-l.pt"\)'),
        ("convert_coco", "as COCO json is read without a conversion"),
        ("DetectionTrainer", "RTDETR.* has train, val and predict"),
        ("settings", "but keys of each call, or a file"),
        ("checks", "but `rtdetr env` prints"),
    ],
)
def test_names_of_ultralytics_say_what_to_use(name, reason):
    with pytest.raises(ImportError, match=f"rtdetr_cli has no {name}, {reason}"):
        getattr(rtdetr_cli, name)


def test_a_model_of_ultralytics_is_refused_in_one_sentence():
    with pytest.raises(ImportError, match="no YOLO, only RTDETR: from rtdetr_cli import RTDETR"):
        from rtdetr_cli import YOLO  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'Yolo'"):
        from rtdetr_cli import Yolo  # noqa: F401


def test_an_architecture_has_no_weights_to_save(tmp_path):
    with pytest.raises(UsageError, match="has no weights to save; train it first"):
        RTDETR("rtdetr-n.yaml").reset_weights().save(tmp_path / "x.pt")
    assert not [*tmp_path.iterdir()]
