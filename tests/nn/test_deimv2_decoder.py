"""What DEIMv2 changes; refinement itself is tested in test_fdr_decoder.py."""

from __future__ import annotations

import torch

from rtdetr_cli.config.model import DEIMv2DecoderConfig
from rtdetr_cli.nn.deimv2_decoder import DEIMv2Decoder

COMMON = {"hidden_dim": 16, "ffn_dim": 24, "num_heads": 2, "num_queries": 9, "num_points": (4, 2)}


def build(**changes: object) -> DEIMv2Decoder:
    torch.manual_seed(0)
    return DEIMv2Decoder(DEIMv2DecoderConfig(**{**COMMON, **changes}, num_layers=3), 16, 5)


def random_maps() -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(2, 16, *size, generator=draw) for size in ((4, 6), (2, 3))]


def test_a_shared_box_head_is_stored_and_updated_once() -> None:
    """So checkpoints, the average of the weights and optimizers need no rule for aliases."""
    decoder = build(shared_box_head=True)
    names = [name for name in decoder.state_dict() if name.startswith("dec_bbox_head")]
    assert {name.split(".")[1] for name in names} == {"0"}
    content = torch.randn(2, 9, 16)
    for parameter in decoder.dec_bbox_head.parameters():
        torch.nn.init.normal_(parameter)
    assert torch.equal(decoder.corners(0, content), decoder.corners(2, content))
    assert len(build().dec_bbox_head) == 3


def test_queries_are_chosen_from_the_memory_itself() -> None:
    decoder = build()
    memory, sizes_hw = decoder.project(random_maps())
    queries = decoder.select_queries(memory, sizes_hw)
    distances = torch.cdist(queries.content, memory, p=torch.inf)
    assert distances.amin(dim=-1).max() == 0


def test_the_position_is_embedded_once_from_the_selected_boxes() -> None:
    decoder = build().eval()
    seen: list[torch.Tensor] = []
    decoder.query_pos_head.register_forward_hook(lambda _head, given, _out: seen.append(given[0]))
    memory, sizes_hw = decoder.project(random_maps())
    decoder(random_maps())
    assert len(seen) == 1
    assert torch.equal(seen[0], decoder.select_queries(memory, sizes_hw).boxes_logit.sigmoid())


def test_the_gate_replaces_the_second_norm() -> None:
    gated, plain = (set(build(gateway=has).decoder.layers[0].state_dict()) for has in (True, False))
    assert gated - plain == {"gateway.gate.weight", "gateway.gate.bias", "gateway.norm.scale"}
    assert plain - gated == {"norm2.scale"}
    assert {"swish_ffn.w12.weight", "swish_ffn.w3.bias", "norm1.scale"} <= gated
