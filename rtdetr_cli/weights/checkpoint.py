"""Our checkpoint file: a plain dict of tensors and primitives, without executable content.

`torch.load(weights_only=True)` can read it. Keys: format, version, architecture (with the norms'
epsilon), names, preprocessing, weights, training, trained_on, calibration, origin, notes, licence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdetr_cli.config.load import model_config_from_dict, model_config_to_dict
from rtdetr_cli.config.model import ModelConfig, Preprocessing
from rtdetr_cli.core.errors import ConfigError, WeightsError, printable
from rtdetr_cli.core.files import atomic_write
from rtdetr_cli.weights.archive import TorchArchive
from rtdetr_cli.weights.calibration import Calibration, parse_calibration
from rtdetr_cli.weights.licence import MAX_LINE
from rtdetr_cli.weights.plausible import class_names, input_size
from rtdetr_cli.weights.safe_pickle import Inert, check_plain, shown
from rtdetr_cli.weights.trained_on import TrainedOn, trained_on
from rtdetr_cli.weights.values import check_values

State = Mapping[str, Tensor]

FORMAT = "rtdetr_cli"
VERSION = 1


@dataclass
class Checkpoint:
    """A trained network and everything needed to use it.

    Attributes:
        config: the architecture, including the norm epsilon.
        names: class index -> name.
        weights: tensors by their official v2 names.
        preprocessing: how an image becomes the network input.
        training: state needed to resume training; None in a file for deployment.
        trained_on: data set, image size and batch of the training; None if unknown.
        calibration: how to read the scores of these weights; None unless it was measured.
        origin: source of the weights, human-readable.
        notes: what was dropped, renamed or filled in, human-readable.
        licence: of the weights, by whom and where it is stated; empty if the file does not say.
    """

    config: ModelConfig
    names: dict[int, str]
    weights: dict[str, Tensor] = field(repr=False)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    training: dict[str, Any] | None = field(default=None, repr=False)
    trained_on: TrainedOn | None = None
    calibration: Calibration | None = None
    origin: str = "rtdetr"
    notes: tuple[str, ...] = ()
    licence: str = ""


def save_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    Weights are stored as float32, except that float64 stays float64.

    Raises:
        StorageError: No space left or no permission; an existing file is kept.
    """
    content = {
        **header(checkpoint),
        "weights": stored(checkpoint.weights),
        "training": checkpoint.training,
    }
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # raised by PyTorch on closing a file that it could not write
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def header(checkpoint: Checkpoint) -> dict[str, Any]:
    """All but the tensors, as dicts, lists and primitives; `with_header` is the inverse."""
    preprocessing = asdict(checkpoint.preprocessing)
    return {
        "format": FORMAT,
        "version": VERSION,
        "architecture": model_config_to_dict(checkpoint.config),
        "names": dict(checkpoint.names),
        "preprocessing": {**preprocessing, "size_hw": list(preprocessing["size_hw"])},
        "trained_on": checkpoint.trained_on and checkpoint.trained_on.to_dict(),
        "calibration": checkpoint.calibration and checkpoint.calibration.to_dict(),
        "origin": checkpoint.origin,
        "notes": list(checkpoint.notes),
        "licence": checkpoint.licence,
    }


def stored(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors ready to write: on the CPU, float32 (or float64), each in its own storage."""
    return {name: _stored(tensor) for name, tensor in weights.items()}


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read one of our checkpoints; reader.py also reads those of other toolkits.

    Raises:
        WeightsError: The file is missing, damaged, not ours, or its weights are not finite.
    """
    with TorchArchive(Path(path)) as archive:
        if not is_ours(archive.tree):
            raise WeightsError(f"{path} is not an rtdetr checkpoint")
        found = parse_checkpoint(archive)
    check_values(found.weights, str(path))
    return found


def is_ours(tree: object) -> bool:
    """Whether an archive has our format."""
    return isinstance(tree, dict) and tree.get("format") == FORMAT


def parse_checkpoint(archive: TorchArchive, dtype: torch.dtype | None = None) -> Checkpoint:
    """Read the checkpoint in an open archive, its weights as `dtype` or as stored."""
    tree, origin = archive.tree, archive.origin
    with _damage(origin):
        return replace(
            with_header(tree, _tensors(archive.materialise(dict(tree["weights"]), dtype)), origin),
            training=_training(archive.materialise(tree["training"])),
        )


def with_header(values: dict[str, Any], weights: dict[str, Tensor], origin: str) -> Checkpoint:
    """Build the checkpoint that a header describes.

    Args:
        values: result of `header`, read from an untrusted file.
        weights: tensors by their official v2 names.
        origin: the file's name, for messages.

    Raises:
        WeightsError: Another version, or a part is missing or invalid.
    """
    if values.get("version") != VERSION:
        raise WeightsError(
            f"{origin} has format version {shown(values.get('version'))}; "
            f"this rtdetr reads {VERSION}"
        )
    with _damage(origin):
        check_plain(values["architecture"], f"{origin}: its architecture")
        names = _names(values["names"])
        return Checkpoint(
            config=model_config_from_dict(values["architecture"], origin),
            names=names,
            weights=weights,
            preprocessing=_preprocessing(values["preprocessing"]),
            trained_on=values.get("trained_on") and trained_on(values["trained_on"]),
            calibration=_calibration(values.get("calibration"), len(names)),
            origin=_text(values["origin"]),
            notes=tuple(_text(note) for note in values["notes"]),
            licence=_licence(values.get("licence", "")),  # absent before version 0.1 was finished
        )


@contextmanager
def _damage(origin: str) -> Iterator[None]:
    """Report errors raised while reading values of a file as damage of the file."""
    try:
        yield
    except ConfigError as error:
        raise WeightsError(str(error)) from None
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise WeightsError(f"{origin} is damaged: a part is missing or invalid ({error})") from None


def _text(value: Inert) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} instead of a string")
    return printable(value)


