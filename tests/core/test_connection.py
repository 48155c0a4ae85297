"""Servers that are slow, endless or garbled on purpose: each ends in a sentence and in time."""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rtdetr_cli.core import connection
from rtdetr_cli.core import download as module
from rtdetr_cli.core.download import download
from rtdetr_cli.core.errors import DownloadError

Response = Callable[[str], Iterator[bytes]]
SUM = "0" * 64


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Download from a server that sends to every client what a function of its address yields."""
    monkeypatch.setattr(module, "PAUSES_S", (0.01,))
    monkeypatch.setattr(connection, "TIMEOUT_S", 2.0)
    monkeypatch.setattr(connection, "PACE_WINDOW_S", 0.3)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("RTDETR_OFFLINE", raising=False)
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def send(client: socket.socket, response: Response) -> None:
        with client:
            client.recv(65536)
            try:
                for piece in response(url):
                    client.sendall(piece)
            except OSError:
                return  # the client has had enough

    def serve(response: Response) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=send, args=(client, response), daemon=True).start()

    def call(response: Response, path: str = "file.bin", **keys: object) -> Path:
        threading.Thread(target=serve, args=(response,), daemon=True).start()
        return download(f"{url}/{path}", tmp_path / "home" / "file.bin", **keys)

    call.home = tmp_path / "home"
    yield call
    listener.close()


def dripping(*head: bytes) -> Response:
    """Send a head at once and then a byte every 20 ms, 50 a second."""

    def response(_: str) -> Iterator[bytes]:
        yield from head
        while True:
            time.sleep(0.02)
            yield b"a"

    return response


def fixed(*pieces: bytes) -> Response:
    return lambda _: iter(pieces)


def endless(head: bytes, piece: bytes) -> Response:
    return lambda _: itertools.chain([head], itertools.repeat(piece))


def assert_refused_in_time(ask, response: Response, sentence: str, **keys: object) -> None:
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(DownloadError, match=sentence) as caught:
        ask(response, **keys)
    assert time.monotonic() - began < 3  # two attempts of 0.3 s, and what else runs here
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 300
    assert {file.name for file in ask.home.iterdir()} <= {
        ".file.bin.lock",
        ".file.bin.part",  # only where the server says what it is the half of
        ".file.bin.part.json",
    }


@pytest.mark.parametrize(
    "response",
    [
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
        dripping(b'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nETag: "x"\r\n\r\n'),
        dripping(b"HTTP/1.1 200 OK\r\nX: "),
        dripping(),
    ],
    ids=["body", "body that can be resumed", "header", "status"],
)
def test_a_byte_now_and_then_ends_the_attempts(ask, response):
    assert_refused_in_time(ask, response, r"the server sends \d+ bytes per second, less than the")


def test_a_slow_but_honest_server_is_waited_for(ask):
    def response(_: str) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 800\r\n\r\n"
        for _ in range(8):  # 2,000 bytes a second over 0.4 s
            time.sleep(0.05)
            yield bytes(100)

    assert ask(response).stat().st_size == 800


def test_a_byte_an_attempt_is_no_progress(ask):
    counts = itertools.count()

    def response(_: str) -> Iterator[bytes]:
        next(counts)
        yield b'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nETag: "x"\r\n\r\na'

    assert_refused_in_time(ask, response, "the connection broke at 1 of 1,000,000 bytes")
    assert next(counts) <= 4


@pytest.mark.parametrize(
    "response",
    [
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        endless(b"HTTP/1.1 100 Continue\r\n", b"a: b\r\n"),
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    ],
    ids=["interim responses", "headers of an interim response", "trailers"],
)
def test_endless_heads_end(ask, response):
    assert_refused_in_time(ask, response, "headers do not end|more than 100 headers")


def test_the_body_of_a_redirect_is_not_read(ask):
    head = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/x\r\n\r\n"
    assert_refused_in_time(ask, endless(head, bytes(65536)), "no connection .*refused")


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        (b"file:///etc/passwd", "302 Found - Redirection to url 'file:///etc/passwd' is not allo"),
        (b"ftp://127.0.0.1/x", "the server redirects to ftp://127.0.0.1/x, which is less safe"),
        (b"http://me:pw@127.0.0.1/x", "must not contain a user name or password"),
        (b"http://[x/", r"redirects to an invalid address \(Invalid IPv6 URL\)"),
        (b"http://127.0.0.1:99999/", "must be a web address"),
        (b"/" + b"a" * 3000, "must have at most 2000 characters"),
        (b"x:\x1b[2J" + b"a" * 3000, "302 Found - Redirection to url 'x: *"),
    ],
)
def test_redirects_lead_to_plain_addresses_only(ask, place, sentence):
    response = fixed(b"HTTP/1.1 302 Found\r\nLocation: " + place + b"\r\n\r\n")
    assert_refused_in_time(ask, response, sentence)


def test_a_chain_of_redirects_ends(ask):
    numbers = itertools.count()

    def response(url: str) -> Iterator[bytes]:
        yield f"HTTP/1.1 302 Found\r\nLocation: {url}/{next(numbers)}\r\n\r\n".encode()

    assert_refused_in_time(ask, response, "the server returned 302 .* infinite loop")
    assert next(numbers) == 6


@pytest.mark.parametrize(
    ("response", "sentence"),
    [
        (fixed(b"HTTP/1.1 404 \r\n\r\n"), "the server returned 404"),
        (fixed(b"HTTP/1.1 404 \x1b]0;owned\x07\r\n\r\n"), "the server returned 404"),
        (fixed(b"\0" * 1000), "no connection"),
        (fixed(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc"), "does not declare the length"),
        (
            fixed(b"HTTP/1.1 200 OK\r\nContent-Length: 5e9\r\n\r\nabc"),
            "does not declare the length",
        ),
        (fixed(b"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n\r\nabc"), "server returned 206"),
        (
            fixed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc"),
            "the connection broke",
        ),
        (
            fixed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc"),
            "the connection broke",
        ),
        (
            fixed(
                b"HTTP/1.1 200 OK\r\nLast-Modified: a\r\n b\r\nContent-Length: 9000\r\n\r\n",
                bytes(5000),
            ),
            "the connection broke at 5,000 of 9,000",
        ),
    ],
)
def test_garbled_answers_are_sentences(ask, response, sentence):
    assert_refused_in_time(ask, response, sentence)


def test_a_gzip_bomb_is_never_inflated(ask):
    bomb = gzip.compress(bytes(50_000_000))  # 49 kB
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    assert_refused_in_time(ask, fixed(head.encode(), bomb), "compresses the file despite")


def test_a_file_without_an_end_is_bounded_on_disk(ask):
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    response = endless(head, bytes(65536))
    keys = {"known_sum": SUM, "max_bytes": 3_000_000}
    assert_refused_in_time(ask, response, "exceeds the limit of 3 MB", **keys)
    assert not (ask.home / ".file.bin.part").exists()


def test_addresses_beyond_ascii_are_asked_for_percent_encoded(ask):
    asked = []

    def response(_: str) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    original = connection.Request

    def record(url: str, **keys: object):
        asked.append(url)
        return original(url, **keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "Request", record)
        assert ask(response, "dätä/ネコ 1.zip?q=ü").read_bytes() == b"ok"
    assert asked[0].endswith("/d%C3%A4t%C3%A4/%E3%83%8D%E3%82%B3%201.zip?q=%C3%BC")
