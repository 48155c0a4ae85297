"""The criterion against those of D-FINE, DEIM and DEIMv2 on fixed inputs (../shared/parity)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetr_cli.core.distribution import bin_values, boxes_from_distances, distances_from_boxes
from rtdetr_cli.core.structures import (
    DenoisingGroups,
    Distributions,
    ModelOutput,
    Prediction,
    Target,
)
from rtdetr_cli.loss import criterion
from rtdetr_cli.loss.criterion import Criterion, LossConfig
from rtdetr_cli.loss.distribution import EDGES, QueryWeights, edge_targets
from rtdetr_cli.loss.matcher import HungarianMatcher, IoUMatcher, flatten_targets

FILE = Path(__file__).resolve().parents[3] / "shared" / "parity" / "dfine_loss.npz"
LAYERS = 3
CRITERIA = {
    "dfine": Criterion(),
    "deim": Criterion(config=LossConfig("mal")),
    "deimv2_late": Criterion(IoUMatcher(), LossConfig("mal")),
    "deim_own_matches": Criterion(config=LossConfig("mal", refinement=False)),
}


@pytest.fixture(scope="module")
def kit():
    if not FILE.is_file():
        pytest.skip("the parity kit ../shared/parity is not on this machine")
    with np.load(FILE) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture
def inputs(kit):
    floats = {name[3:]: value.clone() for name, value in kit.items() if name.startswith("in/")}
    return {n: v.requires_grad_() if v.is_floating_point() else v for n, v in floats.items()}


def make_targets(inputs):
    counts = inputs["target_counts"].tolist()
    boxes = inputs["target_boxes"].detach().split(counts)
    return [
        Target(*pair) for pair in zip(boxes, inputs["target_labels"].split(counts), strict=True)
    ]


def make_output(inputs):
    def prediction(name):
        logits, boxes = (inputs[name.format(kind)] for kind in ("logits", "boxes"))
        return Prediction(logits, boxes)

    def distributions(prefix):
        corners = [inputs[f"{prefix}corners_{i}"].unflatten(2, (4, -1)) for i in range(LAYERS)]
        references = inputs[f"{prefix}ref_points"].detach()
        return Distributions(corners, references, prediction(prefix + "pre_{}"), 4.0)

    layers = [prediction(f"{{}}_{i}") for i in range(LAYERS)]
    counts = inputs["target_counts"].tolist()
    queries = [torch.tensor([6 * g + j for g in range(2) for j in range(n)]).long() for n in counts]
    return ModelOutput(
        *layers[-1],
        aux_outputs=layers[:-1],
        encoder_output=prediction("enc_{}"),
        denoising_outputs=[prediction(f"dn_{{}}_{i}") for i in range(LAYERS)],
        denoising_groups=DenoisingGroups(
            queries, [torch.arange(n).repeat(2) for n in counts], 2, 12
        ),
        distributions=distributions(""),
        denoising_distributions=distributions("dn_"),
    )


@pytest.fixture
def theirs(monkeypatch):
    """Round the two weights of DDF to float32, as the references do in any precision.

    Without this, DDF and its gradients differ by up to 4e-9.
    """

    def rounded(counts, own_counts):
        roots = (counts * EDGES * 8 / 3).float().sqrt().double()  # batch of 3
        return QueryWeights(*(roots / roots.sum() / own_counts / EDGES))

    monkeypatch.setattr(criterion, "query_weights", rounded)


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("name", CRITERIA)
def test_every_term_equals_the_official_one(kit, inputs, name):
    expected = {
        key.split("/")[1].replace("_enc_0", "_enc"): value.item()
        for key, value in kit.items()
        if key.startswith(f"{name}/loss")
    }
    expected.pop("loss_ddf_dn_2", None)  # D-FINE's zero; the last layer is the teacher
    losses = CRITERIA[name](make_output(inputs), make_targets(inputs))
    measured = {key: value.item() for key, value in losses.items()}
    assert measured == pytest.approx(expected, rel=1e-12)


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("name", CRITERIA)
def test_the_gradients_equal_the_official_ones(kit, inputs, name):
    sum(CRITERIA[name](make_output(inputs), make_targets(inputs)).values()).backward()
    expected = {k.split("/")[2]: v for k, v in kit.items() if k.startswith(f"{name}/grad/")}
    assert len(expected) == 7
    for key, value in expected.items():
        gradient = inputs[key].grad
        own = torch.zeros_like(value) if gradient is None else gradient.abs().sum(-1)
        torch.testing.assert_close(own, value, rtol=1e-11, atol=1e-13)


def test_the_matches_and_their_union_equal_the_official_ones(kit, inputs):
    output, targets = make_output(inputs), make_targets(inputs)
    sets = {
        "last": Prediction(output.pred_logits, output.pred_boxes),
        "aux_0": output.aux_outputs[0],
        "aux_1": output.aux_outputs[1],
        "pre": output.distributions.initial,
        "enc": output.encoder_output,
    }
    logits, boxes = (torch.stack(tensors) for tensors in zip(*sets.values(), strict=True))
    truth = flatten_targets(targets, like=boxes)
    own, union = HungarianMatcher().with_union(Prediction(logits, boxes), truth)
    names = [*sets, "union"]
    rows = [*zip(*own, strict=True), (union.queries[0], union.targets[0])]
    first = torch.tensor([sum(truth.counts[:i]) for i in range(len(truth.counts))])
    for name, (queries, boxes) in zip(names, rows, strict=True):
        images = truth.images[boxes]
        triples = torch.stack((images, queries, boxes - first[images]), 1).tolist()
        assert sorted(triples) == sorted(kit[f"match/{name}"].tolist()), name


@pytest.mark.parametrize("scale", [4, 8])
def test_bins_boxes_and_edge_targets_equal_the_official_ones(kit, scale):
    expected = {name: kit[f"bins/{scale}/{name}"] for name in ("W", "index", "left", "right")}
    corners, references = kit["in/corners_0"].unflatten(2, (4, -1)), kit["in/ref_points"]
    bins = bin_values(32, scale, like=corners)
    torch.testing.assert_close(bins, expected["W"])
    boxes = boxes_from_distances(references, corners.softmax(-1) @ bins, scale)
    torch.testing.assert_close(boxes, kit[f"bins/{scale}/decoded"], rtol=1e-12, atol=1e-14)
    distances = distances_from_boxes(kit["in/edge_refs"], kit["in/edge_boxes"], scale)
    left, share = (part.flatten() for part in edge_targets(distances, bins))
    assert left.tolist() == expected["index"].floor().long().tolist()
    torch.testing.assert_close(share, expected["right"], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(1 - share, expected["left"], rtol=1e-11, atol=1e-12)
    assert {0, 31} <= set(left.tolist())  # both ends of the range occur
