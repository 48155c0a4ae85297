"""Anchors, query selection, refinement, and which gradient flows where."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from rtdetr_cli.core.structures import Target
from rtdetr_cli.nn.decoder import OUTSIDE_LOGIT, inverse_sigmoid, make_anchors, refine
from rtdetr_cli.nn.rtdetr import RTDETRNetwork


@pytest.mark.parametrize("num_classes", [1, 3, 80, 365])
def test_every_class_starts_at_one_percent(tiny_config, num_classes):
    decoder = RTDETRNetwork(tiny_config, num_classes).decoder
    for head in (decoder.enc_score_head, *decoder.dec_score_head):
        scores = head.bias.sigmoid()
        assert scores.shape == (num_classes,)
        torch.testing.assert_close(scores, torch.full_like(scores, 0.01), rtol=1e-5, atol=0)


def test_boxes_start_at_the_anchors_and_stay_there(tiny_config):
    """The last layer of every box head is zero at first."""
    torch.manual_seed(0)
    network = RTDETRNetwork(tiny_config, 5).double().train()
    output = network(torch.rand(2, 3, 64, 96, dtype=torch.float64))
    first = output.encoder_output.boxes
    anchors_logit, _ = make_anchors([(8, 12), (4, 6), (2, 3)], first, "float32")
    distances = torch.cdist(first, anchors_logit.double().sigmoid().expand(2, -1, -1), p=1)
    assert distances.amin(dim=-1).max() < 1e-12
    torch.testing.assert_close(output.pred_boxes, first, rtol=0, atol=1e-12)


def test_anchors_are_cell_centres_with_sizes_by_level():
    sizes_hw = [(4, 6), (2, 3)]
    anchors_logit, is_valid = make_anchors(sizes_hw, torch.empty(0, dtype=torch.float64))
    expected = [
        [(column + 0.5) / width, (row + 0.5) / height, 0.05 * 2**level, 0.05 * 2**level]
        for level, (height, width) in enumerate(sizes_hw)
        for row in range(height)
        for column in range(width)
    ]
    assert is_valid.all()
    torch.testing.assert_close(
        anchors_logit.sigmoid()[0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_cells_at_the_border_are_no_anchors_at_640():
    """8084 of 8400 cells are valid: the outer ring of the finest map is below 0.01."""
    anchors_logit, is_valid = make_anchors([(80, 80), (40, 40), (20, 20)], torch.empty(0))
    assert is_valid.sum() == 8084
    assert is_valid[0, :6400].sum() == 78 * 78
    outside = anchors_logit[0][~is_valid[0, :, 0].bool()]
    assert (outside == OUTSIDE_LOGIT).all()
    assert (outside.sigmoid() == 1).all()
    assert outside.half().isfinite().all()


def test_queries_are_the_cells_with_the_best_class_score(network):
    torch.manual_seed(0)
    decoder = network.decoder
    sizes_hw = [(8, 12), (4, 6), (2, 3)]
    memory = torch.randn(2, 126, 16, dtype=torch.float64)
    queries = decoder.select_queries(memory, sizes_hw)
    anchors_logit, is_valid = make_anchors(sizes_hw, memory)
    for image in range(2):
        features = decoder.enc_output(memory[image] * is_valid[0])
        scores = decoder.enc_score_head(features)
        best = sorted(range(126), key=lambda cell: -scores[cell].max().item())[:20]
        boxes = decoder.enc_bbox_head(features[best]) + anchors_logit[0, best]
        torch.testing.assert_close(queries.content[image], features[best], rtol=0, atol=1e-12)
        torch.testing.assert_close(queries.logits[image], scores[best], rtol=0, atol=1e-12)
        torch.testing.assert_close(queries.boxes_logit[image], boxes, rtol=0, atol=1e-12)


def test_refinement_is_a_step_in_logit_space():
    boxes, delta = torch.tensor([0.2]), torch.tensor([0.7])
    expected = 1 / (1 + math.exp(-(0.7 + math.log(0.2 / 0.8))))
    assert refine(delta, boxes).item() == pytest.approx(expected, abs=1e-6)


def test_the_inverse_sigmoid_clips_each_side_by_itself():
    """As in the official code: at 1 the logit is -log(1e-5), not log((1 - 1e-5) / 1e-5)."""
    x = torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5], dtype=torch.float64)
    limit = math.log(1e5)
    assert inverse_sigmoid(x).tolist() == pytest.approx([-limit, -limit, 0, limit, limit])


def test_half_precision_steps_are_added_in_float32():
    boxes = torch.full((1, 1, 4), 0.3)
    assert refine(torch.zeros(1, 1, 4, dtype=torch.bfloat16), boxes).dtype == torch.float32
    torch.testing.assert_close(refine(torch.zeros(1, 1, 4, dtype=torch.half), boxes), boxes)


def test_box_heads_answer_under_autocast_as_without_it(network):
    head = network.float().decoder.dec_bbox_head[0]
    content = torch.randn(2, 20, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        steps = head(content)
    assert torch.equal(steps, head(content))
    assert head(content.bfloat16()).dtype == torch.float32


def test_decoding_under_autocast_moves_boxes_as_in_float32(network):
    """Half a pixel at 640 on average after three layers of random weights.

    0.52 px over 30 draws, 0.38 to 0.82 in one; this one has 0.46 to 0.51, by the CPU's kernels.
    """
    decoder = network.float().decoder
    draw = torch.Generator().manual_seed(0)
    content, memory = (torch.randn(2, count, 16, generator=draw) for count in (20, 126))
    boxes = 0.2 + 0.5 * torch.rand(2, 20, 4, generator=draw)
    call = (content, boxes, memory, [(8, 12), (4, 6), (2, 3)], None)
    exact, _ = decoder._decode_all(*call)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close, _ = decoder._decode_all(*call)
    for (_, boxes_exact), (_, boxes_close) in zip(exact, close, strict=True):
        error_px = 640 * (boxes_close - boxes_exact).abs()
        assert error_px.mean() < 0.6
        assert error_px.max() < 3


def gradient_names(network, loss) -> set[str]:
    """Parameters of the decoder that the loss reaches."""
    names = dict(network.decoder.named_parameters())
    gradients = torch.autograd.grad(
        loss, list(names.values()), allow_unused=True, retain_graph=True
    )
    reached = zip(names, gradients, strict=True)
    return {name for name, gradient in reached if gradient is not None and gradient.any()}


def reaches(names: set[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def test_decoder_losses_do_not_reach_the_encoder_heads(network, images):
    output = network.train()(images)
    names = gradient_names(network, output.pred_boxes.sum() + output.pred_logits.sum())
    for head in ("enc_output", "enc_score_head", "enc_bbox_head"):
        assert not reaches(names, head)
    assert reaches(names, "input_proj")
    by_encoder = gradient_names(network, sum(part.sum() for part in output.encoder_output))
    for head in ("enc_output", "enc_score_head", "enc_bbox_head", "input_proj"):
        assert reaches(by_encoder, head)
    assert not reaches(by_encoder, "dec")


def test_box_gradients_look_forward_twice(network, images):
    """Boxes of layer i teach the box heads of layers i and i - 1 and no earlier one."""
    output = network.train()(images)
    names = gradient_names(network, output.pred_boxes.sum())
    assert [reaches(names, f"dec_bbox_head.{index}.") for index in range(3)] == [False, True, True]
    names = gradient_names(network, output.aux_outputs[0].boxes.sum())
    assert [reaches(names, f"dec_bbox_head.{index}.") for index in range(3)] == [True, False, False]


def test_classes_of_a_layer_teach_no_box_head(network, images):
    output = network.train()(images)
    names = gradient_names(network, output.pred_logits.sum())
    assert not reaches(names, "dec_bbox_head")
    assert reaches(names, "decoder.layers.0.")
    assert [reaches(names, f"dec_score_head.{index}.") for index in range(3)] == [
        False,
        False,
        True,
    ]


def test_denoising_labels_are_learned(network, images):
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.3]], dtype=torch.float64)
    targets = [Target(boxes, torch.tensor([1]))] * 2
    output = network.train()(images, targets)
    loss = sum(part.logits.sum() + part.boxes.sum() for part in output.denoising_outputs)
    (gradient,) = torch.autograd.grad(loss, [network.decoder.denoising_class_embed.weight])
    assert gradient[1].any()
    assert not gradient[-1].any()


def test_the_decoder_may_be_of_another_width_than_the_encoder(tiny_config):
    """RT-DETR-X and H: encoder 384 and 512 wide, decoder 256."""
    encoder = dataclasses.replace(tiny_config.encoder, hidden_dim=24)
    network = RTDETRNetwork(dataclasses.replace(tiny_config, encoder=encoder), 5).eval()
    assert network(torch.rand(1, 3, 64, 64)).pred_logits.shape == (1, 20, 5)
