"""Optimizers with the official parameter groups, frozen parts, the learning rate of a step."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from rtdetr_cli.core.errors import UsageError, nearest
from rtdetr_cli.engine.training.muon import MuonAdamW, is_hidden_matrix
from rtdetr_cli.engine.training.recipe import Recipe
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
"""Several GPUs use the second instead of the first."""


def freeze(network: RTDETRNetwork, recipe: Recipe) -> None:
    """Exclude the recipe's frozen parts from training."""
    for part in _frozen_parts(network, recipe):
        part.requires_grad_(False)


def train_mode(network: RTDETRNetwork, recipe: Recipe) -> None:
    """Set training mode, except for frozen parts, whose BatchNorm statistics must not change."""
    network.train()
    for part in _frozen_parts(network, recipe):
        if isinstance(part, nn.Module):
            part.eval()


def _frozen_parts(network: RTDETRNetwork, recipe: Recipe) -> list[nn.Module | nn.Parameter]:
    backbone = network.backbone
    frozen: list[nn.Module | nn.Parameter] = []
    if recipe.freeze_stem:
        frozen.append(backbone.stem_and_stages[0])
    if recipe.freeze_backbone_norm:
        frozen += [module for module in backbone.modules() if isinstance(module, NORMS)]
    if recipe.freeze:
        frozen += named_parts(network, recipe.freeze)
    return frozen


def build_optimizer(network: RTDETRNetwork, recipe: Recipe) -> Optimizer:
    """Four groups: backbone or not, decayed or not (norms and biases are not).

    Raises:
        UsageError: everything is frozen, or this PyTorch has no Muon.
    """
    return make_optimizer(recipe, parameter_groups(network, recipe))


def parameter_groups(network: RTDETRNetwork, recipe: Recipe) -> list[dict[str, Any]]:
    """The groups of all trained parameters, those of Muon first.

    Raises:
        UsageError: everything is frozen.
    """
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            for_muon = recipe.optimizer == "muon" and is_hidden_matrix(name, parameter)
            key = (name.startswith("backbone."), parameter.ndim > 1, for_muon)
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise UsageError(f"freeze={recipe.freeze} leaves nothing to train")
    return [
        {
            "params": parameters,
            "lr": recipe.backbone_lr if in_backbone else recipe.lr,
            "initial_lr": recipe.backbone_lr if in_backbone else recipe.lr,
            "weight_decay": recipe.weight_decay if decayed else 0.0,
            "for_muon": for_muon,
        }
        for (in_backbone, decayed, for_muon), parameters in sorted(
            groups.items(), key=lambda item: not item[0][2]
        )
    ]


def make_optimizer(recipe: Recipe, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimizer of a recipe over groups of parameters.

    Raises:
        UsageError: this PyTorch has no Muon, or there is no hidden matrix.
    """
    if recipe.optimizer == "sgd":
        return SGD(groups, momentum=recipe.momentum, nesterov=True, fused=True)
    if recipe.optimizer == "muon":
        matrices = [group for group in groups if group["for_muon"]]
        others = [group for group in groups if not group["for_muon"]]
        return MuonAdamW(matrices, others, recipe.momentum)
    return AdamW(groups, betas=(recipe.momentum, 0.999), fused=True)


def set_learning_rate(optimizer: Optimizer, recipe: Recipe, step: int) -> None:
    """Set the learning rate of every group for a step, counted from 0."""
    share = recipe.lr_share(step)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * share


Part = nn.Module | nn.Parameter


def named_parts(network: RTDETRNetwork, freeze: str) -> list[Part]:
    """Modules and parameters that `freeze` names.

    Args:
        network: the network to search.
        freeze: the number of leading backbone stages, including the stem, or names separated by
            commas: `backbone`, `encoder.input_proj`, `decoder.enc_score_head.bias`.

    Raises:
        UsageError: the part does not exist, or the backbone has fewer stages.
    """
    if freeze.isdigit():
        return _leading_stages(network, int(freeze))
    known: dict[str, Part] = {**dict(network.named_modules()), **dict(network.named_parameters())}
    known.pop("")
    parts = []
    for name in (word.strip() for word in freeze.split(",")):
        if name not in known:
            hint = nearest(name, known) or "; parts are backbone, encoder and decoder"
            raise UsageError(f"freeze: the network has no part {name}{hint}")
        parts.append(known[name])
    return parts


def _leading_stages(network: RTDETRNetwork, count: int) -> list[Part]:
    parts = network.backbone.stem_and_stages
    num_stages = len(parts) - 1
    if count > num_stages:
        raise UsageError(f"freeze={count}: the backbone has {num_stages} stages; freeze=backbone")
    return list(parts[: count + 1])
