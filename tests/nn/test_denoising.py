"""Denoising queries: what is disturbed, by how much, and the attention mask."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rtdetr_cli.core.box_ops import cxcywh_to_xyxy
from rtdetr_cli.core.structures import DenoisingGroups, Target
from rtdetr_cli.nn.denoising import DenoisingConfig, attention_between, make_denoising_queries

CLASSES = 4


def label_embedding() -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(CLASSES + 1, 6, padding_idx=CLASSES, dtype=torch.float64)


def targets_of(*counts: int) -> list[Target]:
    """Small boxes far from the border, so that no corner is clipped."""
    generator = torch.Generator().manual_seed(0)
    targets = []
    for count in counts:
        centre = 0.4 + 0.2 * torch.rand(count, 2, generator=generator, dtype=torch.float64)
        size = 0.05 + 0.1 * torch.rand(count, 2, generator=generator, dtype=torch.float64)
        labels = torch.randint(0, CLASSES, (count,), generator=generator)
        targets.append(Target(torch.cat((centre, size), dim=1), labels))
    return targets


def half_size_steps(queries, targets, image: int, place: int, copy: int) -> torch.Tensor:
    """By how many half sizes each corner coordinate of a box's copies has moved: (G, 4).

    `copy` 0 asks for the positives, 1 for the negatives.
    """
    most = max(len(target.labels) for target in targets)
    box = targets[image].boxes_cxcywh[place]
    copies = queries.boxes_logit[image].sigmoid()[place + copy * most :: 2 * most]
    # A negative whose corners passed each other has no size left to measure.
    copies = copies[copies[:, 2:].amin(dim=1) > 1e-4]
    half = (box[2:] / 2).repeat(2)
    return (cxcywh_to_xyxy(copies) - cxcywh_to_xyxy(box)).abs() / half


def test_positives_stay_within_half_a_box_and_negatives_leave_it():
    targets = targets_of(3, 2)
    queries = make_denoising_queries(targets, label_embedding(), DenoisingConfig())
    assert queries.groups.num_groups == 33
    for image, count in enumerate((3, 2)):
        for place in range(count):
            positive = half_size_steps(queries, targets, image, place, copy=0)
            negative = half_size_steps(queries, targets, image, place, copy=1)
            assert positive.max() <= 1 + 1e-4
            assert positive.max() > 0.9
            assert positive.mean().item() == pytest.approx(0.5, abs=0.12)
            assert negative.min() >= 1 - 1e-4
            assert negative.max() <= 2 + 1e-4
            assert negative.mean().item() == pytest.approx(1.5, abs=0.12)


def test_box_noise_scales_the_shift():
    targets = targets_of(2)
    config = DenoisingConfig(box_noise=0.1)
    queries = make_denoising_queries(targets, label_embedding(), config)
    positive = half_size_steps(queries, targets, image=0, place=1, copy=0)
    negative = half_size_steps(queries, targets, image=0, place=1, copy=1)
    assert positive.max() <= 0.1 + 1e-4
    assert negative.min() >= 0.1 - 1e-4
    assert negative.max() <= 0.2 + 1e-4


def test_boxes_at_the_border_stay_in_the_image():
    boxes = torch.tensor([[0.02, 0.98, 0.04, 0.04], [0.5, 0.5, 1.0, 1.0]], dtype=torch.float64)
    targets = [Target(boxes, torch.tensor([0, 1]))]
    queries = make_denoising_queries(targets, label_embedding(), DenoisingConfig())
    corners = cxcywh_to_xyxy(queries.boxes_logit.sigmoid())
    assert queries.boxes_logit.isfinite().all()
    assert corners.min() > -1e-4
    assert corners.max() < 1 + 1e-4


def test_without_label_noise_each_copy_carries_its_class():
    targets = targets_of(3)
    embedding = label_embedding()
    queries = make_denoising_queries(targets, embedding, DenoisingConfig(label_noise=0.0))
    expected = embedding(targets[0].labels).repeat(2 * 33, 1)
    assert torch.equal(queries.content[0], expected)


def test_label_noise_replaces_half_of_its_share():
    torch.manual_seed(0)
    embedding = nn.Embedding(81, 1, padding_idx=80)
    embedding.weight.data = torch.arange(81.0)[:, None]
    boxes = torch.full((50, 4), 0.5)
    targets = [Target(boxes, torch.full((50,), 7)) for _ in range(20)]
    queries = make_denoising_queries(targets, embedding, DenoisingConfig(label_noise=0.5))
    changed = (queries.content != 7).float().mean().item()
    assert changed == pytest.approx(0.25 * 79 / 80, abs=0.02)
    assert queries.content.max() < 80


def test_padding_queries_have_no_content_and_restore_nothing():
    targets = targets_of(3, 1, 0)
    embedding = label_embedding()
    queries = make_denoising_queries(targets, embedding, DenoisingConfig(label_noise=1.0))
    assert queries.content.shape == (3, 2 * 3 * 33, 6)
    place = torch.arange(queries.content.shape[1]) % 3
    assert queries.content[1, place > 0].count_nonzero() == 0
    assert queries.content[2].count_nonzero() == 0
    assert queries.content[1, place == 0].count_nonzero() > 0
    assert [len(positive) for positive in queries.groups.positive_queries] == [99, 33, 0]
    assert set((queries.groups.positive_queries[1] % 6).tolist()) == {0}


def test_positive_queries_point_at_the_box_that_they_disturb():
    targets = targets_of(3, 2)
    config = DenoisingConfig(box_noise=1e-3, label_noise=0.0)
    embedding = label_embedding()
    queries = make_denoising_queries(targets, embedding, config)
    for image, target in enumerate(targets):
        places = queries.groups.positive_queries[image]
        restored = queries.groups.target_indices[image]
        boxes = queries.boxes_logit[image, places].sigmoid()
        torch.testing.assert_close(boxes, target.boxes_cxcywh[restored], rtol=0, atol=2e-4)
        assert torch.equal(queries.content[image, places], embedding(target.labels[restored]))
        assert restored.bincount().tolist() == [33] * len(target.labels)


@pytest.mark.parametrize(("most", "num_groups"), [(1, 100), (7, 14), (51, 1), (100, 1)])
def test_the_budget_is_shared_by_the_groups(most, num_groups):
    queries = make_denoising_queries(targets_of(most, 1), label_embedding(), DenoisingConfig())
    assert queries.groups.num_groups == num_groups
    assert queries.groups.num_queries == queries.content.shape[1] == 2 * most * num_groups


def test_a_dense_image_uses_only_as_many_boxes_as_the_budget():
    torch.manual_seed(0)
    targets = targets_of(250, 2)
    config = DenoisingConfig(box_noise=1e-3)
    queries = make_denoising_queries(targets, label_embedding(), config)
    assert queries.content.shape[1] == 200
    places, restored = queries.groups.positive_queries[0], queries.groups.target_indices[0]
    assert len(restored.unique()) == 100
    assert restored.max() > 150
    boxes = queries.boxes_logit[0, places].sigmoid()
    torch.testing.assert_close(boxes, targets[0].boxes_cxcywh[restored], rtol=0, atol=2e-4)


@pytest.mark.parametrize(("counts", "budget"), [((0,), 100), ((0, 0), 100), ((3,), 0), ((2, 0), 0)])
def test_without_boxes_or_budget_no_query_is_made_and_no_random_number_drawn(counts, budget):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    config = DenoisingConfig(num_denoising=budget)
    embedding = nn.Embedding(CLASSES + 1, 6, _weight=torch.ones(CLASSES + 1, 6))
    queries = make_denoising_queries(targets_of(*counts), embedding, config)
    assert queries.content.shape == (len(counts), 0, 6)
    assert queries.boxes_logit.shape == (len(counts), 0, 4)
    assert queries.groups.num_groups >= 1
    assert queries.groups.num_queries == 0
    assert [len(positive) for positive in queries.groups.positive_queries] == [0] * len(counts)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_denoising_queries_attention_is_unrestricted():
    groups = DenoisingGroups([], [], num_groups=1, num_queries=0)
    assert attention_between(groups, num_queries=5, device=torch.device("cpu")) is None


def test_groups_are_isolated_and_real_queries_see_no_ground_truth():
    groups = DenoisingGroups([], [], num_groups=3, num_queries=12)
    allowed = attention_between(groups, num_queries=5, device=torch.device("cpu"))
    assert allowed.shape == (17, 17)
    for row in range(17):
        for column in range(17):
            same_group = row < 12 and row // 4 == column // 4
            expected = column >= 12 or same_group
            assert allowed[row, column].item() == expected, (row, column)
