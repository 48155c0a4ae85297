"""Measure the memory of one training step by its parts.

    python tests/benchmarks/step_memory.py [--model rtdetr-l.yaml] [--imgsz 640] [--batch 2]

State is counted from its tensors. Activations kept for the backward pass are counted by the storage
that autograd saves, each once, for the part of the network that saved it first. The peak is that of
the process above its memory before the network was built.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from rtdetr_cli.config.dataset import ShapesConfig
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.data.shapes import draw_shapes
from rtdetr_cli.engine.training.optim import train_mode
from rtdetr_cli.engine.training.prepare import prepare
from rtdetr_cli.engine.training.run import Run
from rtdetr_cli.engine.training.step import train_step
from rtdetr_cli.loss.criterion import Criterion

PARTS = ("backbone", "encoder", "decoder")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="rtdetr-l.yaml")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = draw_shapes(ShapesConfig(num_train=8, num_val=2, num_test=1), Path(folder)).path
        before = peak_bytes()
        run = prepare(
            TrainSettings(model=options.model, data=str(data / "data.yaml"), imgsz=options.imgsz,
                          batch=options.batch, multi_scale=False, workers=0, device="cpu",
                          plots=False, project=folder)
        )  # fmt: skip
        train_mode(run.network, run.recipe)
        criterion, batches = Criterion(), iter(run.data.train_batches)
        saved: Counter[str] = Counter()
        train_step(run, criterion, next(batches))
        with counted(run.network, saved):
            train_step(run, criterion, next(batches))
        lines = [
            *state(run).items(),
            *saved.items(),
            ("peak of the process", peak_bytes() - before),
        ]
    sys.stdout.write("".join(f"| {name} | {size / 2**20:.0f} MB |\n" for name, size in lines))


def state(run: Run) -> dict[str, int]:
    """Bytes of everything that persists between steps."""
    weights = list(run.network.parameters())
    moments = [v for s in run.optimizer.state.values() for v in s.values() if v.numel() > 1]
    return {
        "weights": size(weights),
        "gradients": size([w.grad for w in weights if w.grad is not None]),
        "moments of AdamW": size(moments),
        "moving average": size(list(run.ema.network.parameters())),
    }


@contextmanager
def counted(network: nn.Module, saved: Counter[str]) -> Iterator[None]:
    """Sum the bytes that autograd saves, by the part that is running."""
    now = ["criterion"]
    own = {tensor.untyped_storage().data_ptr() for tensor in network.parameters()}
    seen: dict[int, Tensor] = {}  # kept alive, so that no address is reused

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.data_ptr() not in seen:
            seen[storage.data_ptr()] = tensor
            saved[f"kept for backward: {now[-1]}"] += storage.nbytes()
        return tensor

    hooks = []
    for name in PARTS:
        part = getattr(network, name)
        hooks.append(part.register_forward_pre_hook(lambda _m, _i, name=name: now.append(name)))
        hooks.append(part.register_forward_hook(lambda _m, _i, _o: now.pop() and None))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield
    for hook in hooks:
        hook.remove()


def size(tensors: list[Tensor]) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
