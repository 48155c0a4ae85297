"""Read and prepare images ahead of the network and write files behind it, on threads, in order.

The consumer drives everything: nothing is read or computed further ahead than a fixed number of
items, or of bytes if the items are large, and all threads end with the consumer's loop.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import repeat
from typing import NamedTuple, TypeVar

from rtdetr_cli.media.item import LARGE_BYTES, Reading, SourceImage
from rtdetr_cli.media.source import Entry, Source
from rtdetr_cli.media.streams import LiveStreams

T = TypeVar("T")
R = TypeVar("R")

MAX_WAITING_BYTES = LARGE_BYTES
"""Bytes of the items that wait in one stage, or of a batch. A larger item is computed when its turn
comes, while nothing else waits."""
WORKERS = min(8, os.cpu_count() or 1)
"""Threads of a stage. Pillow, OpenCV and NumPy release Python's lock during their work."""
_WRITES = 8
"""Most images that wait to be written."""


def ahead(
    function: Callable[[T], R],
    items: Iterable[T],
    depth: int,
    workers: int = 1,
    num_bytes: Callable[[R], int] = lambda result: 0,
) -> Generator[R, None, None]:
    """Yield `function(item)` of each item in their order, computed on threads ahead of time.

    The first is computed on the consumer's thread: OpenCV keeps 0.9 kB for each thread that has
    used it, so that threads for every call with one image would add up.

    An exception of `function` is raised instead of its result. `items` are taken on the consumer's
    thread.

    Args:
        function: of one item.
        items: any number.
        depth: results that are computed or wait at most.
        workers: threads; with 1 the calls follow each other.
        num_bytes: size of a result. Fewer wait if those before were large.
    """
    waiting: deque[Future[R]] = deque()
    room = 0  # until the size of the first is known
    with ThreadPoolExecutor(workers, "rtdetr-ahead") as pool:
        try:
            for item in items:
                if not room:  # nothing waits; one item alone starts no thread
                    result = function(item)
                    room = _room(depth, num_bytes(result))
                    yield result
                    continue
                waiting.append(pool.submit(function, item))
                while len(waiting) > room or _done_bytes(waiting, num_bytes) > MAX_WAITING_BYTES:
                    result = waiting.popleft().result()
                    room = _room(depth, num_bytes(result))
                    yield result
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _room(depth: int, num_bytes: int) -> int:
    """How many results of this size may wait."""
    return min(depth, MAX_WAITING_BYTES // max(1, num_bytes))


def _done_bytes(waiting: Iterable[Future[R]], num_bytes: Callable[[R], int]) -> int:
    done = (one for one in waiting if one.done() and not one.exception())
    return sum(num_bytes(one.result()) for one in done)


def prepared_batches(
    source: Source, size: int, prepare: Callable[[SourceImage], R], num_bytes: Callable[[R], int]
) -> Generator[list[R], None, None]:
    """Yield lists of up to `size` prepared images and frames, in the order of the source.

    A list of large images is shorter.

    Streams are prepared when they are asked for, so that their newest frames are used; web
    addresses, standard input and iterables too, because they may block or be interactive.
    """
    if not source.is_local:
        with closing(source.batches(size)) as batches:
            for batch in batches:
                yield [prepare(item) for item in batch]
        return
    with (
        closing(_read_ahead(source.entries)) as items,
        closing(ahead(prepare, items, size + WORKERS, WORKERS, num_bytes)) as prepared,
    ):
        ready: list[R] = []
        for one in prepared:
            ready.append(one)
            if len(ready) == size or sum(map(num_bytes, ready)) > MAX_WAITING_BYTES:
                yield ready
                ready = []
        yield from filter(None, [ready])


def _read_ahead(entries: Iterable[Entry]) -> Generator[SourceImage, None, None]:
    """All images and frames; files are opened side by side, the frames of one after another."""
    with closing(ahead(_open, entries, WORKERS, WORKERS, _Opened.num_bytes)) as files:
        for opened in files:
            first = opened.first or opened.read()  # a large one is read here
            if first is None:
                continue
            yield first
            if first.clip is not None:
                yield from _frames_ahead(opened)


def _frames_ahead(opened: _Opened) -> Generator[SourceImage, None, None]:
    """The frames of a clip after the first, read on one thread."""
    frames = ahead(_Opened.read, repeat(opened), WORKERS, num_bytes=_num_bytes)
    with closing(opened), closing(frames):
        for item in frames:
            if item is None:
                return
            yield item


def _open(entry: Entry) -> _Opened:
    assert not isinstance(entry, LiveStreams)
    items = entry()
    return _Opened(next(items, None), items)


class _Opened(NamedTuple):
    """The first image or frame of a file, None if it is large, and those after it."""

    first: SourceImage | None
    further: Reading

    def num_bytes(self) -> int:
        return _num_bytes(self.first)

    def read(self) -> SourceImage | None:
        return next(self.further, None)

    def close(self) -> None:
        if isinstance(self.further, Generator):
            self.further.close()


def _num_bytes(item: SourceImage | None) -> int:
    return 0 if item is None or item.image is None else item.image.nbytes


class Behind:
    """Calls functions in their order on a thread of its own; few wait, then the caller does.

    An exception is raised once, by the next `call` or `finish`; the calls after it are left out.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "rtdetr-behind")
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._failed = False

    def call(self, function: Callable[[], None], num_bytes: int) -> None:
        """Call a function that holds so many bytes."""
        self._waiting.append((num_bytes, self._pool.submit(self._run, function)))
        while len(self._waiting) > _WRITES or self._bytes() > MAX_WAITING_BYTES:
            self._waiting.popleft()[1].result()

    def finish(self) -> None:
        """Wait for all calls."""
        while self._waiting:
            self._waiting.popleft()[1].result()

    def close(self) -> None:
        """Wait for the calls that are left, as `finish`, and end the thread."""
        with self._pool:
            self.finish()

    def _bytes(self) -> int:
        return sum(size for size, _ in self._waiting)

    def _run(self, function: Callable[[], None]) -> None:
        if self._failed:
            return
        self._failed = True  # and remains so if the function raises
        function()
        self._failed = False
