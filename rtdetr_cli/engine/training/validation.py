"""The averaged network in validation: a detector that also sums its losses."""

from __future__ import annotations

import torch

from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.core.callbacks import Callbacks
from rtdetr_cli.core.detections import Images
from rtdetr_cli.core.distributed import all_gather
from rtdetr_cli.core.structures import Batch, ModelOutput
from rtdetr_cli.engine.training.run import Run
from rtdetr_cli.loss.criterion import Criterion


class ValidationDetector(TorchDetector):
    """The averaged network of a run, and its losses on the batches that it is scored on.

    The losses are those of the last decoder layer, with the weights and the matcher of the
    training; the other layers, the encoder and denoising have no outputs in eval mode.
    """

    def __init__(self, run: Run, criterion: Criterion) -> None:
        super().__init__(run.ema.network, run.data.train.names, run.preprocessing, run.device)
        self._criterion = criterion
        self._output: ModelOutput | None = None
        self._sums = dict.fromkeys(criterion.names, 0.0)
        self._num_boxes = 0

    def forward(self, images: Images) -> ModelOutput:
        """Logits and boxes of all queries, kept for `add_losses`."""
        self._output = super().forward(images)
        return self._output

    def adding_losses(self, callbacks: Callbacks) -> Callbacks:
        """These callbacks, and `add_losses` after each batch."""
        callbacks = callbacks.copy()
        callbacks.add("on_val_batch_end", lambda state: self.add_losses(state.batch))
        return callbacks

    @torch.inference_mode()
    def add_losses(self, batch: Batch) -> None:
        """Add the losses of the batch that `detect` has run last."""
        assert self._output is not None
        terms = self._criterion.last_layer_sums(self._output, batch.targets)
        self._sums = {name: self._sums[name] + value.item() for name, value in terms.items()}
        self._num_boxes += sum(len(target.labels) for target in batch.targets)

    def mean_losses(self) -> dict[str, float]:
        """Losses per ground-truth box of the whole split. Every process must call it.

        Returns:
            `val/loss_vfl` (or `val/loss_mal`), `val/loss_bbox` and `val/loss_giou`.
        """
        shares = all_gather((self._sums, self._num_boxes))
        num_boxes = max(sum(count for _, count in shares), 1)
        return {
            f"val/{name}": sum(sums[name] for sums, _ in shares) / num_boxes
            for name in self._criterion.names
        }
