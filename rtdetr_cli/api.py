"""The Python class RTDETR, whose methods are the commands of the command line.

Keyword arguments are the keys of the command line, validated in the same way. A call, successful
or not, does not change the settings of the next one; only `val` and `train` without `data` continue
with the data set, image size and batch of the last one. engine/opened_model.py has the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

from rtdetr_cli.config.fields import field_types
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.model_path import is_architecture
from rtdetr_cli.config.settings.benchmark import BenchmarkSettings
from rtdetr_cli.config.settings.convert import ConvertSettings
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.config.settings.modes import MODES, InfoSettings
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.config.settings.tradeoff import TradeoffSettings
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.callbacks import Callback, Callbacks
from rtdetr_cli.core.errors import UsageError, nearest
from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.opened_model import OpenedModel
from rtdetr_cli.engine.predict import PredictState, SourceLike, stream_results
from rtdetr_cli.engine.predicting.calls import PersistentTracks, given_source, logged

if TYPE_CHECKING:
    from torch import Tensor

    from rtdetr_cli.engine.benchmarking.rows import Row
    from rtdetr_cli.engine.summary import Summary
    from rtdetr_cli.engine.tradeoff import Tradeoff
    from rtdetr_cli.engine.training.events import TrainState
    from rtdetr_cli.engine.val import Metrics

P = TypeVar("P", bound=PredictSettings)
REMEMBERED = ("data", "imgsz", "batch", "single_cls", "classes")
"""Keys of `val(data=...)` with which `val` and `train` without `data` continue."""
_ABSENT = {
    "tune": "hyper-parameters are searched with another tool; docs/python.md has it with optuna",
    "compare": "two models are compared by `rtdetr compare a.pt b.pt data=my.yaml`",
    "check": "data sets are checked by `rtdetr check data=my.yaml`",
    "convert": "model.save(file, format=...) writes weights, `rtdetr convert data=` data sets",
    "task_map": "there is one task, detect, and one class for it",
}


class RTDETR(OpenedModel):
    """A detector: weights, an exported file, or an architecture without weights.

    Example:
        >>> model = RTDETR("rtdetr-l.pt")
        >>> results = model("bus.jpg", conf=0.5)
        >>> results[0].boxes.xyxy

    Attributes:
        trainer: the TrainState of the last `train`; None before.
        predictor: the PredictState of the last `predict` or `track`; None before.
        metrics: of the last `val` or `train`; None before.
    """

    def __init__(
        self,
        model: str | Path = "rtdetr-l.pt",
        device: str | int | None = None,
        *,
        family: str | None = None,
        task: str | None = None,
        verbose: bool = False,
    ) -> None:
        """Open a detector; see OpenedModel.

        Args:
            model: weights, an exported file, an architecture or a published name.
            device: cpu, cuda, cuda:1, mps or 0; None: the first available.
            family: dfine, deim or rtdetrv4, for weights that do not say it themselves.
            task: detect or None; another task of Ultralytics is refused.
            verbose: no effect.
        """
        if task not in {None, self.task}:
            raise UsageError(f"task={task} is not supported: RT-DETR detects objects (task=detect)")
        self.trainer: TrainState | None = None
        self.predictor: PredictState | None = None
        self.metrics: Metrics | None = None
        self._tracks = PersistentTracks()
        self._callbacks = Callbacks()
        self._last: dict[str, object] = {}
        super().__init__(model, device, family)

    @overload
    def predict(
        self,
        source: SourceLike | None = None,
        *,
        stream: Literal[False] = False,
        verbose: bool = False,
        **settings: object,
    ) -> list[Results]: ...

    @overload
    def predict(
        self,
        source: SourceLike | None = None,
        *,
        stream: Literal[True],
        verbose: bool = False,
        **settings: object,
    ) -> Iterator[Results]: ...

    def predict(
        self,
        source: SourceLike | None = None,
        *,
        stream: bool = False,
        verbose: bool = False,
        **settings: object,
    ) -> list[Results] | Iterator[Results]:
        """Detect objects.

        Args:
            source: a path of an image or video, a folder, pattern or list, an address, the number
                of a camera; a NumPy array (BGR, as OpenCV reads it), a Pillow image, a tensor
                (B, 3, H, W) RGB in 0..1, bytes; or a list or generator of these.
            stream: return a generator that reads and detects during iteration; cameras and
                streams need it.
            verbose: print one line per image on stderr.
            **settings: keys of `rtdetr predict`; `save` defaults to false.

        Returns:
            Results of the readable images; the others are named on stderr.

        Raises:
            DataError: the source does not exist, or none of its images can be read.
            UsageError: an unknown key, a wrong type, a value out of range.
        """
        if settings.get("embed") is not None:
            raise UsageError("embed is a method: model.embed(source) returns a vector per image")
        resolved = self._predict_settings(PredictSettings, source, settings)
        return self._run(source, PredictState(resolved, self._callbacks), stream, verbose)

    __call__ = predict

    @overload
    def track(
        self,
        source: SourceLike | None = None,
        *,
        stream: Literal[False] = False,
        persist: bool = False,
        verbose: bool = False,
        **settings: object,
    ) -> list[Results]: ...

    @overload
    def track(
        self,
        source: SourceLike | None = None,
        *,
        stream: Literal[True],
        persist: bool = False,
        verbose: bool = False,
        **settings: object,
    ) -> Iterator[Results]: ...

    def track(
        self,
        source: SourceLike | None = None,
        *,
        stream: bool = False,
        persist: bool = False,
        verbose: bool = False,
        **settings: object,
    ) -> list[Results] | Iterator[Results]:
        """Detect objects and give each its id in all frames: `results[0].boxes.id`.

        Args:
            source: as in `predict`; images are the frames of one sequence, in their order.
            stream: return a generator, as in `predict`.
            persist: continue with the tracks of the last call with `persist`, for a loop that
                gives one frame per call.
            verbose: print one line per image on stderr.
            **settings: keys of `rtdetr track`; `save` defaults to false.

        Raises:
            BackendError: the package trackers is not installed.
            DataError: the source does not exist, or none of its images can be read.
            UsageError: an unknown key, or other options of the tracker than those of the tracks.
        """
        resolved = self._predict_settings(TrackSettings, source, settings)
        trackers = self._tracks.trackers(resolved, persist)
        state = PredictState(resolved, self._callbacks, trackers=trackers)
        return self._run(source, state, stream, verbose)

    def embed(
        self, source: SourceLike | None = None, *, verbose: bool = False, **settings: object
    ) -> list[Tensor]:
        """A feature vector per image, for search and clustering: (C,) float32 on the CPU.

        It is the mean over all positions of the hybrid encoder's stride-32 output, the last map
        that goes into the decoder; C is the hidden_dim of the architecture, 256 in most.

        Args:
            source: as in `predict`; unreadable images are named on stderr and left out.
            verbose: no effect.
            **settings: imgsz, batch and device, as in `predict`.

        Raises:
            DataError: the source does not exist, or none of its images can be read.
            UsageError: the model is an exported file, or another key.
        """
        from rtdetr_cli.engine.embed import KEYS, embed

        without_effect = next((key for key in settings if key not in KEYS), None)
        if without_effect is not None:
            raise UsageError(f"{without_effect} is not a key of embed, which has {', '.join(KEYS)}")
        resolved = self._predict_settings(PredictSettings, source, settings)
        return embed(self._at(resolved), given_source(source, "embed"), resolved)

    def val(self, **settings: object) -> Metrics:
        """Validate on a data set; keys of `rtdetr val`.

        Without `data`: on that of the last `val` or `train`, or of the weights' training.
        """
        from rtdetr_cli.engine.val import validate

        resolved = settings_from_pairs(ValSettings, self._pairs(ValSettings, settings))
        self.metrics = validate(resolved, self._callbacks)
        if resolved.calibrate:  # opened again on demand, with the calibration
            self._detector = self._adapted = None
        self._remember(settings)
        return self.metrics

    def train(self, **settings: object) -> Metrics | None:
        """Train or fine-tune; keys of `rtdetr train`. This object then holds the best model.

        Without `data`: on that of the last `val` or `train`, or of the weights' training.
        """
        from rtdetr_cli.engine.train import train

        pairs = self._pairs(TrainSettings, settings)
        if self._architecture:
            pairs["model"] = self._architecture
            if self.ckpt_path != self._architecture and pairs.get("pretrained") in (None, True):
                pairs["pretrained"] = self.ckpt_path
        resolved = settings_from_pairs(TrainSettings, pairs)
        self._detector = self._adapted = None  # frees memory; opened again on demand
        outcome = train(resolved, self._callbacks)
        self._last = {}  # the weights know them
        self._point_at(str(outcome.run_dir / "weights" / "best.pt"))
        self.trainer, self.metrics = outcome.state, outcome.metrics
        return outcome.metrics

    def export(self, **settings: object) -> str:
        """Export for another runtime and return the path; keys of `rtdetr export`."""
        from rtdetr_cli.engine.export import export

        resolved = settings_from_pairs(ExportSettings, self._pairs(ExportSettings, settings))
        return str(export(resolved, self._callbacks))

    def benchmark(self, **settings: object) -> list[Row]:
        """Compare every format on this machine; keys of `rtdetr benchmark`."""
        from rtdetr_cli.engine.benchmark import benchmark

        pairs = self._pairs(BenchmarkSettings, settings)
        return benchmark(settings_from_pairs(BenchmarkSettings, pairs))

    def tradeoff(self, **settings: object) -> Tradeoff:
        """Measure decoder layers, queries and sizes and choose; keys of `rtdetr tradeoff`."""
        from rtdetr_cli.engine.tradeoff import tradeoff

        pairs = self._pairs(TradeoffSettings, settings)
        return tradeoff(settings_from_pairs(TradeoffSettings, pairs))

    def info(self, detailed: bool = False, verbose: bool = True, **settings: object) -> Summary:
        """Print and return layers, parameters, gradients and GFLOPs; keys of `rtdetr info`.

        Args:
            detailed: print a line per parameter as well.
            verbose: print.
            **settings: imgsz, the size for the printed GFLOPs; json.

        Returns:
            (layers, parameters, gradients, GFLOPs at 640), with attributes for everything printed.
        """
        from rtdetr_cli.engine.summary import summarize

        pairs = {"model": self.ckpt_path, **self._told(), **settings}
        resolved = settings_from_pairs(InfoSettings, pairs)
        return summarize(resolved, self._outline(), detailed, verbose)

    def save(self, filename: str | Path = "saved_model.pt", format: str = "rtdetr") -> str:
        """Write the weights and return the path; `format` is that of `rtdetr convert`.

        Raises:
            UsageError: the model is an architecture, which has no weights before `train`.
        """
        if is_architecture(self.ckpt_path):
            raise UsageError(f"{self.ckpt_path} has no weights to save; train it first")
        from rtdetr_cli.engine.convert import convert

        pairs = {"model": self.ckpt_path, **self._told(), "format": format, "out": str(filename)}
        convert(settings_from_pairs(ConvertSettings, pairs))
        return str(filename)

    def add_callback(self, event: str, function: Callback) -> None:
        """Register a function that receives the state of a run; docs/python.md lists the events.

        Raises:
            UsageError: the event is unknown.
        """
        self._callbacks.add(event, function)

    def clear_callback(self, event: str) -> None:
        """Remove the functions of an event.

        Raises:
            UsageError: the event is unknown.
        """
        self._callbacks.clear(event)

    def reset_callbacks(self) -> None:
        """Remove the functions of all events."""
        self._callbacks = Callbacks()

    @property
    def callbacks(self) -> dict[str, list[Callback]]:
        """The functions of each event."""
        return self._callbacks.functions

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            # name=None: otherwise a traceback ends with Python's own guess, "Did you mean: 'task'?"
            known = (public for public in dir(type(self)) if not public.startswith("_"))
            reason = f": {_ABSENT[name]}" if name in _ABSENT else nearest(name, known)
            raise AttributeError(f"RTDETR has no {name}{reason}", name=None, obj=None)

    def __getstate__(self) -> dict[str, Any]:
        # the results of a predictor may be anything, and tracks belong to one loop
        return {**super().__getstate__(), "predictor": None, "_tracks": PersistentTracks()}

    def _run(
        self, source: SourceLike | None, state: PredictState, stream: bool, verbose: bool
    ) -> list[Results] | Iterator[Results]:
        """The Results of `predict` and `track`."""
        self.predictor, source = state, given_source(source, state.args.mode)
        results = stream_results(self._at(state.args), source, state, is_kept=not stream)
        results = logged(results) if verbose else results
        return results if stream else list(results)

    def _predict_settings(
        self, cls: type[P], source: SourceLike | None, settings: dict[str, object]
    ) -> P:
        if "json" in settings:
            raise UsageError("json is a key of the command; in Python use results[0].to_json()")
        if settings.get("out") is not None:
            raise UsageError("out is a key of the command; in Python BatchPredictor returns rows")
        given = given_source(source, cls.mode)
        label = str(given) if isinstance(given, str | Path) else type(given).__name__
        pairs = {"save": False, **self._pairs(cls, settings), "source": label}
        return settings_from_pairs(cls, pairs)

    def _pairs(self, cls: type[Settings], settings: dict[str, object]) -> dict[str, object]:
        """Keys for a mode: the call's own, then what is remembered, then `overrides`."""
        if "model" in settings:
            raise UsageError("model is set by RTDETR(...), not by its methods")
        pairs = {key: value for key, value in self.overrides.items() if _is_for(cls, key)}
        if self._half and cls in {PredictSettings, TrackSettings, ValSettings}:
            pairs["half"] = True
        if cls in {ValSettings, TrainSettings} and not {"data", "cfg", "resume"} & settings.keys():
            pairs |= self._last
        own = {"model": self.ckpt_path, **self._told()}
        return {"device": self._device, **pairs, **own, **settings}

    def _remember(self, settings: dict[str, object]) -> None:
        if "data" in settings:
            self._last = {key: settings[key] for key in REMEMBERED if key in settings}


def _is_for(cls: type[Settings], key: str) -> bool:
    """Whether an entry of `overrides` is for a mode; the mode reports those that none has."""
    is_key = any(key in field_types(mode) for mode in MODES.values())
    return key != "task" and (key in field_types(cls) or not is_key)
