"""The recipe: official numbers for long runs, scaled ones for short runs."""

from __future__ import annotations

import pytest

from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model import RecipeConfig
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.engine.training.recipe import resolve_recipe


def resolve(name: str, steps_per_epoch: int, is_pretrained: bool, **keys: object):
    settings = TrainSettings(data="coco.yaml", **keys)
    official = load_model_config(name).recipe
    return resolve_recipe(settings, official, steps_per_epoch, is_pretrained)


def test_coco_from_an_imagenet_backbone_gets_the_official_constants():
    # reference: rtdetrv2_pytorch, rtdetrv2_hgnetv2_l_6x_coco.yml and its includes
    recipe = resolve("rtdetr-l", steps_per_epoch=7329, is_pretrained=True)
    assert (recipe.lr, recipe.backbone_lr, recipe.weight_decay) == (1e-4, 5e-6, 1e-4)
    assert (recipe.warmup_steps, recipe.schedule, recipe.clip_norm) == (2000, "constant", 0.1)
    assert (recipe.ema_decay, recipe.ema_ramp) == (0.9999, 2000)
    augment = recipe.augment
    assert (augment.photometric, augment.zoom_out, augment.iou_crop, augment.flip) == (
        0.5, 0.5, 0.8, 0.5,
    )  # fmt: skip
    assert recipe.multi_scale[0] == (480, 480)
    assert recipe.multi_scale[-1] == (800, 800)
    assert recipe.freeze_stem
    assert recipe.freeze_backbone_norm
    assert recipe.lr_share(0) == 1 / 2000
    assert recipe.lr_share(500_000) == 1


def test_a_short_fine_tune_is_not_swallowed_by_its_warm_up():
    recipe = resolve("rtdetr-l", steps_per_epoch=10, is_pretrained=True, epochs=50)
    assert recipe.warmup_steps == 25
    assert recipe.schedule == "cosine"
    assert recipe.ema_decay == pytest.approx(1 - 1 / 25)
    assert recipe.lr_share(499) == pytest.approx(0.01, abs=1e-4)


def test_from_scratch_nothing_is_frozen_and_the_backbone_learns_as_fast():
    recipe = resolve("rtdetr-l", steps_per_epoch=26, is_pretrained=False, epochs=40)
    assert recipe.lr == recipe.backbone_lr == 1e-3
    assert not recipe.freeze_stem
    assert not recipe.freeze_backbone_norm
    assert recipe.augment.zoom_out == recipe.augment.iou_crop == 0


def test_what_the_user_sets_is_taken_as_it_is():
    recipe = resolve(
        "rtdetr-n", 26, False, lr=3e-4, zoom_out=1.0, ema_decay=0.0, warmup_steps=0,
        multi_scale=False, clean_epochs=0, schedule="constant",
    )  # fmt: skip
    assert (recipe.lr, recipe.backbone_lr, recipe.augment.zoom_out) == (3e-4, 3e-4, 1.0)
    assert (recipe.ema_decay, recipe.warmup_steps, recipe.clean_epochs) == (0.0, 0, 0)
    assert recipe.multi_scale is None
    assert recipe.lr_share(0) == recipe.lr_share(10_000) == 1


def test_warm_up_in_epochs_and_input_sizes_by_a_fraction():
    recipe = resolve("rtdetr-n", 26, False, warmup_epochs=1.5, multi_scale=0.5, momentum=0.8)
    assert (recipe.warmup_steps, recipe.momentum) == (39, 0.8)
    assert (recipe.multi_scale[0], recipe.multi_scale[-1]) == ((320, 320), (960, 960))
    assert resolve("rtdetr-n", 26, False, multi_scale=0.0).multi_scale is None
    same = [resolve("rtdetr-n", 26, False, multi_scale=value) for value in (True, 0.25)]
    assert same[0].multi_scale == same[1].multi_scale


def resolve_deim(name: str, steps_per_epoch: int, is_pretrained: bool, **keys: object):
    settings = settings_from_pairs(TrainSettings, {"data": "x", "recipe": "deim", **keys})
    official = load_model_config(name).recipe
    return resolve_recipe(settings, official, steps_per_epoch, is_pretrained)


