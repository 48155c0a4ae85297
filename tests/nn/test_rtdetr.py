"""The whole network: sizes, depths, fusion, number formats. Tiny configurations, float64."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.structures import Target
from rtdetr_cli.evaluation.speed import count_flops
from rtdetr_cli.nn.rtdetr import RTDETRNetwork, fuse


def train_mode_with_fixed_norms(network):
    """Training mode whose BatchNorms use their statistics, so that outputs can be compared."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


@pytest.mark.parametrize(
    ("size_hw", "tokens"), [((96, 96), 189), ((64, 32), 42), ((32, 160), 105), ((32, 32), 21)]
)
def test_sizes_with_fewer_tokens_than_queries_give_one_query_per_token(
    tiny_config, size_hw, tokens
):
    decoder = dataclasses.replace(tiny_config.decoder, num_queries=300)
    network = RTDETRNetwork(dataclasses.replace(tiny_config, decoder=decoder), 5).eval()
    output = network(torch.rand(2, 3, *size_hw))
    assert output.pred_logits.shape == (2, tokens, 5)
    assert output.pred_boxes.shape == (2, tokens, 4)
    assert output.pred_boxes.isfinite().all()


def test_boxes_are_fractions_on_rectangles(network, images):
    output = network(images)
    assert output.pred_logits.shape == (2, 20, 5)
    assert ((output.pred_boxes >= 0) & (output.pred_boxes <= 1)).all()


def test_images_of_a_batch_do_not_see_each_other(network, images):
    together = network(images)
    alone = network(images[1:])
    torch.testing.assert_close(together.pred_boxes[1:], alone.pred_boxes, rtol=0, atol=1e-12)
    torch.testing.assert_close(together.pred_logits[1:], alone.pred_logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_decoder_layers_k_equals_the_kth_auxiliary_output(network, images, layers):
    trained = train_mode_with_fixed_norms(copy.deepcopy(network))(images)
    by_depth = [*trained.aux_outputs, (trained.pred_logits, trained.pred_boxes)]
    network.set_speed(decoder_layers=layers)
    output = network(images)
    logits, boxes = by_depth[layers - 1]
    torch.testing.assert_close(output.pred_logits, logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(output.pred_boxes, boxes, rtol=0, atol=1e-12)


def test_auxiliary_outputs_differ_from_layer_to_layer(network, images):
    trained = train_mode_with_fixed_norms(network)(images)
    assert len(trained.aux_outputs) == 2
    first, second = (prediction.boxes for prediction in trained.aux_outputs)
    assert (first - second).abs().max() > 1e-2
    assert (second - trained.pred_boxes).abs().max() > 1e-2


def test_each_decoder_layer_left_out_saves_the_same_flops(network):
    flops = []
    for layers in (1, 2, 3):
        network.set_speed(decoder_layers=layers)
        flops.append(count_flops(network, (64, 64)))
    assert flops[1] - flops[0] == flops[2] - flops[1] > 0


def test_fewer_queries_are_the_best_of_the_many(network, images):
    sizes_hw = [(8, 12), (4, 6), (2, 3)]
    memory = torch.randn(2, 126, 16, dtype=torch.float64)
    many = network.decoder.select_queries(memory, sizes_hw)
    network.set_speed(num_queries=7)
    few = network.decoder.select_queries(memory, sizes_hw)
    for few_part, many_part in zip(few, many, strict=True):
        torch.testing.assert_close(few_part, many_part[:, :7], rtol=0, atol=1e-12)
    assert network(images).pred_boxes.shape == (2, 7, 4)


@pytest.mark.parametrize("layers", [0, 4])
def test_a_depth_that_was_not_trained_is_rejected(network, layers):
    with pytest.raises(UsageError, match=r"tiny has 3 decoder layers, so 1 to 3 are possible"):
        network.set_speed(decoder_layers=layers)


def test_training_runs_all_layers_whatever_the_speed(network, images):
    network.set_speed(decoder_layers=1)
    assert len(network.train()(images).aux_outputs) == 2


@pytest.mark.parametrize("norm_eps", [1e-5, 1e-3])
def test_fusing_hgnetv2_changes_nothing(network, images, norm_eps):
    assert_fusing_changes_nothing(network, images, norm_eps)


def test_fusing_presnet_changes_nothing(presnet_network, images):
    assert_fusing_changes_nothing(presnet_network, images, norm_eps=1e-5)


def assert_fusing_changes_nothing(network, images, norm_eps):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = norm_eps
    before = network(images)
    fused = fuse(network)
    after = fused(images)
    torch.testing.assert_close(after.pred_logits, before.pred_logits, rtol=0, atol=1e-9)
    torch.testing.assert_close(after.pred_boxes, before.pred_boxes, rtol=0, atol=1e-9)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    torch.testing.assert_close(network(images).pred_logits, before.pred_logits, rtol=0, atol=0)


def test_a_fused_network_shares_no_value_with_its_original(network):
    fused = fuse(network)
    places = {tensor.data_ptr() for tensor in network.state_dict().values()}
    assert not places & {tensor.data_ptr() for tensor in fused.state_dict().values()}
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_norm_epsilon_of_the_architecture_reaches_every_norm(tiny_config):
    network = RTDETRNetwork(dataclasses.replace(tiny_config, norm_eps=1e-3), 5)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) > 20
    assert {norm.eps for norm in norms} == {1e-3}


def test_precision_follows_the_network(network, images):
    output = network(images)
    assert output.pred_logits.dtype == output.pred_boxes.dtype == torch.float64
    single = network.float()(images.float())
    assert single.pred_boxes.dtype == torch.float32
    torch.testing.assert_close(single.pred_boxes, output.pred_boxes.float(), rtol=0, atol=1e-3)


def test_the_box_chain_stays_in_float32_under_autocast(network, images):
    network, images = network.float(), images.float()
    exact = network(images).pred_boxes
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(images)
    assert output.pred_logits.dtype == torch.bfloat16
    assert output.pred_boxes.dtype == torch.float32
    assert output.pred_boxes.unique().numel() > 0.9 * exact.unique().numel()


def predictions_of(output):
    """Every set of logits and boxes that a training step gives."""
    return [
        (output.pred_logits, output.pred_boxes),
        *output.aux_outputs,
        output.encoder_output,
        *output.denoising_outputs,
    ]


def targets_with(*counts):
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.2, 0.3, 0.1, 0.1]])
    return [Target(boxes[:count], torch.tensor([0, 4])[:count]) for count in counts]


