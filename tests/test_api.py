"""The Python class RTDETR: the interface of Ultralytics without its sticky state."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from rtdetr_cli import RTDETR, Results
from rtdetr_cli.backends.torch import build_network
from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.errors import BackendError, ConfigError, RTDETRError, UsageError, WeightsError
from rtdetr_cli.core.structures import ModelOutput
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
        ({"imgsz": 100}, "multiple of 32"),
        ({"json": True}, r"use results\[0\]\.to_json"),
        ({"model": "x.pt"}, "model is set by RTDETR"),
        ({"classes": [5]}, "classes=5 is no class of this model; it has 0 to 1"),
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


def test_what_cannot_be_opened_fails_at_once(tmp_path):
    with pytest.raises(ConfigError):
        RTDETR("rtdetr-q.yaml")
    (tmp_path / "x.pt").write_text("words")
    with pytest.raises(WeightsError):
        RTDETR(tmp_path / "x.pt")


def test_absent_methods_give_the_reason(model):
    for name in ("track", "tune", "embed"):
        assert not hasattr(model, name)
    with pytest.raises(AttributeError, match="RTDETR has no track: tracking is not part of this"):
        model.track("bus.jpg")
    with pytest.raises(AttributeError, match=r"RTDETR has no predicts; did you mean predict\?"):
        model.predicts  # noqa: B018
