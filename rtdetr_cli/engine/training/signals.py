"""SIGINT, SIGTERM and SIGHUP in training: the first asks to stop, the second ends at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from rtdetr_cli.core.distributed import all_reduce_max, is_distributed, is_main_process

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Those that ask to stop; SIGHUP comes when a terminal is closed, and Windows has none."""
ASKED = b"\nstopping after this step and saving; a second signal ends at once\n"


class StopRequest(KeyboardInterrupt):
    """Training stands between two steps and shall be saved and left."""


class StopSignals:
    """Takes the signals while it is entered; in another thread than the first it does nothing.

    Attributes:
        number: the signal that came, None before.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._raises = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup and `&` mean it
                    self._former[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._give_back()

    def check(self) -> None:
        """To be called where training can be saved, by every process at the same place.

        Raises:
            StopRequest: a signal has come, here or to another process.
        """
        number = all_reduce_max(self.number or 0)
        if number:
            self.number = number
            raise StopRequest

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While nothing changes that is saved, a signal need not wait for `check`.

        Unless other processes would wait in vain for this one.
        """
        self.check()
        self._raises = not is_distributed()
        try:
            yield
        finally:
            self._raises = False

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        self._give_back()
        if is_main_process():
            with suppress(OSError):  # the terminal may be gone
                os.write(2, ASKED)  # a stream may be in the middle of a write of its own
        if self._raises:
            raise StopRequest

    def _give_back(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self._former = {}
