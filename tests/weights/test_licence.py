"""The line about the licence of weights, and how training carries it on."""

import pytest

from rtdetr_cli.weights.licence import (
    ASKED,
    FROM_SCRATCH,
    copied,
    fine_tuned,
    from_backbone,
    licence_entry,
    recorded_licence,
)

UNSTATED = "not stated by its authors (see https://github.com/lyuwenyu/RT-DETR/issues/685)"


def test_a_licence_is_described_with_its_source() -> None:
    assert ASKED.describe() == UNSTATED
    assert copied("rtdetr_r50vd").describe() == (
        "Apache-2.0, stated by the model card of its copy on Hugging Face "
        "(https://huggingface.co/PekingU/rtdetr_r50vd)"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (UNSTATED, f"fine-tuned from a.pt: {UNSTATED}"),
        ("AGPL-3.0, stated in the file", "fine-tuned from a.pt: AGPL-3.0, stated in the file"),
        ("", "fine-tuned from a.pt: which records no licence"),
        (FROM_SCRATCH, FROM_SCRATCH),
        ("fine-tuned from b.pt: x", "fine-tuned from b.pt: x"),
        ("backbone from b: x; the rest is yours", "backbone from b: x; the rest is yours"),
    ],
)
def test_fine_tuned_weights_name_the_first_file_they_came_from(before: str, after: str) -> None:
    assert fine_tuned("a.pt", before) == after


def test_a_pretrained_backbone_leaves_the_rest_to_its_user() -> None:
    assert from_backbone("hgnetv2-l", "x") == "backbone from hgnetv2-l: x; the rest is yours"


def test_files_of_other_families_keep_the_line() -> None:
    assert recorded_licence(licence_entry(UNSTATED)) == UNSTATED
    assert licence_entry("") == {}
    assert recorded_licence({"licence": 3}) == recorded_licence({}) == ""
    assert len(recorded_licence({"licence": "x\n" * 5000})) == 1000
