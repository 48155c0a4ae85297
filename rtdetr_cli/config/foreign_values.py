"""Translate keys and values of Ultralytics with the table of foreign_keys.py.

from_pairs.py calls it before the types of the fields are known to fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from rtdetr_cli.config.fields import parse
from rtdetr_cli.config.foreign_keys import (
    FOREIGN_KEYS,
    FOREIGN_MODES,
    NoEffect,
    Refused,
    Renamed,
    Same,
)
from rtdetr_cli.config.foreign_trackers import translate_tracker
from rtdetr_cli.config.model_path import is_architecture
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.core.bounded_text import show, show_key
from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import UsageError

Pairs = Mapping[str, Any]
Translate = Callable[[object, Pairs], dict[str, object]]
"""From the value of a key, and all pairs, to the pairs of ours."""

_BY_VALUE: tuple[tuple[object, str], ...] = (
    (True, "save pretrained cls_remap verbose deterministic amp val plots overlap_mask simplify"),
    (True, "show_labels show_conf show_boxes"),
    (False, "cache exist_ok single_cls rect cos_lr resume profile compile save_json dnn visualize"),
    (False, "augment agnostic_nms retina_masks stream_buffer show save_frames save_txt save_conf"),
    (False, "save_crop optimize dynamic half int8 keras save_hybrid"),
    (None, "model data time device project name freeze channels_last distill_model conf quantize"),
    (None, "nms source classes embed line_width opset workspace cfg end2end"),
    (0.0, "dropout label_smoothing cls_pw multi_scale degrees shear perspective flipud bgr mixup"),
    (0.0, "cutmix copy_paste"),
    (1.0, "fraction kobj rle angle dlog dlam mosaic crop_fraction"),
    *((100, "epochs patience"), (16, "batch"), (640, "imgsz"), (-1, "save_period"), (8, "workers")),
    *((0, "seed"), (10, "close_mosaic"), (4, "mask_ratio"), (300, "max_det"), (1, "vid_stride")),
    *((0.01, "lr0 lrf"), (0.937, "momentum"), (0.0005, "weight_decay"), (3.0, "warmup_epochs")),
    *((0.8, "warmup_momentum"), (0.1, "warmup_bias_lr translate"), (64, "nbs"), (6.0, "dis")),
    *((7.5, "box"), (0.5, "cls dgrad scale fliplr"), (1.5, "dfl"), (12.0, "pose"), (0.7, "iou")),
    *((0.015, "hsv_h"), (0.7, "hsv_s"), (0.4, "hsv_v erasing")),
    *(("detect", "task"), ("train", "mode"), ("auto", "optimizer"), ("val", "split")),
    *(("torchscript", "format"), ("flip", "copy_paste_mode"), ("randaugment", "auto_augment")),
)
DEFAULTS = {key: value for value, keys in _BY_VALUE for key in keys.split()}
"""Ultralytics' default values; a settings file lists all of them."""
_SWITCHES = {
    *(key for key, value in DEFAULTS.items() if isinstance(value, bool)),
    *("hide_labels", "hide_conf", "boxes", "stream", "persist", "show_fps", "nms", "end2end"),
}
_MARKS = {"task", "mode", "lr0"}
"""Keys that only a settings file of Ultralytics has."""
_OF_THE_RUN = {"mode", "cfg", "save_dir", "tracker"}
"""Keys of such a file that record what was run, not how to run it."""
_STAGES = {2: "1", 4: "2", 8: "3", 10: "backbone"}
"""Leading layers of Ultralytics' rtdetr-l, and the value of `freeze` with the same parts."""
_TENSORRT = {"tensorrt": "engine", "trt": "engine"}
_RECIPE_LR, _SCRATCH_LR = 1e-4, 1e-3
"""Learning rates of engine/training/recipe.py for trained weights and for none."""
_STRIDE = 32
_NUM_STAGES = 4
_OLDEST_OPSET = 17


def is_foreign(mode: str, key: str) -> bool:
    """Whether the table says what the key does in this mode."""
    return (mode, key) in FOREIGN_KEYS


def foreign_modes(key: str) -> list[str]:
    """The modes whose table has the key."""
    return [mode for mode, name in FOREIGN_KEYS if name == key]


def is_foreign_switch(key: str) -> bool:
    """Whether a bare key of Ultralytics means true."""
    return key in _SWITCHES


def is_foreign_file(values: Pairs) -> bool:
    """Whether a settings file is Ultralytics' default.yaml, a copy of it, or an args.yaml."""
    return not _MARKS.isdisjoint(values)


