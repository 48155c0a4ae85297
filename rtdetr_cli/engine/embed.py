"""Feature vectors of images, for search and clustering: pooled outputs of the hybrid encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from rtdetr_cli.backends.load import Detector, preprocessing_for
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.predict import read_options, require_any
from rtdetr_cli.engine.predicting.lines import Totals
from rtdetr_cli.engine.predicting.prepared import prepare
from rtdetr_cli.media.source import SourceLike, open_source

KEYS = ("imgsz", "batch", "device")
"""Keys of `rtdetr predict` that apply."""


@torch.inference_mode()
def embed(detector: Detector, source: SourceLike, settings: PredictSettings) -> list[Tensor]:
    """The mean over all positions of the encoder's stride-32 output, which fuses all scales.

    Args:
        detector: with a PyTorch network.
        source: as in prediction; unreadable images are named on stderr and left out.
        settings: `imgsz`, `batch` and `device` apply.

    Returns:
        (C,) float32 on the CPU for each image, C the hidden_dim of the architecture (256 in most).

    Raises:
        DataError: the source does not exist, or none of its images can be read.
        UsageError: the model is an exported file, which returns detections only.
    """
    network = detector.network
    if network is None or detector.device is None:
        raise UsageError(f"embed needs weights (.pt); {settings.model} returns detections only")
    wanted = preprocessing_for(detector, settings.imgsz)
    found, totals = open_source(source, read_options(settings)), Totals()
    vectors, errors = list[Tensor](), list[str]()
    for batch in found.batches(settings.batch):
        for one in batch:
            totals.add(one, one)
        errors += [one.error for one in batch if one.image is None]
        inputs = [
            torch.from_numpy(prepare(one, wanted, settings).planes[0])
            for one in batch
            if one.image is not None
        ]
        if inputs:
            maps = network.backbone(torch.stack(inputs).to(detector.device))
            features = network.encoder(maps)[-1]  # (B, C, H / 32, W / 32)
            vectors += features.mean(dim=(2, 3)).float().cpu().unbind()
    require_any(totals, found.total)
    for error in errors:
        warn(error)
    return vectors
