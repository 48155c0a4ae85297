"""FGL and DDF against loops over floats that follow D-FINE's section 4 one number at a time."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from rtdetr_cli.core import distributed
from rtdetr_cli.core.structures import (
    DenoisingGroups,
    Distributions,
    ModelOutput,
    Prediction,
    Target,
)
from rtdetr_cli.loss import criterion
from rtdetr_cli.loss.criterion import Criterion, LossConfig
from rtdetr_cli.loss.distribution import edge_targets
from rtdetr_cli.loss.matcher import HungarianMatcher, flatten_targets

Q, K, LAYERS, BINS, GROUPS = 5, 3, 3, 9, 2
COUNTS = [[2, 1, 3], [0, 4, 1], [1, 0, 0], [0, 0, 0]]


class SlowRefinement:
    """What distributions add to SlowLoss (conftest.py), for one group of queries at a time."""

    def __init__(self, slow, scale):
        self.slow, self.scale = slow, scale
        half, bound = BINS // 2, scale / 2
        inner = [(bound + 1) ** (power / (half - 1)) - 1 for power in range(1, half)]
        self.bins = [-scale, *[-value for value in inner[::-1]], 0.0, *inner, scale]

    @staticmethod
    def log_softmax(logits):
        top = max(logits)
        total = math.log(sum(math.exp(logit - top) for logit in logits)) + top
        return [logit - total for logit in logits]

    def distances(self, reference, box):
        (rx, ry, rw, rh), (cx, cy, w, h) = reference, box
        sides = (rx - cx + w / 2) / rw, (ry - cy + h / 2) / rh
        sides += (cx + w / 2 - rx) / rw, (cy + h / 2 - ry) / rh
        return [self.scale * (side - 0.5) for side in sides]

    def edge(self, logits, distance):
        log_p, bins = self.log_softmax(logits), self.bins
        if distance <= bins[0]:
            return -log_p[0]
        if distance >= bins[-1]:
            return -log_p[-1]
        left = max(n for n in range(BINS) if bins[n] <= distance)
        share = (distance - bins[left]) / (bins[left + 1] - bins[left])
        return -(1 - share) * log_p[left] - share * log_p[left + 1]

    def divergence(self, logits, teacher):
        pairs = zip(
            self.log_softmax([value / 5 for value in teacher]),
            self.log_softmax([value / 5 for value in logits]),
            strict=True,
        )
        return 25 * sum(math.exp(target) * (target - own) for target, own in pairs)

    @staticmethod
    def union(matches_of_sets):
        """Per image the (target, query) pairs, each query with its most frequent target."""
        images = []
        for image in zip(*matches_of_sets, strict=True):
            votes = Counter(pair for pairs in image for pair in pairs)
            best = {}
            for (target, query), count in sorted(votes.items()):
                if count > votes.get((best.get(query), query), 0):
                    best[query] = target
            images.append([(target, query) for query, target in best.items()])
        return images

    def terms(self, layers, distributions, targets, matches, divisor, roots):
        """FGL of each layer and DDF of each but the last; roots: weights of the two means."""
        corners = [layer.tolist() for layer in distributions.corners]
        references, fgl, ddf = distributions.references.tolist(), [], []
        for layer, (_, boxes) in enumerate(layers):
            total, sums, numbers = 0.0, [0.0, 0.0], [0, 0]
            for image, (pairs, target) in enumerate(zip(matches, targets, strict=True)):
                target_of = {query: target.boxes_cxcywh[t].tolist() for t, query in pairs}
                for query, edges in enumerate(corners[layer][image]):
                    quality = max(layers[-1].logits[image][query].sigmoid().tolist())
                    if query in target_of:
                        box = boxes[image][query].tolist()
                        quality, _ = self.slow.iou_and_giou(box, target_of[query])
                        goals = self.distances(references[image][query], target_of[query])
                        total += quality * sum(map(self.edge, edges, goals))
                    teacher = corners[-1][image][query]
                    is_other = query not in target_of
                    sums[is_other] += quality * sum(map(self.divergence, edges, teacher))
                    numbers[is_other] += 4
            means = [one / max(number, 1) for one, number in zip(sums, numbers, strict=True)]
            fgl.append(0.15 * total / divisor)
            ddf.append(1.5 * (means[0] * roots[0] + means[1] * roots[1]) / sum(roots))
        return fgl, ddf[:-1]


def draw(*shape, generator):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def make_prediction(batch, queries, generator):
    boxes = (draw(batch, queries, 4, generator=generator)).sigmoid() * 0.6 + 0.1
    return Prediction(2 * draw(batch, queries, K, generator=generator), boxes)


def make_distributions(batch, queries, scale, generator):
    corners = [2 * draw(batch, queries, 4, BINS, generator=generator) for _ in range(LAYERS)]
    initial = make_prediction(batch, queries, generator)
    return Distributions(corners, initial.boxes.clone(), initial, scale)


def make_case(counts, seed=0, scale=4.0):
    """Random predictions of all kinds and the targets of a batch; all but references learn."""
    g, batch = torch.Generator().manual_seed(seed), len(counts)
    sets = [make_prediction(batch, Q, g) for _ in range(LAYERS + 1)]
    most = max(*counts, 1)
    queries = 2 * most * GROUPS
    starts = [2 * most * group for group in range(GROUPS)]
    output = ModelOutput(
        *sets[0],
        aux_outputs=sets[1:LAYERS],
        encoder_output=sets[LAYERS],
        denoising_outputs=[make_prediction(batch, queries, g) for _ in range(LAYERS)],
        denoising_groups=DenoisingGroups(
            [torch.tensor([s + i for s in starts for i in range(n)]).long() for n in counts],
            [torch.arange(n).repeat(GROUPS) for n in counts],
            GROUPS,
            queries,
        ),
        distributions=make_distributions(batch, Q, scale, g),
        denoising_distributions=make_distributions(batch, queries, scale, g),
    )
    boxes = [make_prediction(1, n, g).boxes[0] for n in counts]
    targets = [Target(box, torch.arange(len(box)) % K) for box in boxes]
    for tensor in tensors_of(output):
        tensor.requires_grad_()
    return output, targets


def tensors_of(output):
    sets = [*output.aux_outputs, output.encoder_output, *output.denoising_outputs]
    sets += [output.distributions.initial, output.denoising_distributions.initial]
    tensors = [output.pred_logits, output.pred_boxes]
    tensors += [tensor for prediction in sets for tensor in prediction]
    return tensors + output.distributions.corners + output.denoising_distributions.corners


def values(losses):
    return {name: loss.item() for name, loss in losses.items()}


def matched_sets(output):
    sets = {f"_aux_{i}": layer for i, layer in enumerate(output.aux_outputs)}
    sets[""] = Prediction(output.pred_logits, output.pred_boxes)
    return sets | {"_pre": output.distributions.initial, "_enc": output.encoder_output}


def slow_losses(slow, output, targets, scale, kind):
    """All terms of all sets."""
    sets, expected = matched_sets(output), {}
    own = {suffix: slow.match_all(prediction, targets) for suffix, prediction in sets.items()}
    reference = SlowRefinement(slow, scale)
    union = reference.union(own.values())
    num_boxes = max(1, sum(len(target.labels) for target in targets))
    num_pairs = sum(map(len, union))
    for suffix, prediction in sets.items():
        terms = slow.terms(prediction, targets, union, max(1, num_pairs), kind)
        terms |= first(slow.terms(prediction, targets, own[suffix], num_boxes, kind))
        expected |= {name + suffix: value for name, value in terms.items()}

    groups = output.denoising_groups
    restored = [
        list(zip(boxes.tolist(), queries.tolist(), strict=True))
        for queries, boxes in zip(groups.positive_queries, groups.target_indices, strict=True)
    ]
    denoising = {f"_dn_{i}": layer for i, layer in enumerate(output.denoising_outputs)}
    all_denoising = denoising | {"_dn_pre": output.denoising_distributions.initial}
    for suffix, prediction in all_denoising.items():
        terms = slow.terms(prediction, targets, restored, num_boxes * GROUPS, kind)
        expected |= {name + suffix: value for name, value in terms.items()}

    roots = [math.sqrt(num_pairs), math.sqrt(Q * len(targets) - num_pairs)]
    layers = dict(list(sets.items())[:LAYERS])
    for part, distributions, pairs, divisor in [
        (layers, output.distributions, union, max(1, num_pairs)),
        (denoising, output.denoising_distributions, restored, num_boxes * GROUPS),
    ]:
        predictions = list(part.values())
        fgl, ddf = reference.terms(predictions, distributions, targets, pairs, divisor, roots)
        expected |= {f"loss_fgl{s}": value for s, value in zip(part, fgl, strict=True)}
        expected |= {f"loss_ddf{s}": value for s, value in zip(part, ddf, strict=False)}
    return expected


def first(terms):
    name = next(iter(terms))
    return {name: terms[name]}


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize(("kind", "scale", "seed"), [("vfl", 4.0, 0), ("mal", 8.0, 1)])
def test_every_term_equals_the_slow_reference(slow, counts, kind, scale, seed):
    output, targets = make_case(counts, seed, scale)
    losses = values(Criterion(config=LossConfig(kind))(output, targets))
    expected = slow_losses(slow, output, targets, scale, kind)
    assert len(expected) == 37
    assert losses == pytest.approx(expected, rel=1e-11, abs=1e-13)


def test_a_distance_between_two_bins_is_split_by_its_nearness():
    bins = torch.tensor([-4.0, -1.0, 0.0, 1.0, 4.0])
    left, share = edge_targets(torch.tensor([-9.0, -4.0, -2.5, 0.0, 0.25, 4.0, 9.0]), bins)
    assert left.tolist() == [0, 0, 0, 2, 2, 3, 3]
    assert share.tolist() == [0, 0, 0.5, 0, 0.25, 1, 1]


def test_a_query_claimed_by_two_boxes_as_often_keeps_the_first():
    boxes = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]])
    both_orders = torch.stack((boxes, boxes.flip(0)))[:, None]  # (2 sets, 1 image, 2 queries, 4)
    truth = flatten_targets([Target(boxes, torch.tensor([0, 0]))], like=boxes)
    prediction = Prediction(torch.zeros(2, 1, 2, 1), both_orders)
    own, union = HungarianMatcher().with_union(prediction, truth)
    assert [list(zip(*row, strict=True)) for row in zip(own.targets, own.queries, strict=True)] == [
        [(0, 0), (1, 1)],
        [(0, 1), (1, 0)],
    ]
    assert union.queries.tolist() == [[0, 1]]
    assert union.targets.tolist() == [[0, 0]]


def test_gradients_reach_every_output_but_the_teacher_of_ddf():
    output, targets = make_case([2, 1, 3])
    losses = Criterion()(output, targets)
    for gradient in torch.autograd.grad(sum(losses.values()), tensors_of(output)):
        assert gradient.abs().sum() > 0
    losses = Criterion()(output, targets)
    ddf = sum(loss for name, loss in losses.items() if "ddf" in name)
    others = [output.distributions.corners[-1], output.pred_logits, output.aux_outputs[0].boxes]
    gradients = torch.autograd.grad(ddf, others, allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_without_boxes_all_outputs_still_get_a_gradient():
    output, targets = make_case([0, 0])
    losses = Criterion()(output, targets)
    assert all(loss == 0 for name, loss in losses.items() if "fgl" in name or "bbox" in name)
    for gradient in torch.autograd.grad(sum(losses.values()), tensors_of(output)):
        assert gradient.isfinite().all()  # None would leave a sibling process waiting


def test_without_refinement_each_set_keeps_its_own_matches(slow):
    output, targets = make_case([2, 1, 3])
    losses = values(Criterion(config=LossConfig(refinement=False))(output, targets))
    assert len(losses) == 27
    for suffix, prediction in matched_sets(output).items():
        matches = slow.match_all(prediction, targets)
        for name, value in slow.terms(prediction, targets, matches, num_boxes=6).items():
            assert losses[name + suffix] == pytest.approx(value, rel=1e-12)


def test_the_mean_over_processes_is_the_loss_of_the_whole_batch(monkeypatch):
    """Two processes with an image each, one without boxes, against one process with both."""
    output, targets = make_case([3, 0])
    halves = [(half(output, image), targets[image : image + 1]) for image in range(2)]
    sent = []

    def keep(tensor):
        sent[-1].append(tensor)
        return tensor

    patch_reduction(monkeypatch, keep)
    for part in halves:
        sent.append([])
        Criterion()(*part)
    assert [len(tensors) for tensors in sent] == [3, 3]  # each process takes part in every one
    means = [sum(tensors) / 2 for tensors in zip(*sent, strict=True)]
    parts = []
    for part in halves:
        remaining = iter(means)
        patch_reduction(monkeypatch, lambda _, remaining=remaining: next(remaining))
        parts.append(values(Criterion()(*part)))
    patch_reduction(monkeypatch, lambda tensor: tensor)
    whole = values(Criterion()(output, targets))
    mean = {name: (parts[0][name] + parts[1][name]) / 2 for name in whole}
    assert mean == pytest.approx(whole, rel=1e-12, abs=1e-15)


def patch_reduction(monkeypatch, reduce):
    monkeypatch.setattr(distributed, "all_reduce_mean", reduce)
    monkeypatch.setattr(criterion, "all_reduce_mean", reduce)


def half(output, image):
    def cut(prediction):
        return Prediction(*(tensor[image : image + 1] for tensor in prediction))

    def cut_distributions(value):
        corners = [tensor[image : image + 1] for tensor in value.corners]
        references = value.references[image : image + 1]
        return Distributions(corners, references, cut(value.initial), value.scale)

    groups = output.denoising_groups
    return ModelOutput(
        *cut(Prediction(output.pred_logits, output.pred_boxes)),
        aux_outputs=[cut(layer) for layer in output.aux_outputs],
        encoder_output=cut(output.encoder_output),
        denoising_outputs=[cut(layer) for layer in output.denoising_outputs],
        denoising_groups=replace_groups(groups, image),
        distributions=cut_distributions(output.distributions),
        denoising_distributions=cut_distributions(output.denoising_distributions),
    )


def replace_groups(groups, image):
    return groups._replace(
        positive_queries=groups.positive_queries[image : image + 1],
        target_indices=groups.target_indices[image : image + 1],
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_cast_up_before_anything_is_computed(dtype):
    output, targets = make_case([2, 1, 3])
    low, high = cast(output, dtype), cast(cast(output, dtype), torch.float32)
    targets = [replace(target, boxes_cxcywh=target.boxes_cxcywh.float()) for target in targets]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = Criterion()(low, targets)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert values(losses) == values(Criterion()(high, targets))


def cast(output, dtype, change=lambda tensor: tensor):
    def to(tensor):
        return change(tensor.detach()).to(dtype)

    def both(prediction):
        return Prediction(*map(to, prediction))

    def distributions(value):
        corners = [to(layer) for layer in value.corners]
        return Distributions(corners, to(value.references), both(value.initial), value.scale)

    return ModelOutput(
        *both(Prediction(output.pred_logits, output.pred_boxes)),
        aux_outputs=[both(layer) for layer in output.aux_outputs],
        encoder_output=both(output.encoder_output),
        denoising_outputs=[both(layer) for layer in output.denoising_outputs],
        denoising_groups=output.denoising_groups,
        distributions=distributions(output.distributions),
        denoising_distributions=distributions(output.denoising_distributions),
    )


GARBAGE = {
    "huge": lambda tensor: tensor * 6e4,
    "zero": lambda tensor: tensor * 0,
    "inverted boxes": lambda tensor: -tensor,
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_garbage_gives_finite_losses_and_gradients(garbage, dtype):
    output, targets = make_case([2, 0, 3])
    targets[0].boxes_cxcywh[:, 2:] = 0
    output = cast(output, dtype, lambda tensor: GARBAGE[garbage](tensor).clamp(-6e4, 6e4))
    tensors = [tensor.requires_grad_() for tensor in tensors_of(output)]
    total = sum(Criterion()(output, targets).values())
    assert total.isfinite()
    for gradient in torch.autograd.grad(total, tensors):
        assert gradient.float().isfinite().all()


def test_a_network_that_diverged_shows_in_the_loss():
    # D-FINE replaces what is not finite by 0, which hides it from every check that follows.
    output, targets = make_case([1, 2])
    output.distributions.corners[0].data[0, 0] = float("nan")
    losses = Criterion()(output, targets)
    assert losses["loss_ddf_aux_0"].isnan()
    assert losses["loss_ddf_aux_1"].isfinite()


def test_a_log_shows_the_last_layer_and_ddf_of_the_layer_before_it():
    output, targets = make_case((3, 0, 2))
    criterion = Criterion()
    losses = criterion(output, targets)
    num_layers = len(output.aux_outputs) + 1
    shown = criterion.shown(losses)
    assert list(shown) == ["loss_vfl", "loss_bbox", "loss_giou", "loss_fgl", "loss_ddf"]
    assert all(shown[name] is losses[name] for name in list(shown)[:4])
    assert shown["loss_ddf"] is losses[f"loss_ddf_aux_{num_layers - 2}"]


def test_a_network_in_eval_mode_has_three_terms():
    output, targets = make_case([1, 2])
    losses = Criterion()(ModelOutput(output.pred_logits, output.pred_boxes), targets)
    assert list(losses) == ["loss_vfl", "loss_bbox", "loss_giou"]