def without_defaults(mode: str, values: Pairs, file: str) -> dict[str, Any]:
    """The keys of their settings file that matter in this mode; prints what is left out."""
    kept = {key: value for key, value in values.items() if key not in _OF_THE_RUN}
    own = {
        key: value
        for key, value in kept.items()
        if value not in (None, "") and (key not in DEFAULTS or value != DEFAULTS[key])
    }
    used = {key: value for key, value in own.items() if not _is_elsewhere(mode, key)}
    say(
        f"{file}: keys with Ultralytics' default values are left out ({len(kept) - len(own)}); "
        "rtdetr's own defaults apply"
    )
    if len(used) < len(own):
        say(f"{file}: not used in {mode}: {', '.join(sorted(own.keys() - used))}")
    return used


def _is_elsewhere(mode: str, key: str) -> bool:
    return not is_foreign(mode, key) and bool(foreign_modes(key))


def translate(mode: str, pairs: Pairs, context: Pairs, origin: str = "") -> dict[str, Any]:
    """Replace keys and values of Ultralytics by ours; keys of ours are kept.

    Args:
        mode: the mode, such as `train`.
        pairs: keys and values of one source, of Python's types; texts are not parsed yet.
        context: those of all sources, for values that depend on other keys.
        origin: the file, for messages.

    Raises:
        UsageError: the key or the value is refused, or a key is given under two names.
    """
    _require_supported(mode, pairs, origin)
    native: dict[str, Any] = {}
    origins: dict[str, str] = {}
    ignored: dict[str, list[str]] = {}
    for key, value in pairs.items():
        rule = FOREIGN_KEYS.get((mode, key), Same())
        if isinstance(rule, NoEffect):
            ignored.setdefault(rule.why, []).append(key)
        if isinstance(rule, NoEffect | Refused):
            continue
        change = _VALUES.get((mode, key), _same(rule.to if isinstance(rule, Renamed) else key))
        for name, new in change(value, context).items():
            if name in native:
                both = f"{key} and {origins[name]}"
                raise UsageError(f"{origin}{mode}: {both} set the same key, {name}; give one")
            native[name], origins[name] = new, key
    for why, keys in ignored.items():
        note(f"{', '.join(keys)} {'have' if len(keys) > 1 else 'has'} no effect: {why}")
    return native


def _require_supported(mode: str, pairs: Pairs, origin: str) -> None:
    """Refuse values that would change the result: the first with its reason, others by name."""
    refused: dict[str, str] = {}
    for key, value in pairs.items():
        rule, plain = FOREIGN_KEYS.get((mode, key)), _plain(value)
        if isinstance(rule, NoEffect) and rule.only and not _is_among(plain, rule.only):
            why = rule.otherwise
        elif isinstance(rule, Refused) and not _is_among(plain, rule.neutral):
            why = rule.why
        else:
            continue
        shown = show_key(plain) if isinstance(plain, str) else show(plain)
        refused[f"{key}={shown}"] = why
    if refused:
        (first, why), *others = refused.items()
        more = f" (nor {', '.join(other for other, _ in others)})" if others else ""
        raise UsageError(f"{origin}{mode}: {first} is not supported{more}: {why}")


@lru_cache(maxsize=1000)
def note(text: str) -> None:
    """Print a line about a key once, even if the call is repeated for each image."""
    say(f"Note: {text}")


def _plain(value: object) -> object:
    """A text as the number, true, false or None that it spells."""
    return parse(value, int | float | bool | str | None) if isinstance(value, str) else value


def _is_among(value: object, known: tuple[object, ...]) -> bool:
    lowered = value.lower() if isinstance(value, str) else value
    return any(lowered == one and (lowered is None) == (one is None) for one in known)


def _same(name: str) -> Translate:
    return lambda value, _: {name: value}


def _choice(key: str, **texts: object) -> Translate:
    """Values that have another name here, in any letter case."""

    def change(value: object, _: Pairs) -> dict[str, object]:
        plain = _plain(value)
        text = str(plain).lower()
        named = text if isinstance(value, str) and plain is not None else plain
        return {key: texts.get(text, named)}

    return change


def _negated(key: str) -> Translate:
    def change(value: object, _: Pairs) -> dict[str, object]:
        plain = _plain(value)
        return {key: not plain if isinstance(plain, bool) else value}

    return change


