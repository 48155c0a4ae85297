"""Cameras, screens and FFmpeg streams as far as they exist on a machine without them."""

import socket
import sys
import threading
import types

import numpy as np
import pytest

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.media import feeds
from rtdetr_cli.media.addresses import parse_address
from rtdetr_cli.media.feeds import open_feed


@pytest.fixture(params=["opencv", "av"])
def reader(request, monkeypatch):
    """Runs a test with each reader."""
    if request.param == "av":
        pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    monkeypatch.setattr(feeds, "find_spec", lambda name: request.param == "av" or None)
    monkeypatch.setattr(feeds, "STALL_S", 1.0)


@pytest.fixture
def send():
    """Serves bytes to one TCP connection, then closes it, or keeps it open in silence."""
    sockets = []

    def start(content, is_closed=True):
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)

        def run():
            connection, _ = listener.accept()
            sockets.append(connection)
            connection.sendall(content)
            if is_closed:
                connection.close()

        threading.Thread(target=run, daemon=True).start()
        return parse_address(f"tcp://127.0.0.1:{listener.getsockname()[1]}")

    yield start
    for one in sockets:
        one.close()


def test_a_stream_through_ffmpeg_yields_frames_and_its_end_is_an_error(
    reader, send, tmp_path, write_video
):
    content = write_video(tmp_path / "a.mkv", frames=8, fourcc="MJPG").read_bytes()
    feed = open_feed(send(content))
    assert [next(feed).shape for _ in range(8)] == [(48, 64, 3)] * 8
    with pytest.raises(DataError, match=r"tcp://127\.0\.0\.1:\d+: (the stream has|sends no more)"):
        next(feed)


def test_a_silent_stream_is_left_after_the_time_limit(reader, send):
    with pytest.raises(DataError, match="tcp://"):
        next(open_feed(send(b"", is_closed=False)))


def test_a_stream_may_not_lead_to_a_file(reader, send, tmp_path, write_video):
    path = write_video(tmp_path / "a.mp4")
    playlist = f"#EXTM3U\n#EXTINF:1,\nfile://{path}\n#EXT-X-ENDLIST\n"
    with pytest.raises(DataError):
        next(open_feed(send(playlist.encode())))


def test_errors_do_not_show_the_password(reader):
    with pytest.raises(DataError) as caught:
        next(open_feed(parse_address("rtsp://me:secret@127.0.0.1:9/live")))
    assert "secret" not in str(caught.value)
    assert "rtsp://127.0.0.1:9/live" in str(caught.value)


def test_an_absent_camera_is_named(capfd):
    with pytest.raises(DataError, match="camera 99: cannot be opened"):
        next(open_feed(parse_address("99")))
    assert capfd.readouterr().err == ""


def test_a_screen_without_mss_names_the_extra(monkeypatch):
    monkeypatch.setattr(feeds, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'rtdetr-cli\[screen\]'"):
        next(open_feed(parse_address("screen")))


class FakeScreens:
    """What `mss` is used for: a second screen right of a first one."""

    monitors = tuple(
        {"left": left, "top": 0, "width": width, "height": 48}
        for left, width in ((0, 164), (0, 64), (64, 100))
    )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def grab(self, area):
        self.area = area
        return np.full((area["height"], area["width"], 4), (1, 2, 3, 255), np.uint8)


@pytest.mark.parametrize(
    ("source", "shape", "left"),
    [
        ("screen", (48, 164), 0),
        ("screen 2", (48, 100), 64),
        ("screen 2 10 5 20 30", (30, 20), 74),
        ("screen 10 5 20 30", (30, 20), 10),
    ],
)
def test_screens_and_parts_of_them(monkeypatch, source, shape, left):
    screens = FakeScreens()
    error = type("ScreenShotError", (Exception,), {})
    fake = types.SimpleNamespace(
        mss=lambda: screens, exception=types.SimpleNamespace(ScreenShotError=error)
    )
    monkeypatch.setitem(sys.modules, "mss", fake)
    monkeypatch.setattr(feeds, "find_spec", lambda name: True)
    image = next(open_feed(parse_address(source)))
    assert image.shape == (*shape, 3)
    assert image[0, 0].tolist() == [3, 2, 1]
    assert screens.area["left"] == left
    for wrong, sentence in (("screen 3", "there are 2 screens"), ("screen 1 2", "expected screen")):
        with pytest.raises(DataError, match=sentence):
            next(open_feed(parse_address(wrong)))
