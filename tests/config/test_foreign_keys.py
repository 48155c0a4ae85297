"""Every key of Ultralytics' modes has a row, and the row does what it says."""

import pytest

from rtdetr_cli.config.fields import field_types
from rtdetr_cli.config.foreign_keys import (
    FOREIGN_KEYS,
    FOREIGN_MODES,
    NoEffect,
    Refused,
    Renamed,
    Same,
)
from rtdetr_cli.config.foreign_values import DEFAULTS, note
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.modes import MODES
from rtdetr_cli.core.errors import UsageError

# Keys that Ultralytics 8.4.190 and earlier versions accept, by mode.
KEYS = {
    "train": (
        "model data epochs time patience batch imgsz save save_period cache device workers "
        "project name exist_ok save_dir pretrained cls_remap optimizer verbose seed deterministic "
        "single_cls classes rect multi_scale cos_lr close_mosaic resume amp quantize fraction "
        "profile freeze lr0 lrf momentum weight_decay warmup_epochs warmup_momentum "
        "warmup_bias_lr distill_model dis box cls cls_pw dfl pose kobj rle angle nbs "
        "label_smoothing overlap_mask mask_ratio dropout val plots compile channels_last hsv_h "
        "hsv_s hsv_v degrees translate scale shear perspective flipud fliplr bgr mosaic mixup "
        "cutmix copy_paste copy_paste_mode auto_augment erasing crop_fraction augmentations "
        "augment task mode cfg split save_json save_hybrid conf iou max_det half dnn show "
        "save_txt save_conf tracker nms trainer "
    ),
    "val": (
        "model data imgsz batch save_json save_hybrid conf iou max_det quantize half device dnn "
        "plots classes rect split fraction project name exist_ok verbose save_txt save_conf "
        "workers augment agnostic_nms single_cls visualize show_labels show_conf show_boxes "
        "line_width end2end compile channels_last save task mode save_crop "
    ),
    "predict": (
        "model source conf iou imgsz rect half quantize device dnn data batch max_det vid_stride "
        "stream_buffer visualize augment agnostic_nms classes retina_masks embed project name "
        "exist_ok stream verbose compile channels_last end2end show save save_frames save_txt "
        "save_conf save_crop show_labels show_conf show_boxes line_width show_fps hide_labels "
        "hide_conf boxes line_thickness task mode tracker save_json nms save_dir font_size "
    ),
    "export": (
        "model format imgsz keras optimize half int8 quantize dynamic simplify opset workspace "
        "nms batch device data fraction end2end conf iou max_det agnostic_nms project name "
        "exist_ok verbose split task mode save_dir "
    ),
    "benchmark": (
        "model data imgsz half int8 quantize device verbose format batch conf project name eps "
    ),
    "track": ("source tracker persist stream conf iou classes show vid_stride line_width "),
}
NEEDED = {
    **{mode: {"data": "x"} for mode in ("train", "val")},
    **{mode: {"source": "x"} for mode in ("predict", "track")},
}
ROWS = sorted(FOREIGN_KEYS)


@pytest.fixture(autouse=True)
def _notes_are_printed_again():
    note.cache_clear()


def refusal(mode: str, key: str, value: object) -> str:
    with pytest.raises(UsageError) as caught:
        settings_from_pairs(MODES[mode], {**NEEDED.get(mode, {}), key: value})
    return str(caught.value)


@pytest.mark.parametrize("mode", FOREIGN_MODES)
def test_every_key_has_a_row(mode):
    assert [key for key in KEYS[mode].split() if (mode, key) not in FOREIGN_KEYS] == []


@pytest.mark.parametrize(("mode", "key"), ROWS)
def test_rows_of_our_keys_name_keys_of_ours(mode, key):
    rule = FOREIGN_KEYS[mode, key]
    own = {*field_types(MODES[mode]), "cfg", "val"}
    if isinstance(rule, Same):
        assert key in own
    elif isinstance(rule, Renamed):
        assert rule.to in own
        assert key not in own
    else:
        assert key not in own - {"val"}


@pytest.mark.parametrize(("mode", "key"), ROWS)
def test_no_value_is_answered_by_a_guess(mode, key):
    """A value that no row expects: accepted, or refused without `did you mean`."""
    sentence = ""
    try:
        settings_from_pairs(MODES[mode], {**NEEDED.get(mode, {}), key: "qqq"})
    except UsageError as error:
        sentence = str(error)
    assert "did you mean" not in sentence
    assert "is not a key" not in sentence or key == "val"


@pytest.mark.parametrize(
    ("mode", "key"), [row for row in ROWS if isinstance(FOREIGN_KEYS[row], NoEffect)]
)
def test_a_key_without_effect_is_accepted_and_says_why(mode, key, capsys):
    rule = FOREIGN_KEYS[mode, key]
    needed = NEEDED.get(mode, {})
    value = rule.only[0] if rule.only else 0.3
    expected = settings_from_pairs(MODES[mode], needed)
    assert settings_from_pairs(MODES[mode], {**needed, key: value}) == expected
    assert capsys.readouterr().err == f"Note: {key} has no effect: {rule.why}\n"
    if rule.only:
        assert refusal(mode, key, 0.3).endswith(f"=0.3 is not supported: {rule.otherwise}")


@pytest.mark.parametrize(
    ("mode", "key"), [row for row in ROWS if isinstance(FOREIGN_KEYS[row], Refused)]
)
def test_a_refused_key_says_why_and_takes_its_neutral_value_silently(mode, key, capsys):
    rule = FOREIGN_KEYS[mode, key]
    assert refusal(mode, key, 0.3) == f"{mode}: {key}=0.3 is not supported: {rule.why}"
    needed = NEEDED.get(mode, {})
    for value in rule.neutral:
        expected = settings_from_pairs(MODES[mode], needed)
        assert settings_from_pairs(MODES[mode], {**needed, key: value}) == expected
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("mode", "key"), [row for row in ROWS if row[1] in DEFAULTS and row[1] != "val"]
)
def test_ultralytics_default_values_never_end_a_command_of_ours(mode, key):
    """The default format and mode are others there."""
    if key in {"format", "mode"}:
        return
    if DEFAULTS[key] is not None or key not in {"data", "source"}:
        settings_from_pairs(MODES[mode], {**NEEDED.get(mode, {}), key: DEFAULTS[key]})


def test_track_has_the_keys_of_predict():
    own = {"conf", "tracker", "persist", "nms", "agnostic_nms", "mode"}
    keys = {key for mode, key in FOREIGN_KEYS if mode == "predict"} - own
    assert all(FOREIGN_KEYS["track", key] == FOREIGN_KEYS["predict", key] for key in keys)


def test_a_key_of_another_mode_names_that_mode():
    assert refusal("train", "retina_masks", 2) == (
        "retina_masks is not a key of train; Ultralytics uses it in predict, track"
    )


def test_a_misspelt_key_of_ours_keeps_its_hint():
    assert refusal("train", "eopchs", 2) == "eopchs is not a key of train; did you mean epochs?"
