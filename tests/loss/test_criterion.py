from dataclasses import replace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from rtdetr_cli.core import distributed
from rtdetr_cli.core.structures import DenoisingGroups, ModelOutput, Prediction, Target
from rtdetr_cli.loss.criterion import Criterion, LossConfig

B, Q, K, LAYERS = 3, 5, 3, 2


def wave(*shape, shift):
    """A tensor in -1..1 that needs no random numbers; as a formula it can be fed to any code."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count, dtype=torch.float64) * 1.7 + shift).reshape(shape)


def make_prediction(num_queries, shift):
    logits = 3 * wave(B, num_queries, K, shift=shift)
    boxes = 0.45 + 0.25 * wave(B, num_queries, 4, shift=shift + 0.5)
    return Prediction(logits.requires_grad_(), boxes.requires_grad_())


def make_targets(counts):
    return [
        Target(0.5 + 0.2 * wave(n, 4, shift=n), torch.arange(image, image + n) % K)
        for image, n in enumerate(counts)
    ]


def make_output(counts=(), num_groups=2):
    """Two decoder layers and the encoder; denoising queries for `counts` boxes, where given."""
    sets = [make_prediction(Q, shift) for shift in range(LAYERS + 1)]
    output = ModelOutput(*sets[0], aux_outputs=sets[1:LAYERS], encoder_output=sets[LAYERS])
    if not counts:
        return output
    most = max(*counts, 1)
    starts = [2 * most * group for group in range(num_groups)]
    return replace(
        output,
        denoising_outputs=[make_prediction(2 * most * num_groups, 7 + i) for i in range(LAYERS)],
        denoising_groups=DenoisingGroups(
            [torch.tensor([s + i for s in starts for i in range(n)]).long() for n in counts],
            [torch.arange(n).repeat(num_groups) for n in counts],
            num_groups,
            2 * most * num_groups,
        ),
    )


def tensors_of(output):
    sets = [(output.pred_logits, output.pred_boxes), *output.aux_outputs, output.encoder_output]
    return [tensor for pair in [*sets, *output.denoising_outputs] for tensor in pair]


def values(losses):
    return {name: loss.item() for name, loss in losses.items()}


def with_suffix(terms, suffix):
    return {name + suffix: value for name, value in terms.items()}


@pytest.mark.parametrize("counts", [[2, 1, 3], [0, 4, 1], [0, 0, 0]])
@pytest.mark.parametrize("kind", ["vfl", "mal"])
def test_every_matched_term_equals_the_slow_reference(slow, counts, kind):
    output, targets = make_output(), make_targets(counts)
    expected = {}
    sets = {"": Prediction(output.pred_logits, output.pred_boxes)}
    for suffix, prediction in (
        sets | {"_aux_0": output.aux_outputs[0], "_enc": output.encoder_output}
    ).items():
        matches = slow.match_all(prediction, targets)
        terms = slow.terms(prediction, targets, matches, max(1, sum(counts)), kind)
        expected |= with_suffix(terms, suffix)
    criterion = Criterion(config=LossConfig(classification=kind))
    assert values(criterion(output, targets)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("counts", [[2, 1, 3], [0, 4, 1], [0, 0, 0]])
@pytest.mark.parametrize("kind", ["vfl", "mal"])
def test_every_denoising_term_equals_the_slow_reference(slow, counts, kind):
    output, targets = make_output(counts), make_targets(counts)
    groups = output.denoising_groups
    matches = [
        list(zip(restored.tolist(), queries.tolist(), strict=True))
        for queries, restored in zip(groups.positive_queries, groups.target_indices, strict=True)
    ]
    losses = values(Criterion(config=LossConfig(classification=kind))(output, targets))
    for layer, prediction in enumerate(output.denoising_outputs):
        terms = slow.terms(prediction, targets, matches, 2 * max(1, sum(counts)), kind)
        expected = with_suffix(terms, f"_dn_{layer}")
        assert {name: losses[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_all_terms_equal_the_official_ones():
    # lyuwenyu/RT-DETR 068dfde, rtdetrv2_pytorch RTDETRCriterionv2 on the same tensors, float64.
    official = {
        "loss_vfl": 4.013144981227679,
        "loss_bbox": 4.2469654281904585,
        "loss_giou": 1.8221652652427938,
        "loss_vfl_aux_0": 4.2701717177515945,
        "loss_bbox_aux_0": 3.2461828831138106,
        "loss_giou_aux_0": 1.430490424107901,
        "loss_vfl_dn_0": 6.105628953312437,
        "loss_bbox_dn_0": 4.001387358322821,
        "loss_giou_dn_0": 1.7619746540207266,
        "loss_vfl_dn_1": 6.098394525463215,
        "loss_bbox_dn_1": 3.8638586676568867,
        "loss_giou_dn_1": 1.764818947546002,
        "loss_vfl_enc": 4.637971231549194,
        "loss_bbox_enc": 2.628877241041989,
        "loss_giou_enc": 1.4457622850521232,
    }
    counts = [2, 0, 3]
    losses = values(Criterion()(make_output(counts), make_targets(counts)))
    assert losses == pytest.approx(official, rel=1e-12)


def test_the_matchability_aware_terms_equal_those_of_deim():
    # Intellindust-AI-Lab/DEIM 09d35d5, DEIMCriterion.loss_labels_mal on the same tensors, float64.
    deim = {
        "loss_mal": 7.911185993310776,
        "loss_mal_aux_0": 7.710759034822381,
        "loss_mal_enc": 8.012619169740887,
    }
    criterion = Criterion(config=LossConfig(classification="mal"))
    assert criterion.names == ("loss_mal", "loss_bbox", "loss_giou")
    losses = values(criterion(make_output(), make_targets([2, 0, 3])))
    assert {name: losses[name] for name in deim} == pytest.approx(deim, rel=1e-12)


def test_denoising_queries_may_restore_any_box_of_their_image(slow):
    counts = [3, 0, 1]
    output, targets = make_output(counts, num_groups=1), make_targets(counts)
    groups = DenoisingGroups(
        [torch.tensor([4, 0]), torch.tensor([]).long(), torch.tensor([1])],
        [torch.tensor([2, 0]), torch.tensor([]).long(), torch.tensor([0])],
        num_groups=1,
        num_queries=6,
    )
    losses = values(Criterion()(replace(output, denoising_groups=groups), targets))
    matches = [[(2, 4), (0, 0)], [], [(0, 1)]]
    expected = slow.terms(output.denoising_outputs[1], targets, matches, num_boxes=4)
    assert {name: losses[f"{name}_dn_1"] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_without_boxes_only_the_background_is_learned_and_all_outputs_get_a_gradient():
    counts = [0, 0, 0]
    output = make_output(counts)
    losses = Criterion()(output, make_targets(counts))
    assert all(loss.item() == 0 for name, loss in losses.items() if "vfl" not in name)
    assert all(loss.item() > 0 for name, loss in losses.items() if "vfl" in name)
    for gradient in torch.autograd.grad(sum(losses.values()), tensors_of(output)):
        assert gradient.isfinite().all()  # None would leave a sibling process waiting


def test_num_boxes_is_the_mean_over_processes_and_at_least_one(monkeypatch):
    counts = [2, 1, 3]
    output, targets = make_output(counts), make_targets(counts)
    alone = values(Criterion()(output, targets))
    monkeypatch.setattr(distributed, "all_reduce_mean", lambda boxes: boxes * 4)
    shared = values(Criterion()(output, targets))
    assert {name: 4 * loss for name, loss in shared.items()} == pytest.approx(alone, rel=1e-12)
    monkeypatch.setattr(distributed, "all_reduce_mean", lambda boxes: boxes / 10)
    few = values(Criterion()(output, targets))
    assert {name: loss / 6 for name, loss in few.items()} == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_cast_up_before_anything_is_computed(dtype, autocast):
    counts = [2, 1, 3]
    half = cast_output(make_output(counts), dtype)
    with torch.autocast("cpu", enabled=autocast):
        losses = Criterion()(half, make_targets(counts))
    full = Criterion()(cast_output(half, torch.float32), make_targets(counts))
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert values(losses) == values(full)


def cast_output(output, dtype):
    def cast(prediction):
        return Prediction(*(tensor.detach().to(dtype) for tensor in prediction))

    return replace(
        output,
        pred_logits=output.pred_logits.to(dtype),
        pred_boxes=output.pred_boxes.to(dtype),
        aux_outputs=[cast(aux) for aux in output.aux_outputs],
        encoder_output=cast(output.encoder_output),
        denoising_outputs=[cast(denoising) for denoising in output.denoising_outputs],
    )


class HostReads(TorchFunctionMode):
    """Notes every call that makes the host wait for a device, by the name of the method.

    A CPU tensor is at home already, so that nothing is copied; the calls are the same.
    """

    WAITING = frozenset(
        {"cpu", "numpy", "item", "tolist", "nonzero", "masked_select", "unique"}
        | {"__bool__", "__int__", "__float__", "__index__", "__array__"}
    )

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        name = getattr(function, "__name__", "")
        if name in self.WAITING:
            self.calls.append(name)
        if name == "__getitem__" and is_mask(arguments[1]):
            self.calls.append("a mask as an index")
        return function(*arguments, **(keywords or {}))


def is_mask(index):
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, torch.Tensor) and part.dtype == torch.bool for part in parts)


class HiddenReads(TorchDispatchMode):
    """Notes the kernels that wait for a device, also where torch itself calls them."""

    WAITING = frozenset({"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"})

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function.name() in self.WAITING:
            self.calls.append(function.name())
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("counts", [[2, 1, 3], [0, 0, 0]])
def test_all_layers_and_the_encoder_are_matched_with_one_copy_to_the_host(counts):
    output, targets = make_output(counts), make_targets(counts)
    with HostReads() as reads, HiddenReads() as hidden:
        Criterion()(output, targets)
    assert reads.calls == ["cpu", "numpy"]
    assert hidden.calls == []


def test_float64_stays_float64():
    losses = Criterion()(make_output(), make_targets([1, 2, 0]))
    assert {loss.dtype for loss in losses.values()} == {torch.float64}


@pytest.mark.parametrize("logit", [1e4, -1e4])
@pytest.mark.parametrize("size", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_huge_logits_and_degenerate_boxes_give_finite_losses_and_gradients(logit, size, dtype):
    def spoil(prediction):
        logits = torch.full_like(prediction.logits, logit, dtype=dtype)
        boxes = (prediction.boxes.detach() * torch.tensor([1, 1, size, size])).to(dtype)
        return Prediction(logits.requires_grad_(), boxes.requires_grad_())

    counts = [2, 0, 3]
    output, targets = make_output(counts), make_targets(counts)
    targets[0].boxes_cxcywh[:, 2:] = 0
    main = spoil(Prediction(output.pred_logits, output.pred_boxes))
    output = ModelOutput(
        *main,
        [spoil(aux) for aux in output.aux_outputs],
        spoil(output.encoder_output),
        [spoil(denoising) for denoising in output.denoising_outputs],
        output.denoising_groups,
    )
    total = sum(Criterion()(output, targets).values())
    assert total.isfinite()
    for gradient in torch.autograd.grad(total, tensors_of(output)):
        assert gradient.float().isfinite().all()


def test_a_network_that_diverged_shows_in_the_loss_instead_of_an_exception():
    output = make_output()
    output.pred_logits = torch.full_like(output.pred_logits, float("nan"))
    losses = Criterion()(output, make_targets([1, 2, 0]))
    assert losses["loss_vfl"].isnan()
    assert losses["loss_vfl_enc"].isfinite()


def test_a_network_in_eval_mode_has_three_terms():
    output = replace(make_output(), aux_outputs=[], encoder_output=None)
    losses = Criterion()(output, make_targets([1, 2, 0]))
    assert list(losses) == ["loss_vfl", "loss_bbox", "loss_giou"]


def test_loss_falls_to_the_vfl_floor_when_predictions_equal_the_targets():
    targets = make_targets([2, 2, 2])
    boxes = torch.stack([target.boxes_cxcywh for target in targets])
    logits = torch.full((B, 2, K), -30.0, dtype=torch.float64)
    for image, target in enumerate(targets):
        logits[image, [0, 1], target.labels] = 30.0
    losses = values(Criterion()(ModelOutput(logits, boxes), targets))
    assert losses == pytest.approx(dict.fromkeys(losses, 0.0), abs=1e-9)
