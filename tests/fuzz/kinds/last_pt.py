"""Training states: last.pt of tiny runs with parts exchanged, dropped, reshaped, cut or flipped."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

from rtdetr_cli.config.load import model_config_to_dict
from rtdetr_cli.config.model import (
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    PResNetConfig,
)
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.engine.training.prepare import prepare
from rtdetr_cli.engine.training.resume import LAST, run_checkpoint, save_last
from rtdetr_cli.engine.training.step import train_step
from rtdetr_cli.loss.criterion import Criterion

OPTIMIZERS = ("adamw", "sgd", *(["muon"] if hasattr(torch.optim, "Muon") else []))
ODD = (
    None, "", "x", "\x1b[31m\0", -1, 0, 1, 1.5, -0.5, 1e30, 2**31, 2**63, 10**400, [], {}, [[]],
    (1, 2), {"a": 1}, {3: torch.ones(2)}, True, float("nan"), float("inf"), "../../x",
)  # fmt: skip
NUMBERS = (float("nan"), float("inf"), -float("inf"), -1.0, 1e38, 0.0)
DTYPES = (torch.float16, torch.float64, torch.int64, torch.bool, torch.uint8, torch.bfloat16)


def case(rng: random.Random, folder: Path) -> None:
    """Damage a state and resume it, up to before its first step."""
    content, stored = _saved(rng.choice(OPTIMIZERS))
    path = folder / "runs" / "train" / "weights" / LAST
    path.parent.mkdir(parents=True)
    if rng.random() < 0.3:
        path.write_bytes(_broken(rng, bytearray(stored)))
    else:
        damaged = _copy(content)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            part = damaged if rng.random() < 0.2 else damaged.get("training")
            _mutate(rng, part if isinstance(part, dict) and part else damaged)
        torch.save(damaged, path)
    if rng.random() < 0.1:
        path.with_name("last-previous.pt").write_bytes(stored)
    data = _write_data(folder / "data")
    settings = TrainSettings(resume=str(path), data=str(data), device="cpu", workers=0)
    prepare(settings).held.close()


@cache
def _saved(optimizer: str) -> tuple[dict, bytes]:
    """The state after one step of a tiny network, as it is loaded and as it is stored."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = model_config_to_dict(_tiny())
        del values["name"], values["norm_eps"]
        (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
        run = prepare(
            TrainSettings(
                model=str(folder / "tiny.yaml"),
                data=str(_write_data(folder / "data")),
                project=str(folder / "runs"),
                optimizer=optimizer,
                lr=1e-3,
                imgsz=64,
                batch=2,
                epochs=2,
                device="cpu",
                workers=0,
                num_denoising=4,
                freeze="backbone,encoder",
                amp="off",
            )
        )
        run.network.train()
        batch = next(iter(run.data.train_batches))
        run.progress.sums.add(train_step(run, Criterion(), batch))
        run.progress.sums.seconds = 1.0
        save_last(run.run_dir / "weights", run_checkpoint(run))
        run.held.close()
        stored = (run.run_dir / "weights" / LAST).read_bytes()
        return torch.load(run.run_dir / "weights" / LAST, weights_only=True), stored


def _tiny() -> ModelConfig:
    """As few tensors as a network can have: a case costs as much as its pickle is long."""
    return ModelConfig(
        name="tiny",
        backbone=PResNetConfig(
            blocks=(1, 1, 1, 1), bottleneck=False, stem=(4, 4, 4), widths=(4, 4, 4, 4)
        ),
        encoder=EncoderConfig(hidden_dim=8, ffn_dim=8, num_heads=2, num_csp_blocks=1),
        decoder=DecoderConfig(hidden_dim=8, ffn_dim=8, num_layers=1, num_heads=2, num_queries=5),
    )


def _write_data(folder: Path) -> Path:
    """Three images, the same in each case."""
    image = np.full((64, 64, 3), 100, np.uint8)
    image[16:48, 16:48] = 200
    for split, count in (("train", 3), ("val", 1)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(folder / "images" / split / f"{number}.png"), image)
            (folder / "labels" / split / f"{number}.txt").write_text("0 .5 .5 .5 .5")
    values = {"train": "images/train", "val": "images/val", "names": {0: "a", 1: "b"}}
    (folder / "data.yaml").write_text(yaml.safe_dump(values))
    return folder / "data.yaml"


def _copy(node: object) -> object:
    """Containers copied, tensors shared: a mutation replaces a tensor by another."""
    if isinstance(node, dict):
        return {key: _copy(value) for key, value in node.items()}
    return [_copy(value) for value in node] if isinstance(node, list) else node


def _broken(rng: random.Random, stored: bytearray) -> bytes:
    """Cut, or with bits flipped."""
    if rng.random() < 0.3:
        return bytes(stored[: rng.randrange(len(stored))])
    for _ in range(rng.choice((1, 3, 20))):
        stored[rng.randrange(len(stored))] ^= 1 << rng.randrange(8)
    return bytes(stored)


def _mutate(rng: random.Random, node: dict | list) -> None:
    """Change something below a node."""
    key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
    inner = node[key]
    if isinstance(inner, dict | list) and inner and rng.random() < 0.85:
        _mutate(rng, inner)
    elif isinstance(inner, torch.Tensor) and rng.random() < 0.8:
        node[key] = _damaged(rng, inner)
    elif rng.random() < 0.2:
        del node[key]
    elif isinstance(node, dict) and rng.random() < 0.1:
        node[rng.choice(("x", "cfg", 5, None, 1.5))] = rng.choice(ODD)
    elif type(inner) in {int, float} and rng.random() < 0.5:
        node[key] = type(inner)(inner * rng.choice((-1, 0, 2, 1000)) + rng.choice((0, 1)))
    else:
        node[key] = rng.choice(ODD)


def _damaged(rng: random.Random, tensor: torch.Tensor) -> torch.Tensor:
    kind = rng.randrange(4)
    if kind == 0:
        return tensor.to(rng.choice(DTYPES))
    if kind == 1:
        return rng.choice((tensor[None], tensor.flatten()[:-1], torch.zeros(3), torch.zeros(0)))
    if kind == 2 and tensor.ndim > 1:
        return tensor.transpose(0, 1)
    changed = tensor.clone(memory_format=torch.contiguous_format)
    if changed.numel() and changed.is_floating_point():
        changed.view(-1)[rng.randrange(changed.numel())] = rng.choice(NUMBERS)
    return changed