def test_training_under_autocast_has_float32_boxes_and_finite_gradients_everywhere(network, images):
    network = network.float().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(images.float(), targets_with(2, 1))
    assert {boxes.dtype for _, boxes in predictions_of(output)} == {torch.float32}
    assert {logits.dtype for logits, _ in predictions_of(output)} == {torch.bfloat16}
    sum(part.float().square().sum() for pair in predictions_of(output) for part in pair).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("sampling", ["bilinear", "discrete"])
@pytest.mark.parametrize("counts", [(0, 0), (2, 0)])
def test_every_trainable_parameter_has_a_gradient_with_and_without_boxes(
    tiny_config, sampling, counts
):
    """One that has none leaves the sibling processes of a distributed training waiting."""
    decoder = dataclasses.replace(tiny_config.decoder, sampling=sampling)
    network = RTDETRNetwork(dataclasses.replace(tiny_config, decoder=decoder), 5).train()
    output = network(torch.rand(2, 3, 64, 96), targets_with(*counts))
    sum(part.sum() for pair in predictions_of(output) for part in pair).backward()
    trained = {name: one.grad for name, one in network.named_parameters() if one.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None] == []
    assert trained["decoder.denoising_class_embed.weight"].any() == (sum(counts) > 0)


def test_training_output_names_every_part(network, images):
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.2, 0.3, 0.1, 0.1]], dtype=torch.float64)
    targets = [Target(boxes, torch.tensor([0, 4])), Target(boxes[:1], torch.tensor([2]))]
    output = network.train()(images, targets)
    denoising = output.denoising_groups.num_queries
    assert denoising == 2 * 2 * (100 // 2)
    assert len(output.aux_outputs) == 2
    assert len(output.denoising_outputs) == 3
    assert output.pred_boxes.shape == (2, 20, 4)
    assert output.encoder_output.boxes.shape == (2, 20, 4)
    assert {tuple(part.boxes.shape) for part in output.denoising_outputs} == {(2, denoising, 4)}


def test_denoising_leaves_the_real_queries_untouched(network, images):
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.3]], dtype=torch.float64)
    targets = [Target(boxes, torch.tensor([0])), Target(boxes[:0], torch.tensor([], dtype=int))]
    train_mode_with_fixed_norms(network)
    with_targets, without = network(images, targets), network(images)
    torch.testing.assert_close(with_targets.pred_boxes, without.pred_boxes, rtol=0, atol=1e-12)
    torch.testing.assert_close(with_targets.pred_logits, without.pred_logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("queries", [3, 20, 500])
def test_one_pass_has_the_outputs_of_every_depth(network, images, queries):
    network.set_speed(num_queries=queries)
    memory = network.decoder.project(network.encoder(network.backbone(images)))
    depths = network.decoder.at_every_depth(*memory)
    assert len(depths) == 3
    for layers, (logits, boxes) in enumerate(depths, start=1):
        network.set_speed(decoder_layers=layers)
        alone = network(images)
        assert torch.equal(logits, alone.pred_logits)
        assert torch.equal(boxes, alone.pred_boxes)
