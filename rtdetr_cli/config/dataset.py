"""What a data set YAML says: where the pictures are and how the classes are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_cli.config.fields import FieldError, build
from rtdetr_cli.core.bounded_text import show
from rtdetr_cli.core.errors import ConfigError
from rtdetr_cli.core.files import asset_dir, rtdetr_home
from rtdetr_cli.core.places import fault
from rtdetr_cli.core.urls import ascii_url

SPLITS = ("train", "val", "test")
_DESCRIPTIVE = {"description", "license", "roboflow", "url", "version"}  # notes of other tools


@dataclass(frozen=True)
class Download:
    """One file of a data set; a URL and a checksum, never a command."""

    url: str
    """Where the archive or file comes from."""
    sha256: str
    """Checksum that it must have, 64 hexadecimal digits."""
    to: str | None = None
    """Folder below the data set's `path` to unpack into; None is `path` itself."""

    def __post_init__(self) -> None:
        try:
            ascii_url(self.url)
        except ValueError as error:
            raise FieldError("url", f"{error}, found {show(self.url)}") from None
        if not re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256):
            raise FieldError("sha256", f"must be 64 hexadecimal digits, found {show(self.sha256)}")
        object.__setattr__(self, "sha256", self.sha256.lower())
        reason = fault(self.to or ".")
        if reason:
            raise FieldError("to", f"must be a folder below path; {show(self.to)} {reason}")


@dataclass(frozen=True)
class ShapesConfig:
    """How our drawn data set is made."""

    num_train: int = 300
    """Pictures to train on."""
    num_val: int = 60
    """Pictures to validate on."""
    num_test: int = 40
    """Pictures held out."""
    size: int = 320
    """Height and width, pixels."""
    seed: int = 0
    """Start of the random generator; the same seed draws the same pictures."""


@dataclass(frozen=True)
class DatasetConfig:
    """One data set."""

    path: Path
    """Root folder, made absolute."""
    train: tuple[str, ...] | None = None
    """Folders, .txt lists or COCO json files below `path`."""
    val: tuple[str, ...] | None = None
    """As `train`."""
    test: tuple[str, ...] | None = None
    """As `train`."""
    names: dict[int, str] | None = None
    """Class names by index from 0; None where a COCO json brings them."""
    download: tuple[Download, ...] | None = None
    """Files that make up the data set."""
    shapes: ShapesConfig | None = None
    """Set where the data set is drawn by us (`source: shapes`)."""
    origin: Path | None = None
    """The YAML file."""


def dataset_config_from_dict(values: Mapping[str, Any], origin: Path) -> DatasetConfig:
    """Build the description of a data set from its YAML.

    Args:
        values: what the file says.
        origin: the file; a relative `path` counts from its folder, the current one, or home.

    Raises:
        ConfigError: an unknown key, a wrong type, no split, no names, a command to download.
    """
    values = {key: value for key, value in values.items() if key not in _DESCRIPTIVE}
    try:
        if "source" in values:
            return _drawn(values, origin)
        num_names = values.pop("nc", None)
        config = build(DatasetConfig, _normalised(values, origin))
    except FieldError as error:
        raise ConfigError(f"{origin.name}: {error}") from None
    _check(config, num_names)
    return config


def _drawn(values: dict[str, Any], origin: Path) -> DatasetConfig:
    source = values.pop("source")
    if source != "shapes":
        raise FieldError("source", f"must be shapes, found {show(source)}")
    shapes = build(ShapesConfig, values)
    return DatasetConfig(rtdetr_home() / "datasets", shapes=shapes, origin=origin)


def _normalised(values: dict[str, Any], origin: Path) -> dict[str, Any]:
    """The forms that people write, as the one form of the dataclass."""
    if isinstance(values.get("download"), str):
        raise FieldError(
            "download", "must list url and sha256, never a command; fetch it and remove the key"
        )
    return {
        **values,
        **{key: [values[key]] for key in SPLITS if isinstance(values.get(key), str)},
        "path": _resolve_root(str(values.get("path") or "."), origin),
        "names": _named(values.get("names"), origin),
        "origin": origin,
    }


def _resolve_root(root: str, origin: Path) -> Path:
    """The first place where a relative root exists; where it belongs if it is nowhere."""
    shipped = origin.absolute().parent == asset_dir("cfg") / "datasets"
    home = rtdetr_home() / "datasets"
    places = [Path.cwd(), Path.cwd() / "datasets", home]
    places = [*places] if shipped else [origin.absolute().parent, *places]
    try:
        candidates = [(place / Path(root).expanduser()).resolve() for place in places]
        default = candidates[-1] if shipped else candidates[0]
        return next((path for path in candidates if path.is_dir()), default)
    except (OSError, RuntimeError, ValueError):  # too long, links in a circle, ~nobody, a NUL
        raise FieldError("path", f"cannot be a folder, found {show(root)}") from None


def _named(names: object, origin: Path) -> dict[int, str] | None:
    """Class names from a list or a mapping of indices, in order."""
    if names is None:
        return None
    indexed = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(indexed, dict) or not indexed:
        raise ConfigError(f"{origin.name}: names must list the classes, found {show(names)}")
    missing = next((index for index in range(len(indexed)) if index not in indexed), None)
    if missing is not None:
        raise ConfigError(
            f"{origin.name}: names must count from 0 without a gap; {missing} is missing"
        )
    return {index: str(indexed[index]) for index in range(len(indexed))}


def _check(config: DatasetConfig, num_names: object) -> None:
    file = config.origin.name if config.origin else "data set"
    splits = [entries for split in SPLITS if (entries := getattr(config, split))]
    if not splits:
        raise ConfigError(f"{file}: none of train, val and test is given")
    has_names = all(any(entry.endswith(".json") for entry in entries) for entries in splits)
    if config.names is None and not has_names:
        raise ConfigError(f"{file}: names is missing; list the classes, for example names: [cat]")
    if num_names is not None and config.names and num_names != len(config.names):
        raise ConfigError(
            f"{file}: nc is {show(num_names)}, but names lists {len(config.names)} classes"
        )
