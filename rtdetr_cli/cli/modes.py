"""The function and examples of each mode; the engine, and thus torch, is imported on use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rtdetr_cli.config.settings.benchmark import BenchmarkSettings
from rtdetr_cli.config.settings.check import CheckSettings
from rtdetr_cli.config.settings.compare import CompareSettings
from rtdetr_cli.config.settings.convert import ConvertSettings
from rtdetr_cli.config.settings.export import ExportSettings
from rtdetr_cli.config.settings.modes import EnvSettings, InfoSettings, ModelsSettings
from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.config.settings.track import TrackSettings
from rtdetr_cli.config.settings.tradeoff import TradeoffSettings
from rtdetr_cli.config.settings.train import TrainSettings
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.termination import termination_as_interrupt


def _train(settings: TrainSettings) -> int:
    from rtdetr_cli.engine.train import train

    train(settings)
    return 0


def _val(settings: ValSettings) -> int:
    from rtdetr_cli.engine.val import validate

    validate(settings)
    return 0


def _predict(settings: PredictSettings) -> int:
    from rtdetr_cli.engine.predict import predict

    with termination_as_interrupt():
        return predict(settings)


def _track(settings: TrackSettings) -> int:
    from rtdetr_cli.engine.track import track

    with termination_as_interrupt():
        return track(settings)


def _export(settings: ExportSettings) -> int:
    from rtdetr_cli.engine.export import export

    export(settings)
    return 0


def _benchmark(settings: BenchmarkSettings) -> int:
    from rtdetr_cli.engine.benchmark import benchmark

    benchmark(settings)
    return 0


def _compare(settings: CompareSettings) -> int:
    from rtdetr_cli.engine.compare import compare

    compare(settings)
    return 0


def _tradeoff(settings: TradeoffSettings) -> int:
    from rtdetr_cli.engine.tradeoff import tradeoff

    tradeoff(settings)
    return 0


def _info(settings: InfoSettings) -> int:
    from rtdetr_cli.engine.info import info

    info(settings)
    return 0


def _convert(settings: ConvertSettings) -> int:
    from rtdetr_cli.engine.convert import convert

    convert(settings)
    return 0


def _check(settings: CheckSettings) -> int:
    from rtdetr_cli.engine.check import check, refuse

    refuse(settings, check(settings))
    return 0


def _models(settings: ModelsSettings) -> int:
    from rtdetr_cli.engine.models import models

    models(settings)
    return 0


def _env(settings: EnvSettings) -> int:
    from rtdetr_cli.engine.env import env

    env(settings)
    return 0


RUN: dict[str, tuple[Callable[[Any], int], tuple[str, ...]]] = {
    "train": (
        _train,
        (
            "rtdetr train data=coco8.yaml epochs=100",
            "rtdetr train model=rtdetr-n.yaml data=shapes.yaml device=cpu",
        ),
    ),
    "val": (
        _val,
        (
            "rtdetr val model=runs/train/weights/best.pt data=coco8.yaml",
            "rtdetr val model=rtdetr-l.onnx data=coco8.yaml",
            "rtdetr val model=best.pt data=my.yaml report",
        ),
    ),
    "predict": (
        _predict,
        (
            "rtdetr predict model=rtdetr-l.pt source=bus.jpg",
            "rtdetr predict source=images classes=0,2,5 conf=0.4 save_txt",
            "rtdetr predict source=bus.jpg decoder_layers=4 json=true",
            "rtdetr predict source=images out=results resume=true shard=0/4",
        ),
    ),
    "track": (
        _track,
        (
            "rtdetr track model=rtdetr-l.pt source=street.mp4",
            "rtdetr track source=street.mp4 tracker=botsort classes=person,car save_mot",
            "rtdetr track source=rtsp://host/live track_buffer=60 json=true",
        ),
    ),
    "export": (
        _export,
        (
            "rtdetr export model=rtdetr-l.pt format=onnx",
            "rtdetr export model=runs/train/weights/best.pt imgsz=480,640 decoder_layers=4",
            "rtdetr export model=rtdetr-l.pt format=engine batch=1,8,16",
            "rtdetr export model=best.pt format=openvino int8 data=my.yaml",
            "rtdetr export model=runs/train/weights/best.onnx kit=onnxruntime-cpp",
        ),
    ),
    "benchmark": (
        _benchmark,
        (
            "rtdetr benchmark model=runs/train/weights/best.pt data=coco8.yaml",
            "rtdetr benchmark model=rtdetr-n.yaml formats=torch,onnx runs=20",
        ),
    ),
    "compare": (
        _compare,
        (
            "rtdetr compare a.pt b.pt data=my.yaml",
            "rtdetr compare best.pt best.onnx data=my.yaml split=test",
            "rtdetr compare runs/val/predictions.json runs/val2/predictions.json data=my.yaml",
        ),
    ),
    "tradeoff": (
        _tradeoff,
        (
            "rtdetr tradeoff model=best.pt data=my.yaml",
            "rtdetr tradeoff model=best.pt data=my.yaml imgsz=320,480 max_ms=20 export",
            "rtdetr tradeoff model=best.pt data=my.yaml backend=onnx,openvino device=cpu",
        ),
    ),
    "info": (
        _info,
        (
            "rtdetr info model=rtdetr-x.yaml",
            "rtdetr info model=runs/train/weights/best.pt json=true",
        ),
    ),
    "convert": (
        _convert,
        (
            "rtdetr convert model=rtdetr_r50vd_6x_coco_from_paddle.pth",
            "rtdetr convert model=best.pt format=official out=best.pth",
            "rtdetr convert data=my.yaml format=coco out=my-data-coco",
            "rtdetr convert data=a.yaml merge=b.yaml format=yolo out=both split=0.8,0.1,0.1",
        ),
    ),
    "check": (_check, ("rtdetr check data=my.yaml", "rtdetr check data=my.yaml report")),
    "models": (_models, ("rtdetr models", "rtdetr models json=true")),
    "env": (_env, ("rtdetr env", "rtdetr env json=true")),
}
"""Function and help page examples of each mode."""
