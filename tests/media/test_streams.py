"""Streams on loopback: an MJPEG server that stalls, drops, returns and sends garbage."""

import io
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, pairwise

import numpy as np
import pytest
from PIL import Image

from rtdetr_cli.media import feeds, streams
from rtdetr_cli.media.addresses import parse_address
from rtdetr_cli.media.source import ReadOptions, open_source
from rtdetr_cli.media.streams import LiveStreams


def jpeg(level):
    stream = io.BytesIO()
    Image.new("RGB", (32, 24), (level, level, level)).save(stream, "JPEG")
    return stream.getvalue()


class Camera:
    """Serves `script(connection number)`, an iterable of bytes to send or seconds to wait."""

    def __init__(self, script):
        self.connections = count()
        self.stopped = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=--frame")
                self.end_headers()
                for step in script(next(camera.connections)):
                    if isinstance(step, bytes):
                        try:
                            self.wfile.write(step)
                        except OSError:
                            return
                    elif camera.stopped.wait(step):
                        return

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/live"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve(monkeypatch):
    """Starts cameras and shortens all waits to a few hundredths of a second."""
    monkeypatch.setattr(streams, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(streams, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(feeds, "STALL_S", 1.0)
    cameras = []

    def start(script):
        cameras.append(Camera(script))
        return cameras[-1].url

    yield start
    for camera in cameras:
        camera.close()


def part(content, with_length=True):
    length = f"Content-Length: {len(content)}\r\n" if with_length else ""
    head = f"\r\n--frame\r\nContent-Type: image/jpeg\r\n{length}\r\n"
    return head.encode() + content


END = b"\r\n--frame--\r\n"


def frames(levels, pause_s=0.0, with_length=True):
    for level in levels:
        yield part(jpeg(level), with_length)
        yield pause_s


def levels_of(items):
    return [round(float(one.image.mean()), -1) for one in items]


def read_all(url, **options):
    live = LiveStreams([parse_address(url)], keep_all=True, **options)
    return [item for batch in live.batches() for item in batch]


@pytest.mark.parametrize("with_length", [True, False])
def test_every_frame_of_a_buffered_stream_comes_until_its_end(serve, with_length):
    levels = [10, 50, 100, 150, 200]
    url = serve(lambda _: [*frames(levels, 0.01, with_length), END])
    found = read_all(url)
    assert levels_of(found) == levels
    assert [one.frame for one in found] == [1, 2, 3, 4, 5]
    assert {one.path for one in found} == {url}
    assert found[0].clip.is_live
    assert all(a.time_s < b.time_s for a, b in pairwise(found))
    assert [one.frame for one in read_all(url, stride=3)] == [1, 4]


def test_the_newest_frame_is_used_and_older_ones_are_dropped(serve):
    url = serve(lambda _: [*frames(range(0, 200, 10)), 2.0, END])
    with closing(open_source(url).batches(1)) as batches:
        first = next(batches)  # on a busy machine it may be the newest already
        time.sleep(0.3)
        (newest,) = next(batches, first)
    assert newest.frame == 20
    assert levels_of([newest]) == [190]


def test_a_dropped_connection_is_opened_again(serve, capsys):
    script = [[*frames([10, 20])], [], [*frames([30, 40]), END]]
    url = serve(lambda number: script[number])
    assert levels_of(read_all(url)) == [10, 20, 30, 40]
    err = capsys.readouterr().err
    assert err.count(f"{url}: the connection was closed; connecting again") == 1
    assert err.count(f"{url}: connected again") == 1


def test_a_stalled_server_is_left_and_tried_again(serve):
    script = [[*frames([10]), 30.0], [*frames([20]), END]]
    url = serve(lambda number: script[number])
    start = time.monotonic()
    assert levels_of(read_all(url)) == [10, 20]
    assert time.monotonic() - start < 5


def test_garbage_between_and_inside_of_frames_is_skipped(serve):
    noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    steps = [noise, *frames([10]), part(noise), part(jpeg(90)[:200]), noise, *frames([50]), END]
    url = serve(lambda _: steps)
    assert levels_of(read_all(url)) == [10, 50]


def test_a_sender_of_nothing_but_garbage_is_given_up_and_memory_is_bounded(serve, monkeypatch):
    monkeypatch.setattr(feeds, "_MAX_PART", 1 << 16)
    url = serve(lambda _: (b"x" * 4096 for _ in range(100)))
    (error,) = read_all(url)
    assert error.error == f"{url}: sends something else than images"
    url = serve(lambda _: (part(b"x" * 10) for _ in range(100)))
    (error,) = read_all(url)
    assert "sends no images that can be read" in error.error


def test_a_stream_that_never_returns_is_given_up_with_its_frames_kept(serve, monkeypatch):
    monkeypatch.setattr(streams, "MAX_FAILURES", 3)
    url = serve(lambda number: [] if number else frames([10]))
    good, error = read_all(url)
    assert levels_of([good]) == [10]
    assert error.error == f"{url}: the connection was closed"


def test_two_streams_are_read_at_once_and_one_may_fail(serve, tmp_path):
    ends = [*frames([10, 20, 30], 0.02), END]
    urls = [serve(lambda _: ends), serve(lambda _: [*frames([100] * 3, 0.02), END])]
    gone = serve(lambda _: [])
    (tmp_path / "a.streams").write_text("\n".join([*urls, gone]))
    source = open_source(tmp_path / "a.streams", ReadOptions(stream_buffer=True))
    assert source.total == 3
    batches = []
    for batch in source.batches(1):
        batches.append(batch)
        time.sleep(0.05)
    found = [item for batch in batches for item in batch]
    assert levels_of(one for one in found if one.path == urls[0]) == [10, 20, 30]
    assert levels_of(one for one in found if one.path == urls[1]) == [100] * 3
    (error,) = (one for one in found if one.path == gone)
    assert error.error == f"{gone}: the connection was closed"
    assert max(map(len, batches)) >= 2
    assert all(len({one.path for one in batch}) == len(batch) for batch in batches)


def test_threads_end_when_the_reader_leaves(serve):
    url = serve(lambda _: frames(range(0, 200), 0.01))
    before = threading.active_count()
    batches = LiveStreams([parse_address(url)] * 2).batches()
    next(batches)
    batches.close()
    names = [thread.name for thread in threading.enumerate() if thread.name == url]
    assert names == []
    assert threading.active_count() <= before + 2  # those of the server


def test_a_queue_is_bounded_and_the_sender_waits(serve, monkeypatch):
    monkeypatch.setattr(streams, "_BUFFER_FRAMES", 3)
    url = serve(lambda _: [*frames(range(0, 200, 10)), END])
    live = LiveStreams([parse_address(url)], keep_all=True)
    batches = live.batches()
    next(batches)
    time.sleep(0.2)
    assert len(live._streams[0]._items) == 3
    assert [one.frame for (one,) in batches] == list(range(2, 21))


def test_an_address_without_a_server_fails_at_once():
    with closing(open_source("tcp://127.0.0.1:9").batches(1)) as batches:
        ((item,),) = batches
    assert item.image is None
    assert item.error.startswith("tcp://127.0.0.1:9: cannot be ")