def _licence(value: Inert) -> str:
    if isinstance(value, str) and len(value) > MAX_LINE:
        raise ValueError(f"a licence of {len(value)} characters")
    return _text(value)


def _calibration(values: Inert, num_classes: int) -> Calibration | None:
    return None if values is None else parse_calibration(values, num_classes)


def _names(names: Inert) -> dict[int, str]:
    checked = class_names(names)
    if checked is None:
        raise TypeError("names are not strings for the classes 0, 1, 2...")
    return checked


def _preprocessing(values: Inert) -> Preprocessing:
    size_hw = input_size(values["size_hw"])
    if size_hw is None or list(size_hw) != values["size_hw"]:
        raise ValueError("invalid input size")
    return Preprocessing(size_hw, bool(values["antialias"]))


def _training(state: Inert) -> dict[str, Any] | None:
    if state is not None and not isinstance(state, dict):
        raise TypeError("the training state is not a mapping")
    return state


def _tensors(weights: dict[str, Any]) -> dict[str, Tensor]:
    if not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise TypeError("a weight is not a tensor")
    return weights


def check_fit(
    weights: State,
    expected: State,
    origin: str,
    shipped: Callable[[], Iterable[tuple[str, State]]] | None = None,
) -> None:
    """Compare names, shapes and dtypes with those of a network, before a strict load.

    Args:
        weights: tensors to load.
        expected: tensors of the network.
        origin: the file's name, for messages.
        shipped: returns name and tensors of every shipped architecture; called only on a mismatch.

    Raises:
        WeightsError: Lists the first tensors that are missing, extra, of another shape or not
            floating-point, and the shipped architecture with the most matching shapes.
    """
    wrong = [f"{name} is missing" for name in expected if name not in weights]
    wrong += [f"{name} is not part of the network" for name in weights if name not in expected]
    wrong += [
        f"{name} is {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
        for name, tensor in weights.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    wrong += [
        f"{name} is {tensor.dtype} instead of {expected[name].dtype}"
        for name, tensor in weights.items()
        if name in expected
        and expected[name].is_floating_point()
        and not tensor.is_floating_point()
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        near = _nearest(weights, shipped()) if shipped else ""
        raise WeightsError(f"{origin} does not fit: {'; '.join(wrong[:3])}{more}{near}")


def _nearest(weights: State, shipped: Iterable[tuple[str, State]]) -> str:
    """Suffix of the message: the architecture that matches best, and in how many tensors."""
    equal, total, name = max(
        (_equal_shapes(weights, expected), -len(expected), name) for name, expected in shipped
    )
    return f" (nearest is {name}: {equal} of its {-total} tensors have these names and shapes)"


def _equal_shapes(weights: State, expected: State) -> int:
    return sum(
        name in weights and weights[name].shape == tensor.shape for name, tensor in expected.items()
    )


def _stored(tensor: Tensor) -> Tensor:
    """Detached, on the CPU, in its own storage (a view would save its whole base)."""
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.dtype != torch.float64:
        tensor = tensor.float()
    alone = tensor.untyped_storage().nbytes() == tensor.nbytes
    return (
        tensor
        if alone and tensor.is_contiguous()
        else tensor.clone(memory_format=torch.contiguous_format)
    )
