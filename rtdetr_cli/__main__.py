"""Entry point of `rtdetr` and `python -m rtdetr_cli`: Ctrl-C is quiet while modules are imported.

The rest of the command is cli/main.py, whose imports take most of the time of a short run.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Import the command line and run it."""
    previous = signal.getsignal(signal.SIGINT)
    if previous is signal.default_int_handler:  # a signal that is ignored remains ignored
        signal.signal(signal.SIGINT, _leave)
    from rtdetr_cli.cli import main as command

    signal.signal(signal.SIGINT, previous)
    command.main()


def _leave(_number: int, _frame: FrameType | None) -> None:
    """End the process: an exception inside an import may be replaced or swallowed there."""
    os._exit(130)


if __name__ == "__main__":
    main()
