"""The peer of bench_dfine_latency.py: D-FINE's official repository, as a black box.

    PEER/bin/python tests/benchmarks/official_dfine.py write D-FINE dfine-l 640 FOLDER
    PEER/bin/python tests/benchmarks/official_dfine.py serve D-FINE dfine-l 640 FILE.pth

writes FOLDER/dfine-l.pth with random weights and FOLDER/official.onnx from them, with the arguments
of its tools/deployment/export_onnx.py (but a batch of one for tracing, and onnxslim, where that has
a batch of 32 and onnxsim); or runs the deployed network in PyTorch until stdin ends.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from interleave import Times, reserve_stdout, serve
from official_train_step import CONFIGS
from torch import Tensor, nn


class Deployed(nn.Module):
    """Network and post-processing in their deploy form."""

    def __init__(self, network: nn.Module, postprocessor: nn.Module) -> None:
        super().__init__()
        self.network, self.postprocessor = network.deploy(), postprocessor.deploy()

    def forward(self, images: Tensor, orig_target_sizes: Tensor) -> list[Tensor]:
        """Labels, boxes and scores."""
        return self.postprocessor(self.network(images), orig_target_sizes)


def build(root: str, model_name: str, imgsz: str) -> tuple[nn.Module, nn.Module]:
    """The network and its post-processing, with random weights."""
    os.chdir(root)
    sys.path.insert(0, root)
    from src.core import YAMLConfig

    options = {"pretrained": False, "freeze_at": -1, "freeze_norm": False}
    size = [int(imgsz), int(imgsz)]
    config = YAMLConfig(CONFIGS[model_name], HGNetv2=options, eval_spatial_size=size)
    return config.model, config.postprocessor


def write(root: str, model_name: str, imgsz: str, folder: str) -> None:
    """Write the weights and the official export of them."""
    torch.manual_seed(0)
    network, postprocessor = build(root, model_name, imgsz)
    with torch.no_grad():  # statistics of noise keep activations in a usual range
        network.eval()
        for norm in (one for one in network.modules() if isinstance(one, nn.BatchNorm2d)):
            norm.train().momentum = None
        network(torch.rand(1, 3, int(imgsz), int(imgsz)))
        for parameter in network.decoder.parameters():  # heads at zero give equal outputs
            if parameter.ndim > 1:
                parameter += 0.02 * torch.randn_like(parameter)
    path = Path(folder) / f"{model_name}.pth"
    torch.save({"model": network.state_dict()}, path)
    torch.onnx.export(
        Deployed(network.eval(), postprocessor),
        (torch.rand(1, 3, int(imgsz), int(imgsz)), torch.tensor([[int(imgsz)] * 2])),
        path.with_name("official.onnx"),
        input_names=["images", "orig_target_sizes"],
        output_names=["labels", "boxes", "scores"],
        dynamic_axes={"images": {0: "N"}, "orig_target_sizes": {0: "N"}},
        opset_version=16,
        do_constant_folding=True,
        dynamo=False,
    )
    import onnx
    import onnxslim

    onnx.save(onnxslim.slim(str(path.with_name("official.onnx"))), path.with_name("official.onnx"))


def serve_eager(root: str, model_name: str, imgsz: str, file: str) -> None:
    """Run the deployed network on one prepared image per call."""
    replies = reserve_stdout()
    network, postprocessor = build(root, model_name, imgsz)
    network.load_state_dict(torch.load(file)["model"])
    deployed = Deployed(network.eval(), postprocessor).eval()
    torch.manual_seed(0)
    feed = torch.rand(1, 3, int(imgsz), int(imgsz)), torch.tensor([[640, 480]])

    @torch.inference_mode()
    def call() -> Times:
        wall, busy = time.perf_counter(), time.process_time()
        deployed(*feed)
        return {
            "image": 1000 * (time.perf_counter() - wall),
            "processor": 1000 * (time.process_time() - busy),
        }

    serve(replies, call)


if __name__ == "__main__":
    {"write": write, "serve": serve_eager}[sys.argv[1]](*sys.argv[2:])
