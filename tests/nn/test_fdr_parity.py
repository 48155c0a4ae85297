"""Corners and first boxes of FDR decoders against the official networks, in float64.

The parity kit (../shared/parity) fills every parameter from its official name and runs the
reference. fixtures/fdr_parity.npz has, of each of its files, the corner logits of the first query
and every 20th box of the first layer. Float32 anchors differ between CPUs in the last bit, which
moves outputs by 3e-7; with those of the kit's CPU the largest difference is 3e-13.
tests/weights/test_parity.py compares logits and boxes, through files.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.nn.fdr_decoder import FDRDecoder
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

FIXTURE = Path(__file__).parent / "fixtures" / "fdr_parity.npz"
FAST = {"deimv2_atto_320x320": "deimv2-atto"}
SLOW = {
    "dfine_n_640x640": "dfine-n",
    "dfine_s_640x640": "dfine-s",
    "dfine_s_384x640": "dfine-s",
    "dfine_m_320x320": "dfine-m",
    "dfine_m_640x640": "dfine-m",
    "dfine_l_640x640": "dfine-l",
    "rtdetrv4_s_640x640": "dfine-s",
    "deimv2_n_640x640": "deimv2-n",
}
OFFICIAL = {
    "aggregation_squeeze_conv.": "aggregation.0.",
    "aggregation_excitation_conv.": "aggregation.1.",
    "stem2a.conv.1.": "stem2a.conv.",
    "stem2b.conv.1.": "stem2b.conv.",
}


def official(name: str, decoder: FDRDecoder) -> str:
    """Of a head with several names, the reference keeps the values of the last one."""
    for ours, theirs in OFFICIAL.items():
        name = name.replace(ours, theirs)
    is_shared = len(decoder.dec_bbox_head) == 1
    return name.replace("dec_bbox_head.0", "dec_bbox_head.2") if is_shared else name


def filled(file, fill) -> RTDETRNetwork:
    config = load_model_config({**FAST, **SLOW}[file])
    if file.startswith("rtdetrv4"):
        config = replace(config, decoder=replace(config.decoder, activation="silu"))
    network = RTDETRNetwork(config, 80).double().eval()
    state = network.state_dict()
    network.load_state_dict(
        {name: fill(official(name, network.decoder), value.shape) for name, value in state.items()}
    )
    return network


@pytest.mark.parametrize("file", [*FAST, *(pytest.param(f, marks=pytest.mark.slow) for f in SLOW)])
def test_corners_and_first_boxes_equal_the_reference(file, parity_kit, monkeypatch):
    network = filled(file, parity_kit["fill"])
    decode, results = network.decoder.decode, []
    monkeypatch.setattr(
        network.decoder, "decode", lambda *call: results.append(decode(*call)) or results[0]
    )
    with torch.inference_mode():
        network(parity_kit["image"](*map(int, file.rpartition("_")[2].split("x"))))
    ((layers, first_boxes),) = results
    samples = np.load(FIXTURE)
    for name, found in (
        ("corners", layers[-1].corners[0, 0].flatten()),
        ("first_boxes", first_boxes[0, ::20]),
    ):
        expected = torch.from_numpy(samples[f"{file}/{name}"])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
