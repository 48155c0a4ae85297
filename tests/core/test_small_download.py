"""Small files from a faulty loopback server: whole, or a sentence."""

from __future__ import annotations

import pytest

from rtdetr_cli.core import connection
from rtdetr_cli.core import small_download as module
from rtdetr_cli.core.errors import DownloadError
from rtdetr_cli.core.small_download import fetch_bytes


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(connection, "TIMEOUT_S", 0.3)


def test_a_file_arrives_whole_after_a_cut_an_error_and_a_silence(server):
    server.body = bytes(range(256)) * 999
    server.cuts, server.codes = [100], [503]
    assert fetch_bytes(f"{server.url}/1.jpg", 10**6) == server.body
    server.stall = [1]
    assert fetch_bytes(f"{server.url}/1.jpg", 10**6) == server.body
    assert len(server.requests) == 5


def test_the_last_reason_is_reported(server):
    server.cuts = [100] * 3
    with pytest.raises(DownloadError, match="the connection broke at 100 of 512,000 bytes"):
        fetch_bytes(server.url, 10**6)
    assert len(server.requests) == 3
    server.codes = [404]
    with pytest.raises(DownloadError, match="the server returned 404"):
        fetch_bytes(server.url, 10**6)
    assert len(server.requests) == 4


@pytest.mark.parametrize("chunked", [False, True])
def test_a_larger_file_is_refused(server, chunked):
    server.chunked = chunked
    with pytest.raises(DownloadError, match="MB exceed the limit"):
        fetch_bytes(server.url, 511_999)
    assert len(fetch_bytes(server.url, 512_000)) == 512_000


def test_a_compressed_body_is_refused(server):
    server.encoding = "gzip"
    with pytest.raises(DownloadError, match="compresses the file"):
        fetch_bytes(server.url, 10**6)
