"""Threads ahead of and behind the consumer: order, bounds, errors in place, no thread left."""

import threading
import time
from contextlib import closing
from functools import partial
from itertools import chain

import cv2
import numpy as np
import pytest

from rtdetr_cli.engine.predicting import pipeline
from rtdetr_cli.engine.predicting.pipeline import Behind, ahead, prepared_batches
from rtdetr_cli.media.item import SourceImage
from rtdetr_cli.media.source import Source, open_source


def threads():
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("rtdetr-")]


def until(condition):
    """Wait up to five seconds; whether it came true."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


class Pause(threading.Event):
    """A function that waits, and notes its arguments."""

    def __init__(self):
        super().__init__()
        self.started = []

    def __call__(self, item):
        self.started.append(item)
        assert self.wait(10)
        return item


def test_results_come_in_order_though_later_ones_are_done_first():
    def slow_at_first(item):
        time.sleep(0.05 if item % 4 == 0 else 0)
        return item

    assert list(ahead(slow_at_first, range(20), depth=8, workers=4)) == list(range(20))
    assert threads() == []


def test_one_item_is_computed_on_the_thread_of_the_consumer():
    """Otherwise 10,000 calls with one image would keep 9 MB of OpenCV, 0.9 kB for each thread."""
    here = threading.current_thread()
    assert list(ahead(lambda item: threading.current_thread(), [1], 3, 3)) == [here]
    source = open_source(np.zeros((8, 8, 3), np.uint8))
    batches = prepared_batches(source, 1, lambda item: threading.current_thread(), lambda one: 0)
    assert list(batches) == [[here]]


def test_calls_overlap():
    meeting = threading.Barrier(3, timeout=10)  # passes only if three calls run at once
    assert list(ahead(lambda item: item and meeting.wait() >= 0, range(4), 3, 3)) == [
        0,
        *[True] * 3,
    ]


def test_a_slow_consumer_holds_at_most_depth_results_ahead():
    started = []
    with closing(ahead(lambda item: started.append(item) or item, range(1000), 5, 2)) as results:
        assert next(results) == 0
        assert next(results) == 1
        assert until(lambda: len(started) == 2 + 5)
        time.sleep(0.05)
        assert len(started) == 2 + 5
    assert threads() == []


def test_fewer_large_results_wait(monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_WAITING_BYTES", 250)
    for size, most in ((10, 9), (100, 2), (251, 0)):
        started = []
        calls = ahead(started.append, range(100), 9, 4, num_bytes=lambda result, size=size: size)
        with closing(calls) as results:
            next(results)
            next(results)
            assert until(lambda started=started, most=most: len(started) == 2 + most), size


def test_an_error_is_raised_once_in_its_place_with_its_type():
    def fail_at_3(item):
        if item == 3:
            raise FileNotFoundError("three")
        return item

    results, seen = ahead(fail_at_3, range(100), 8, 4), []
    with pytest.raises(FileNotFoundError, match="three"):
        seen += results  # keeps the items before the error
    assert list(results) == []
    results = ahead(fail_at_3, range(100), 8, 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(FileNotFoundError):
        next(results)
    assert threads() == []


def test_an_error_of_the_items_comes_after_those_before_it_are_begun():
    def items():
        yield 0
        raise KeyError("one")

    with pytest.raises(KeyError):
        list(ahead(str, items(), 4, 2))
    assert threads() == []


@pytest.mark.parametrize("ending", [GeneratorExit, KeyboardInterrupt])
def test_an_early_end_leaves_no_thread_and_starts_no_further_call(ending):
    started = []
    results = ahead(lambda item: started.append(item) or time.sleep(0.02), range(1000), 50, 2)
    next(results)
    next(results)
    with pytest.raises(ending):
        results.throw(ending)
    assert threads() == []
    assert len(started) < 50


def write_images(folder, count):
    for number in range(count):
        image = np.full((8, 8, 3), number, np.uint8)
        assert cv2.imwrite(str(folder / f"{number:03}.png"), image)
    return folder


def values(source, size, prepare=lambda item: item):
    batches = prepared_batches(source, size, prepare, lambda item: 0)
    return [
        [int(item.image[0, 0, 0]) if item.image is not None else None for item in batch]
        for batch in batches
    ]


@pytest.mark.parametrize(("size", "lengths"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (8, [7])])
def test_batches_of_a_folder_are_full_but_the_last(tmp_path, size, lengths):
    found = values(open_source(str(write_images(tmp_path, 7))), size)
    assert [len(batch) for batch in found] == lengths
    assert list(chain.from_iterable(found)) == list(range(7))


def test_a_bad_image_in_the_middle_stays_in_its_place(tmp_path):
    write_images(tmp_path, 5)
    (tmp_path / "002.png").write_bytes(b"")
    assert values(open_source(str(tmp_path)), 2) == [[0, 1], [None, 3], [4]]


def test_frames_and_images_keep_their_order(tmp_path):
    write_images(tmp_path, 3)
    code = cv2.VideoWriter.fourcc(*"MJPG")
    for name, first in (("000a.avi", 100), ("001b.avi", 200)):
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.CAP_FFMPEG, code, 20, (64, 48))
        for number in range(30):
            writer.write(np.full((48, 64, 3), first + number, np.uint8))
        writer.release()
    found = list(chain.from_iterable(values(open_source(str(tmp_path)), 4)))
    expected = [0, *range(100, 130), 1, *range(200, 230), 2]
    np.testing.assert_allclose(found, expected, atol=2)  # MJPG is not exact
    source = open_source(str(tmp_path))
    batches = prepared_batches(source, 4, lambda item: item, lambda item: 0)
    next(batches)
    batches.close()  # within the first clip
    assert threads() == []


def test_items_of_a_generator_are_taken_one_by_one_on_the_thread_of_the_consumer():
    taken = []

    def images():
        for number in range(9):
            taken.append((number, threading.current_thread()))
            yield np.full((8, 8, 3), number, np.uint8)

    batches = prepared_batches(open_source(images()), 1, lambda item: item, lambda item: 0)
    next(batches)
    next(batches)
    assert taken == [(0, threading.main_thread()), (1, threading.main_thread())]


def test_an_error_of_prepare_is_raised_after_the_images_before(tmp_path):
    def prepare(item):
        if item.path.endswith("003.png"):
            raise ValueError(item.path)
        return item

    batches = prepared_batches(
        open_source(str(write_images(tmp_path, 6))), 1, prepare, lambda item: 0
    )
    assert [len(next(batches)) for _ in range(3)] == [1, 1, 1]
    with pytest.raises(ValueError, match=r"003\.png"):
        next(batches)
    assert threads() == []


def test_calls_behind_are_made_in_order_and_waited_for():
    behind, done = Behind(), []
    for number in range(50):
        behind.call(lambda number=number: done.append(number), 1)
    behind.finish()
    assert done == list(range(50))
    behind.close()
    assert threads() == []


def test_a_slow_writer_lets_the_caller_wait():
    behind, gate, called = Behind(), Pause(), []

    def fill():
        for number in range(100):
            behind.call(lambda number=number: gate(number), 1)
            called.append(number)

    caller = threading.Thread(target=fill)
    caller.start()
    assert until(lambda: len(called) == 8)
    time.sleep(0.05)
    assert len(called) == 8
    gate.set()
    caller.join()
    behind.close()
    assert gate.started == list(range(100))


def test_a_large_call_waits_until_it_is_done():
    behind, done = Behind(), []
    behind.call(lambda: time.sleep(0.05) or done.append(1), pipeline.MAX_WAITING_BYTES + 1)
    assert done == [1]
    behind.close()


def test_an_error_behind_is_raised_once_and_ends_the_calls_after_it():
    behind, done = Behind(), []

    def fail():
        raise PermissionError("no")

    def fill():
        for _ in range(20):
            behind.call(lambda: done.append(1), 1)

    behind.call(lambda: done.append(0), 1)
    behind.call(fail, 1)
    with pytest.raises(PermissionError, match="no"):
        fill()
    behind.finish()
    behind.close()
    assert done == [0]
    assert threads() == []


def test_an_error_of_the_last_call_is_raised_at_the_end():
    behind = Behind()
    behind.call(lambda: 1 / 0, 1)
    with pytest.raises(ZeroDivisionError):
        behind.close()
    assert threads() == []


def test_large_files_are_decoded_one_after_the_other_when_their_turn_comes():
    """So that of a folder of huge images one is in memory, not one for each thread."""
    readers = {}

    def file(number):
        def reading():
            if number in {3, 4}:
                yield None
            readers[number] = threading.current_thread()
            yield SourceImage(str(number), np.zeros((2, 2, 3), np.uint8))

        return reading

    source = Source([file(number) for number in range(6)], 6)
    found = prepared_batches(source, 2, lambda one: int(one.path), lambda one: 0)
    assert list(found) == [[0, 1], [2, 3], [4, 5]]
    here = threading.current_thread()
    assert [number for number, thread in sorted(readers.items()) if thread is here] == [0, 3, 4]


def test_a_batch_of_large_images_is_shorter(monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_WAITING_BYTES", 250)
    sizes = [10, 200, 100, 300, 10, 10]
    entries = [partial(iter, [SourceImage(str(size), None)]) for size in sizes]
    batches = prepared_batches(Source(entries, 6), 4, lambda one: int(one.path), lambda size: size)
    assert list(batches) == [[10, 200, 100], [300], [10, 10]]


def test_what_is_done_and_waits_is_limited_before_its_size_was_seen(monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_WAITING_BYTES", 250)
    started = []

    def size(item):
        started.append(item)
        return 1 if item < 3 else 200

    with closing(ahead(size, range(100), 20, 1, num_bytes=lambda result: result)) as results:
        assert [next(results) for _ in range(3)] == [1, 1, 1]
        time.sleep(0.05)  # two of 200 are done
        next(results)
        before = len(started)
        for _ in range(5):
            next(results)
            time.sleep(0.02)
        assert len(started) <= before + 5
