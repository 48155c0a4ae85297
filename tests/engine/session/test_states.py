"""The argument of val's callbacks; those of predict and export are tested in tests/test_api.py."""

from __future__ import annotations

from rtdetr_cli import RTDETR
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint


def test_val_events_see_each_batch_and_the_metrics(tiny_config, squares, tmp_path):
    weights = RTDETRNetwork(tiny_config, 2).state_dict()
    checkpoint = Checkpoint(tiny_config, {0: "green", 1: "red"}, weights)
    save_checkpoint(tmp_path / "tiny.pt", checkpoint)
    model, seen = RTDETR(tmp_path / "tiny.pt", "cpu"), []

    def started(state):
        seen.append((len(state.dataloader), state.args.batch, state.batch))

    def ended(state):
        seen.append((state.batch, state.metrics.num_images))

    model.add_callback("on_val_start", started)
    model.add_callback("on_val_batch_start", lambda state: seen.append(state.batch_i))
    model.add_callback("on_val_batch_end", lambda state: seen.append(len(state.batch)))
    model.add_callback("on_val_end", ended)
    keys = {"imgsz": 64, "batch": 3, "workers": 0, "plots": False}
    metrics = model.val(data=str(squares / "data.yaml"), **keys)
    assert seen == [(2, 3, None), 0, 3, 1, 1, (None, 4)]  # four images in batches of three
    assert model.metrics is metrics
