"""`RTDETR.info`: a tuple as in Ultralytics, with the attributes of `rtdetr info`."""

from __future__ import annotations

import copy

import pytest

from rtdetr_cli import RTDETR
from rtdetr_cli.evaluation.speed import count_flops
from rtdetr_cli.nn.rtdetr import RTDETRNetwork


def test_the_tuple_counts_layers_parameters_gradients_and_gflops(tiny_yaml, tiny_config, capsys):
    model = RTDETR(tiny_yaml, "cpu")
    model.model.decoder.enc_score_head.weight.requires_grad_(False)
    found = model.info(verbose=False, imgsz=64)
    assert capsys.readouterr().out == ""
    layers, parameters, gradients, gflops = found
    network = RTDETRNetwork(tiny_config, 80).eval()
    assert layers == len(list(network.modules()))
    assert parameters == sum(one.numel() for one in network.parameters())
    assert gradients == parameters - network.decoder.enc_score_head.weight.numel()
    assert gflops == pytest.approx(count_flops(network, (640, 640)) / 1e9)
    assert found.gflops == pytest.approx(count_flops(network, (64, 64)) / 1e9)
    assert found.architecture == "tiny"
    assert copy.copy(found).architecture == "tiny"
    with pytest.raises(AttributeError):
        found.flops  # noqa: B018


def test_detailed_prints_a_line_per_parameter(tiny_yaml, capsys):
    model = RTDETR(tiny_yaml, "cpu")
    model.info(imgsz=64)
    printed = capsys.readouterr()
    short = printed.out
    assert printed.err == ""  # the network is outlined: no warning of random detections
    model.info(detailed=True, imgsz=64)
    printed = capsys.readouterr().out
    assert "architecture       tiny" in short
    assert len(printed.splitlines()) - len(short.splitlines()) == 1 + len(list(model.parameters()))
