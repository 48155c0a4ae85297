"""Train thousands of steps on pathological batches: no crash, no NaN weight, no memory growth.

    OMP_NUM_THREADS=1 python tests/benchmarks/soak.py [--steps 10000] [--batch 2] [--amp off]

`rtdetr-n` at 96x96 on noise, with the engine's own step. Batches alternate: no boxes at all, 600
boxes in one image, boxes of one pixel, all boxes the same, boxes as large as the image, ordinary
ones. The learning rate cycles every 500 steps: 1e-3, 0.03, 1; each cycle starts from the initial
weights, because 1 destroys them. Three steps in a row that are not finite end a run: this is
counted, and training restarts from the initial weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from rtdetr_cli.config.dataset import ShapesConfig
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import BackendError
from rtdetr_cli.core.structures import Batch, Target
from rtdetr_cli.data.shapes import draw_shapes
from rtdetr_cli.engine.training.optim import train_mode
from rtdetr_cli.engine.training.prepare import prepare
from rtdetr_cli.engine.training.run import Run
from rtdetr_cli.engine.training.step import train_step
from rtdetr_cli.loss.criterion import Criterion

SIZE = 96
RATES = (1e-3, 0.03, 1.0)
BLOCK = 500
"""Steps with one learning rate, after which the state is checked."""
GROWTH_MB = 64
"""Tolerated memory above that of the second block."""


def main() -> None:
    """Print a line every 500 steps; exit with 1 if a weight is not finite or memory grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--amp", default="off")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = draw_shapes(ShapesConfig(num_train=4, num_val=1, num_test=1), Path(folder)).path
        run = prepare(
            TrainSettings(model="rtdetr-n.yaml", data=str(data / "data.yaml"), imgsz=SIZE,
                          batch=args.batch, epochs=args.steps, workers=0, device="cpu", plots=False,
                          schedule="constant", warmup_steps=0, amp=args.amp, project=folder)
        )  # fmt: skip
        train_mode(run.network, run.recipe)
        memory = soak(run, args.steps, args.batch)
    growth = memory[-1] - memory[min(1, len(memory) - 1)]
    sys.stdout.write(f"passed: every weight finite, {growth:+.0f} MB since the second block\n")


def soak(run: Run, steps: int, batch: int) -> list[float]:
    """Run the steps; return the memory in MB after each block."""
    first = {name: value.clone() for name, value in run.network.state_dict().items()}
    criterion, skipped, ended, memory = Criterion(), 0, 0, []
    start = time.perf_counter()
    for step in range(steps):
        if step % (BLOCK * len(RATES)) == 0:
            begin_again(run, first)
        for group in run.optimizer.param_groups:
            group["initial_lr"] = RATES[step // BLOCK % len(RATES)]
        try:
            losses = train_step(run, criterion, make_batch(step, batch))
        except BackendError:
            ended += 1
            losses = None
            begin_again(run, first)
        skipped += losses is None
        if (step + 1) % BLOCK == 0 or step + 1 == steps:
            memory.append(resident_mb())
            loss = float("nan") if losses is None else losses["loss"].item()
            sys.stdout.write(
                f"step {step + 1}: {(time.perf_counter() - start) / (step + 1):.3f} s a step, loss "
                f"{loss:.4g}, {skipped} skipped, {ended} ends by three in a row, "
                f"{memory[-1]:.0f} MB\n"
            )
            sys.stdout.flush()
            check(run, memory)
    return memory


def begin_again(run: Run, first: dict[str, Tensor]) -> None:
    """Restore the initial weights, reset the moments and the average."""
    run.network.load_state_dict(first)
    run.ema.network.load_state_dict(first)
    run.optimizer.state.clear()
    run.progress.skipped = 0


def check(run: Run, memory: list[float]) -> None:
    """Exit with 1 if a tensor is not finite or memory has grown."""
    tensors = {
        **run.network.state_dict(),
        **{f"ema {n}": t for n, t in run.ema.network.state_dict().items()},
    }
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        sys.exit(f"{len(broken)} tensors are not finite: {', '.join(broken[:5])}")
    if len(memory) > 2 and memory[-1] - memory[1] > GROWTH_MB:
        sys.exit(f"memory has grown by {memory[-1] - memory[1]:.0f} MB since the second block")


def make_batch(step: int, batch: int) -> Batch:
    """Images of noise with the boxes of this step's kind."""
    rng = torch.Generator().manual_seed(step)
    kinds = [make_boxes(step // 6**place % 6, rng) for place in range(batch)]
    targets = [Target(boxes, torch.randint(0, 3, (len(boxes),), generator=rng)) for boxes in kinds]
    images = torch.rand(batch, 3, SIZE, SIZE, generator=rng)
    return Batch(images, targets, list(range(batch)), [(SIZE, SIZE)] * batch, ["noise"] * batch)


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
    """Current memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


if __name__ == "__main__":
    main()
