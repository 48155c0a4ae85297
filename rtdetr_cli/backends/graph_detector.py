"""Run a detection graph in any runtime that takes and returns NumPy arrays.

Subclasses open the file and run it: onnx/detector.py and openvino/detector.py. The graph may come
from anyone, so its outputs are checked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtdetr_cli.backends.contract import (
    TOP_PAIRS,
    Array,
    Contract,
    Value,
    read_names,
    recognise,
)
from rtdetr_cli.backends.notes import ExportNotes, check_size
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.console import warn
from rtdetr_cli.core.detections import ALL_PAIRS, Detections, Images, Selection
from rtdetr_cli.core.errors import BackendError, WeightsError
from rtdetr_cli.core.status import counted
from rtdetr_cli.weights.plausible import MAX_COUNT

Feed = dict[str, npt.NDArray[Any]]
"""Inputs of a graph by name."""
_FAR = 4.0
"""Longest distance of a box from the image, in longer sides of it; decoders stay below 0.5."""
_ROUNDING = 1e-3
"""Excess over 1 of scores computed in 16 bits."""


@dataclass(frozen=True)
class OpenGraph:
    """An opened graph, as its runtime describes it.

    Attributes:
        name: of the file or folder, for messages.
        runtime: name, release and device, for messages.
        inputs: of the graph.
        outputs: of the graph.
        texts: metadata as stored; the key `rtdetr_format` marks an ONNX file of ours.
        notes: metadata that `rtdetr export` wrote; None in third-party files.
    """

    name: str
    runtime: str
    inputs: Sequence[Value]
    outputs: Sequence[Value]
    texts: Mapping[str, str]
    notes: ExportNotes | None


class GraphDetector(ABC):
    """A detector in an exported graph, third-party graphs included (contract.py).

    Attributes:
        names: class index to name.
        preprocessing: how images become the input of the graph.
        size_is_free: whether the graph takes images of other sizes as well.
        takes_bytes: whether the graph takes uint8; `detect` rounds for it.
        description: file, runtime and device; for third-party files also the contract and the
            source of the class names.
        notes: metadata that `rtdetr export` wrote; None in third-party files.
        calibration: that of the notes.
        network: None; there is no PyTorch module.
        device: None; the runtime decides.
    """

    network: None = None
    device: None = None
    _opened_with: tuple[Path, str | None, float | None]
    """Arguments of the subclass: path, device, timeout."""

    def __init__(self, graph: OpenGraph) -> None:
        """Find the contract of a graph.

        Raises:
            WeightsError: its inputs and outputs are not those of a known detector.
        """
        self.notes = graph.notes
        notes = graph.notes or ExportNotes()
        self._contract = recognise(graph.inputs, graph.outputs, graph.texts, graph.name)
        self.names, source = read_names(self._contract, graph.texts, notes.names)
        self.calibration = notes.calibration if self.names == notes.names else None
        self._filter = OutputFilter(graph.name, self.names, source)
        self.size_is_free = self._contract.size_is_free
        self.takes_bytes = self._contract.takes_bytes
        size_hw, antialias = self._contract.size_hw, notes.preprocessing.antialias
        if self.size_is_free and notes.preprocessing.size_hw:
            size_hw = notes.preprocessing.size_hw
            check_size(size_hw, self._contract.batch, graph.name)
        self.preprocessing = Preprocessing(
            size_hw, self._contract.antialias if antialias is None else antialias
        )
        self.description = f"{graph.name}, {graph.runtime}"
        if graph.notes is None:
            self.description += f"; {self._contract.family}, class names: {source}"

    def __reduce__(self) -> tuple[type[GraphDetector], tuple[Path, str | None, float | None]]:
        """Copies and pickles open the file again: no runtime can copy its session."""
        return type(self), self._opened_with

    @abstractmethod
    def _run(self, feed: Feed) -> Sequence[Any]:
        """Run the graph once; outputs in the order of the contract, usually arrays.

        Raises:
            BackendError: the runtime failed or exceeded the timeout.
        """

    def detect(
        self,
        images: Images,
        sizes_hw: list[tuple[int, int]],
        max_det: int = TOP_PAIRS,
        selection: Selection = ALL_PAIRS,
    ) -> list[Detections]:
        """Find objects.

        Args:
            images: (B, 3, H, W) float RGB in 0..1, H and W as in `preprocessing`. A graph with a
                fixed batch gets them in parts, the last one padded by repetition.
            sizes_hw: (height, width) in pixels of each original image.
            max_det: most detections per image; graphs with post-processing return at most 300.
            selection: the pairs to select from; graphs with post-processing have selected the best
                300 of all classes before.

        Returns:
            One Detections per image.

        Raises:
            BackendError: the runtime failed, possibly for lack of memory, or exceeded the timeout.
            WeightsError: the outputs are not those of a detector.
        """
        pixels = self._contract.to_input(as_array(images))
        step = self._contract.batch or max(len(pixels), 1)
        found: list[Detections] = []
        for start in range(0, len(pixels), step):
            sizes = sizes_hw[start : start + step]
            feed = _feed(self._contract, pixels[start : start + step], sizes)
            outputs = _as_arrays(self._contract, self._run(feed), self._filter.file)
            batch = len(feed[self._contract.image])
            _check_shapes(self._contract, outputs, batch, self._filter.file)
            decode = partial(self._contract.decode, outputs, sizes, selection)
            with np.errstate(all="ignore"):  # of values that are not finite
                sound = _decode(decode, sizes, max_det, self._filter)
            found += [self._filter.best(one, max_det, selection) for one in sound]
        return found


@dataclass
class OutputFilter:
    """Drop implausible detections, with one warning per kind and file.

    Attributes:
        file: name of the file, for the warning.
        names: class names of 0, 1, 2...
        source: where the names come from, for the warning.
    """

    file: str
    names: Mapping[int, str]
    source: str
    _named: set[str] = field(default_factory=set, init=False)

    def sound(self, found: Detections, size_hw: tuple[int, int]) -> Detections:
        """Keep detections with a known class, a score in 0..1 and a box near the image."""
        is_class = (found.labels >= 0) & (found.labels < len(self.names))
        is_score = (found.scores >= 0) & (found.scores <= 1 + _ROUNDING)  # neither holds for NaN
        boxes, limit = found.boxes_xyxy, _FAR * max(size_hw)
        is_box = ((boxes >= -limit) & (boxes <= max(size_hw) + limit)).all(axis=1)
        keep = is_class & is_score & is_box
        if bool(keep.all()):
            return found
        if not bool(is_class.all()):
            label = int(found.labels[~is_class][0])
            self._name("class", f"class {label}: {self.source} end at {len(self.names) - 1}")
        if not bool(is_score.all()):
            self._name("score", f"a score of {float(found.scores[~is_score][0]):g}")
        if not bool(is_box.all()):
            box = ", ".join(f"{side:g}" for side in boxes[~is_box][0].tolist())
            height, width = size_hw
            self._name("box", f"a box [{box}] for an image of {width}x{height}")
        return found.keep(keep)

    def best(self, ranked: Detections, max_det: int, selection: Selection) -> Detections:
        """The best `max_det` of a selection; `ranked` has the best first."""
        found = ranked.of(selection)
        is_full = len(ranked) >= TOP_PAIRS and float(ranked.scores[-1]) > selection.above
        if is_full and len(found) < min(len(ranked), max_det) and "full" not in self._named:
            self._named.add("full")
            warn(
                f"{self.file} returns the best {len(ranked)} detections of all classes, and all "
                f"have scores above {selection.above:g}: further ones of the chosen classes are "
                "missing; export with postprocess=false, or raise conf"
            )
        return found.keep(slice(max_det))

    def _name(self, kind: str, what: str) -> None:
        if kind not in self._named:
            self._named.add(kind)
            warn(f"{self.file} returned {what}; such detections are dropped")


def as_array(images: Images) -> npt.NDArray[np.float32]:
    """Images as an array in main memory; not copied if they are one."""
    if isinstance(images, np.ndarray):
        return images
    array: npt.NDArray[np.float32] = images.detach().float().cpu().numpy()
    return array


def _feed(contract: Contract, pixels: npt.NDArray[Any], sizes_hw: list[tuple[int, int]]) -> Feed:
    """Inputs by name; the last image is repeated up to the size of a fixed batch."""
    filled = np.minimum(np.arange(contract.batch or len(pixels)), len(pixels) - 1)
    feed: Feed = {contract.image: pixels[filled] if contract.batch else pixels}
    if contract.sizes:
        sizes_wh = [(width, height) for height, width in sizes_hw]
        feed[contract.sizes] = np.array(sizes_wh, np.int64)[filled]
    return feed


def _as_arrays(contract: Contract, outputs: Sequence[Any], file: str) -> list[Array]:
    """Labels as int64, the other outputs as float32."""
    arrays = []
    for name, output in zip(contract.outputs, outputs, strict=True):
        is_label = name == "labels"
        kinds, dtype = ("iu", np.int64) if is_label else ("fiu", np.float32)
        if not isinstance(output, np.ndarray | np.generic) or output.dtype.kind not in kinds:
            kind = getattr(output, "dtype", type(output).__name__)
            expected = "whole numbers" if is_label else "numbers"
            raise WeightsError(f"{file} returns {name} as {kind}; expected {expected}")
        with np.errstate(over="ignore"):
            arrays.append(np.require(output, dtype, ["C", "W"]))
    return arrays


def _check_shapes(contract: Contract, outputs: Sequence[Array], batch: int, file: str) -> None:
    """Check that all outputs have the same number of rows for each image of the batch."""
    shapes = [tuple(output.shape) for output in outputs]
    expected = contract.expected_shapes(outputs, batch)
    if shapes != expected:
        given, right = (
            ", ".join(f"{name} {list(s)}" for name, s in zip(contract.outputs, side, strict=True))
            for side in (shapes, expected)
        )
        raise WeightsError(f"{file} returns {given} for {batch} images; expected {right}")


def _decode(
    decode: Callable[[int], list[Detections]],
    sizes_hw: list[tuple[int, int]],
    max_det: int,
    output_filter: OutputFilter,
) -> list[Detections]:
    """The best plausible detections."""
    found = decode(max_det)
    sound = list(map(output_filter.sound, found, sizes_hw))
    if list(map(len, sound)) == list(map(len, found)):
        return sound
    # NaN sorts before every score, so dropped rows have displaced valid ones: decode all rows.
    found = decode(MAX_COUNT)
    return list(map(output_filter.sound, found, sizes_hw))


def too_slow(file: str, count: int, timeout: float) -> BackendError:
    """The error of a run that exceeded its timeout."""
    return BackendError(
        f"{file} did not finish {counted(count, 'image')} in {count * timeout:g} s "
        f"(timeout={timeout:g} for each)"
    )
