"""Validate the training state of an untrusted checkpoint before any of it is used.

resume.py writes and restores the state, and falls back to the previous file if this one is
rejected. Hyperparameters are compared with those that follow from the run's settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from rtdetr_cli.config.fields import field_types
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.errors import UsageError, WeightsError
from rtdetr_cli.engine.training.distillation import add_projector, projector_channels
from rtdetr_cli.engine.training.optim import freeze, make_optimizer, parameter_groups
from rtdetr_cli.engine.training.recipe import Recipe, resolve_recipe, starts_pretrained
from rtdetr_cli.engine.training.run import MAX_SKIPPED, EpochSums, Progress
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint
from rtdetr_cli.weights.safe_pickle import Inert, check_plain, fits, shown
from rtdetr_cli.weights.size_limit import check_scale
from rtdetr_cli.weights.values import check_values

Number = TypeVar("Number", int, float)

KEYS = {"settings", "fingerprint", "network", "ema_steps", "optimizer", "scaler"} | {
    key.name for key in fields(Progress)
}
FLIGHT = "flight"
"""Key of the record that failures.py adds; ignored when resuming."""
LARGEST = {"batch": 2**16, "accumulate": 2**16, "workers": 2**10, "num_denoising": 2**16}
"""Upper limits of settings, far beyond any machine."""
MAX_TEXT = 2**14
"""Characters of a setting; enough for a long list in `freeze` or a deep path."""
MAX_STEPS, MAX_SECONDS = 2**40, 1e12
_COLUMN = re.compile(r"[\w/]{1,60}", re.ASCII)
_GROUP_KEYS = {"params", "lr", "initial_lr", "weight_decay"}


def check_training(checkpoint: Checkpoint, origin: str) -> None:
    """Check that a run can be resumed from a checkpoint.

    Every tensor must have the shape and dtype of its parameter and finite values, every number its
    type and range, and nothing may be missing.

    Args:
        checkpoint: as read; its weights are the moving average.
        origin: the file, for messages.

    Raises:
        WeightsError: names the first part that is missing or wrong.
    """
    if checkpoint.training is None:
        raise WeightsError(f"{origin} holds weights only; resume needs the last.pt of a run")
    try:
        state = {key: part for key, part in checkpoint.training.items() if key != FLIGHT}
        _mapping(state, "training state", KEYS)
        settings = _settings(state["settings"])
        _check_progress(state, settings)
        _check_fingerprint(state["fingerprint"], {"train", "val"} if settings.val else {"train"})
        _check_scaler(state["scaler"])
        check_scale(checkpoint, "its network")
        with torch.device("meta"):
            network = RTDETRNetwork(checkpoint.config, len(checkpoint.names))
        _check_tensors(checkpoint.weights, network.state_dict(), "average")
        if settings.teacher is not None:
            channels = projector_channels(_mapping(state["network"], "network"))
            with torch.device("meta"):
                add_projector(network, channels)
        _check_tensors(state["network"], network.state_dict(), "network")
        recipe = resolve_recipe(settings, checkpoint.config.recipe, 1, starts_pretrained(settings))
        _check_optimizer(state, network, recipe)
    except (WeightsError, UsageError) as error:
        raise WeightsError(f"{origin} cannot be resumed: {error}") from None


def _settings(values: Inert) -> TrainSettings:
    """The run's settings; files that they name are not opened."""
    check_plain(values, "its settings", MAX_TEXT)
    _mapping(values, "settings", set(field_types(TrainSettings)))
    if any(isinstance(value, str) and "\0" in value for value in values.values()):
        raise WeightsError("its settings hold a NUL character")
    settings = settings_from_pairs(TrainSettings, values)
    if not settings.data:
        raise WeightsError("its settings name no data set")
    for key, most in LARGEST.items():
        if (getattr(settings, key) or 0) > most:
            raise WeightsError(f"its {key} must be at most {most}, found {getattr(settings, key)}")
    return settings


