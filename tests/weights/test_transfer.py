"""Class rows follow their names to another class list."""

from __future__ import annotations

import torch

from rtdetr_cli.weights.transfer import transfer_classes


def tensors(num_classes: int, start: float) -> dict[str, torch.Tensor]:
    rows = torch.arange(num_classes + 1, dtype=torch.float32)[:, None].expand(-1, 4) + start
    return {
        "backbone.stem.weight": torch.full((3,), start),
        "decoder.enc_score_head.weight": rows[:-1].clone(),
        "decoder.dec_score_head.0.bias": rows[:-1, 0].clone(),
        "decoder.denoising_class_embed.weight": rows.clone(),
    }


def test_rows_with_a_known_name_move_and_others_stay_fresh():
    old, fresh = tensors(3, start=0), tensors(2, start=100)
    weights, kept = transfer_classes(
        old, {0: "cat", 1: "dog", 2: "Bus"}, fresh, {0: "bus ", 1: "tree"}
    )
    assert kept == ["bus "]
    assert weights["decoder.enc_score_head.weight"][:, 0].tolist() == [2, 101]
    assert weights["decoder.dec_score_head.0.bias"].tolist() == [2, 101]
    assert weights["decoder.denoising_class_embed.weight"][:, 0].tolist() == [2, 101, 102]
    assert weights["backbone.stem.weight"].tolist() == [0, 0, 0]
    assert fresh["decoder.enc_score_head.weight"][0, 0] == 100  # the fresh tensors are untouched
