"""Live sources, one thread for each: the newest frame of each, or a bounded queue of frames.

A stream that breaks is opened again, after pauses that double up to half a minute.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing

from rtdetr_cli.core.console import say, warn
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.image import Pixels
from rtdetr_cli.media.addresses import Address
from rtdetr_cli.media.feeds import open_feed
from rtdetr_cli.media.item import Clip, SourceImage

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
MAX_FAILURES = 20
"""Attempts in a row without a frame, about eight minutes, after which a stream is given up."""
_BUFFER_FRAMES, _BUFFER_BYTES = 30, 1 << 27
_DEFAULT_FPS = 25.0


class LiveStreams:
    """Several streams at once.

    Args:
        addresses: of the streams.
        keep_all: queue frames, and let the sender wait; otherwise only the newest is kept.
        stride: use every so many frames.
    """

    def __init__(self, addresses: list[Address], keep_all: bool = False, stride: int = 1) -> None:
        self.addresses = addresses
        self._changed = threading.Condition()
        self._streams = [_Stream(one, keep_all, stride, self._changed) for one in addresses]

    def __len__(self) -> int:
        return len(self._streams)

    def batches(self) -> Iterator[list[SourceImage]]:
        """Yield what is there, at most one frame of each stream; wait if nothing is.

        A stream that cannot be opened, or is given up, yields its error; the others continue.
        """
        for stream in self._streams:
            stream.start()
        try:
            while True:
                with self._changed:
                    batch = [item for stream in self._streams if (item := stream.take())]
                    if not batch:
                        if all(stream.is_done for stream in self._streams):
                            return
                        self._changed.wait(0.5)
                if batch:
                    yield batch
        finally:
            for stream in self._streams:
                stream.stop()
            for stream in self._streams:
                stream.join()


class _Stream:
    """A thread that reads a stream into a queue; all fields are guarded by `changed`."""

    def __init__(
        self, address: Address, keep_all: bool, stride: int, changed: threading.Condition
    ) -> None:
        self._address, self._keep_all, self._stride = address, keep_all, stride
        self._changed, self._stopped = changed, threading.Event()
        self._clip = Clip(address.name, _DEFAULT_FPS, is_live=True)
        self._items: deque[SourceImage] = deque()
        self._received = 0
        self._start = 0.0
        self._thread = threading.Thread(target=self._run, name=address.name, daemon=True)
        self.is_done = False
        """Whether the thread has ended; items may be left."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for the thread; one that waits for its sender or driver is left behind."""
        self._thread.join(timeout=1)

    def take(self) -> SourceImage | None:
        """The next item, if there is one; the caller holds `changed`."""
        if not self._items:
            return None
        self._changed.notify_all()  # there is room in the queue
        return self._items.popleft()

    def _run(self) -> None:
        try:
            self._read_with_retries()
        finally:
            with self._changed:
                self.is_done = True
                self._changed.notify_all()

    def _read_with_retries(self) -> None:
        failures, pause_s = 0, FIRST_PAUSE_S
        while not self._stopped.is_set():
            before = self._received
            try:
                self._read_once(is_retry=failures > 0)
            except DataError as error:
                reason = str(error)
            else:
                return
            if self._received > before:
                failures, pause_s = 0, FIRST_PAUSE_S
            failures += 1
            if not self._received or failures > MAX_FAILURES:
                self._put(SourceImage(self._address.name, None, reason, clip=self._clip))
                return
            if failures == 1 and not self._stopped.is_set():
                warn(f"{reason}; connecting again")
            self._stopped.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _read_once(self, is_retry: bool) -> None:
        """Read until the stream ends.

        Raises:
            DataError: it cannot be opened, or breaks.
        """
        frames = open_feed(self._address)
        with closing(frames):
            for rgb in frames:
                if is_retry:
                    say(f"{self._address.name}: connected again")
                    is_retry = False
                self._receive(rgb)
                if self._stopped.is_set():
                    return

    def _receive(self, rgb: Pixels) -> None:
        now = time.monotonic()
        self._start = self._start or now
        self._received += 1
        if (self._received - 1) % self._stride:
            return
        name, seconds = self._address.name, now - self._start
        self._put(SourceImage(name, rgb, "", self._received, seconds, self._clip), rgb.nbytes)

    def _put(self, item: SourceImage, num_bytes: int = 0) -> None:
        """Queue an item; waits for room if all are kept, else replaces an older frame."""
        room = max(2, min(_BUFFER_FRAMES, _BUFFER_BYTES // max(1, num_bytes)))
        with self._changed:
            if not self._keep_all:
                self._items.clear()
            while len(self._items) >= room and not self._stopped.is_set():
                self._changed.wait(0.5)
            self._items.append(item)
            self._changed.notify_all()
