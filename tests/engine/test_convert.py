from __future__ import annotations

import pytest
import torch

from rtdetr_cli.config.settings.modes import ConvertSettings
from rtdetr_cli.core.errors import UsageError, WeightsError
from rtdetr_cli.engine.convert import convert
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
