"""The data set YAML: location of the images and names of the classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from rtdetr_cli.config.fields import FieldError, Range, build
from rtdetr_cli.core.bounded_text import show
from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import ConfigError
from rtdetr_cli.core.files import asset_dir, rtdetr_home, user_path
from rtdetr_cli.core.places import fault
from rtdetr_cli.core.urls import ascii_url

SPLITS = ("train", "val", "test")
MAX_CLASSES = 2**16
"""ImageNet has 21,841."""
MAX_NAME = 200
"""Maximum characters of a class name."""
MAX_KEYPOINTS = 10_000
MAX_PART, MAX_PLACE = 255, 4000
"""Maximum bytes of a file name and of a path on common file systems."""
_DERIVED = {
    "shapes",
    "origin",
    "script",
    "may_download",
    "bad_images",
    "keypoint_columns",
}  # fields that no YAML may set
_DESCRIPTIVE = {"description", "license", "minival", "roboflow", "url", "version"}
"""Keys of other tools that are not used."""


@dataclass(frozen=True)
class Download:
    """One file of a data set; a URL, never a command."""

    url: str
    """URL of the archive or file."""
    sha256: str | None = None
    """Expected checksum, 64 hexadecimal digits; None: the one at first use."""
    to: str | None = None
    """Folder below `path` to unpack into; None: `path` itself."""
    num_bytes: Annotated[int, Range(1, 2**36)] | None = None
    """Size of the file, if known."""

    def __post_init__(self) -> None:
        _check_url("url", self.url)
        if self.sha256 is not None:
            if not re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256):
                found = show(self.sha256)
                raise FieldError("sha256", f"must be 64 hexadecimal digits, found {found}")
            object.__setattr__(self, "sha256", self.sha256.lower())
        reason = fault(self.to or ".")
        if reason:
            raise FieldError("to", f"must be a folder below path; {show(self.to)} {reason}")


def _check_url(key: str, url: str) -> None:
    try:
        ascii_url(url)
    except ValueError as error:
        raise FieldError(key, f"{error}, found {show(url)}") from None


@dataclass(frozen=True)
class ListedImages:
    """Images that are fetched one by one (data/listed_images.py)."""

    table: str
    """File in cfg/datasets with names, sizes, checksums and labels."""
    url: str
    """Address of the folder of all images."""
    archive: str
    """URL of a zip with the same images, if that address fails."""

    def __post_init__(self) -> None:
        if self.table not in {path.name for path in self.path.parent.glob("*.txt")}:
            raise FieldError("table", f"must be a table of cfg/datasets, found {show(self.table)}")
        _check_url("url", self.url)
        _check_url("archive", self.archive)

    @property
    def path(self) -> Path:
        """The table."""
        return _shipped_folder() / self.table


@dataclass(frozen=True)
class ShapesConfig:
    """Options of the generated data set."""

    num_train: Annotated[int, Range(1, 10**5)] = 300
    """Number of training images."""
    num_val: Annotated[int, Range(0, 10**5)] = 60
    """Number of validation images."""
    num_test: Annotated[int, Range(0, 10**5)] = 40
    """Number of test images."""
    size: Annotated[int, Range(32, 4096)] = 320
    """Height and width, pixels."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    """Random seed; the same seed gives the same images."""


@dataclass(frozen=True)
class DatasetConfig:
    """One data set."""

    path: Path
    """Root folder, absolute."""
    train: tuple[str, ...] | None = None
    """Folders, .txt lists or COCO json files below `path`."""
    val: tuple[str, ...] | None = None
    """As `train`."""
    test: tuple[str, ...] | None = None
    """As `train`."""
    names: dict[int, str] | None = None
    """Class names by index from 0; None: from the COCO json."""
    download: tuple[Download, ...] | None = None
    """Files that make up the data set."""
    script: str | None = None
    """Program that would download it, from another tool; shown and never run."""
    images: ListedImages | None = None
    """Images whose labels are part of rtdetr."""
    may_download: bool | None = None
    """The setting `download`: whether to download without a question; None: up to 1 GB."""
    bad_images: str | None = None
    """error, skip, report (of data/problems.py), or None: error."""
    keypoint_columns: int = 0
    """Numbers of keypoints behind each box of a pose data set, which are not used."""
    shapes: ShapesConfig | None = None
    """Options of the generated data set (`source: shapes`)."""
    origin: Path | None = None
    """The YAML file."""

    @property
    def is_shipped(self) -> bool:
        """Whether the YAML is one of ours, whose addresses a mirror replaces."""
        return self.origin is not None and _is_shipped(self.origin)


def dataset_config_from_dict(values: Mapping[str, Any], origin: Path) -> DatasetConfig:
    """Build the config of a data set from the values of its YAML.

    Args:
        values: content of the file.
        origin: the file; a relative `path` is relative to its folder, the current one, or home.

    Raises:
        ConfigError: an unknown key, a wrong type, no split, no names, another kind of labels.
    """
    values = {key: value for key, value in values.items() if key not in _DESCRIPTIVE}
    try:
        if "source" in values:
            return _drawn(values, origin)
        num_names = values.pop("nc", None)
        keypoint_columns = _check_kind(values, origin)
        config = build(DatasetConfig, _normalised(values, num_names, origin))
    except FieldError as error:
        raise ConfigError(f"{origin.name}: {error}") from None
    _check(config, num_names)
    return replace(config, keypoint_columns=keypoint_columns)


def _drawn(values: dict[str, Any], origin: Path) -> DatasetConfig:
    source = values.pop("source")
    if source != "shapes":
        raise FieldError("source", f"must be shapes, found {show(source)}")
    shapes = build(ShapesConfig, values)
    return DatasetConfig(rtdetr_home() / "datasets", shapes=shapes, origin=origin)


def _check_kind(values: dict[str, Any], origin: Path) -> int:
    """Take out the keys that say what images and labels are.

    Returns:
        Number of columns of keypoints in a row.
    """
    channels = values.pop("channels", 3)
    if channels != 3:
        raise FieldError("channels", f"must be 3 (images are read as RGB), found {show(channels)}")
    shape = values.pop("kpt_shape", None)
    values.pop("kpt_names", None)
    values.pop("flip_idx", None)
    if shape is None:
        return 0
    is_shape = isinstance(shape, list) and all(type(one) is int and one > 0 for one in shape)
    if not is_shape or len(shape) != 2 or shape[0] > MAX_KEYPOINTS or shape[1] not in {2, 3}:
        raise FieldError("kpt_shape", f"must be two numbers such as [17, 3], found {show(shape)}")
    say(f"{origin.name}: the keypoints of a pose data set are not used")
    return int(shape[0] * shape[1])


def _normalised(values: dict[str, Any], num_names: object, origin: Path) -> dict[str, Any]:
    """Normalize the accepted variants of a YAML to the fields of the dataclass."""
    derived = next((key for key in values if key in _DERIVED), None)
    if derived:
        raise FieldError(derived, "is not a key")
    names = values.get("names")
    if names is None and num_names is not None:
        names = _numbered(num_names, origin)
    splits = {key: [values[key]] for key in SPLITS if isinstance(values.get(key), str)}
    for key, entries in {**values, **splits}.items():
        if key in SPLITS and isinstance(entries, list):
            for entry in entries:
                _require_place(key, entry)
    return {
        **values,
        **splits,
        "path": _root(values.get("path"), origin),
        "names": _named(names, origin),
        **_download(values.get("download")),
        "origin": origin,
    }


def _numbered(num_names: object, origin: Path) -> list[str]:
    """Names of classes of which only the number is given."""
    if type(num_names) is not int or not 1 <= num_names <= MAX_CLASSES:
        raise FieldError("nc", f"must be a number from 1 to {MAX_CLASSES}, found {show(num_names)}")
    say(f"{origin.name}: without names, the classes are called 0 to {num_names - 1}")
    return [str(index) for index in range(num_names)]


def _download(value: object) -> dict[str, Any]:
    """The fields `download` and `script` for a list of files, a URL or URLs, or a script."""
    entries = value if isinstance(value, list) else [value] if value else []
    texts = [entry for entry in entries if isinstance(entry, str)]
    script = next((text for text in texts if not re.match(r"https?://\S+$", text.strip())), None)
    if script is not None:
        return {"download": None, "script": script}
    files = [{"url": one.strip()} if isinstance(one, str) else one for one in entries]
    return {"download": files or None}


def _is_shipped(origin: Path) -> bool:
    return origin.absolute().parent == _shipped_folder()


def _shipped_folder() -> Path:
    return asset_dir("cfg") / "datasets"


def _root(value: object, origin: Path) -> Path:
    """Root folder from `path`, a string or a number; the folder of the YAML if absent."""
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise FieldError("path", f"must be a text, found {show(value)}")
    root = str(value or ".")
    _require_place("path", root)
    return _resolve_root(root, origin)


def _require_place(key: str, place: object) -> None:
    """Reject names that no file can have."""
    if not isinstance(place, str):
        return
    parts = [part.encode(errors="replace") for part in place.split("/")]
    if "\0" in place or max(map(len, parts)) > MAX_PART or len(b"/".join(parts)) > MAX_PLACE:
        raise FieldError(key, f"is not a valid file name: {show(place)}")


def _resolve_root(root: str, origin: Path) -> Path:
    """Find an existing folder for a relative root; the default location if there is none."""
    shipped = _is_shipped(origin)
    home = rtdetr_home() / "datasets"
    places = [Path.cwd(), Path.cwd() / "datasets", home]
    places = [*places] if shipped else [origin.absolute().parent, *places]
    try:
        candidates = [(place / user_path(root)).resolve() for place in places]
        default = candidates[-1] if shipped else candidates[0]
        return next((path for path in candidates if path.is_dir()), default)
    except (OSError, RuntimeError, ValueError):  # a loop of links, or the path is too long
        raise FieldError("path", f"cannot be a folder, found {show(root)}") from None


def _named(names: object, origin: Path) -> dict[int, str] | None:
    """Class names from a list or a mapping of indices, in order; a gap gets a placeholder."""
    if names is None:
        return None
    indexed = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(indexed, dict) or not indexed:
        raise FieldError("names", f"must list the classes, found {show(names)}")
    found: dict[int, str] = {}
    for key, value in indexed.items():
        index = _index(key)
        if index in found:
            raise FieldError("names", f"has two names of class {index}")
        found[index] = _name(index, value)
    count = max(found) + 1
    gaps = [index for index in range(count) if index not in found]
    if gaps:
        placeholders = ", ".join(f"class_{index}" for index in gaps[:3])
        more = ", ..." if len(gaps) > 3 else ""
        say(f"{origin.name}: names has no class {gaps[0]}; called {placeholders}{more}")
    ordered = {index: found.get(index, f"class_{index}") for index in range(count)}
    _require_different(ordered)
    return ordered


def _require_different(names: Mapping[int, str]) -> None:
    """Refuse two classes of one name: splits, models and data sets are matched by name."""
    first: dict[str, int] = {}
    for index, name in names.items():
        if first.setdefault(name, index) != index:
            reason = f"is {show(name)}, as is names[{first[name]}]; join them, or rename one"
            raise FieldError(f"names[{index}]", reason)


def _index(key: object) -> int:
    """The index of a class; YAML has a text if it is quoted."""
    index = int(key) if isinstance(key, str) and re.fullmatch(r"[0-9]{1,9}", key) else key
    if type(index) is not int or index < 0:
        raise FieldError("names", f"must have numbers from 0 before the names, found {show(key)}")
    if index >= MAX_CLASSES:
        raise FieldError("names", f"has a class {index}; the limit is {MAX_CLASSES} classes")
    return index


def _name(index: int, value: object) -> str:
    """Convert a class name; YAML parses some as numbers or booleans."""
    if not isinstance(value, str | int | float):
        raise FieldError(f"names[{index}]", f"must be a text, found {show(value)}")
    name = str(value)
    if len(name) > MAX_NAME:
        raise FieldError(f"names[{index}]", f"has {len(name)} characters; the limit is {MAX_NAME}")
    return name


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
