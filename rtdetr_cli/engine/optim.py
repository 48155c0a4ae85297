"""AdamW with the official parameter groups, what is frozen, and the learning rate of a step."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW

from rtdetr_cli.engine.recipe import Recipe
from rtdetr_cli.nn.backbones.hgnetv2 import HGNetv2
from rtdetr_cli.nn.rtdetr import RTDETRNetwork


def freeze(network: RTDETRNetwork, recipe: Recipe) -> None:
    """Take from training what the recipe keeps as it is."""
    for module in _frozen_modules(network, recipe):
        module.requires_grad_(False)


def train_mode(network: RTDETRNetwork, recipe: Recipe) -> None:
    """Training mode for all but the frozen norms, whose statistics must not move."""
    network.train()
    for module in _frozen_modules(network, recipe):
        module.eval()


def _frozen_modules(network: RTDETRNetwork, recipe: Recipe) -> list[nn.Module]:
    backbone = network.backbone
    frozen: list[nn.Module] = []
    if recipe.freeze_stem:
        frozen.append(backbone.stem if isinstance(backbone, HGNetv2) else backbone.conv1)
    if recipe.freeze_backbone_norm:
        frozen += [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    return frozen


def build_optimizer(network: RTDETRNetwork, recipe: Recipe) -> AdamW:
    """AdamW in four groups: backbone or not, decayed or not (norms and biases are not)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            key = (name.startswith("backbone."), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "lr": recipe.backbone_lr if in_backbone else recipe.lr,
                "initial_lr": recipe.backbone_lr if in_backbone else recipe.lr,
                "weight_decay": recipe.weight_decay if decayed else 0.0,
            }
            for (in_backbone, decayed), parameters in groups.items()
        ],
        betas=(0.9, 0.999),
        fused=True,
    )


def set_learning_rate(optimizer: AdamW, recipe: Recipe, step: int) -> None:
    """Set every group's rate for a step, counted from 0."""
    share = recipe.lr_share(step)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * share
