"""The peers of check_weights_peers.py: Ultralytics and transformers, each with its own API.

Runs in an environment with both, as black boxes:

    peer_weights.py build FOLDER      write their files and outputs
    peer_weights.py ultralytics-l FOLDER  only the L file of Ultralytics
    peer_weights.py outputs FOLDER    store the outputs of every Hugging Face folder that we wrote
    peer_weights.py load FILE         open one file and print seconds and memory
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
SIZE = 320
NARROW = str(HERE / "peer-rtdetr-n.yaml")
ULTRALYTICS = (
    ("ultralytics-l-fp16", "rtdetr-l.yaml", 80, "save"),
    ("ultralytics-x-fp16", "rtdetr-x.yaml", 80, "save"),
    ("ultralytics-l-3-classes-fp16", "rtdetr-l.yaml", 3, "save"),
    ("ultralytics-narrow-fp16", NARROW, 3, "save"),
    ("ultralytics-l-fp32", "rtdetr-l.yaml", 80, "float"),
    ("ultralytics-narrow-fused-fp32", NARROW, 3, "fused"),
)


def fill(network: torch.nn.Module) -> torch.nn.Module:
    """Random weights that spread scores and boxes, and random BatchNorm statistics; seeded."""
    generator = torch.Generator().manual_seed(7)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return tensor.uniform_(low, high, generator=generator)

    with torch.no_grad():
        for name, tensor in chain(network.named_parameters(), network.named_buffers()):
            if name.endswith("running_var"):
                uniform(tensor, 0.5, 1.5)
            elif name.endswith("weight") and tensor.ndim == 1:
                uniform(tensor, 0.8, 1.2)
            elif name.endswith("weight"):
                gain = 1.2 if tensor.ndim == 4 else 1.0
                tensor.normal_(0.0, (gain / tensor[0].numel()) ** 0.5, generator=generator)
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_(0.0, 0.1, generator=generator)
    return network.eval()


def drawn_image() -> torch.Tensor:
    """(1, 3, SIZE, SIZE) float32 in 0..1, the same everywhere."""
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def store(path: Path, logits: torch.Tensor, boxes: torch.Tensor) -> None:
    """Store the outputs of the file's own toolkit beside it."""
    np.savez(path.with_name(f"{path.name}.npz"), logits=logits.numpy(), boxes=boxes.numpy())
    sys.stderr.write(f"built {path.name}\n")


@torch.no_grad()
def build_ultralytics(folder: Path, first: int | None = None) -> None:
    """L, X, three classes, a narrow one: as `save` writes them, in float32, fused."""
    from ultralytics import RTDETR
    from ultralytics.nn.tasks import RTDETRDetectionModel

    for name, yaml, num_classes, kind in ULTRALYTICS[:first]:
        path = folder / f"{name}.pt"
        network = fill(RTDETRDetectionModel(yaml, nc=num_classes, verbose=False))
        if kind == "save":
            model = RTDETR(yaml)
            model.model = network
            model.save(path)
        else:
            network = network.fuse(verbose=False) if kind == "fused" else network
            torch.save({"model": network, "ema": None, "license": "AGPL-3.0"}, path)
        del network
        reloaded = torch.load(path, weights_only=False)["model"].float().eval()
        boxes, scores = reloaded(drawn_image())[1][:2]
        store(path, scores[-1], boxes[-1])


def hugging_face_kinds() -> dict[str, tuple[type, object]]:
    """R18 and R50 in both classes, and one with discrete sampling."""
    from transformers import (
        RTDetrConfig,
        RTDetrForObjectDetection,
        RTDetrResNetConfig,
        RTDetrV2Config,
        RTDetrV2ForObjectDetection,
    )

    basic = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
    bottleneck = {"depths": [3, 4, 6, 3], "layer_type": "bottleneck"}
    small = {"encoder_in_channels": [128, 256, 512], "hidden_expansion": 0.5, "decoder_layers": 3}
    kinds: dict[str, tuple[type, object]] = {}
    for version, config, network in (
        ("v1", RTDetrConfig, RTDetrForObjectDetection),
        ("v2", RTDetrV2Config, RTDetrV2ForObjectDetection),
    ):
        for size, stages, rest in (("r18", basic, small), ("r50", bottleneck, {})):
            backbone = RTDetrResNetConfig(
                embedding_size=64, out_features=["stage2", "stage3", "stage4"], **stages
            )
            names = {index: f"thing {index}" for index in range(80)}
            values = {"id2label": names, "backbone_config": backbone, **rest}
            kinds[f"hugging-face-{version}-{size}"] = (network, config(**values))
            if (version, size) == ("v2", "r18"):
                discrete = config(**values, decoder_method="discrete")
                kinds["hugging-face-v2-r18-discrete"] = (network, discrete)
    return kinds


@torch.no_grad()
def build_hugging_face(folder: Path) -> None:
    """Write folders with `save_pretrained`, and the outputs of `from_pretrained`."""
    for name, (kind, config) in hugging_face_kinds().items():
        fill(kind(config)).save_pretrained(folder / name)
        output = kind.from_pretrained(folder / name).eval()(pixel_values=drawn_image())
        store(folder / name, output.logits, output.pred_boxes)


@torch.no_grad()
def run_hugging_face(folder: Path) -> None:
    """Load what we wrote; a key that is missing or unknown is an error."""
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    for path in sorted(folder.glob("written-*")):
        if not path.is_dir():
            continue
        network, info = AutoModelForObjectDetection.from_pretrained(path, output_loading_info=True)
        wrong = {key: sorted(value) for key, value in info.items() if value}
        if wrong:
            raise SystemExit(f"{path.name}: {wrong}")
        AutoImageProcessor.from_pretrained(path)
        output = network.eval()(pixel_values=drawn_image())
        store(path, output.logits, output.pred_boxes)


def load(path: Path) -> None:
    """Open a file as its own family does: Ultralytics' class, or torch.load for official files."""
    if path.suffix == ".pth":
        opening(lambda: torch.load(path, map_location="cpu"))
    else:
        from ultralytics import RTDETR

        opening(lambda: RTDETR(path))


def opening(work: Callable[[], object]) -> None:
    """Print wall and processor seconds and memory in MB as one line of JSON."""
    before, wall, busy = peak_mb(), time.perf_counter(), time.process_time()
    work()
    times = {"seconds": time.perf_counter() - wall, "busy": time.process_time() - busy}
    sys.stdout.write(json.dumps({**times, "before": before, "peak": peak_mb()}) + "\n")


def peak_mb() -> float:
    """Peak memory of this program, MB.

    Not getrusage: on Linux its value starts with that of the parent process.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    job, place = sys.argv[1], Path(sys.argv[2])
    if job == "build":
        build_hugging_face(place)
        build_ultralytics(place)
    elif job == "ultralytics-l":
        build_ultralytics(place, first=1)
    elif job == "outputs":
        run_hugging_face(place)
    else:
        load(place)