def _check_progress(state: Mapping[str, Any], settings: TrainSettings) -> None:
    """Check that the numbers of the run's position are consistent."""
    step = _number(state, "step", int, 0, MAX_STEPS)
    epoch = _number(state, "epoch", int, 0, settings.epochs)
    _number(state, "skipped", int, 0, MAX_SKIPPED - 1)
    _number(state, "best", float, -1, 1)
    _number(state, "ema_steps", int, 0, step)
    if type(state["is_planned"]) is not bool:
        raise WeightsError(
            f"its is_planned must be true or false, found {shown(state['is_planned'])}"
        )
    sums = _mapping(state["sums"], "sums", {key.name for key in fields(EpochSums)})
    _check_sums(sums)
    earlier = step - sums["steps"]
    if earlier < epoch or (epoch == 0 and earlier):
        raise WeightsError(
            f"its step {step} is impossible after {epoch} epochs and {sums['steps']} steps"
        )
    _check_rows(state["rows"], epoch)


def _check_sums(sums: Mapping[str, Any]) -> None:
    steps = _number(sums, "steps", int, 0, MAX_STEPS)
    skipped = _number(sums, "skipped", int, 0, steps)
    seconds = _number(sums, "seconds", float, 0, MAX_SECONDS)
    _number(sums, "waited", float, 0, MAX_SECONDS)
    losses = _mapping(sums["losses"], "losses")
    if (steps and not seconds) or (losses and steps == skipped):
        raise WeightsError(f"its sums of {steps} steps, {skipped} of them skipped, are impossible")
    for name, value in losses.items():
        if not isinstance(value, Tensor) or value.shape or not value.is_floating_point():
            raise WeightsError(f"its sum of {shown(name)} is not a single number")
    _check_columns(losses)


def _check_rows(rows: Inert, epochs: int) -> None:
    """Check the rows of results.csv, one per epoch."""
    if not isinstance(rows, list) or len(rows) != epochs:
        raise WeightsError(f"its rows are not those of its {epochs} epochs")
    for number, row in enumerate(rows, start=1):
        values = _mapping(row, f"row {number}", {"epoch", "time"}, exactly=False)
        _check_columns(values)
        wrong = next((v for v in values.values() if type(v) is not float and not fits(v)), None)
        if wrong is not None or values["epoch"] != number:
            raise WeightsError(f"its row {number} is not the one of epoch {number}")
        _number(values, "time", float, 0, MAX_SECONDS)


def _check_columns(values: Mapping[Any, Any]) -> None:
    for name in values:
        if not isinstance(name, str) or not _COLUMN.fullmatch(name):
            raise WeightsError(f"its results have no column {shown(name)}")


def _check_fingerprint(value: Inert, splits: set[str]) -> None:
    for split, parts in _mapping(value, "fingerprint", splits).items():
        texts = [*_mapping(parts, f"fingerprint of {split}").items()]
        if not all(isinstance(text, str) for pair in texts for text in pair):
            raise WeightsError(f"its fingerprint of {split} is not a mapping of strings")


def _check_scaler(value: Inert) -> None:
    """Check the state of float16 loss scaling; empty if it was disabled."""
    if value == {}:
        return
    expected = GradScaler("cpu").state_dict()
    found = _mapping(value, "scaler", set(expected))
    if not _number(found, "scale", float, 0, torch.finfo(torch.float32).max):
        raise WeightsError("its scale is 0")
    _number(found, "_growth_tracker", int, 0, expected["growth_interval"])
    for key in expected.keys() - {"scale", "_growth_tracker"}:
        _check_equal(found[key], expected[key], key)


def _check_tensors(found: Inert, expected: Mapping[str, Tensor], what: str) -> None:
    """Compare names, shapes, dtypes and values with those of the network."""
    tensors = _mapping(found, what, set(expected))
    for name, own in expected.items():
        _check_tensor(tensors[name], own.shape, own.dtype, f"{what}'s {name}")
    check_values(tensors, f"its {what}")


def _check_tensor(value: Inert, shape: torch.Size, dtype: torch.dtype, name: str) -> None:
    if not isinstance(value, Tensor):
        raise WeightsError(f"its {name} is {shown(value)} instead of a tensor")
    if value.shape != shape or value.dtype != dtype:
        raise WeightsError(
            f"its {name} is {tuple(value.shape)} in {value.dtype} instead of {tuple(shape)} in "
            f"{dtype}"
        )


