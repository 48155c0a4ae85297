"""The lines printed at the end of a run: time, best epoch, worst classes, files, next commands."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from rtdetr_cli.core.status import counted, duration
from rtdetr_cli.data.problems import SKIPPED
from rtdetr_cli.data.splits import VAL_IMAGES
from rtdetr_cli.engine.training.resume import DAMAGED, PREVIOUS
from rtdetr_cli.engine.training.run import Run
from rtdetr_cli.engine.training.run_log import Row
from rtdetr_cli.evaluation.metrics import Metrics

NUM_WORST = 3
SPARE = {PREVIOUS, DAMAGED}
EXTRA_FILES = ("results.png", "results.csv", "args.yaml", VAL_IMAGES, SKIPPED)


def describe_end(run: Run, metrics: Metrics | None) -> list[str]:
    """Lines for the terminal; without metrics, those of a run with val=false."""
    rows = run.progress.rows
    spent = f"{counted(len(rows), 'epoch')} in {duration(run.pace.elapsed)}"
    if metrics is None:
        lines = [f"{spent}; nothing was validated: best.pt has the weights of the last epoch"]
    else:
        lines = [spent + _best_epoch(rows), *_worst_classes(metrics)]
    return [*lines, *_files(run.run_dir), *_next_commands(run, metrics is not None)]


def _best_epoch(rows: list[Row]) -> str:
    """Empty if a callback has ended the run before its first validation."""
    validated = [row for row in rows if "metrics/AP" in row]
    if not validated:
        return ""
    best = max(validated, key=lambda row: row["metrics/AP"])
    return f"; best epoch {best['epoch']:.0f}, AP {best['metrics/AP']:.4f}"


def _worst_classes(metrics: Metrics) -> list[str]:
    found = sorted((row.ap, row.name) for row in metrics.per_class if not math.isnan(row.ap))
    shown = ", ".join(f"{name} {ap:.3f}" for ap, name in found[:NUM_WORST])
    return [f"worst classes by AP: {shown}"] if len(found) > 1 else []


def _files(run_dir: Path) -> list[str]:
    kept = [path for path in (run_dir / "weights").glob("*.pt") if path.name not in SPARE]
    sizes = [f"weights/{path.name} ({path.stat().st_size / 1e6:.1f} MB)" for path in sorted(kept)]
    others = [name for name in EXTRA_FILES if (run_dir / name).is_file()]
    images = len([*run_dir.glob("*.jpg"), *run_dir.glob("*.png")]) - ("results.png" in others)
    more = [counted(images, "image")] if images else []
    return [f"files in {run_dir}:", f"  {', '.join(sizes)}", f"  {', '.join([*others, *more])}"]


def _next_commands(run: Run, has_val_split: bool) -> list[str]:
    settings, model = run.settings, f"model={run.run_dir / 'weights' / 'best.pt'}"
    subset = ["single_cls=true"] if settings.single_cls else []
    if settings.classes:
        subset.append(f"classes={','.join(map(str, settings.classes))}")
    commands = [["predict", model, "source=your.jpg"], ["export", model, "format=onnx"]]
    if has_val_split and settings.val_fraction is None:
        commands.insert(0, ["val", model, f"data={settings.data}", *subset])
    return ["next:", *(f"  {shlex.join(['rtdetr', *words])}" for words in commands)]
