"""Thousands of steps on batches that nobody would label: no crash, no NaN weight, no growth.

    python tests/benchmarks/soak.py [--steps 10000]

`rtdetr-n` at 96x96 on noise, two images a step, through the engine's own step. Batches go round:
no boxes at all, 600 boxes in one image, boxes of one pixel, all boxes the same, boxes as large as
the image, ordinary ones. The learning rate goes round too, every 500 steps: 1e-3, 0.03, 1 (at 10
the gradient overflows within 20 steps, three times in a row, which ends a run with its sentence).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from rtdetr_cli.config.dataset import ShapesConfig
from rtdetr_cli.config.settings import TrainSettings
from rtdetr_cli.core.structures import Batch, Target
from rtdetr_cli.data.shapes import draw_shapes
from rtdetr_cli.engine.optim import train_mode
from rtdetr_cli.engine.prepare import prepare
from rtdetr_cli.engine.step import train_step
from rtdetr_cli.loss.criterion import Criterion

SIZE = 96
RATES = (1e-3, 0.03, 1.0)


def main() -> None:
    """Print a line every 500 steps; leave with 1 if a weight is not finite or memory grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as folder:
        data = draw_shapes(ShapesConfig(num_train=4, num_val=1, num_test=1), Path(folder)).path
        run = prepare(
            TrainSettings(model="rtdetr-n.yaml", data=str(data / "data.yaml"), imgsz=SIZE, batch=2,
                          epochs=steps, workers=0, device="cpu", plots=False, project=folder)
        )  # fmt: skip
        train_mode(run.network, run.recipe)
        criterion, early_mb, skipped, start = Criterion(), 0.0, 0, time.perf_counter()
        for step in range(steps):
            for group in run.optimizer.param_groups:
                group["initial_lr"] = RATES[step // 500 % len(RATES)]
            losses = train_step(run, criterion, make_batch(step))
            skipped += losses is None
            if (step + 1) % 500 == 0 or step + 1 == steps:
                mb = resident_mb()
                early_mb = early_mb or mb
                loss = float("nan") if losses is None else losses["loss"].item()
                sys.stdout.write(
                    f"step {step + 1}: {(time.perf_counter() - start) / (step + 1):.3f} s a step, "
                    f"loss {loss:.4g}, {skipped} skipped, {mb:.0f} MB\n"
                )
                sys.stdout.flush()
        tensors = [*run.network.state_dict().values(), *run.ema.network.state_dict().values()]
        broken = sum(not torch.isfinite(tensor).all() for tensor in tensors)
        growth = resident_mb() - early_mb
    sys.stdout.write(f"{broken} tensors not finite, {growth:+.0f} MB since step 500\n")
    sys.exit(bool(broken) or growth > 100)


def make_batch(step: int) -> Batch:
    """Two pictures of noise, with boxes of the kind whose turn it is."""
    rng = torch.Generator().manual_seed(step)
    kinds = [make_boxes(step % 6, rng), make_boxes((step // 6) % 6, rng)]
    targets = [Target(boxes, torch.randint(0, 3, (len(boxes),), generator=rng)) for boxes in kinds]
    images = torch.rand(2, 3, SIZE, SIZE, generator=rng)
    return Batch(images, targets, [0, 1], [(SIZE, SIZE)] * 2, ["noise"] * 2)


def make_boxes(kind: int, rng: torch.Generator) -> torch.Tensor:
    """(N, 4) cxcywh in fractions."""
    count = (0, 600, 8, 8, 4, 5)[kind]
    boxes = 0.1 + 0.3 * torch.rand(count, 4, generator=rng)
    if kind == 2:
        boxes[:, 2:] = 1 / SIZE
    elif kind == 3:
        boxes[:] = boxes[:1]
    elif kind == 4:
        boxes[:] = torch.tensor([0.5, 0.5, 1.0, 1.0])
    return boxes


def resident_mb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


if __name__ == "__main__":
    main()
