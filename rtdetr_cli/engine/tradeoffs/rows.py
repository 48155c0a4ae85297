"""What `rtdetr tradeoff` measures and chooses: settings of a detector, and a row for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from rtdetr_cli.config.settings.tradeoff import TradeoffSettings
from rtdetr_cli.core.errors import QualityError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork

STRIDE = 32
"""Sides of an image are multiples of it."""


@dataclass(frozen=True)
class Setting:
    """One way to run a detector.

    Attributes:
        size_hw: height and width of the input in pixels.
        decoder_layers: number of decoder layers.
        num_queries: number of queries.
        half: whether it computes in 16 bits.
        backend: the runtime.
    """

    size_hw: tuple[int, int]
    decoder_layers: int
    num_queries: int
    half: bool = False
    backend: str = "torch"

    @property
    def imgsz(self) -> int | tuple[int, int]:
        """The size as a value of the key `imgsz`."""
        height, width = self.size_hw
        return height if height == width else self.size_hw

    @property
    def imgsz_text(self) -> str:
        """`imgsz` as written in a command: 320 or 320,640."""
        return ",".join(map(str, dict.fromkeys(self.size_hw)))

    @property
    def keys(self) -> list[str]:
        """The keys of `rtdetr predict`, `val` and `export` for it."""
        words = [
            f"imgsz={self.imgsz_text}",
            f"decoder_layers={self.decoder_layers}",
            f"num_queries={self.num_queries}",
        ]
        words += ["half=true"] if self.half else []
        return words + ([f"backend={self.backend}"] if self.is_exported else [])

    @property
    def runtime_words(self) -> list[str]:
        """What differs from PyTorch in float32, for a reader."""
        return [*([self.backend] if self.is_exported else []), *(["half"] if self.half else [])]

    @property
    def is_exported(self) -> bool:
        """Whether another runtime than PyTorch runs it."""
        return self.backend != "torch"


@dataclass(frozen=True)
class Row:
    """Measurements of one setting.

    Attributes:
        setting: how the detector ran.
        file: the weights or the exported file.
        ap: AP of the split, 0..1.
        ap_low: lower end of its 95 % interval.
        ap_high: upper end.
        difference: AP minus that of the reference, the model's own setting.
        low: lower end of the 95 % interval of the difference, over the same draws of images.
        high: upper end.
        p50_ms: median latency of one image, from prepared image to detections.
        p90_ms: 90th percentile.
        is_reference: whether the differences are from this setting.
        is_best: whether no other setting is both faster and better (Pareto front).
        is_chosen: whether it is the choice.
    """

    setting: Setting
    file: str
    ap: float
    ap_low: float
    ap_high: float
    difference: float
    low: float
    high: float
    p50_ms: float
    p90_ms: float
    is_reference: bool = False
    is_best: bool = False
    is_chosen: bool = False

    def to_dict(self) -> dict[str, Any]:
        """All values, those of the setting first."""
        values = asdict(self)
        setting = values.pop("setting")
        del setting["size_hw"]
        return {"imgsz": self.setting.imgsz_text, **setting, **values}


@dataclass(frozen=True)
class Grid:
    """All settings to measure, and the reference among them."""

    sizes_hw: tuple[tuple[int, int], ...]
    decoder_layers: tuple[int, ...]
    num_queries: tuple[int, ...]
    halves: tuple[bool, ...]
    reference: Setting

    @property
    def settings(self) -> list[Setting]:
        """The product of the lists, half last."""
        speeds = (self.sizes_hw, self.decoder_layers, self.num_queries)
        return [Setting(*speed, half=half) for half in self.halves for speed in product(*speeds)]


def make_grid(
    settings: TradeoffSettings,
    network: RTDETRNetwork,
    size_hw: tuple[int, int],
    halves: tuple[bool, ...],
) -> Grid:
    """The lists of the user, or their defaults; ascending.

    Args:
        settings: those of the user.
        network: with its own number of layers and queries.
        size_hw: its own size.
        halves: precisions: False for float32, True for 16 bits.
    """
    decoder = network.config.decoder
    own_layers, own_queries = network.decoder.eval_layers, network.decoder.num_queries
    sides = settings.imgsz and [(side, side) for side in settings.imgsz]
    sizes_hw = _ascending(sides or [_scaled(size_hw, share) for share in (0.75, 1, 1.25)])
    layers = _ascending(settings.decoder_layers or range(1, decoder.num_layers + 1))
    thirds = [max(1, own_queries * share // 3) for share in (1, 2, 3)]
    queries = _ascending(settings.num_queries or thirds)
    reference = Setting(
        size_hw if size_hw in sizes_hw else sizes_hw[-1],
        own_layers if own_layers in layers else layers[-1],
        own_queries if own_queries in queries else queries[-1],
    )
    return Grid(sizes_hw, layers, queries, halves, reference)


def _ascending(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(sorted(set(values)))


def _scaled(size_hw: tuple[int, int], share: float) -> tuple[int, int]:
    height, width = (max(STRIDE, round(side * share / STRIDE) * STRIDE) for side in size_hw)
    return height, width


def marked(rows: list[Row], settings: TradeoffSettings) -> list[Row]:
    """The rows, fastest first, with the front and the choice marked."""
    best, chosen = front(rows), choose(rows, settings)
    return [
        replace(row, is_best=row in best, is_chosen=row is chosen) for row in _fastest_first(rows)
    ]


def front(rows: list[Row]) -> list[Row]:
    """The Pareto front, fastest first: each has more AP than everything that is as fast."""
    best: list[Row] = []
    for row in _fastest_first(rows):
        if not best or row.ap > best[-1].ap:
            best.append(row)
    return best


def _fastest_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.p50_ms, -row.ap))


def choose(rows: list[Row], settings: TradeoffSettings) -> Row | None:
    """The best AP within `max_ms`, else the fastest within `min_ap` and `max_drop`, or None.

    It is on the front of what is within the limits.
    """
    within = [row for row in rows if _is_within(row, settings)]
    if settings.max_ms is not None:
        return max(within, key=lambda row: (row.ap, -row.p50_ms), default=None)
    return next(iter(_fastest_first(within)), None)


def refusal(rows: list[Row], settings: TradeoffSettings) -> QualityError:
    """The error if no setting is within the limits."""
    fastest, best = _fastest_first(rows)[0], max(rows, key=lambda row: row.ap)
    given = ((key, getattr(settings, key)) for key in ("max_drop", "min_ap", "max_ms"))
    limits = " and ".join(f"{key}={value:g}" for key, value in given if value is not None)
    return QualityError(
        f"no setting meets {limits}: the fastest takes {fastest.p50_ms:.1f} ms with AP "
        f"{fastest.ap:.4f}, the best has AP {best.ap:.4f} in {best.p50_ms:.1f} ms"
    )


def _is_within(row: Row, settings: TradeoffSettings) -> bool:
    drop, min_ap, max_ms = settings.allowed_drop, settings.min_ap, settings.max_ms
    return (
        (drop is None or row.difference >= -drop / 100)
        and (min_ap is None or row.ap >= min_ap)
        and (max_ms is None or row.p50_ms <= max_ms)
    )