def _whole_numbers(value: object) -> list[int]:
    """The numbers of 640, "640", [480, 640] or "480,640"; empty if there is anything else."""
    read = parse(value, tuple[int, ...]) if isinstance(value, str) else value
    items = list(read) if isinstance(read, list | tuple) else [read]
    whole = [item for item in items if isinstance(item, int) and not isinstance(item, bool)]
    return whole if len(whole) == len(items) else []


def _image_size(value: object, _: Pairs) -> dict[str, object]:
    """Round sizes up to the stride of the network."""
    sides = _whole_numbers(value)
    if not sides or not all(0 < side < 2**30 for side in sides):
        return {"imgsz": value}
    rounded = [math.ceil(side / _STRIDE) * _STRIDE for side in sides]
    if rounded != sides:
        given, used = (",".join(map(str, one)) for one in (sides, rounded))
        note(f"imgsz={given} is rounded up to {used}, as sizes are multiples of {_STRIDE}")
    return {"imgsz": rounded[0] if len(rounded) == 1 else rounded}


def _training_batch(value: object, _: Pairs) -> dict[str, object]:
    share = _plain(value)
    if isinstance(share, float) and 0 < share < 1:
        note(f"batch={share:g} is batch=-1 here, which uses 80 % of the free memory")
        return {"batch": -1}
    return {"batch": value}


def _batch(value: object, _: Pairs) -> dict[str, object]:
    return {} if _plain(value) == -1 else {"batch": value}


def _device(value: object, _: Pairs) -> dict[str, object]:
    numbers = _whole_numbers(value)
    if -1 in numbers:
        raise UsageError(
            f"device={','.join(map(str, numbers))}: idle GPUs are not searched; give numbers, "
            "such as device=0"
        )
    return {"device": ",".join(map(str, numbers)) if numbers else value or None}


def _save_period(value: object, _: Pairs) -> dict[str, object]:
    return {"save_period": 0 if _plain(value) == -1 else value}


def _pretrained(value: object, context: Pairs) -> dict[str, object]:
    """True and false are about the weights of `model`; a path is kept."""
    wanted, model = _plain(value), str(context.get("model") or "rtdetr-l.pt")
    if not isinstance(wanted, bool):
        return {"pretrained": value}
    if not wanted and not is_architecture(model):
        stem = Path(model).stem
        name = stem if stem.startswith("rtdetr-") else "rtdetr-l"
        raise UsageError(
            f"train: pretrained=False: {show_key(model)} brings its own weights; give an "
            f"architecture, such as model={name}.yaml"
        )
    if wanted and is_architecture(model):
        note(f"{show_key(model)} has no weights; pretrained=backbone or a file gives it some")
    return {}


def _freeze(value: object, _: Pairs) -> dict[str, object]:
    """Layers of Ultralytics' rtdetr-l as parts of ours; 1 to 4 and names are ours."""
    layers = _whole_numbers(value)
    is_number = len(layers) == 1 and str(value).isdigit()
    if not layers or (is_number and layers == [0]):
        return {"freeze": None if value in ([], "") else value}
    if is_number and layers[0] <= _NUM_STAGES:
        note(f"freeze={layers[0]} counts stages of the backbone, where Ultralytics counts layers")
        return {"freeze": str(layers[0])}
    count = layers[0] if is_number else len(layers)
    if count not in _STAGES or (not is_number and layers != list(range(count))):
        raise UsageError(
            f"train: freeze={show(value)}: no part of the network is these layers of Ultralytics; "
            "give freeze=1 to 4 (stages of the backbone), backbone, or names of modules"
        )
    note(f"freeze is {_STAGES[count]}: the first {count} layers of Ultralytics' rtdetr-l")
    return {"freeze": _STAGES[count]}


def _close_mosaic(value: object, context: Pairs) -> dict[str, object]:
    """Off for the last N epochs; Ultralytics never turns it off with 0 or more than all."""
    last, epochs = _plain(value), _plain(context.get("epochs") or TrainSettings.epochs)
    if not isinstance(last, int) or not isinstance(epochs, int):
        raise UsageError(f"train: close_mosaic must be a whole number, found {show(value)}")
    if not any(_plain(context.get(key)) for key in ("mosaic", "mixup", "recipe")):
        note("close_mosaic has no effect: mosaic and mixup are off by default")
        return {}
    if context.get("time"):
        raise UsageError("train: close_mosaic needs epochs; with time their number is not known")
    return {"dense_epochs": (0, epochs - last if 0 <= last <= epochs else epochs)}


