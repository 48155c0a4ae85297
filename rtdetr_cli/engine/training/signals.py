"""SIGINT, SIGTERM and SIGHUP in training: the first signal asks to stop, the second kills."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from rtdetr_cli.core.distributed import all_reduce_max, is_distributed, is_main_process

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Signals that ask to stop; SIGHUP is sent when a terminal closes and is absent on Windows."""
ASKED = b"\nstopping after this step and saving; a second signal ends at once\n"


class StopRequest(KeyboardInterrupt):
    """Raised between steps: save and exit."""


class StopSignals:
    """Context manager that handles the signals; no effect outside the main thread.

    Attributes:
        number: the signal received, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._raises = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # set by nohup and `&`
                    self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore_handlers()

    def check(self) -> None:
        """Stop here if asked to. Every process must call it, where training can be saved.

        Raises:
            StopRequest: this or another process has received a signal.
        """
        number = all_reduce_max(self.number or 0)
        if number:
            self.number = number
            raise StopRequest

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise StopRequest immediately, for code that changes nothing that is saved.

        With several processes a signal waits for `check`, as the others would wait for this one.
        """
        self.check()
        self._raises = not is_distributed()
        try:
            yield
        finally:
            self._raises = False

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        self._restore_handlers()
        if is_main_process():
            with suppress(OSError):  # the terminal may be gone
                os.write(2, ASKED)  # sys.stderr may be in the middle of a write
        if self._raises:
            raise StopRequest

    def _restore_handlers(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self._previous = {}