@pytest.mark.parametrize(
    ("name", "epochs", "backbone_lr", "dense_epochs"),
    [
        ("rtdetr-r18", 120, 2e-4, (4, 64)),
        ("rtdetr-r34", 120, 1e-4, (4, 64)),
        ("rtdetr-r50m", 60, 2e-5, (4, 34)),
        ("rtdetr-r50", 60, 2e-5, (4, 34)),
        ("rtdetr-r101", 60, 2e-6, (4, 34)),
    ],
)
def test_deim_on_coco_gets_deims_constants(name, epochs, backbone_lr, dense_epochs):
    # Intellindust-AI-Lab/DEIM 09d35d5, configs/deim_rtdetrv2/deim_*_coco.yml, base/rt_deim.yml
    recipe = resolve_deim(name, 7329, is_pretrained=True, epochs=epochs)
    assert (recipe.lr, recipe.backbone_lr) == pytest.approx((2e-4, backbone_lr))
    assert recipe.dense_epochs == dense_epochs
    augment = recipe.augment
    assert (augment.mosaic, augment.mixup, augment.zoom_out, augment.iou_crop) == (
        0.5, 0.5, 0.5, 0.8,
    )  # fmt: skip
    assert (recipe.loss, recipe.schedule, recipe.warmup_steps) == ("mal", "flat_cosine", 2000)
    assert not recipe.freeze_stem
    assert not recipe.freeze_backbone_norm
    assert recipe.lr_share(recipe.total_steps - 1) == 0.5


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1, (0, 1)), (2, (0, 1)), (12, (0, 6)), (40, (2, 22)), (72, (4, 40))]
)
def test_dense_epochs_shrink_with_the_run(epochs, expected):
    recipe = resolve_deim("rtdetr-n", 26, is_pretrained=False, epochs=epochs)
    assert recipe.dense_epochs == expected
    assert f"epochs {expected[0] + 1} to {expected[1]}" in recipe.describe()


def test_deim_from_scratch_learns_at_our_rate():
    recipe = resolve_deim("rtdetr-n", 26, is_pretrained=False, epochs=40)
    assert recipe.lr == recipe.backbone_lr == 1e-3


def test_the_default_recipe_has_neither_mosaic_nor_mixup():
    recipe = resolve("rtdetr-l", 7329, is_pretrained=True)
    assert (recipe.augment.mosaic, recipe.augment.mixup, recipe.dense_epochs) == (0, 0, None)
    assert recipe.loss == "vfl"
    assert "mosaic" not in recipe.describe()


@pytest.mark.parametrize(("imgsz", "sizes"), [(64, "one size"), (640, "480 to 800 px")])
def test_input_sizes_that_are_all_the_same_are_one_size(imgsz, sizes):
    recipe = resolve("rtdetr-n", 26, False, imgsz=imgsz, multi_scale=True)
    assert f", {sizes}; off in the last" in recipe.describe()


def test_the_architecture_sets_what_its_publication_does():
    official = RecipeConfig(
        lr=2e-3, backbone_lr=1e-3, imgsz=320, multi_scale=False, loss="mal", refinement=False,
        iou_matching=0.1, restart_ema_decay=0.9998,
    )  # fmt: skip
    settings = TrainSettings(data="coco.yaml", epochs=500, restart=True, clean_epochs=32)
    recipe = resolve_recipe(settings, official, 924, is_pretrained=True)
    assert (recipe.lr, recipe.backbone_lr, recipe.size_hw) == (2e-3, 1e-3, (320, 320))
    assert (recipe.loss, recipe.refinement, recipe.multi_scale) == ("mal", False, None)
    # DEIMv2 Atto: 500 epochs, IoU matching from 450 and stage 2 from 468 on
    assert (recipe.iou_matching_epoch, recipe.restart_epoch) == (450, 468)
    assert [recipe.ema_decay_in(epoch) for epoch in (467, 468)] == [0.9999, 0.9998]


def test_keys_win_over_the_architecture():
    official = RecipeConfig(imgsz=320, loss="mal", iou_matching=0.1)
    settings = TrainSettings(
        data="x", epochs=10, imgsz=(64, 96), loss="vfl", iou_matching=0.0, restart=True,
        restart_ema_decay=0.5, clean_epochs=3,
    )  # fmt: skip
    recipe = resolve_recipe(settings, official, 26, is_pretrained=False)
    assert (recipe.size_hw, recipe.loss, recipe.iou_matching_epoch) == ((64, 96), "vfl", 10)
    assert (recipe.restart_epoch, recipe.ema_decay_in(7)) == (7, 0.5)


