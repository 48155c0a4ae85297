"""Files of other families, opened with `open_weights`, against the outputs of their networks.

The parity kit (../shared/parity) fills each family's reference network from the names of its
tensors (`kit.filled_state`), runs it in float64 on `kit.image` and stores the outputs. Each test
writes these tensors, in float64, as the family writes its files, and opens that file. Samples of
six of its files are in fixtures/parity.npz (every 20th query and 8th class of the logits, every
10th box), so that parity is tested without the kit too.

Two constants have few digits in some references even when the rest is float64: the position
embedding (float32 but for Hugging Face) and the anchors (float32 official, float16 in the trained
file, which carries those it was cast with). The reader notes them in the architecture.

The last bit of float32 anchors depends on the CPU: torch.log runs in MKL, whose kernels for SSE
(which it also takes on AMD), AVX2 and AVX-512 round 12, 11 and 0 of the 151 distinct logits at 320
and 640 px to the other neighbour of the exact value. The kit has the logits of SSE; with those of
AVX-512 the outputs of three files move by 3e-7. So the comparison in float64 runs with the kit's
logits, from fixtures/kit_anchors.npy, and checks that the network's own are at most an ulp away.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.nn import decoder
from rtdetr_cli.nn.decoder import make_anchors
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.foreign import rename
from rtdetr_cli.weights.name_tables import OFFICIAL_V1
from rtdetr_cli.weights.reader import open_weights

FIXTURE = Path(__file__).parent / "fixtures" / "parity.npz"
KIT_ANCHORS = torch.from_numpy(np.load(FIXTURE.with_name("kit_anchors.npy")))
"""Distinct float32 logits of anchors as the kit computed them, at 320 and 640, then 384 px."""
SHARED = Path(__file__).resolve().parents[3] / "shared"


def write_training_checkpoint(folder, state, _tools):
    """As the official solver saves; only the average has the right weights."""
    raw = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    average = {"module": state, "updates": 9}
    file = {"date": "2024-07-01", "last_epoch": 71, "model": raw, "ema": average, "optimizer": {}}
    torch.save(file, folder / "checkpoint0071.pth")
    return folder / "checkpoint0071.pth"


def write_parallel_checkpoint(folder, state, tools):
    """As it is saved from a network that trained on several GPUs."""
    return write_training_checkpoint(
        folder, {f"module.{name}": tensor for name, tensor in state.items()}, tools
    )


def write_state(folder, state, _tools):
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


def write_paddle(folder, state, tools):
    """The names of official v1 differ from those of v2 in two places only."""
    state = rename(state, OFFICIAL_V1)
    return tools.kit.write_paddle(folder / "model.pdparams", state)


def write_folder(folder, state, _tools):
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors"
    )
    config = {"model_type": "rt_detr", "batch_norm_eps": 1e-5, "num_queries": 300}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_hub(folder, state, _tools):
    """As PyTorchModelHubMixin does: safetensors holds a tensor under the first of its names."""
    kept = {name: tensor.contiguous() for name, tensor in state.items()}
    for name in state:
        if name.startswith("decoder.dec_bbox_head.") and name[22] != "0":
            first = f"decoder.dec_bbox_head.0.{name[24:]}"
            if torch.equal(kept[first], kept[name]):
                del kept[name]
    save_file(kept, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"DEIMTransformer": {"num_queries": 100}}))
    return folder


def write_dfine(folder, state, tools):
    return write_state(folder, state, tools).rename(folder / "dfine_hgnetv2_coco.pth")


def write_dfine_folder(folder, state, tools):
    """transformers leaves the default of decoder_activation_function, relu, out."""
    write_folder(folder, state, tools)
    (folder / "config.json").write_text(json.dumps({"model_type": "d_fine", "reg_scale": 4.0}))
    return folder


def write_module(folder, state, tools):
    """A pickled network of the same layers; a strict load proves that the names agree."""
    shipped = "rtdetr-l" if "model.28.enc_score_head.weight" in state else "rtdetr-x"
    names = [f"class{index}" for index in range(80)]
    module = tools.layer_numbered.model(load_model_config(shipped), names).double()
    module.load_state_dict(state)
    torch.save({"model": module, "ema": None, "train_args": {"imgsz": 640}}, folder / "best.pt")
    return folder / "best.pt"


# file of the kit -> names and shapes, and how such a file is written
FILES = {
    "hf_rtdetr_r18_384x640": ("hf_rtdetr_r18_disk", write_folder),
    "hf_rtdetr_r18_640x640": ("hf_rtdetr_r18_disk", write_folder),
    "hf_rtdetr_v2_r50_640x640": ("hf_rtdetr_v2_r50_disk", write_folder),
    "official_v1_r18vd_320x320": ("official_r18vd", write_training_checkpoint),
    "official_v1_r18vd_640x640": ("official_r18vd", write_training_checkpoint),
    "official_v1_r50vd_640x640": ("official_r50vd", write_paddle),
    "official_v1_r50vd_m_320x320": ("official_r50vd_m", write_state),
    "official_v1_r50vd_m_640x640": ("official_r50vd_m", write_state),
    "official_v2_r18vd_640x640": ("official_v2_r18vd", write_parallel_checkpoint),
    "official_v2_hgnetv2_l_320x320": ("official_hgnetv2_l", write_state),
    "official_v2_hgnetv2_l_640x640": ("official_hgnetv2_l", write_state),
    "ultralytics_l_384x640": ("ultralytics_l", write_module),
    "ultralytics_l_640x640": ("ultralytics_l", write_module),
    "ultralytics_x_640x640": ("ultralytics_x", write_module),
}
REFINED = {
    "dfine_n_640x640": ("dfine_n", write_dfine),
    "dfine_s_384x640": ("dfine_s", write_dfine),
    "dfine_s_640x640": ("dfine_s", write_dfine),
    "dfine_m_320x320": ("dfine_m", write_dfine),
    "dfine_m_640x640": ("dfine_m", write_dfine),
    "dfine_l_640x640": ("dfine_l", write_dfine),
    "hf_d_fine_s_640x640": ("hf_d_fine_s_disk", write_dfine_folder),
    "rtdetrv4_s_640x640": ("rtdetrv4_s", write_training_checkpoint),
    "deim_rtdetrv2_r18_640x640": ("deim_rtdetrv2_r18", write_parallel_checkpoint),
    "deimv2_atto_320x320": ("deimv2_atto", write_hub),
    "deimv2_n_640x640": ("deimv2_n", write_hub),
}
TRAINED = "ultralytics_n_bccd_320x320"
TRAINED_ATTO = "deimv2_atto_trained_320x320"
FAST = {TRAINED, TRAINED_ATTO, "hf_rtdetr_r18_384x640", "deimv2_atto_320x320", "dfine_s_384x640"}


def run(checkpoint, image):
    """Logits, boxes and the three maps between encoder and decoder, for one image."""
    network = RTDETRNetwork(checkpoint.config, len(checkpoint.names)).to(image.dtype).eval()
    network.load_state_dict(checkpoint.weights)
    maps = []
    network.encoder.register_forward_hook(lambda _module, _maps, out: maps.extend(out))
    with torch.inference_mode():
        output = network(image)
    return output.pred_logits, output.pred_boxes, maps


def anchors_of_the_kit(sizes_hw, like, precision="float64"):
    """make_anchors; float32 logits become the nearest of the kit, an ulp off at most."""
    anchors_logit, is_valid = make_anchors(sizes_hw, like, precision)
    if precision == "float32":
        nearest = (anchors_logit[..., None] - KIT_ANCHORS).abs().argmin(dim=-1)
        torch.testing.assert_close(KIT_ANCHORS[nearest], anchors_logit, rtol=2**-23, atol=0)
        anchors_logit = KIT_ANCHORS[nearest]
    return anchors_logit, is_valid


def reference(file):
    """The outputs of the kit, or the samples of them that are in the repository."""
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


@pytest.fixture
def tools(kit, layer_numbered):
    return SimpleNamespace(kit=kit, layer_numbered=layer_numbered)


def open_file(file, folder, tools):
    """The checkpoint in a file of the kit, written first as its family does."""
    if file == TRAINED:
        return open_weights(SHARED / "data" / "weights" / "ultralytics_n_bccd.pt", torch.float64)
    if file == TRAINED_ATTO:
        arrays = np.load(SHARED / "data" / "weights" / "deimv2_atto_coco_state.npz")
        state = {name: torch.from_numpy(values) for name, values in arrays.items()}
        found = open_weights(write_state(folder, state, tools), torch.float64)
        hub = open_weights(write_hub(folder, state, tools), torch.float64)
        assert found.config == hub.config
        assert all(torch.equal(found.weights[key], hub.weights[key]) for key in hub.weights)
        return found
    shapes, write = (FILES | REFINED)[file]
    state = tools.kit.filled_state(tools.kit.shapes[shapes])
    return open_weights(write(folder, state, tools), torch.float64)


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
    [
        f if f in FAST else pytest.param(f, marks=pytest.mark.slow)
        for f in (TRAINED, TRAINED_ATTO, *FILES, *REFINED)
    ],
)
def test_outputs_equal_the_reference(file, kit, tools, tmp_path):
    """Float64 with the kit's anchors to 1e-9; float32 within 1e-4 of float64."""
    expected = reference(file)
    checkpoint = open_file(file, tmp_path, tools)
    image = kit.image(*map(int, file.rpartition("_")[2].split("x")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "make_anchors", anchors_of_the_kit)
        logits, boxes, maps = run(checkpoint, image)
    found = {"pred_logits": logits, "pred_boxes": boxes, **sampled(logits, boxes)}
    for level, values in enumerate(maps):
        found[f"pyramid{level}_mean"] = values.mean(dim=(0, 2, 3))
        found[f"pyramid{level}_sample"] = values[0, ::16, ::5, ::7]
    assert expected.keys() & found.keys()
    compare_exactly(found, expected)
    checkpoint.weights = {name: values.float() for name, values in checkpoint.weights.items()}
    single_logits, single_boxes, _ = run(checkpoint, image.float())
    compare_query_by_query(logits, boxes, single_logits, single_boxes)


def test_samples_in_the_repository_are_those_of_the_kit():
    for name, values in np.load(FIXTURE).items():
        file, _, what = name.rpartition("/")
        full = reference(file)
        if "pred_logits" in full:
            samples = sampled(full["pred_logits"], full["pred_boxes"])
            assert torch.equal(samples[what], torch.from_numpy(values))
