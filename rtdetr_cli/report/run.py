"""What every report says of its run: the date, versions, and the command to repeat it."""

from __future__ import annotations

import platform
from datetime import datetime
from pathlib import Path

import torch

from rtdetr_cli.core.version import VERSION

PAGE = "report.html"
"""Name of the file in a run folder."""


def run_facts(command: str) -> list[tuple[str, str]]:
    """When and with what a command was run, for `parts.facts`."""
    versions = f"rtdetr {VERSION}, PyTorch {torch.__version__}, Python {platform.python_version()}"
    date = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
    return [("date", date), ("versions", versions), ("command", command)]


def short_path(path: Path) -> str:
    """The last folder and the name of an image: a page is mailed to others."""
    return "/".join(path.parts[-2:])
