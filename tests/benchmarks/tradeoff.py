"""Measure `rtdetr tradeoff` against running each of its settings alone.

    python tests/benchmarks/tradeoff.py best.pt bccd/data.yaml --imgsz 256,320,384

Two comparisons: AP in one process (the shared pass against a pass per setting, both with the same
statistics), and whole commands (`rtdetr tradeoff` against one `rtdetr val` and one timing process
per setting). Both also compare the AP, and the second the latencies. Elapsed seconds are of use
only while nothing else runs, because the sides are minutes apart; seconds of CPU time, of all
threads and processes, always are.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.torch import TorchDetector
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.tradeoff import TradeoffSettings
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.engine.tradeoffs.accuracy import ap_of_file, ap_of_grid
from rtdetr_cli.engine.tradeoffs.latency import time_settings
from rtdetr_cli.engine.tradeoffs.rows import Setting, make_grid
from rtdetr_cli.engine.val import match_model

OWN_SPEED = ("decoder_layers", "num_queries")


class Seconds(NamedTuple):
    """Elapsed and CPU seconds, the latter with those of the processes that have ended."""

    elapsed: float
    cpu: float

    @classmethod
    def now(cls) -> Seconds:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used))

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.elapsed - other.elapsed, self.cpu - other.cpu)


def describe(together: Seconds, alone: Seconds) -> str:
    """Both sides and their ratios."""
    return (
        f"together {together.elapsed:.1f} s ({together.cpu:.1f} CPU), alone {alone.elapsed:.1f} s "
        f"({alone.cpu:.1f} CPU), ratio {together.elapsed / alone.elapsed:.3f} "
        f"({together.cpu / alone.cpu:.3f} CPU)"
    )


def ap_in_one_process(settings: TradeoffSettings) -> str:
    """The shared pass and a pass per setting, and the largest difference of AP."""
    detector = load_detector(settings.model, settings.device)
    assert isinstance(detector, TorchDetector)
    size_hw = detector.preprocessing.size_hw
    grid = make_grid(settings, detector.network, size_hw, (False,))
    dataset = match_model(open_split(load_data(settings.data), settings.split), detector)
    start = Seconds.now()
    shared = dict(ap_of_grid(detector, False, grid, dataset, settings))
    middle = Seconds.now()
    largest = 0.0
    for setting, values in shared.items():
        detector.set_speed(setting.decoder_layers, setting.num_queries)
        own = ap_of_file(detector, setting.size_hw, dataset, settings)
        largest = max(largest, float(abs(own - values).max()))
    text = describe(middle - start, Seconds.now() - middle)
    return f"{len(shared)} settings; {text}; largest difference of AP {largest:.3g}"


def whole_commands(settings: TradeoffSettings, folder: Path) -> str:
    """The command and its settings alone, and how AP and latency agree."""
    common = [f"{key}={getattr(settings, key)}" for key in ("model", "data", "device", "workers")]
    start = Seconds.now()
    printed = command(
        "tradeoff", *common, *lists(settings), f"runs={settings.runs}", "half=false", "json",
        f"project={folder}",
    )  # fmt: skip
    middle = Seconds.now()
    ap_gaps, ratios = [], []
    for row in printed["rows"]:
        size, keys = int(row["imgsz"]), [f"{key}={row[key]}" for key in OWN_SPEED]
        metrics = command("val", *common, *keys, f"imgsz={size}", "plots=false", "json")
        setting = Setting((size, size), row["decoder_layers"], row["num_queries"])
        times_ms = time_settings({setting: settings.model}, settings.device, settings.runs)[setting]
        ap_gaps.append(abs(metrics["stats"]["AP"] - row["ap"]))
        ratios.append(row["p50_ms"] / statistics.median(times_ms))
    return (
        f"{describe(middle - start, Seconds.now() - middle)}; largest difference of AP "
        f"{max(ap_gaps):.3g}; latency in turns / alone: median {statistics.median(ratios):.3f}, "
        f"{min(ratios):.3f} to {max(ratios):.3f}"
    )


def lists(settings: TradeoffSettings) -> list[str]:
    """The lists of the user as words of the command."""
    keys = ("imgsz", *OWN_SPEED)
    given = {key: getattr(settings, key) for key in keys}
    return [f"{key}={','.join(map(str, values))}" for key, values in given.items() if values]


def command(*words: str) -> dict[str, Any]:
    """The JSON that a command of rtdetr prints."""
    done = subprocess.run(
        [sys.executable, "-m", "rtdetr_cli", *words], stdout=subprocess.PIPE, check=True, text=True
    )
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def main() -> None:
    """Print the figures of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--imgsz")
    parser.add_argument("--num-queries")
    parser.add_argument("--runs", default="20")
    parser.add_argument("--workers", default="0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only-ap", action="store_true", help="leave out the whole commands")
    wanted = vars(parser.parse_args())
    only_ap = wanted.pop("only_ap")
    pairs = {key: value for key, value in wanted.items() if value is not None}
    settings = settings_from_pairs(TradeoffSettings, pairs)
    sys.stdout.write(f"AP in one process: {ap_in_one_process(settings)}\n")
    sys.stdout.flush()
    if not only_ap:
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(f"whole commands: {whole_commands(settings, Path(folder))}\n")


if __name__ == "__main__":
    main()