def _check_optimizer(state: Mapping[str, Any], network: RTDETRNetwork, recipe: Recipe) -> None:
    found = _mapping(state["optimizer"], "optimizer", {"state", "param_groups"})
    freeze(network, recipe)
    groups = parameter_groups(network, recipe)
    _check_groups(found["param_groups"], groups, recipe)
    names = {parameter: name for name, parameter in network.named_parameters()}
    moments_of = [
        (parameter, names[parameter], _moments(recipe, group["for_muon"]))
        for group in groups
        for parameter in group["params"]
    ]
    tensors: dict[str, Tensor] = {}
    for index, moments in _mapping(found["state"], "optimizer's state").items():
        if type(index) is not int or not 0 <= index < len(moments_of):
            raise WeightsError(f"its optimizer has no parameter {shown(index)}")
        parameter, name, kinds = moments_of[index]
        _mapping(moments, f"optimizer's state of {name}", set(kinds))
        for kind, value in moments.items():
            _check_moment(value, kind, parameter, f"{kind} of {name}")
            tensors[f"{name}.{kind}"] = value
        if "step" in kinds and not 1 <= moments["step"].item() <= state["ema_steps"]:
            raise WeightsError(f"its step of {name} is not between 1 and the run's")
    check_values(tensors, "its optimizer")


def _check_moment(value: Inert, kind: str, parameter: nn.Parameter, name: str) -> None:
    """A moment has its parameter's shape and dtype; the step count is a scalar."""
    if kind == "step":
        _check_tensor(value, torch.Size(), torch.get_default_dtype(), name)
    else:
        _check_tensor(value, parameter.shape, parameter.dtype, name)


def _moments(recipe: Recipe, for_muon: bool) -> tuple[str, ...]:
    is_adamw = recipe.optimizer == "adamw" or (recipe.optimizer == "muon" and not for_muon)
    return ("step", "exp_avg", "exp_avg_sq") if is_adamw else ("momentum_buffer",)


def _check_groups(found: Inert, groups: list[dict[str, Any]], recipe: Recipe) -> None:
    """Compare hyperparameters with a new optimizer's; other PyTorch versions may add some."""
    check_plain(found, "its optimizer's groups")
    if not isinstance(found, list) or len(found) != len(groups):
        raise WeightsError(f"its optimizer does not have the {len(groups)} groups of its settings")
    stand_ins = [  # one value each: PyTorch's optimizers reject meta tensors
        {**group, "params": [nn.Parameter(torch.zeros(1, 1)) for _ in group["params"]]}
        for group in groups
    ]
    expected = make_optimizer(recipe, stand_ins).state_dict()["param_groups"]
    for group, own in zip(found, expected, strict=True):
        values = _mapping(group, "optimizer's group", _GROUP_KEYS, exactly=False)
        _number(values, "lr", float, 0, torch.finfo(torch.float32).max)
        for key in (own.keys() & values.keys()) - {"lr"}:
            _check_equal(values[key], own[key], key)


def _check_equal(found: Inert, expected: object, key: str) -> None:
    if type(found) is not type(expected) or found != expected:
        raise WeightsError(f"its {key} is not the one of its settings, found {shown(found)}")


def _mapping(
    value: Inert, what: str, keys: set[str] | None = None, exactly: bool = True
) -> dict[Any, Any]:
    """Check for a mapping with these keys, and no others if `exactly`; None allows any."""
    if not isinstance(value, dict):
        raise WeightsError(f"its {what} must be a mapping, found {shown(value)}")
    missing = next((key for key in sorted(keys or ()) if key not in value), None)
    if missing is not None:
        raise WeightsError(f"there is no {missing} in its {what}")
    unknown = next((key for key in value if keys is not None and key not in keys), None)
    if exactly and keys is not None and len(value) > len(keys):
        raise WeightsError(
            f"its {what} has {shown(unknown)}, which this version of rtdetr does not write"
        )
    return value


def _number(
    values: Mapping[str, Any], key: str, kind: type[Number], low: float, high: float
) -> Number:
    """A number of this type and within these limits."""
    value: Number = values[key]
    if type(value) is not kind or not low <= value <= high:
        whole = "whole number" if kind is int else "number"
        raise WeightsError(
            f"its {key} must be a {whole} from {low:g} to {high:g}, found {shown(value)}"
        )
    return value
