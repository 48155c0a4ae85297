"""Foreign state dicts, through the foreign reader, against what their own networks answer.

The parity kit (../shared/parity) fills each family's reference network from the names of its
tensors (`kit.filled_state`), runs it in float64 on `kit.image` and stores the answers. Samples of
four of its files stand in fixtures/parity.npz (every 20th query and 8th class of the logits, every
10th box), so that parity is tested without the kit too.

Two constants have few digits in some references even when the rest is float64, and are rounded
here as each reference rounds them; left exact, they alone change float64 outputs by up to 1e-6:
  official      position embedding and anchors in float32 (made once, at construction)
  Ultralytics   position embedding in float32; the trained file carries float16 anchors for its
                own 320x320, made when it was last cast to half (up to 3e-3 in the logits)
  Hugging Face  nothing
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetr_cli.nn import decoder, hybrid_encoder
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.foreign import read_foreign
from rtdetr_cli.weights.reader import open_weights

FIXTURE = Path(__file__).parent / "fixtures" / "parity.npz"
SHARED = Path(__file__).resolve().parents[3] / "shared"

# file of the kit -> names and shapes; the fast ones first
FAST = {
    "official_v2_r18vd_640x640": "official_v2_r18vd",
    "hf_rtdetr_r18_384x640": "hf_rtdetr_r18_disk",
}
SLOW = {
    "official_v1_r18vd_640x640": "official_r18vd",
    "hf_rtdetr_r18_640x640": "hf_rtdetr_r18_disk",
    "official_v1_r50vd_640x640": "official_r50vd",
    "official_v1_r50vd_m_640x640": "official_r50vd_m",
    "official_v2_hgnetv2_l_640x640": "official_hgnetv2_l",
    "hf_rtdetr_v2_r50_640x640": "hf_rtdetr_v2_r50_disk",
    "ultralytics_l_384x640": "ultralytics_l",
    "ultralytics_l_640x640": "ultralytics_l",
    "ultralytics_x_640x640": "ultralytics_x",
}
TRAINED = "ultralytics_n_bccd_320x320"
IN_FIXTURE = (
    "official_v2_r18vd_640x640",
    "hf_rtdetr_r18_384x640",
    "ultralytics_l_384x640",
    "official_v1_r50vd_m_640x640",
)
FILES = [*FAST, *(pytest.param(file, marks=pytest.mark.slow) for file in SLOW)]


def single_precision_position(like, temperature=10000.0):
    """The embedding as the official code and Ultralytics compute it, row-major: in float32."""
    channels, height, width = like.shape[1:]
    steps = torch.arange(channels // 4, dtype=torch.float32) / (channels // 4)
    frequencies = 1.0 / temperature**steps
    rows = torch.arange(height, dtype=torch.float32)[:, None] * frequencies
    columns = torch.arange(width, dtype=torch.float32)[:, None] * frequencies
    row_part = torch.cat((rows.sin(), rows.cos()), dim=1)[:, None].expand(-1, width, -1)
    column_part = torch.cat((columns.sin(), columns.cos()), dim=1)[None].expand(height, -1, -1)
    embedding = torch.cat((row_part, column_part), dim=-1)
    return embedding.reshape(1, height * width, channels).to(like.dtype)


def rounded_anchors(make_anchors, dtype, sizes_hw, like):
    """Anchors made in float32 and rounded to `dtype`."""
    anchors, is_valid = make_anchors(sizes_hw, like.float())
    return anchors.to(dtype).to(like.dtype), is_valid.to(like.dtype)


@pytest.fixture
def round_constants(monkeypatch):
    """Gives the network the constants of a reference; see the head of this file."""

    def patch(file):
        if not file.startswith("hf_"):
            monkeypatch.setattr(hybrid_encoder, "position_embedding", single_precision_position)
        if file.startswith("official") or file == TRAINED:
            dtype = torch.float16 if file == TRAINED else torch.float32
            anchors = partial(rounded_anchors, decoder.make_anchors, dtype)
            monkeypatch.setattr(decoder, "make_anchors", anchors)

    return patch


def answers(checkpoint, picture):
    """Logits, boxes and the three maps between encoder and decoder, for one picture."""
    network = RTDETRNetwork(checkpoint.config, len(checkpoint.names)).to(picture.dtype).eval()
    network.load_state_dict(checkpoint.weights)
    maps = []
    network.encoder.register_forward_hook(lambda _module, _maps, out: maps.extend(out))
    with torch.inference_mode():
        output = network(picture)
    return output.pred_logits, output.pred_boxes, maps


def picture_for(file, kit):
    return kit.image(*map(int, file.rpartition("_")[2].split("x")))


def reference(file):
    path = SHARED / "parity" / f"{file}.npz"
    if not path.is_file():
        pytest.skip("the parity kit ../shared/parity is not on this machine")
    return {key: torch.from_numpy(value) for key, value in np.load(path).items()}


def open_file(file, kit):
    """The checkpoint of a file of the kit."""
    if file == TRAINED:
        return open_weights(SHARED / "data" / "weights" / "ultralytics_n_bccd.pt", torch.float64)
    return read_foreign(kit.filled_state(kit.shapes[{**FAST, **SLOW}[file]]), file)


def largest(found, expected):
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


@pytest.mark.parametrize("file", [TRAINED, *FILES])
def test_float64_answers_equal_the_reference(file, kit, round_constants, record_property):
    expected = reference(file)
    checkpoint = open_file(file, kit)
    round_constants(file)
    logits, boxes, maps = answers(checkpoint, picture_for(file, kit))
    differences = {
        "pred_logits": largest(logits, expected["pred_logits"]),
        "pred_boxes": largest(boxes, expected["pred_boxes"]),
    }
    for level, found in enumerate(maps):
        if f"pyramid{level}_mean" in expected:
            mean, sample = found.mean(dim=(0, 2, 3)), found[0, ::16, ::5, ::7]
            differences |= {
                f"pyramid{level}_mean": largest(mean, expected[f"pyramid{level}_mean"]),
                f"pyramid{level}_sample": largest(sample, expected[f"pyramid{level}_sample"]),
            }
    for name, difference in differences.items():
        record_property(name, difference)
        assert difference <= 1e-9, name


@pytest.mark.parametrize(
    "file",
    [f if f in FAST else pytest.param(f, marks=pytest.mark.slow) for f in IN_FIXTURE],
)
def test_float64_answers_equal_the_sampled_reference(file, kit, round_constants):
    sampled = np.load(FIXTURE)
    checkpoint = open_file(file, kit)
    round_constants(file)
    logits, boxes, _ = answers(checkpoint, picture_for(file, kit))
    expected = torch.from_numpy(sampled[f"{file}/pred_logits"])
    assert largest(logits[:, ::20, ::8], expected) <= 1e-9
    assert largest(boxes[:, ::10], torch.from_numpy(sampled[f"{file}/pred_boxes"])) <= 1e-9


@pytest.mark.parametrize("file", [TRAINED, *FILES])
def test_float32_answers_lie_within_1e_4_of_float64(file, kit):
    """Queries whose scores agree to rounding may swap places: compared query by query."""
    if file == TRAINED:
        reference(file)
    checkpoint, picture = open_file(file, kit), picture_for(file, kit)
    logits, boxes, _ = answers(checkpoint, picture)
    checkpoint.weights = {key: tensor.float() for key, tensor in checkpoint.weights.items()}
    single_logits, single_boxes, _ = answers(checkpoint, picture.float())
    scale = logits.abs().max()
    exact = torch.cat((logits / scale, boxes), dim=-1)[0]
    single = torch.cat((single_logits / scale, single_boxes), dim=-1)[0].double()
    differences, partners = torch.cdist(exact, single, p=torch.inf).min(dim=1)
    assert differences.max() <= 1e-4
    assert len(set(partners.tolist())) == len(exact)
    assert (partners != torch.arange(len(exact))).sum() <= 4
