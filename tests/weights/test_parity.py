"""Foreign state dicts, through the foreign reader, against what their own networks answer.

The parity kit (../shared/parity) fills each family's reference network from the names of its
tensors (`kit.filled_state`), runs it in float64 on `kit.image` and stores the answers. Samples of
four of its files stand in fixtures/parity.npz (every 20th query and 8th class of the logits, every
10th box), so that parity is tested without the kit too.

Two constants have few digits in some references even when the rest is float64: the position
embedding (float32 but for Hugging Face) and the anchors (float32 official, float16 in the trained
file, which carries those it was cast with). The reader notes them in the architecture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.foreign import read_foreign
from rtdetr_cli.weights.reader import open_weights

FIXTURE = Path(__file__).parent / "fixtures" / "parity.npz"
SHARED = Path(__file__).resolve().parents[3] / "shared"

# file of the kit -> names and shapes
FILES = {
    "hf_rtdetr_r18_384x640": "hf_rtdetr_r18_disk",
    "hf_rtdetr_r18_640x640": "hf_rtdetr_r18_disk",
    "hf_rtdetr_v2_r50_640x640": "hf_rtdetr_v2_r50_disk",
    "official_v1_r18vd_640x640": "official_r18vd",
    "official_v1_r50vd_640x640": "official_r50vd",
    "official_v1_r50vd_m_640x640": "official_r50vd_m",
    "official_v2_r18vd_640x640": "official_v2_r18vd",
    "official_v2_hgnetv2_l_640x640": "official_hgnetv2_l",
    "ultralytics_l_384x640": "ultralytics_l",
    "ultralytics_l_640x640": "ultralytics_l",
    "ultralytics_x_640x640": "ultralytics_x",
}
TRAINED = "ultralytics_n_bccd_320x320"
FAST = {TRAINED, "hf_rtdetr_r18_384x640"}


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
    """The kit's answers in full, or the samples of them that stand in the repository."""
    path = SHARED / "parity" / f"{file}.npz"
    if path.is_file():
        return {name: torch.from_numpy(values) for name, values in np.load(path).items()}
    samples = {
        name.rpartition("/")[2]: torch.from_numpy(values)
        for name, values in np.load(FIXTURE).items()
        if name.startswith(f"{file}/")
    }
    if not samples:
        pytest.skip("the parity kit ../shared/parity is not on this machine")
    return samples


def sampled(logits, boxes):
    """What fixtures/parity.npz keeps."""
    return {"sampled_logits": logits[:, ::20, ::8], "sampled_boxes": boxes[:, ::10]}


def open_file(file, kit):
    """The checkpoint of a file of the kit."""
    if file == TRAINED:
        return open_weights(SHARED / "data" / "weights" / "ultralytics_n_bccd.pt", torch.float64)
    return read_foreign(kit.filled_state(kit.shapes[FILES[file]]), file)


def compare_exactly(found, expected):
    for name, values in expected.items():
        if name in found:
            assert found[name].shape == values.shape
            difference = float((found[name] - values).abs().max())
            assert difference <= 1e-9, f"{name} differs by {difference}"


def compare_query_by_query(logits, boxes, single_logits, single_boxes):
    """Within 1e-4 of the largest; queries whose scores agree to rounding may swap places."""
    scale = logits.abs().max()
    exact = torch.cat((logits / scale, boxes), dim=-1)[0]
    single = torch.cat((single_logits / scale, single_boxes), dim=-1)[0].double()
    moved = (exact - single).abs().amax(dim=1) > 1e-4
    assert moved.sum() <= 4
    distances = torch.cdist(exact[moved], single, p=torch.inf)
    assert (distances.min(dim=1).values <= 1e-4).all()


@pytest.mark.parametrize(
    "file",
    [f if f in FAST else pytest.param(f, marks=pytest.mark.slow) for f in (TRAINED, *FILES)],
)
def test_answers_equal_the_reference(file, kit):
    """Float64 to 1e-9; float32 within 1e-4 of float64."""
    expected = reference(file)
    checkpoint = open_file(file, kit)
    picture = kit.image(*map(int, file.rpartition("_")[2].split("x")))
    logits, boxes, maps = answers(checkpoint, picture)
    found = {"pred_logits": logits, "pred_boxes": boxes, **sampled(logits, boxes)}
    for level, values in enumerate(maps):
        found[f"pyramid{level}_mean"] = values.mean(dim=(0, 2, 3))
        found[f"pyramid{level}_sample"] = values[0, ::16, ::5, ::7]
    assert expected.keys() & found.keys()
    compare_exactly(found, expected)
    checkpoint.weights = {name: values.float() for name, values in checkpoint.weights.items()}
    single_logits, single_boxes, _ = answers(checkpoint, picture.float())
    compare_query_by_query(logits, boxes, single_logits, single_boxes)


def test_samples_in_the_repository_are_those_of_the_kit():
    for name, values in np.load(FIXTURE).items():
        file, _, what = name.rpartition("/")
        full = reference(file)
        if "pred_logits" in full:
            samples = sampled(full["pred_logits"], full["pred_boxes"])
            assert torch.equal(samples[what], torch.from_numpy(values))
