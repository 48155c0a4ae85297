"""Classify the value of `model=` by its name: an architecture, an exported file, or weights."""

from __future__ import annotations

import re
from pathlib import Path

from rtdetr_cli.core.files import is_there

RUN_WEIGHTS = ("best.pt", "last.pt")
"""Checkpoints of a run folder, in the order in which `model=runs/train` takes them."""
_RESNETS = {"rtdetr-resnet50": "rtdetr-r50", "rtdetr-resnet101": "rtdetr-r101"}
_ARCHITECTURES = {".yaml", ".yml"}
_EXPORTED = {".onnx", ".engine", ".xml"}
_FOLDER = "_openvino_model"


def is_architecture(model: str | Path) -> bool:
    """Whether the path names a YAML file, in any letter case."""
    return Path(model).suffix.lower() in _ARCHITECTURES


def is_exported(model: str) -> bool:
    """Whether the path names a file or folder for another runtime, with fixed size and layers."""
    path = Path(model)
    return path.suffix.lower() in _EXPORTED or path.name.endswith(_FOLDER)


def why_no_family(model: str) -> str | None:
    """Why `family=` has no effect on a model; None if it may have one."""
    if is_exported(model):
        return f"family has no effect on {model}, which is already exported"
    if is_architecture(model):
        return f"family has no effect on {model}, which is an architecture"
    return None


def run_weights(folder: Path) -> Path | None:
    """The weights of a run folder (`runs/train`) or of its folder `weights`; None without any."""
    places = [parent / name for name in RUN_WEIGHTS for parent in (folder / "weights", folder)]
    return next((path for path in places if path.is_file()), None)


def why_foreign(model: str | Path) -> str | None:
    """Why an absent file with a name of another toolkit is absent, as the end of a sentence."""
    path = Path(model)
    if re.match(r"[a-z]{2,}:/", str(model)):
        return "is an address; download the file and give its path"
    if path.stem.lower().startswith("yolo"):
        return (
            "is a YOLO network, which is not part of this toolkit; model=rtdetr-l.pt, or see "
            "`rtdetr models`"
        )
    ours = _RESNETS.get(path.stem.lower())
    if ours:
        suffix = path.suffix if is_architecture(model) else ".pt"
        return f"is Ultralytics' own ResNet network; the one of the paper is {ours}{suffix}"
    relative = _why_relative(path.stem.lower(), is_architecture(model))
    if relative:
        return relative
    here = Path("runs", *path.parts[2:])
    if path.parts[:2] == ("runs", "detect") and is_there(here):
        return f"does not exist; runs are in runs/ here, not in runs/detect: give {here}"
    return None


def _why_relative(name: str, wants_architecture: bool) -> str | None:
    """The same for names of DEIM, RT-DETRv4 and DEIMv2 that are no files here."""
    if re.fullmatch("deimv2-[smlx]", name):
        return (
            "has DINOv3 as backbone, which has a licence of its own and is not part of this "
            "toolkit; deimv2-n is the largest one without"
        )
    found = re.fullmatch("(?:deim-dfine|deim|rtdetrv4)-([nsmlx])", name)
    if found and wants_architecture:
        return f"is dfine-{found[1]}.yaml with `activation: silu` in the section decoder"
    if found and name.startswith("deim-"):
        return f"does not exist; did you mean deim-dfine-{found[1]}.pt?"
    found = re.fullmatch("deim-rtdetrv2-(r[0-9]+m?)", name)
    if found and wants_architecture:
        return (
            f"is rtdetr-{found[1]}.yaml with `activation: silu` and `position_layers: 3` in the "
            "section decoder"
        )
    return None
