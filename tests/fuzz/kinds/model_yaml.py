"""Architecture YAMLs: shipped ones and a small one, damaged; what is small is built and run."""

from __future__ import annotations

import random
from pathlib import Path

import torch
import yaml
from yaml_mutations import write_damaged

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.scale import least_amount
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

ROOT = Path(__file__).resolve().parents[3]
SMALL = """
backbone:
  type: hgnetv2
  stem: [4, 8]
  stages:
    - {mid: 4, out: 8, blocks: 1, kernel: 3, layers: 1, light: false}
    - {mid: 4, out: 8, blocks: 2, kernel: 3, layers: 2, light: false}
    - {mid: 4, out: 8, blocks: 1, kernel: 5, layers: 1, light: true}
    - {mid: 4, out: 8, blocks: 1, kernel: 5, layers: 1, light: true}
encoder: {hidden_dim: 8, ffn_dim: 8, num_layers: 1, num_heads: 2, num_csp_blocks: 1, expansion: 0.5}
decoder:
  {hidden_dim: 8, ffn_dim: 8, num_layers: 2, eval_layers: 1, num_heads: 2, num_queries: 5,
   num_points: [1, 2, 3], sampling: bilinear}
recipe: {epochs: 3, backbone_lr: 1.0e-4, multi_scale: false}
norm_eps: 1.0e-3
"""
PRESNET = (
    "{type: presnet, blocks: [1, 1, 1, 1], bottleneck: true, stem: [4, 4, 8], widths: [4, 4, 4, 4]}"
)
MOST_VALUES, MOST_TENSORS = 300_000, 200


def case(rng: random.Random, folder: Path) -> None:
    """Open a damaged file as an architecture, count it, and detect with what is small."""
    if rng.random() < 0.3:
        path = rng.choice(sorted((ROOT / "models").glob("*.yaml")))
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    else:
        values = yaml.safe_load(SMALL)
        if rng.random() < 0.3:
            values["backbone"] = yaml.safe_load(PRESNET)
    path = folder / "model.yaml"
    write_damaged(rng, path, values)
    config = load_model_config(path)
    tensors, amount = least_amount(config, 3)
    if tensors <= MOST_TENSORS and amount <= MOST_VALUES:
        with torch.inference_mode():
            RTDETRNetwork(config, 3).eval()(torch.zeros(1, 3, 64, 64))
