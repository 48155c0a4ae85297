"""Pages of YouTube through a stand-in for yt-dlp; the real one is never asked."""

from __future__ import annotations

import sys
import types

import cv2
import numpy as np
import pytest

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.media import web_videos
from rtdetr_cli.media.addresses import parse_address
from rtdetr_cli.media.source import open_source
from rtdetr_cli.media.streams import LiveStreams
from rtdetr_cli.media.web_videos import is_video_page, resolve_page

PAGE = "https://www.youtube.com/watch?v=abc"


class FakeError(Exception):
    """As YoutubeDLError."""


@pytest.fixture
def yt_dlp(monkeypatch):
    """The package, with the `found` information of every page and the `options` it was given."""
    fake = types.SimpleNamespace(found={}, options={}, asked=[], error=None)

    class Session:
        def __init__(self, options):
            fake.options = options

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def extract_info(self, url, download):
            assert not download
            fake.asked.append(url)
            if fake.error:
                raise fake.error
            return fake.found

    fake.YoutubeDL = Session
    fake.utils = types.SimpleNamespace(YoutubeDLError=FakeError)
    monkeypatch.delenv("RTDETR_OFFLINE", raising=False)
    monkeypatch.setitem(sys.modules, "yt_dlp", fake)
    monkeypatch.setattr(web_videos, "find_spec", lambda name: name == "yt_dlp")
    return fake


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PAGE, True),
        ("http://youtu.be/abc", True),
        ("https://m.youtube.com/shorts/abc", True),
        ("https://www.youtube-nocookie.com/embed/abc", True),
        ("https://notyoutube.com/watch?v=abc", False),
        ("https://youtube.com.host.org/watch?v=abc", False),
        ("https://host.org/www.youtube.com/a.mp4", False),
        ("rtsp://youtube.com/live", False),
    ],
)
def test_pages_are_known_by_their_host(text, expected):
    assert is_video_page(parse_address(text)) is expected


def test_the_file_is_read_under_the_name_of_the_page(yt_dlp, server):
    """Its content is found by the type that the server gives, here by the suffix."""
    server.body = cv2.imencode(".png", np.full((4, 6, 3), (255, 0, 0), np.uint8))[1].tobytes()
    yt_dlp.found = {"url": f"{server.url}/video.png"}
    (found,) = open_source(PAGE)
    assert found.path == PAGE
    assert found.image[0, 0].tolist() == [0, 0, 255]
    assert yt_dlp.asked == [PAGE]
    assert yt_dlp.options["noplaylist"]
    assert yt_dlp.options["format"].startswith("bestvideo[protocol=https]")


def test_a_live_page_is_a_stream_also_in_a_file_of_streams(yt_dlp, tmp_path):
    yt_dlp.found = {"url": "https://127.0.0.1:9/live.m3u8"}
    (tmp_path / "two.streams").write_text(f"{PAGE}\nrtsp://127.0.0.1:9/a\n")
    (entry,) = open_source(PAGE).entries
    assert isinstance(entry, LiveStreams)
    assert entry.addresses[0].text == "https://127.0.0.1:9/live.m3u8"
    (entry,) = open_source(tmp_path / "two.streams").entries
    assert [one.name for one in entry.addresses] == [PAGE, "rtsp://127.0.0.1:9/a"]


@pytest.mark.parametrize(
    "found", [{"entries": []}, {"url": "file:///etc/passwd"}, {"url": "a.mp4"}]
)
def test_what_is_no_single_video_is_refused(found, yt_dlp):
    yt_dlp.found = found
    with pytest.raises(DataError):
        open_source(PAGE)


def test_the_reason_of_yt_dlp_is_one_sentence(yt_dlp):
    yt_dlp.error = FakeError("ERROR: [youtube] abc: Video unavailable")
    with pytest.raises(DataError, match=r"watch\?v=abc: \[youtube\] abc: Video unavailable$"):
        open_source(PAGE)


def test_without_yt_dlp_one_sentence_names_the_command(monkeypatch):
    monkeypatch.setattr(web_videos, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"need yt-dlp: pip install yt-dlp$"):
        open_source(PAGE)


def test_nothing_is_asked_offline(yt_dlp, monkeypatch):
    monkeypatch.setenv("RTDETR_OFFLINE", "1")
    with pytest.raises(DataError, match="RTDETR_OFFLINE is set"):
        resolve_page(parse_address(PAGE))
    assert not yt_dlp.asked
