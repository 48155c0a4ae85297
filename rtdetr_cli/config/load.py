"""Load YAML files: architectures, data sets and recipes.

Errors name the file, the line or key, and the nearest valid name.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rtdetr_cli.config.dataset import DatasetConfig, dataset_config_from_dict
from rtdetr_cli.config.fields import FieldError, build
from rtdetr_cli.config.model import (
    DecoderConfig,
    DEIMv2DecoderConfig,
    EncoderConfig,
    FDRDecoderConfig,
    HGNetv2Config,
    LiteEncoderConfig,
    ModelConfig,
    PResNetConfig,
)
from rtdetr_cli.config.model_path import is_architecture, why_foreign
from rtdetr_cli.config.scale import check_architecture
from rtdetr_cli.core.bounded_text import UnreadableFileError, read_bounded, show, show_key
from rtdetr_cli.core.bounded_yaml import BrokenYamlError, parse_yaml
from rtdetr_cli.core.errors import ConfigError, nearest
from rtdetr_cli.core.files import asset_dir, is_there, special_file, user_path

# The `type` of a section; a section without one is of the first kind, but for the backbone.
_KINDS: dict[str, dict[str, type]] = {
    "backbone": {"hgnetv2": HGNetv2Config, "presnet": PResNetConfig},
    "encoder": {"hybrid": EncoderConfig, "lite": LiteEncoderConfig},
    "decoder": {"rtdetr": DecoderConfig, "fdr": FDRDecoderConfig, "deimv2": DEIMv2DecoderConfig},
}


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file with a mapping.

    Raises:
        ConfigError: the file is missing, unreadable, invalid or not a mapping.
    """
    try:
        values = parse_yaml(read_bounded(path))
    except UnreadableFileError as error:
        raise ConfigError(f"{path} {error}{_neighbour(Path(path))}") from None
    except BrokenYamlError as error:
        line = f":{error.line}" if error.line else ""
        raise ConfigError(f"{path}{line}: broken YAML: {error.problem}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must contain keys and values, found {show(values)}")
    number = next((key for key in values if not isinstance(key, str)), None)
    if number is not None:
        raise ConfigError(f"{path}: {number} is not a key; keys are strings")
    return values


def _neighbour(path: Path) -> str:
    """Hint at a YAML file of a similar name beside a missing one."""
    if is_there(path) or not is_there(path.parent):
        return ""
    hint = nearest(path.stem, (other.stem for other in path.parent.glob("*.yaml")))
    return hint.replace("?", ".yaml?")


def load_model_config(name_or_path: str | Path) -> ModelConfig:
    """Load an architecture by name (`rtdetr-l`, `rtdetr-l.yaml`) or by path.

    Raises:
        ConfigError: the file does not exist, or a key is unknown, missing or invalid.
    """
    path = _find(name_or_path, asset_dir("models"), "architecture")
    values = load_yaml(path)
    if isinstance(values.get("backbone"), list):
        raise ConfigError(
            f"{path.name} lists layers in Ultralytics' schema; architectures here have named "
            "fields, see rtdetr-l.yaml (weights trained with such a file need none: model=best.pt)"
        )
    if "name" in values:
        raise ConfigError(f"{path.name}: name is not a key; the file name is the name")
    return model_config_from_dict({"name": path.stem, **values}, path.name)


def load_dataset_config(name_or_path: str | Path) -> DatasetConfig:
    """Load a data set YAML by path or by the name of a shipped one (`coco8`, `coco8.yaml`).

    Raises:
        ConfigError: the file does not exist or is invalid.
    """
    path = _find(name_or_path, asset_dir("cfg") / "datasets", "data set")
    return dataset_config_from_dict(load_yaml(path), path)


def load_recipe(name_or_path: str | Path) -> tuple[str, dict[str, Any]]:
    """Load a recipe by path or by name; returns its file name and its settings.

    Raises:
        ConfigError: the file does not exist or is invalid.
    """
    path = _find(name_or_path, asset_dir("cfg") / "recipes", "recipe")
    return path.name, load_yaml(path)


def model_config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """Convert to dicts, lists and primitives; the inverse of `model_config_from_dict`."""
    values = dataclasses.asdict(config, dict_factory=_plain)
    for section, kinds in _KINDS.items():
        kind = next(kind for kind, cls in kinds.items() if type(getattr(config, section)) is cls)
        if section == "backbone" or kind != next(iter(kinds)):
            values[section] = {"type": kind, **values[section]}
    return values


def model_config_from_dict(values: dict[str, Any], origin: str) -> ModelConfig:
    """Build an architecture from the values of a YAML file or a checkpoint.

    Args:
        values: nested dicts and lists.
        origin: file name, for messages.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, an invalid value.
    """
    try:
        sections = {
            section: _build_section(section, values[section])
            for section in _KINDS
            if isinstance(values.get(section), dict)
        }
        config = build(ModelConfig, {**values, **sections})
    except FieldError as error:
        raise ConfigError(f"{origin}: {error}") from None
    check_architecture(config, origin)
    return config


def _build_section(section: str, values: dict[str, Any]) -> object:
    kinds = _KINDS[section]
    default = None if section == "backbone" else next(iter(kinds))
    kind = values.get("type", default)
    if not isinstance(kind, str) or kind not in kinds:
        raise FieldError(f"{section}.type", f"must be {' or '.join(kinds)}, found {show(kind)}")
    fields = {key: value for key, value in values.items() if key != "type"}
    try:
        return build(kinds[kind], fields)
    except FieldError as error:
        raise FieldError(f"{section}.{error.key}", error.complaint) from None


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: _listed(value) for key, value in items}


def _listed(value: object) -> object:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _find(name_or_path: str | Path, folder: Path, noun: str) -> Path:
    """Find a file by path, or a shipped one by name in any case, with or without `.yaml`."""
    given = user_path(name_or_path)
    named = given if is_architecture(given) else Path(f"{given}.yaml")
    shipped = folder / named.name.lower() if given.name == str(given) else named
    for path in (given, named, shipped):
        if _is_there(path):
            return path
    foreign = why_foreign(given) if noun == "architecture" else None
    if foreign:
        raise ConfigError(f"{show_key(str(name_or_path), 200)} {foreign}")
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    hint = nearest(named.stem.lower(), known) or f"; known are {', '.join(known)}"
    raise ConfigError(f"{noun} {show_key(str(name_or_path), 200)} does not exist{hint}")


def _is_there(path: Path) -> bool:
    """Whether a file exists, or a FIFO or device, which is rejected later."""
    try:
        return path.is_file() or special_file(path) is not None
    except (OSError, ValueError):  # the name is too long or contains a NUL
        return False
