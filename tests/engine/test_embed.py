"""Feature vectors: pooled outputs of the hybrid encoder, one per readable image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdetr_cli import RTDETR
from rtdetr_cli.core.errors import DataError, UsageError

IMAGES = list(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))


def test_a_vector_is_the_mean_of_the_last_map_of_the_encoder(tiny_yaml, tiny_config, capsys):
    model = RTDETR(tiny_yaml, "cpu")
    vectors = model.embed(IMAGES, imgsz=64, batch=2, verbose=False)
    assert [tuple(one.shape) for one in vectors] == [(tiny_config.encoder.hidden_dim,)] * 3
    assert {one.dtype for one in vectors} == {torch.float32}
    rgb = torch.from_numpy(IMAGES[2][..., ::-1].copy()).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        maps = model.model.encoder(model.model.backbone(rgb))
    assert maps[-1].shape[-2:] == (2, 2)  # stride 32
    torch.testing.assert_close(vectors[2], maps[-1][0].flatten(1).mean(1))


def test_unreadable_images_are_named_and_left_out(tiny_yaml, tmp_path, capsys):
    model = RTDETR(tiny_yaml, "cpu")
    (tmp_path / "a.png").write_text("no image")
    assert len(model.embed([IMAGES[0], str(tmp_path / "a.png")], imgsz=64)) == 1
    assert f"Warning: {tmp_path}/a.png: cannot be read" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"a\.png: cannot be read"):
        model.embed(str(tmp_path / "a.png"))
    with pytest.raises(UsageError, match="needs a source"):
        model.embed()
    with pytest.raises(UsageError, match="half is not a key of embed, which has imgsz, batch, dev"):
        model.embed(IMAGES[0], half=True)


def test_an_exported_file_has_no_features(tiny_yaml):
    model = RTDETR(tiny_yaml, "cpu")
    model._open().network = None
    with pytest.raises(UsageError, match=r"embed needs weights \(\.pt\); .* returns detections"):
        model.embed(IMAGES[0])
