import pytest
import torch

from rtdetr_cli.core.structures import Prediction, Target
from rtdetr_cli.loss.matcher import HungarianMatcher, flatten_targets


def random_case(counts, num_sets=2, num_queries=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shape = (num_sets, len(counts), num_queries)
    prediction = Prediction(
        4 * torch.randn(*shape, 3, generator=draw, dtype=torch.float64),
        torch.rand(*shape, 4, generator=draw, dtype=torch.float64),
    )
    targets = [
        Target(torch.rand(count, 4, generator=draw), torch.randint(0, 3, (count,), generator=draw))
        for count in counts
    ]
    return prediction, targets


def pairs_by_image(matches, truth):
    """Per set and image, the sorted (target within the image, query)."""
    starts = [sum(truth.counts[:image]) for image in range(len(truth.counts))]
    sets = []
    for queries, targets in zip(matches.queries.tolist(), matches.targets.tolist(), strict=True):
        images = [[] for _ in truth.counts]
        for query, target in zip(queries, targets, strict=True):
            image = int(truth.images[target])
            images[image].append((target - starts[image], query))
        sets.append([sorted(pairs) for pairs in images])
    return sets


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("counts", [[3, 1], [0, 2, 0], [4], [0, 0]])
def test_assignment_is_the_cheapest_of_all(slow, counts, seed):
    prediction, targets = random_case(counts, seed=seed)
    truth = flatten_targets(targets, like=prediction.boxes)
    expected = [
        slow.match_all(Prediction(logits, boxes), targets)
        for logits, boxes in zip(prediction.logits, prediction.boxes, strict=True)
    ]
    assert pairs_by_image(HungarianMatcher()(prediction, truth), truth) == expected


def test_each_cost_equals_that_of_the_paper(slow):
    prediction, targets = random_case([2, 1])
    truth = flatten_targets(targets, like=prediction.boxes)
    cost = HungarianMatcher().costs(prediction, truth)
    assert cost.shape == (3, 2, 5)  # boxes, sets, queries
    for box in range(3):
        image, label = int(truth.images[box]), int(truth.labels[box])
        for s in range(2):
            for query in range(5):
                expected = slow.cost(
                    prediction.logits[s, image, query, label].item(),
                    prediction.boxes[s, image, query].tolist(),
                    truth.boxes_cxcywh[box].tolist(),
                )
                assert cost[box, s, query].item() == pytest.approx(expected, rel=1e-12)


def test_more_boxes_than_queries_leaves_the_highest_cost_boxes_unmatched():
    boxes = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]])
    prediction = Prediction(torch.zeros(1, 1, 2, 1), boxes[[2, 0]][None, None])
    truth = flatten_targets([Target(boxes, torch.zeros(3, dtype=torch.int64))], like=boxes)
    matches = HungarianMatcher()(prediction, truth)
    assert pairs_by_image(matches, truth) == [[[(0, 1), (2, 0)]]]


@pytest.mark.parametrize("logit", [1e4, -1e4, 1e30])
def test_costs_of_huge_logits_are_finite(logit):
    prediction, targets = random_case([2, 1])
    huge = Prediction(torch.full_like(prediction.logits, logit).float(), prediction.boxes.float())
    truth = flatten_targets(targets, like=huge.boxes)
    assert HungarianMatcher().costs(huge, truth).isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_predictions_are_still_matched(value):
    prediction, targets = random_case([2, 1])
    prediction.logits[:, :, 1:] = value
    truth = flatten_targets(targets, like=prediction.boxes)
    matches = HungarianMatcher()(prediction, truth)
    assert matches.queries.shape == (2, 3)


def test_a_finite_query_is_preferred_to_a_non_finite_one():
    boxes = torch.full((1, 1, 3, 4), 0.5)
    prediction = Prediction(
        torch.tensor([float("nan"), -50.0, float("inf")]).view(1, 1, 3, 1), boxes
    )
    truth = flatten_targets([Target(boxes[0, 0, :1], torch.zeros(1, dtype=torch.int64))], boxes)
    assert HungarianMatcher()(prediction, truth).queries.tolist() == [[1]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38, -1e38])
@pytest.mark.parametrize("part", ["logits", "boxes", "targets"])
def test_costs_are_bounded_for_non_finite_predictions(part, value):
    prediction, targets = random_case([2, 1])
    prediction = Prediction(*(tensor.float() for tensor in prediction))
    truth = flatten_targets(targets, like=prediction.boxes)
    broken = {"logits": prediction.logits, "boxes": prediction.boxes, "targets": truth.boxes_cxcywh}
    broken[part].view(-1)[::3] = value
    assert HungarianMatcher().costs(prediction, truth).abs().max() <= 1e6
    queries = HungarianMatcher()(prediction, truth).queries
    assert all(len(set(row[:2])) == 2 for row in queries.tolist())


def test_costs_beyond_the_limit_are_clipped_and_non_finite_ones_are_highest():
    boxes = torch.full((1, 1, 4, 4), 0.5)
    logits = torch.tensor([1e30, -1e30, float("nan"), float("inf")]).view(1, 1, 4, 1)
    truth = flatten_targets([Target(boxes[0, 0, :1], torch.zeros(1, dtype=torch.int64))], boxes)
    cost = HungarianMatcher().costs(Prediction(logits, boxes), truth)
    assert cost.flatten().tolist() == [-1e6, 1e6, 1e6, 1e6]
