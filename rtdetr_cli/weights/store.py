"""Resolve the name of a checkpoint: find it, or download and convert it at first use.

catalog.py lists the published files, core/download.py downloads, reader.py opens; that, and with
it torch, is imported by the functions that open a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model import ModelConfig
from rtdetr_cli.config.model_path import RUN_WEIGHTS, is_exported, run_weights, why_foreign
from rtdetr_cli.core.console import say
from rtdetr_cli.core.download import download, hold_to_sum, is_offline, record_sum
from rtdetr_cli.core.download import mirrored as on_mirror
from rtdetr_cli.core.errors import DownloadError, WeightsError, nearest
from rtdetr_cli.core.files import asset_dir, refuse_special, user_path
from rtdetr_cli.core.lock import file_lock
from rtdetr_cli.weights.catalog import (
    BACKBONES,
    CATALOG,
    find_backbone,
    find_published,
)
from rtdetr_cli.weights.published import (
    Published,
    PublishedBackbone,
    PublishedFile,
    weights_home,
)

if TYPE_CHECKING:
    from rtdetr_cli.weights.backbone import Backbone
    from rtdetr_cli.weights.checkpoint import Checkpoint

Content = TypeVar("Content")

MAX_BYTES = 1 << 32
"""4 GiB, eight times the largest published file."""


def resolve_weights(name: str | Path) -> Path:
    """Resolve a path, a run folder, a published name, or a file in the folder of weights.

    A local file takes precedence over the published one of its name, also for a name without
    `.pt`. A published file that is not on this machine is downloaded and converted.

    Raises:
        WeightsError: It is none of these, or could not be downloaded; for a published name the
            message gives its address and where to save it.
        StorageError: No space left or no permission.
    """
    given = user_path(name)
    refuse_special(given, WeightsError)
    entry = find_published(str(name))
    local = _local_file(given, entry)
    if local is not None:
        return local
    if entry is not None:
        return _converted(entry)
    if given.name == str(name) and (weights_home() / given).is_file():
        return weights_home() / given
    if given.is_dir():
        raise WeightsError(
            f"{name} is a folder without weights/best.pt, weights/last.pt or model.safetensors"
        )
    reason = why_foreign(given) or _why_absent(given)
    raise WeightsError(f"{name} {reason}")


def _why_absent(given: Path) -> str:
    architecture = f"{given.stem if given.suffix == '.pt' else given.name}.yaml"
    if given.name == str(given) and (asset_dir("models") / architecture).is_file():
        return f"has no published weights; train it: rtdetr train model={architecture} data=my.yaml"
    is_name = given.name == str(given) and given.name not in RUN_WEIGHTS
    return f"does not exist{nearest(given.name, CATALOG) if is_name else ''}"


def _local_file(given: Path, entry: Published | None) -> Path | None:
    """The file or folder that a path names, the weights of a run folder, or None."""
    if given.is_dir() and not (is_exported(str(given)) or (given / "model.safetensors").is_file()):
        found = run_weights(given)
        if found is not None:
            _say_once(f"{given}: taking {found.relative_to(given)}")
        return found
    if given.exists():
        return given
    if (
        entry is not None
        and given == Path(entry.name).with_suffix("")
        and Path(entry.name).exists()
    ):
        _say_once(f"{given}: taking {entry.name} of the current folder, not the published file")
        return Path(entry.name)
    return None


@cache
def _say_once(line: str) -> None:
    """Print a line the first time: a command may resolve the same name several times."""
    say(line)


def mirrored(entry: PublishedFile) -> str:
    """The address to download a published file from, on the mirror if one is set.

    Raises:
        UsageError: `RTDETR_MIRROR` is not a web address.
    """
    return on_mirror(entry.url, entry.file)


def open_start(name: str, config: ModelConfig, family: str | None = None) -> Checkpoint | Backbone:
    """Open the weights that `pretrained=` names.

    Args:
        name: `backbone` for the backbone of the official training, a published name, or a file.
        config: the architecture.
        family: dfine, deim or rtdetrv4, for weights that do not say it themselves.

    Raises:
        WeightsError: It is none of these, or cannot be downloaded or read.
        StorageError: No space left or no permission.
    """
    from rtdetr_cli.weights.backbone import Backbone, fitted
    from rtdetr_cli.weights.reader import open_pretrained

    if name == "backbone":
        return fitted(_open_published(_backbone_of(config)), config.backbone)
    entry = None if user_path(name).exists() else find_backbone(name)
    found = (
        open_pretrained(resolve_weights(name), family=family)
        if entry is None
        else _open_published(entry)
    )
    return fitted(found, config.backbone) if isinstance(found, Backbone) else found


def _backbone_of(config: ModelConfig) -> PublishedBackbone:
    from rtdetr_cli.weights.backbone import covers

    for entry in BACKBONES.values():
        if covers(load_model_config(entry.architecture).backbone, config.backbone):
            return entry
    known = ", ".join(f"{name} ({entry.architecture})" for name, entry in BACKBONES.items())
    raise WeightsError(
        f"{config.name} has a custom backbone, for which no ImageNet weights are published; "
        f"there are {known}"
    )


def _open_published(entry: PublishedBackbone) -> Backbone:
    backbone = _opened(entry, lambda file: _as_published(file, entry))
    origin = f"{entry.name} ({entry.original.name}, {entry.data})"
    return replace(backbone, origin=origin, licence=entry.licence.describe())


def _as_published(path: Path, entry: PublishedBackbone) -> Backbone:
    from rtdetr_cli.weights.backbone import Backbone, covers
    from rtdetr_cli.weights.reader import open_pretrained

    found = open_pretrained(path)
    if not isinstance(found, Backbone):
        raise WeightsError(f"it holds a whole detector instead of {entry.name}")
    if not covers(found.config, load_model_config(entry.architecture).backbone):
        raise WeightsError(f"it holds another backbone than {entry.name}")
    return found


def _converted(entry: Published) -> Path:
    """The converted file; the first process converts, the others wait."""
    path = entry.converted
    if path.is_file():
        return path
    from rtdetr_cli.weights.checkpoint import save_checkpoint

    with file_lock(path):
        if not path.is_file():
            save_checkpoint(path, _opened(entry, lambda file: _stamped(file, entry)))
            say(f"{entry.name}: converted to {path}")
    return path


def _opened(entry: Published | PublishedBackbone, read: Callable[[Path], Content]) -> Content:
    """Return the result of `read` on the published file, which is downloaded if missing."""
    path = entry.original
    if path.is_file():
        found = _held_sum(entry)
        content = read(path)
        record_sum(path, found)
        return content
    opened = list[Content]()
    _fetch(entry, lambda file: opened.append(read(file)))
    return opened[-1] if opened else read(path)


def _fetch(entry: Published | PublishedBackbone, check: Callable[[Path], object]) -> None:
    """Download the published file; an error raised by `check` rejects it."""
    if isinstance(entry, Published) and not entry.is_fetched:
        raise WeightsError(
            f"{entry.name} is on a page that only a browser can download from: {_by_hand(entry)}"
        )
    if is_offline():
        raise WeightsError(f"{entry.name} is not on this machine: {_by_hand(entry)}")
    url = mirrored(entry)
    try:
        download(url, entry.original, known_sum=entry.sha256, max_bytes=MAX_BYTES, check=check)
    except (DownloadError, WeightsError) as error:
        source = "" if url == entry.url else f" from {url}"
        raise WeightsError(
            f"{entry.name} could not be downloaded{source} ({error}); {_by_hand(entry)}"
        ) from None


def _held_sum(entry: Published | PublishedBackbone) -> str:
    """Checksum of a local copy of the published file, which the user may have put there."""
    path = entry.original
    try:
        return hold_to_sum(path, path, entry.sha256)
    except DownloadError as error:
        raise WeightsError(
            f"{path} is not the published file ({error}); if it is damaged, delete it and "
            f"{entry.name} is downloaded again"
        ) from None


def _by_hand(entry: PublishedFile) -> str:
    return f"download {entry.url} and save it as {entry.original}"


def _stamped(path: Path, entry: Published) -> Checkpoint:
    """Open a published file; add what its tensors do not contain: sampling, preprocessing."""
    from rtdetr_cli.weights.reader import open_weights

    checkpoint, shipped = open_weights(path), load_model_config(entry.architecture)
    config = checkpoint.config
    if _parts(config) != _parts(shipped):
        raise WeightsError(f"it holds another network than {shipped.name}, namely {config.name}")
    decoder = replace(
        config.decoder, sampling=entry.sampling, eval_layers=shipped.decoder.eval_layers
    )
    if config.decoder.activation == shipped.decoder.activation:  # else named after its own family
        config = replace(config, name=shipped.name, recipe=shipped.recipe)
    config = replace(config, decoder=decoder)
    return replace(
        checkpoint,
        config=config,
        preprocessing=entry.preprocessing,
        training=None,
        notes=(*checkpoint.notes, f"published at {entry.url}"),
        licence=entry.licence.describe(),
    )


def _parts(config: ModelConfig) -> tuple[object, ...]:
    """The parts in which a published file equals its architecture; sampling points may differ."""
    return config.backbone, config.encoder, config.decoder.num_layers
