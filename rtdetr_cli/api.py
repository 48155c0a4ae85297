"""The Python class RTDETR, whose methods are the commands of the command line.

Keyword arguments are the keys of the command line, validated in the same way. No call, successful
or not, changes the settings of the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, overload

from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model_path import is_architecture
from rtdetr_cli.config.settings.benchmark import BenchmarkSettings
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.config.settings.modes import ConvertSettings, InfoSettings
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import UsageError, nearest
from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.predict import (
    Detector,
    SourceLike,
    adapt,
    describe,
    load_detector,
    stream_results,
)
from rtdetr_cli.engine.training.callbacks import Callback, Callbacks

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rtdetr_cli.engine.benchmarking.rows import Row
    from rtdetr_cli.engine.val import Metrics

_ABSENT = {
    "track": "tracking is not part of this version",
    "embed": "feature vectors are not part of this version",
    "tune": "use a dedicated tool for hyper-parameter search",
    "reset_weights": "RTDETR('rtdetr-l.yaml') starts from random weights",
}


class RTDETR:
    """A detector: weights, an exported file, or an architecture without weights.

    Example:
        >>> model = RTDETR("rtdetr-l.pt")
        >>> results = model("bus.jpg", conf=0.5)
        >>> results[0].boxes.xyxy

    Attributes:
        ckpt_path: the open model; after `train`, the best checkpoint of that run.
        task: always `detect`.
    """

    task = "detect"

    def __init__(self, model: str | Path = "rtdetr-l.pt", device: str | int | None = None) -> None:
        """Open a detector.

        Args:
            model: weights of any family (.pt), an exported file (.onnx), an architecture (.yaml)
                or a published name.
            device: cpu, cuda, cuda:1, mps or 0; None: the first available of cuda, mps and cpu.

        Raises:
            WeightsError: the file is absent, damaged or foreign.
            BackendError: the device or the runtime is missing.
        """
        self.ckpt_path = str(model)
        self._device = None if device is None else str(device)
        self._architecture = self.ckpt_path if is_architecture(self.ckpt_path) else None
        self._detector: Detector | None = None
        self._adapted: tuple[object, Detector] | None = None
        self._callbacks = Callbacks()
        if self._architecture:
            load_model_config(self.ckpt_path)  # fail early; the network is built on demand
        else:
            self._open()

    @overload
    def predict(
        self,
        source: SourceLike,
        *,
        stream: Literal[False] = False,
        verbose: bool = False,
        **settings: object,
    ) -> list[Results]: ...

    @overload
    def predict(
        self,
        source: SourceLike,
        *,
        stream: Literal[True],
        verbose: bool = False,
        **settings: object,
    ) -> Iterator[Results]: ...

    def predict(
        self, source: SourceLike, *, stream: bool = False, verbose: bool = False, **settings: object
    ) -> list[Results] | Iterator[Results]:
        """Detect objects.

        Args:
            source: a path, folder, pattern or .txt list; a NumPy array (BGR, as OpenCV reads it),
                a Pillow image, a tensor (B, 3, H, W) RGB in 0..1; or a list of these.
            stream: return a generator that reads and detects during iteration.
            verbose: print one line per image on stderr.
            **settings: keys of `rtdetr predict`; `save` defaults to false.

        Returns:
            Results of the readable images; the others are named on stderr.

        Raises:
            DataError: the source does not exist, or none of its images can be read.
            UsageError: an unknown key, a wrong type, a value out of range.
        """
        if "json" in settings:
            raise UsageError("json is a key of the command; in Python use results[0].to_json()")
        label = str(source) if isinstance(source, str | Path) else type(source).__name__
        pairs = {"source": label, "save": False, **self._pairs(settings)}
        resolved = settings_from_pairs(PredictSettings, pairs)
        results = stream_results(self._at(resolved), source, resolved)
        results = _logged(results) if verbose else results
        return results if stream else list(results)

    __call__ = predict

    def val(self, **settings: object) -> Metrics:
        """Validate on a data set; keys of `rtdetr val`."""
        from rtdetr_cli.engine.val import validate

        return validate(settings_from_pairs(ValSettings, self._pairs(settings)))

    def train(self, **settings: object) -> Metrics | None:
        """Train or fine-tune; keys of `rtdetr train`. This object then holds the best model."""
        from rtdetr_cli.engine.train import train

        pairs = self._pairs(settings)
        if self._architecture:
            pairs["model"] = self._architecture
            if self.ckpt_path != self._architecture:
                pairs.setdefault("pretrained", self.ckpt_path)
        resolved = settings_from_pairs(TrainSettings, pairs)
        self._detector = self._adapted = None  # frees memory; opened again on demand
        outcome = train(resolved, self._callbacks)
        self.ckpt_path, self._architecture = str(outcome.run_dir / "weights" / "best.pt"), None
        return outcome.metrics

    def add_callback(self, event: str, function: Callback) -> None:
        """Register a function that `train` calls with its state; see docs/python.md.

        Raises:
            UsageError: the event is unknown.
        """
        self._callbacks.add(event, function)

    def export(self, **settings: object) -> str:
        """Export for another runtime and return the path; keys of `rtdetr export`."""
        from rtdetr_cli.engine.export import export

        return str(export(settings_from_pairs(ExportSettings, self._pairs(settings))))

    def benchmark(self, **settings: object) -> list[Row]:
        """Compare every format on this machine; keys of `rtdetr benchmark`."""
        from rtdetr_cli.engine.benchmark import benchmark

        return benchmark(settings_from_pairs(BenchmarkSettings, self._pairs(settings)))

    def info(self, **settings: object) -> object:
        """Print layers, parameters and GFLOPs; keys of `rtdetr info`."""
        from rtdetr_cli.engine.info import info

        return info(settings_from_pairs(InfoSettings, {"model": self.ckpt_path, **settings}))

    def save(self, filename: str | Path = "saved_model.pt", format: str = "rtdetr") -> str:
        """Write the weights and return the path; `format` is that of `rtdetr convert`."""
        from rtdetr_cli.engine.convert import convert

        pairs = {"model": self.ckpt_path, "format": format, "out": str(filename)}
        convert(settings_from_pairs(ConvertSettings, pairs))
        return str(filename)

    def load(self, weights: str | Path) -> RTDETR:
        """Open other weights; `train` starts from them and keeps an architecture (.yaml)."""
        other = RTDETR(weights, self._device)
        self.ckpt_path, self._detector, self._adapted = other.ckpt_path, other._detector, None
        return self

    def fuse(self) -> RTDETR:
        """Return self: detectors already run fused, and `model` stays trainable."""
        return self

    @property
    def model(self) -> nn.Module:
        """The network in eval mode: (B, 3, H, W) in 0..1 to a ModelOutput.

        Raises:
            UsageError: the model is an exported file.
        """
        network = self._open().network
        if network is None:
            raise UsageError(f"{self.ckpt_path} is an exported file; it has no PyTorch network")
        return network

    @property
    def names(self) -> dict[int, str]:
        """Class index to name."""
        return self._open().names

    @property
    def device(self) -> torch.device | None:
        """Device of the network; None for an exported file, whose runtime chooses it."""
        return self._open().device

    def __repr__(self) -> str:
        return f"RTDETR({self.ckpt_path!r})"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            known = (public for public in dir(type(self)) if not public.startswith("_"))
            reason = f": {_ABSENT[name]}" if name in _ABSENT else nearest(name, known)
            raise AttributeError(f"RTDETR has no {name}{reason}")

    def _open(self) -> Detector:
        if self._detector is None:
            self._detector = load_detector(self.ckpt_path, self._device)
        return self._detector

    def _at(self, settings: PredictSettings) -> Detector:
        """The detector for the device and speed of one call; the last variant is cached."""
        speed = (settings.decoder_layers, settings.num_queries, settings.half)
        is_written = settings.backend != "torch"  # an exported file has one size
        size = settings.imgsz if is_written else None
        wanted = (settings.device, *speed, settings.backend, size, settings.timeout)
        if wanted == (self._device, None, None, False, "torch", None, None):
            return self._open()
        if self._adapted is None or self._adapted[0] != wanted:
            self._adapted = (wanted, adapt(self._open(), settings))
        return self._adapted[1]

    def _pairs(self, settings: dict[str, object]) -> dict[str, object]:
        if "model" in settings:
            raise UsageError("model is set by RTDETR(...), not by its methods")
        return {"model": self.ckpt_path, "device": self._device, **settings}


def _logged(results: Iterator[Results]) -> Iterator[Results]:
    for number, one in enumerate(results, start=1):
        say(f"image {number} {describe(one)}")
        yield one
