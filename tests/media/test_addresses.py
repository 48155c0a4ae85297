"""Addresses come from others: known schemes only, and passwords are never shown."""

import base64

import pytest

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.media.addresses import PROTOCOLS, parse_address, read_streams_file


@pytest.mark.parametrize(
    ("text", "scheme", "name"),
    [
        ("0", "camera", "camera 0"),
        ("screen", "screen", "screen"),
        ("screen 1  10 20 300 200", "screen", "screen 1 10 20 300 200"),
        ("rtsp://me:p%40ss@10.0.0.1:554/live?a=1", "rtsp", "rtsp://10.0.0.1:554/live?a=1"),
        ("HTTP://10.0.0.1/a.jpg", "http", "http://10.0.0.1/a.jpg"),
        ("udp://@:1234", "udp", "udp://:1234"),
    ],
)
def test_addresses_and_their_public_names(text, scheme, name):
    address = parse_address(text)
    assert (address.scheme, address.name) == (scheme, name)


@pytest.mark.parametrize("text", ["bus.jpg", "a/b.mp4", "screens/a.png", "1234", "C:\\a.jpg"])
def test_paths_are_not_addresses(text):
    assert parse_address(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/passwd",
        "concat://a|b",
        "subfile,,start,0,end,9,,:///etc/passwd",
        "http:///a.jpg",
        "rtsp://10.0.0.1/a b",
        "rtsp://[::1/a",
        "http://10.0.0.1/\x1b[2J",
        "http://10.0.0.1/" + "a" * 3000,
    ],
)
def test_other_schemes_and_malformed_addresses_are_refused(text):
    with pytest.raises(DataError, match=r"is not supported; expected rtsp|is not a valid address"):
        parse_address(text)


def test_a_refusal_does_not_show_the_password():
    with pytest.raises(DataError) as caught:
        parse_address("ftp://me:secret@10.0.0.1/a.jpg")
    assert "secret" not in str(caught.value)


def test_a_password_becomes_a_header():
    address = parse_address("http://me:p%40ss@10.0.0.1/video")
    url, header = address.split_password()
    assert url == "http://10.0.0.1/video"
    assert base64.b64decode(header.removeprefix("Basic ")) == b"me:p@ss"
    assert parse_address("http://10.0.0.1/video").split_password()[1] == ""


def test_ffmpeg_may_open_files_for_no_scheme():
    assert not any("file" in protocols or "concat" in protocols for protocols in PROTOCOLS.values())


def test_a_streams_file_lists_addresses(tmp_path):
    path = tmp_path / "a.streams"
    path.write_text("\ufeff# cameras\nrtsp://10.0.0.1/live\n\n  0\n", encoding="utf-8")
    assert [one.name for one in read_streams_file(path)] == ["rtsp://10.0.0.1/live", "camera 0"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the list is empty"),
        ("0\nbus.jpg\n", r"a\.streams:2: bus\.jpg is not an address or camera number"),
        ("0\n" * 65, "more than 64 streams"),
        ("gopher://a/b", r"a\.streams:1: gopher://a/b: gopher:// is not supported"),
    ],
)
def test_a_wrong_streams_file_names_the_line(tmp_path, text, sentence):
    (tmp_path / "a.streams").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_streams_file(tmp_path / "a.streams")
