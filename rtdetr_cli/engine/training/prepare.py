"""Assemble a training run: data, network, recipe, optimizer, run folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.config.model_path import is_architecture
from rtdetr_cli.config.scale import check_activations
from rtdetr_cli.config.settings.modes import size_hw
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.console import say, say_text
from rtdetr_cli.core.distributed import rank, run_on_all, run_on_main, world_size
from rtdetr_cli.core.errors import UsageError
from rtdetr_cli.core.files import new_run_dir
from rtdetr_cli.core.lock import claimed
from rtdetr_cli.core.status import counted
from rtdetr_cli.data.dataset import DetectionDataset
from rtdetr_cli.data.fingerprint import check_unchanged, fingerprint
from rtdetr_cli.data.loader import EvalLoader, LoaderConfig, TrainLoader, num_batches
from rtdetr_cli.data.problems import write_skipped
from rtdetr_cli.engine.training.batch_size import check_automatic_batch, with_batch
from rtdetr_cli.engine.training.compiled import compile_network
from rtdetr_cli.engine.training.distillation import Distiller, add_projector, aifi, open_teacher
from rtdetr_cli.engine.training.folded_norms import restore_if_folded
from rtdetr_cli.engine.training.initial_weights import initial_network
from rtdetr_cli.engine.training.label_warnings import warn_of_labels
from rtdetr_cli.engine.training.launch import check_shares, worker_device
from rtdetr_cli.engine.training.loggers import Loggers
from rtdetr_cli.engine.training.precision import choose_precision
from rtdetr_cli.engine.training.recipe import Recipe, resolve_recipe, starts_pretrained
from rtdetr_cli.engine.training.resume import restore, start_or_resume
from rtdetr_cli.engine.training.run import Data, Progress, Run
from rtdetr_cli.engine.training.run_log import write_args
from rtdetr_cli.engine.training.splits import open_splits, write_held_out
from rtdetr_cli.engine.training.step import num_groups
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint


def prepare(settings: TrainSettings) -> Run:
    """Open data and model, resolve the recipe, and print what will be trained.

    Raises:
        UsageError, DataError, WeightsError, BackendError: the input cannot be used; nothing has
            been written.
    """
    settings, stopped, folder = run_on_main(lambda: start_or_resume(settings))
    run = run_on_all(lambda: _assemble(settings, stopped))
    run.run_dir = run_on_main(lambda: _open_folder(run, folder))
    run.pace.count_earlier(sum(row["time"] for row in run.progress.rows))
    run.join_processes()
    if run.settings.compile:
        compile_network(run.network, run.recipe.multi_scale is not None)
    if world_size() > 1:
        norms = "synchronised" if run.device.type == "cuda" else "not synchronised, on CPUs"
        say(f"{world_size()} workers share each batch of {run.settings.batch}; norms {norms}")
    return run


def _assemble(settings: TrainSettings, stopped: Checkpoint | None) -> Run:
    """All parts of the run, in the memory of this process."""
    if stopped is None:
        _check_given(settings)
    device = worker_device(settings.device)
    check_automatic_batch(settings, device)
    check_shares(settings.batch, world_size())
    precision = choose_precision(settings.amp, device)
    Loggers(settings.logger or ())  # a missing package is reported before anything is read
    train_split, val_split = open_splits(settings)
    torch.manual_seed(settings.seed)
    network, is_pretrained, licence = initial_network(settings, train_split.names, stopped)
    imgsz = settings.imgsz or network.config.recipe.imgsz
    settings = replace(settings, imgsz=imgsz)
    preprocessing = Preprocessing(size_hw(imgsz))
    check_activations(network.config, preprocessing.size_hw, f"imgsz={settings.imgsz}")
    splits = {"train": train_split, "val": val_split}
    num_queries = network.config.decoder.num_queries
    warn_of_labels(settings.data or "", splits, preprocessing.size_hw, num_queries)
    settings = with_batch(settings, network, is_pretrained, train_split, device)
    steps = num_groups(
        num_batches(len(train_split), settings.batch, world_size()), settings.accumulate
    )
    recipe = resolve_recipe(settings, network.config.recipe, steps, is_pretrained)
    distiller = _distiller(settings, recipe, network, device)
    data = _load(settings, recipe, (train_split, val_split), device)
    restore_if_folded(network, data.train_batches, device)
    run = Run(
        settings=settings,
        device=device,
        recipe=recipe,
        data=data,
        network=network,
        preprocessing=preprocessing,
        precision=precision,
        progress=Progress(is_planned=settings.time is None),
        licence=licence,
        distiller=distiller,
    )
    if stopped is not None and stopped.training is not None:
        saved = stopped.training["fingerprint"]
        check_unchanged(settings.data or "", saved, run.data.fingerprint)
        restore(run, stopped)
    _print_start(run)
    return run


def _distiller(
    settings: TrainSettings, recipe: Recipe, network: RTDETRNetwork, device: torch.device
) -> Distiller | None:
    """The teacher, if one is given; the network gets a projector to its channels."""
    if settings.teacher is None:
        return None
    aifi(network)
    sizes, batch = {recipe.size_hw, *(recipe.multi_scale or ())}, settings.batch // world_size()
    distiller = open_teacher(settings.teacher, recipe.distill, device, batch, sizes)
    add_projector(network, distiller.channels)
    return distiller


def _open_folder(run: Run, folder: Path | None) -> Path:
    """Lock the run folder, created for a new run, and write its settings.

    Raises:
        UsageError: another process trains in it; two would overwrite each other's last.pt.
    """
    settings = run.settings
    folder = folder or new_run_dir(settings.project, settings.name, settings.exist_ok)
    run.held.enter_context(claimed(folder, "is being trained"))
    write_args(folder, settings)
    splits = [split for split in (run.data.train, run.data.val) if split is not None]
    write_skipped(folder, {path: why for one in splits for path, why in one.skipped.items()})
    if settings.val_fraction is not None and run.data.val is not None:
        write_held_out(folder, run.data.val)
    return folder


def _check_given(settings: TrainSettings) -> None:
    """Reject keys that the user set and that other keys override; a recipe file may set them."""
    if settings.time is not None and "epochs" in settings.given:
        raise UsageError(
            f"train: epochs={settings.epochs} has no effect with time={settings.time:g}, which "
            "sets the number of epochs by their measured pace; give one of the two"
        )
    if "lr_scale" not in settings.given:
        return
    no_effect = f"train: lr_scale={settings.lr_scale:g} has no effect"
    if None not in (settings.lr, settings.backbone_lr):
        raise UsageError(f"{no_effect} with both lr and backbone_lr given")
    if is_architecture(settings.model) and settings.pretrained is None:
        raise UsageError(
            f"{no_effect} without pretrained weights, as the official learning rates are not used "
            "then; give lr"
        )


def _load(
    settings: TrainSettings,
    recipe: Recipe,
    splits: tuple[DetectionDataset, DetectionDataset | None],
    device: torch.device,
) -> Data:
    train_split, val_split = splits
    data = Data(train_split, TrainLoader(train_split, _loader_config(settings, recipe)))
    described = {"train": train_split}
    if val_split is not None:
        per_worker = settings.batch // world_size()
        preprocessing = Preprocessing(recipe.size_hw)
        data.val = val_split
        data.val_batches = EvalLoader(
            val_split, per_worker, preprocessing, settings.workers, device
        )
        described["val"] = val_split
    data.fingerprint = fingerprint(described)
    return data


def _loader_config(settings: TrainSettings, recipe: Recipe) -> LoaderConfig:
    return LoaderConfig(
        batch=settings.batch,
        size_hw=recipe.size_hw,
        seed=settings.seed,
        workers=settings.workers,
        augment=recipe.augment,
        dense_epochs=recipe.dense_epochs,
        multi_scale=recipe.multi_scale,
        cache=settings.cache,
        rank=rank(),
        world_size=world_size(),
    )


def plan_epochs(run: Run, epochs: int | None) -> None:
    """Set the number of epochs of a run, and the recipe that follows from it; None changes nothing.

    It is saved with the settings, so that a resumed run has the same. `patience` and `save_period`
    become 0 if they have no effect in so short a run.
    """
    if epochs is None:
        return
    settings, previous = run.settings, run.recipe
    run.progress.is_planned = True
    run.settings = replace(
        settings,
        epochs=epochs,
        patience=settings.patience if settings.patience < epochs else 0,
        save_period=settings.save_period if settings.save_period <= epochs else 0,
    )
    steps = num_groups(len(run.data.train_batches), settings.accumulate)
    official, is_pretrained = run.network.config.recipe, starts_pretrained(settings)
    run.recipe = resolve_recipe(run.settings, official, steps, is_pretrained)
    run.ema.set_pace(run.recipe.ema_decay, run.recipe.ema_ramp)
    config = _loader_config(run.settings, run.recipe)
    if config != _loader_config(settings, previous):
        run.data.train_batches = TrainLoader(run.data.train, config)
    run_on_main(lambda: write_args(run.run_dir, run.settings))
    say_text(*run.recipe.describe(run.precision.describe()).splitlines())


def _print_start(run: Run) -> None:
    data = run.data
    validated = "no validation" if data.val is None else f"{len(data.val)} to validate"
    say_text(
        f"{run.network.config.name} on {run.device}; "
        f"{counted(len(data.train), 'image')} with "
        f"{counted(data.train.num_boxes, 'box', 'boxes')} to train on, {validated}, "
        f"{counted(len(data.train.names), 'class', 'classes')}"
    )
    say_text(*run.recipe.describe(run.precision.describe()).splitlines())
