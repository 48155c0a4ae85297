"""`rtdetr convert`: open the checkpoints of others, and write theirs."""

from __future__ import annotations

from rtdetr_cli.config.settings.modes import ConvertSettings

EXAMPLES = (
    "rtdetr convert model=rtdetr_r50vd_6x_coco_from_paddle.pth",
    "rtdetr convert model=best.pt format=official out=best.pth",
)


def run(settings: ConvertSettings) -> int:
    """Hand over to the engine, which brings torch."""
    from rtdetr_cli.engine.convert import convert

    convert(settings)
    return 0
