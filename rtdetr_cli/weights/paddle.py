"""Read Paddle's `.pdparams`, a bare pickle of numpy arrays by name, into PyTorch tensors.

safe_pickle.py reads the stream; the shape and dtype of each array are checked here against its
bytes. The numpy unpickler is never used. foreign.py renames the tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.safe_pickle import Inert, Record, load_inert

MAX_FILE_BYTES = 2 * 2**30
"""The file of RT-DETR-H has 0.5 GB."""

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # first object in files of PyTorch before 1.6
_RECONSTRUCT = re.compile(r"numpy\._?core\.multiarray\._reconstruct")
_DTYPES = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i4": torch.int32,
    "i8": torch.int64,
    "b1": torch.bool,
}
_BLOCK = re.compile(r"^backbone\.res(\d)\.res\d([a-z])(\d*)\.")
_EMBEDDING = "decoder.denoising_class_embed.weight"


def read_arrays(path: Path, dtype: torch.dtype) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Read the arrays of a bare pickle.

    Memory besides the returned tensors stays below twice the size of the file.

    Args:
        path: the file.
        dtype: of the floating-point tensors.

    Returns:
        Tensors by their names in the file, and the names of entries that are not arrays.

    Raises:
        WeightsError: The file is damaged, unsafe, larger than 2 GiB or holds something else.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise WeightsError(f"{path.name} has {size} bytes, more than any RT-DETR of Paddle")
    tree = load_inert(path.read_bytes(), path.name, limit=MAX_FILE_BYTES)
    if tree == _TORCH_MAGIC:
        raise WeightsError(
            f"{path.name} was written by PyTorch before 1.6, which is not supported: "
            "load it with PyTorch and save it again"
        )
    if not isinstance(tree, dict):
        raise WeightsError(f"{path.name} is a bare pickle without named arrays")
    return _tensors(tree, path.name, size, dtype)


def _tensors(
    tree: dict[str, Inert], origin: str, size: int, dtype: torch.dtype
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Convert the arrays; empties `tree`, to free each array once its tensor exists."""
    tensors: dict[str, Tensor] = {}
    others = []
    unspent = size  # the same bytes may not be used for two tensors
    for name in list(tree):
        array = _array_record(tree.pop(name))
        if array is None:
            others.append(str(name))
            continue
        tensor = _tensor(array, f"{origin} is damaged: {name}")
        unspent -= tensor.nbytes
        if unspent < 0:
            raise WeightsError(f"{origin} is damaged: its arrays are larger than the file")
        tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return tensors, tuple(others)


def _array_record(value: Inert) -> Record | None:
    """The array of an entry: bare, or in a tuple with the parameter name."""
    match value:
        case Record(name="builtins.tuple", arguments=((str(), array),)):
            return _array_record(array)
        case Record(name=name) if _RECONSTRUCT.fullmatch(name):
            return value
    return None


def _tensor(array: Record, damage: str) -> Tensor:
    """Build a tensor from the shape, dtype and bytes of an array."""
    match array.state:
        case (int(), tuple(shape), Record(name="numpy.dtype") as kind, int(is_fortran), content):
            dtype, data = _dtype(kind), _bytes(content)
        case _:
            dtype, data = None, None
    if dtype is None or data is None:
        raise WeightsError(f"{damage} is an array of an unsupported kind")
    if len(shape) > 8 or any(type(n) is not int or not 0 <= n < 2**40 for n in shape):
        raise WeightsError(f"{damage} has an impossible shape")
    if prod(shape) * dtype.itemsize != len(data):
        raise WeightsError(f"{damage} has {len(data)} bytes instead of those of its shape {shape}")
    if not data:
        return torch.empty(shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(data), dtype=dtype)
    if is_fortran:
        return flat.reshape(shape[::-1]).permute(*reversed(range(len(shape)))).contiguous()
    return flat.reshape(shape)


def _dtype(kind: Record) -> torch.dtype | None:
    """The torch dtype of a little-endian numpy dtype; None if unsupported."""
    match kind.arguments, kind.state:
        case (str(code), *_), (int(), "<" | "|" | "=", *_):
            return _DTYPES.get(code)
    return None


def _bytes(content: Inert) -> bytes | None:
    """The bytes of an array, which pickle protocol 2 stores as latin-1 text."""
    match content:
        case bytes():
            return content
        case Record(name="_codecs.encode", arguments=(str(text), "latin1")):
            return text.encode("latin1")
        case Record(name="builtins.bytes", arguments=()):
            return b""
    return None


def number_blocks(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Number the residual blocks: `res4.res4c.` is the third block of the third stage.

    R101 names the blocks of its third stage `res4a`, `res4b1`, `res4b2`...
    """
    return {_BLOCK.sub(_numbered, key): tensor for key, tensor in state.items()}


def _numbered(block: re.Match[str]) -> str:
    stage, letter, number = block.groups()
    index = int(number) if number else ord(letter) - ord("a")
    return f"backbone.res_layers.{int(stage) - 2}.blocks.{index}."


def transpose_linears(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Transpose linear weights, which Paddle stores as (in, out), except the denoising embedding.

    Args:
        weights: tensors by hub names.
    """
    return {
        key: tensor.T.contiguous() if tensor.ndim == 2 and key != _EMBEDDING else tensor
        for key, tensor in weights.items()
    }
