"""Refinement of distributions: depths, gradients, training sets, number formats. Random maps."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rtdetr_cli.config.model import DEIMv2DecoderConfig, FDRDecoderConfig
from rtdetr_cli.core.distribution import bin_values, boxes_from_distances
from rtdetr_cli.core.structures import ModelOutput, Target
from rtdetr_cli.nn.distribution import expected_distances
from rtdetr_cli.nn.fdr_decoder import FDRDecoder, add
from rtdetr_cli.nn.rtdetr import build_decoder

SIZES_HW = [(8, 12), (4, 6)]
COMMON = {
    "hidden_dim": 16,
    "ffn_dim": 32,
    "num_layers": 3,
    "num_heads": 2,
    "num_queries": 20,
    "num_points": (4, 2),
    "anchor_precision": "float64",
}
CONFIGS = {
    "dfine": FDRDecoderConfig(**COMMON),
    "deim": FDRDecoderConfig(**COMMON, activation="silu", reg_scale=8.0),
    "deimv2-n": DEIMv2DecoderConfig(**COMMON),
    "deimv2-atto": DEIMv2DecoderConfig(**COMMON, gateway=False, shared_box_head=True),
}


def randomized(config: FDRDecoderConfig) -> FDRDecoder:
    """Starting values hide mistakes: box heads, gates and quality heads are zero."""
    torch.manual_seed(0)
    decoder = build_decoder(config, 16, 5).double().eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    assert isinstance(decoder, FDRDecoder)
    return decoder


@pytest.fixture(params=CONFIGS)
def decoder(request: pytest.FixtureRequest) -> FDRDecoder:
    return randomized(CONFIGS[request.param])


@pytest.fixture
def maps() -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(2, 16, *size, generator=draw, dtype=torch.float64) for size in SIZES_HW]


@pytest.fixture
def targets() -> list[Target]:
    boxes = torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.6, 0.6, 0.4, 0.2]], dtype=torch.float64)
    return [Target(boxes, torch.tensor([1, 3])), Target(boxes[:1], torch.tensor([0]))]


def test_layers_k_equals_the_kth_training_output(decoder, maps):
    trained = decoder.train()(maps)
    by_depth = [*trained.aux_outputs, (trained.pred_logits, trained.pred_boxes)]
    decoder.eval()
    memory, sizes_hw = decoder.project(maps)
    at_every_depth = decoder.at_every_depth(memory, sizes_hw)
    for layers in (1, 2, 3):
        decoder.eval_layers = layers
        output = decoder(maps)
        for found in (output.pred_logits, at_every_depth[layers - 1].logits):
            torch.testing.assert_close(found, by_depth[layers - 1][0], rtol=0, atol=1e-12)
        for found in (output.pred_boxes, at_every_depth[layers - 1].boxes):
            torch.testing.assert_close(found, by_depth[layers - 1][1], rtol=0, atol=1e-12)
    assert (by_depth[0][1] - by_depth[1][1]).abs().max() > 1e-2


def test_boxes_are_the_distributions_around_the_first_boxes(decoder, maps):
    output = decoder.train()(maps)
    distributions = output.distributions
    assert distributions is not None
    assert len(distributions.corners) == 3
    assert distributions.scale == decoder.reg_scale
    assert not distributions.references.requires_grad
    assert torch.equal(distributions.references, distributions.initial.boxes)
    bins = bin_values(32, distributions.scale, maps[0])
    boxes = [*(layer.boxes for layer in output.aux_outputs), output.pred_boxes]
    for corners, expected in zip(distributions.corners, boxes, strict=True):
        assert corners.shape == (2, 20, 4, 33)
        distances = expected_distances(corners, bins)
        found = boxes_from_distances(distributions.references, distances, distributions.scale)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_initial_logits_are_those_of_the_first_layer_without_quality(decoder, maps):
    output = decoder.train()(maps)
    added = output.aux_outputs[0].logits - output.distributions.initial.logits
    torch.testing.assert_close(added, added[..., :1].expand_as(added))
    assert added.abs().max() > 1e-3


def test_training_splits_denoising_queries_from_the_others(decoder, maps, targets):
    torch.manual_seed(0)
    with_denoising = decoder.train()(maps, targets)
    alone = decoder(maps)
    count = with_denoising.denoising_groups.num_queries
    assert count > 0
    assert len(with_denoising.denoising_outputs) == 3
    for found, expected in (
        (with_denoising.pred_logits, alone.pred_logits),
        (with_denoising.distributions.references, alone.distributions.references),
        (with_denoising.distributions.corners[1], alone.distributions.corners[1]),
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    denoising = with_denoising.denoising_distributions
    assert denoising.references.shape == denoising.initial.boxes.shape == (2, count, 4)
    assert [corners.shape for corners in denoising.corners] == [(2, count, 4, 33)] * 3
    assert alone.denoising_distributions is None


def reached(decoder: FDRDecoder, loss: torch.Tensor) -> set[str]:
    names = dict(decoder.named_parameters())
    gradients = torch.autograd.grad(
        loss, list(names.values()), allow_unused=True, retain_graph=True
    )
    pairs = zip(names, gradients, strict=True)
    return {name for name, gradient in pairs if gradient is not None and gradient.any()}


def reaches(names: set[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def test_box_gradients_pass_through_corners_and_content_not_through_boxes(maps):
    decoder = randomized(CONFIGS["dfine"]).train()
    output = decoder(maps)
    names = reached(decoder, output.pred_boxes.sum())
    for part in ("dec_bbox_head.0", "dec_bbox_head.1", "dec_bbox_head.2", "decoder.layers.0"):
        assert reaches(names, part)
    # the references are detached, and boxes do not depend on scores
    for part in ("pre_bbox_head", "dec_score_head", "decoder.lqe_layers", "enc_"):
        assert not reaches(names, part)
    names = reached(decoder, output.distributions.initial.boxes.sum())
    assert reaches(names, "pre_bbox_head")
    assert not reaches(names, "dec_bbox_head")
    assert not reaches(names, "decoder.layers.1")


def test_corners_do_not_reach_the_content_of_the_layer_before_as_an_addend(maps):
    """Layer 1 reads x1 + detached x0: with x1 cut off, its corners reach only head 1."""
    decoder = randomized(CONFIGS["dfine"]).train()
    layer = decoder.decoder.layers[1]
    layer.register_forward_hook(lambda _module, _given, out: out.detach())
    output = decoder(maps)
    first, second = output.distributions.corners[:2]
    names = reached(decoder, (second - first).sum())
    assert reaches(names, "dec_bbox_head.1")
    assert not reaches(names, "decoder.layers")


def test_quality_sends_gradients_to_the_corners(maps):
    decoder = randomized(CONFIGS["dfine"]).train()
    names = reached(decoder, decoder(maps).pred_logits.sum())
    assert reaches(names, "decoder.lqe_layers.2")
    assert reaches(names, "dec_bbox_head.0")
    assert not reaches(names, "decoder.lqe_layers.1")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_fresh_decoder_starts_at_the_selected_boxes_with_one_percent(name, maps):
    torch.manual_seed(0)
    decoder = build_decoder(CONFIGS[name], 16, 5).double().train()
    output = decoder(maps)
    initial = output.distributions.initial
    torch.testing.assert_close(initial.boxes, output.encoder_output.boxes, rtol=0, atol=1e-12)
    torch.testing.assert_close(output.pred_boxes, initial.boxes, rtol=0, atol=1e-12)
    for head in decoder.dec_score_head:
        torch.testing.assert_close(head.bias.sigmoid(), torch.full_like(head.bias, 0.01))


def test_boxes_stay_float32_under_autocast(decoder, maps):
    decoder, maps = decoder.float(), [x.float() for x in maps]
    exact = decoder(maps).pred_boxes
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output: ModelOutput = decoder(maps)
    assert output.pred_boxes.dtype == torch.float32
    assert output.pred_boxes.unique().numel() > 0.9 * exact.unique().numel()


def test_sums_too_large_for_float16_stay_finite():
    large = torch.tensor([60000.0, -60000.0], dtype=torch.float16)
    assert add(large, large).tolist() == [65504, -65504]
    overflown = torch.tensor([float("inf")], dtype=torch.float16)
    assert add(torch.ones(1), overflown).tolist() == [65504]  # as under autocast
    assert add(torch.full((1,), 6e4), torch.full((1,), 6e4)).tolist() == [12e4]


def test_maps_of_another_width_are_projected(maps):
    config = dataclasses.replace(CONFIGS["dfine"], hidden_dim=8)
    names = set(build_decoder(config, 16, 5).state_dict())
    assert "input_proj.0.conv.weight" in names
    assert not reaches(set(build_decoder(CONFIGS["dfine"], 16, 5).state_dict()), "input_proj")