def test_the_average_of_a_short_run_is_no_slower_after_the_restart():
    settings = TrainSettings(data="x", epochs=20, restart=True)
    recipe = resolve_recipe(settings, RecipeConfig(), 26, is_pretrained=False)
    assert recipe.ema_decay_in(19) == recipe.ema_decay < 0.97


def test_a_run_of_one_epoch_has_nothing_to_restart_from():
    settings = TrainSettings(data="x", epochs=1, restart=True)
    assert resolve_recipe(settings, RecipeConfig(), 26, is_pretrained=False).restart_epoch is None


# D-FINE, DEIM and DEIMv2 (dfine_hgnetv2_*_coco.yml, deim_hgnetv2_*_coco.yml,
# deimv2_hgnetv2_*_coco.yml): epochs, batch, lr, backbone lr, input size.
PUBLISHED = [
    ("dfine", "dfine-n", 160, 128, 8e-4, 4e-4, 640),
    ("dfine", "dfine-s", 132, 32, 2e-4, 1e-4, 640),
    ("dfine", "dfine-m", 132, 32, 2e-4, 2e-5, 640),
    ("dfine", "dfine-l", 80, 32, 2.5e-4, 1.25e-5, 640),
    ("dfine", "dfine-x", 80, 32, 2.5e-4, 2.5e-6, 640),
    ("deim", "dfine-s", 132, 32, 4e-4, 2e-4, 640),
    ("deim", "dfine-m", 102, 32, 4e-4, 4e-5, 640),
    ("deim", "dfine-l", 58, 32, 5e-4, 2.5e-5, 640),
    ("deim", "dfine-x", 58, 32, 5e-4, 5e-6, 640),
    ("deimv2", "deimv2-atto", 500, 128, 2e-3, 1e-3, 320),
    ("deimv2", "deimv2-femto", 500, 128, 1.6e-3, 8e-4, 416),
    ("deimv2", "deimv2-pico", 500, 128, 1.6e-3, 8e-4, 640),
    ("deimv2", "deimv2-n", 160, 32, 8e-4, 4e-4, 640),
]


@pytest.mark.parametrize(
    ("recipe", "name", "epochs", "batch", "lr", "backbone_lr", "size"), PUBLISHED
)
def test_on_coco_each_size_gets_the_published_constants(
    recipe, name, epochs, batch, lr, backbone_lr, size
):
    keys = {"data": "x", "recipe": recipe, "epochs": epochs, "batch": batch}
    settings = settings_from_pairs(TrainSettings, keys)
    official = load_model_config(name).recipe
    found = resolve_recipe(settings, official, 118_000 // batch, is_pretrained=True)
    assert (found.lr, found.backbone_lr) == pytest.approx((lr, backbone_lr))
    assert found.size_hw == (size, size)
    assert found.restart_epoch == epochs - found.clean_epochs
    assert found.loss == ("vfl" if recipe == "dfine" else "mal")
    assert found.refinement == (name not in {"deimv2-atto", "deimv2-femto", "deimv2-pico"})
    slowest = 0.9998 if name == "dfine-x" else 0.9999
    assert found.ema_decay_in(epochs - 1) == min(found.ema_decay, slowest)
    expected = {"deimv2-atto": 450, "deimv2-femto": 450, "deimv2-pico": 450, "deimv2-n": 136}
    assert found.iou_matching_epoch == expected.get(name, epochs)


def test_learning_rates_are_in_proportion_to_the_images_of_a_step():
    whole = resolve("dfine-s", 100, True, batch=32)
    half = resolve("dfine-s", 100, True, batch=4, accumulate=4)
    assert (half.lr, half.backbone_lr) == pytest.approx((whole.lr / 2, whole.backbone_lr / 2))
    same = [resolve("rtdetr-l", 100, True, batch=batch).lr for batch in (4, 32)]
    assert same == [1e-4, 1e-4]


@pytest.mark.parametrize("batch", [4, 32])
def test_the_backbone_keeps_its_share_of_the_learning_rate_of_sgd(batch):
    recipe = resolve("dfine-s", 100, True, batch=batch, optimizer="sgd", lr=1e-2)
    assert recipe.backbone_lr == pytest.approx(5e-3)  # dfine-s has 1e-4 of 2e-4
