"""A contestant of bench_train_step.py: the official repository's network, loss and optimizer.

ROOT is RT-DETR/rtdetrv2_pytorch for rtdetr-l, D-FINE for the dfine networks. Batches are those of
the data set, stretched and not augmented; a step is what its det_engine.py does: forward, loss,
backward, clip, AdamW, EMA.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from interleave import Times, reserve_stdout, serve
from torch import Tensor

CONFIGS = {"rtdetr-l": "configs/rtdetrv2/rtdetrv2_hgnetv2_l_6x_coco.yml"} | {
    f"dfine-{size}": f"configs/dfine/dfine_hgnetv2_{size}_coco.yml" for size in "nsmlx"
}


def main(root: str, model_name: str, data: str, imgsz: str, batch: str) -> None:
    """Train until stdin ends."""
    replies = reserve_stdout()
    os.chdir(root)
    sys.path.insert(0, root)
    from src.core import YAMLConfig

    batches = list(read_batches(Path(data), int(imgsz), int(batch)))
    # Everything is trained, as in the other contestants; its fine-tuning freezes stem and norms.
    whole = {"pretrained": False, "freeze_at": -1, "freeze_norm": False}
    size = [int(imgsz), int(imgsz)]
    config = YAMLConfig(CONFIGS[model_name], HGNetv2=whole, eval_spatial_size=size)
    model, criterion = config.model.train(), config.criterion.train()
    optimizer, ema = config.optimizer, config.ema
    count = 0

    def call() -> Times:
        nonlocal count
        images, targets = batches[count % len(batches)]
        count += 1
        start, busy = time.perf_counter(), time.process_time()
        output = model(images, targets=targets)
        loss = sum(criterion(output, targets).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        ema.update(model)
        step, busy = (
            1000 * (now - before)
            for now, before in ((time.perf_counter(), start), (time.process_time(), busy))
        )
        # batches are in memory
        return {"load": 0.0, "step": step, "together": step, "processor": busy}

    serve(replies, call)


def read_batches(
    data: Path, size: int, batch: int
) -> Iterator[tuple[Tensor, list[dict[str, Tensor]]]]:
    """The training images of a YOLO folder, as the official loader returns them."""
    import cv2

    images, targets = [], []
    for path in sorted((data.parent / "images").rglob("*.jpg")):
        label = Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")
        rows = [line.split() for line in label.read_text().splitlines()] if label.exists() else []
        image = cv2.cvtColor(cv2.resize(cv2.imread(str(path)), (size, size)), cv2.COLOR_BGR2RGB)
        images.append(torch.from_numpy(image).permute(2, 0, 1).float() / 255)
        boxes = torch.tensor([[float(x) for x in row[1:]] for row in rows]).reshape(-1, 4)
        targets.append(
            {"labels": torch.tensor([int(row[0]) for row in rows]).long(), "boxes": boxes}
        )
        if len(images) == batch:
            yield torch.stack(images), targets
            images, targets = [], []


if __name__ == "__main__":
    main(*sys.argv[1:])
