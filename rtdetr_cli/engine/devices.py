"""Which devices a training runs on: those to start workers for, and the one of this worker."""

from __future__ import annotations

import torch

from rtdetr_cli.backends.torch import choose_device
from rtdetr_cli.config.load import load_yaml
from rtdetr_cli.config.settings.modes import TrainSettings
from rtdetr_cli.core.bounded_text import show
from rtdetr_cli.core.distributed import is_worker, local_rank, local_world_size
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.engine.training.resume import run_folder


def devices_to_launch(settings: TrainSettings) -> list[str]:
    """The devices that this process must start workers for; none if it shall train itself.

    Raises:
        UsageError: devices that cannot train together, or a batch that they cannot share.
        BackendError: a device is not there.
    """
    if is_worker():
        return []
    device = settings.device
    if device is None and settings.resume:
        args = run_folder(settings) / "args.yaml"
        device = load_yaml(args).get("device") if args.is_file() else None
        if not isinstance(device, str | None):
            raise UsageError(f"{args}: device must be a text, found {show(device)}")
    names = _names(device)
    if len(names) < 2:
        return []
    if not settings.resume:
        check_shares(settings.batch, len(names))
    for name in dict.fromkeys(names):
        choose_device(name)
    return names


def check_shares(batch: int, workers: int) -> None:
    """A batch must be shared equally.

    Raises:
        UsageError: it cannot.
    """
    if batch % workers:
        close = max(1, round(batch / workers)) * workers
        raise UsageError(
            f"train: batch={batch} is that of all {workers} workers together and must be a "
            f"multiple of {workers}, for example {close}"
        )


def worker_device(device: str | None) -> torch.device:
    """The device of this process; a launcher's worker gets that of its place on the machine.

    Raises:
        UsageError: the devices are not as many as the workers.
        BackendError: the device is not there.
    """
    names, workers = _names(device), local_world_size()
    if len(names) == workers:
        chosen = choose_device(names[local_rank()])
    elif workers == 1 and not names:
        chosen = choose_device(None)
    elif device == "cpu" or (device is None and not torch.cuda.is_available()):
        chosen = choose_device("cpu")
    elif device in {None, "cuda"}:
        chosen = choose_device(f"cuda:{local_rank()}")
    else:
        raise UsageError(
            f"train: device={device} does not name one device for each of the {workers} workers "
            "on this machine; leave it out, or give device=cuda or device=cpu"
        )
    if chosen.type == "cuda" and workers > 1:
        torch.cuda.set_device(chosen)  # NCCL takes the current one
    return chosen


def _names(device: str | None) -> list[str]:
    """`0,1` and `[0,1]` to their parts.

    Raises:
        UsageError: a GPU beside other devices, or one twice.
    """
    names = [name.strip() for name in (device or "").strip("[]()").split(",") if name.strip()]
    distinct = set(names) - {"cpu", "mps"}
    if len(names) > 1 and set(names) != {"cpu"} and len(distinct) < len(names):
        raise UsageError(f"train: device={device} must name different GPUs, or cpu only")
    return names