def _cosine(value: object, _: Pairs) -> dict[str, object]:
    is_cosine = _plain(value)
    if not isinstance(is_cosine, bool):
        raise UsageError(f"train: cos_lr must be true or false, found {show(value)}")
    return {"schedule": "cosine"} if is_cosine else {}


def _learning_rate(value: object, context: Pairs) -> dict[str, object]:
    lr, optimizer = _plain(value), str(context.get("optimizer") or "auto").lower()
    if isinstance(lr, float) and lr == DEFAULTS["lr0"] and optimizer == "auto":
        note("lr0=0.01 has no effect without optimizer=, as in Ultralytics; lr= is the recipe's")
        return {}
    has_weights = context.get("pretrained") or not is_architecture(str(context.get("model")))
    usual = _RECIPE_LR if has_weights else _SCRATCH_LR
    if isinstance(lr, float) and lr >= 10 * usual and optimizer != "sgd":
        note(f"lr0={lr:g} is lr={lr:g}, {lr / usual:.0f} times the recipe's {usual:g}")
    return {"lr": value}


def _precision(value: object, _: Pairs) -> dict[str, object]:
    bits = str(_plain(value)).lower().removeprefix("fp")
    if bits not in {"16", "32", "none"}:
        raise UsageError(f"quantize={show(value)}: give half=true, or `rtdetr export int8=true`")
    return {"half": True} if bits == "16" else {}


def _export_precision(value: object, context: Pairs) -> dict[str, object]:
    if str(_plain(value)).lower() in {"8", "int8"}:
        return {"int8": True}
    return _precision(value, context)


def _only_with(key: str, other: str) -> Translate:
    """A switch that does nothing without another key."""

    def change(value: object, context: Pairs) -> dict[str, object]:
        if _plain(value) is not True or _plain(context.get(other)):
            return {key: value}
        note(f"{key} has no effect without {other}")
        return {}

    return change


def _opset(value: object, _: Pairs) -> dict[str, object]:
    opset = _plain(value)
    if isinstance(opset, int) and 0 < opset < _OLDEST_OPSET:
        raise UsageError(
            f"export: opset={opset}: {_OLDEST_OPSET} is the first with LayerNormalization; "
            "runtimes of 2022 and later read it"
        )
    return {"opset": value}


def _workspace(value: object, context: Pairs) -> dict[str, object]:
    name = str(context.get("format") or "onnx").lower()
    if name in {"engine", *_TENSORRT} or _plain(value) is None:
        return {"workspace": value}
    note(f"workspace has no effect: it limits TensorRT, and the format is {show_key(name)}")
    return {}


def _formats(value: object, _: Pairs) -> dict[str, object]:
    name = str(value or "").lower()
    return {"formats": _TENSORRT.get(name, name)} if _plain(name) not in {None, ""} else {}


_VALUES: dict[tuple[str, str], Translate] = {
    **{(mode, "imgsz"): _image_size for mode in (*FOREIGN_MODES, "info")},
    **{(mode, "device"): _device for mode in FOREIGN_MODES},
    **{(mode, "batch"): _batch for mode in ("val", "predict", "track", "benchmark")},
    **{(mode, "quantize"): _precision for mode in ("val", "predict", "track")},
    **{(mode, "save_conf"): _only_with("save_conf", "save_txt") for mode in ("predict", "track")},
    **{(mode, "nms"): _choice("nms", false=None) for mode in ("predict", "track")},
    ("predict", "agnostic_nms"): _only_with("agnostic_nms", "nms"),
    **{(mode, "hide_labels"): _negated("show_labels") for mode in ("predict", "track")},
    **{(mode, "hide_conf"): _negated("show_conf") for mode in ("predict", "track")},
    ("track", "tracker"): translate_tracker,
    ("train", "batch"): _training_batch,
    ("train", "cache"): _choice("cache", true="ram", false="off"),
    ("train", "amp"): _choice("amp", true="auto", false="off"),
    ("train", "optimizer"): _choice("optimizer", auto="adamw"),
    ("train", "save_period"): _save_period,
    ("train", "pretrained"): _pretrained,
    ("train", "freeze"): _freeze,
    ("train", "lr0"): _learning_rate,
    ("train", "cos_lr"): _cosine,
    ("train", "close_mosaic"): _close_mosaic,
    ("export", "format"): _choice("format", **_TENSORRT),
    ("export", "opset"): _opset,
    ("export", "workspace"): _workspace,
    ("export", "quantize"): _export_precision,
    ("benchmark", "format"): _formats,
}
"""Values that are written differently, by mode and key."""
