"""The peer of bench_onnx_graph.py; runs in an environment with Ultralytics, as a black box.

    PEER/bin/python tests/benchmarks/peer_export.py rtdetr-l FOLDER

writes FOLDER/rtdetr-l.pt with random weights, and FOLDER/rtdetr-l.onnx (batch 1) and
FOLDER/rtdetr-l-free.onnx (free batch and size, the peer's dynamic=True) from them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from ultralytics import RTDETR, settings


def main(architecture: str, folder: str) -> None:
    """Write the three files."""
    settings.update({"sync": False})
    torch.manual_seed(0)
    model = RTDETR(f"{architecture}.yaml")
    with torch.no_grad():  # untrained heads give the same output everywhere
        for parameter in model.model.parameters():
            scale = parameter.std() if parameter.numel() > 1 else parameter.abs().sum()
            parameter.add_(torch.randn_like(parameter) * (0.3 * scale + 0.01))
    path = Path(folder).resolve() / f"{architecture}.pt"
    model.save(path)
    for name, dynamic in ((f"{architecture}-free", True), (architecture, False)):
        written = RTDETR(path).export(format="onnx", imgsz=640, dynamic=dynamic, simplify=False)
        Path(written).replace(path.with_name(f"{name}.onnx"))


if __name__ == "__main__":
    main(*sys.argv[1:])
