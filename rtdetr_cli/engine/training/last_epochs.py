"""What changes in the last epochs: the matcher, and a restart from the best weights so far.

Everything follows from the number of epochs done, so that a resumed run does the same.
"""

from __future__ import annotations

from rtdetr_cli.core.console import say, warn
from rtdetr_cli.core.distributed import broadcast, main_process_only
from rtdetr_cli.engine.training.run import Run
from rtdetr_cli.loss.criterion import Criterion
from rtdetr_cli.loss.matcher import HungarianMatcher, IoUMatcher
from rtdetr_cli.weights.checkpoint import load_checkpoint


def enter_epoch(run: Run, criterion: Criterion) -> None:
    """Set the matcher and the decay of the moving average of the epoch that begins."""
    epoch, recipe = run.progress.epoch, run.recipe
    by_iou = epoch >= recipe.iou_matching_epoch
    criterion.matcher = IoUMatcher() if by_iou else HungarianMatcher()
    run.ema.set_pace(recipe.ema_decay_in(epoch), recipe.ema_ramp)


def restart_if_due(run: Run) -> None:
    """Load the best weights into the network and its average if the last epochs begin here.

    Called after best.pt has been written and before last.pt is, which then holds the restarted
    run: best.pt may be overwritten afterwards. The optimizer keeps its moments and the average its
    number of steps. D-FINE goes back to the network and the moments of the best epoch instead of
    its average. Every process must call it.
    """
    if run.progress.epoch != run.recipe.restart_epoch:
        return
    if run.progress.best < 0:
        warn(
            "no epoch has been validated yet, so the last epochs continue from the current weights"
        )
        return
    _load_best(run)
    broadcast([tensor.detach() for tensor in run.network.state_dict().values()])
    run.ema.network.load_state_dict(run.network.state_dict())
    decay = run.recipe.ema_decay_in(run.progress.epoch)
    say(f"the last epochs start from the best weights, AP {run.progress.best:.4f}, EMA {decay:g}")


@main_process_only
def _load_best(run: Run) -> None:
    best = load_checkpoint(run.run_dir / "weights" / "best.pt")
    run.network.load_state_dict(run.network.state_dict() | best.weights)  # keeps a projector
