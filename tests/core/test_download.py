"""Downloads from a faulty loopback server end with the correct file or without one."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from rtdetr_cli.core import connection
from rtdetr_cli.core import download as module
from rtdetr_cli.core.download import download, hold_to_sum, is_offline
from rtdetr_cli.core.errors import DataError, DownloadError, StorageError

ROOT = Path(__file__).parents[2]


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(connection, "TIMEOUT_S", 0.5)


@pytest.fixture
def fetch(server, tmp_path):
    """Download the server's file; the folder is made on the way."""
    path = tmp_path / "home" / "file.pth"

    def call(**keys):
        return download(f"{server.url}/file.pth", path, **keys)

    call.path = path
    return call


def left(fetch) -> set[str]:
    """Files in the folder, without the lock."""
    return {file.name for file in fetch.path.parent.iterdir()} - {".file.pth.lock"}


def test_a_file_arrives_with_its_checksum(server, fetch, capsys):
    assert fetch() == fetch.path
    assert fetch.path.read_bytes() == server.body
    assert left(fetch) == {"file.pth", "file.pth.sha256"}
    recorded = fetch.path.with_name("file.pth.sha256").read_text()
    assert recorded == f"{digest(server.body)}  file.pth\n"
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"downloading {server.url}/file.pth (0.5 MB)\n"
    fetch()
    assert len(server.requests) == 1


def test_a_broken_connection_is_gone_on_with_where_it_broke(server, fetch, capsys):
    server.cuts = [300_000, 100_000]
    fetch()
    assert fetch.path.read_bytes() == server.body
    asked = [headers.get("Range") for headers in server.requests]
    assert asked == [None, "bytes=300000-", "bytes=400000-"]
    assert server.requests[1]["If-Range"] == '"first"'
    assert "broke at 300,000 of 512,000 bytes; trying again" in capsys.readouterr().err


def test_a_later_call_goes_on_too(server, fetch):
    server.cuts = [200_000, 0, 0, 0]
    with pytest.raises(DownloadError, match="broke at 200,000"):
        fetch()
    assert left(fetch) == {".file.pth.part", ".file.pth.part.json"}
    fetch()
    assert server.requests[-1]["Range"] == "bytes=200000-"
    assert fetch.path.read_bytes() == server.body
    assert left(fetch) == {"file.pth", "file.pth.sha256"}


def test_attempts_without_progress_end(server, fetch):
    server.cuts = [0] * 99
    with pytest.raises(DownloadError, match="broke at 0 of"):
        fetch()
    assert len(server.requests) == 3
    assert not fetch.path.exists()


def test_attempts_with_progress_do_not_count(server, fetch):
    server.cuts = [50_000] * 9
    fetch()
    assert len(server.requests) == 10
    assert fetch.path.read_bytes() == server.body


def test_a_server_that_ignores_ranges_is_read_from_the_start(server, fetch):
    server.cuts, server.ranges = [300_000], "ignored"
    fetch()
    assert fetch.path.read_bytes() == server.body
    assert "Range" in server.requests[1]


def test_a_file_that_changed_meanwhile_is_read_from_the_start(server, fetch):
    server.cuts = [300_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch()
    server.body, server.etag = b"second" * 70_000, '"second"'
    fetch()
    assert fetch.path.read_bytes() == server.body


def test_other_content_for_the_rest_never_stays(server, fetch):
    """A server that reads no If-Range, gives no ETag for the rest and has another file."""
    whole, server.cuts = server.body, [300_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch(known_sum=digest(whole))
    server.body, server.etag, server.ranges = b"?" * len(whole), None, "careless"
    with pytest.raises(DownloadError, match=r"its SHA-256 is .* was published"):
        fetch(known_sum=digest(whole))
    assert left(fetch) == set()
    assert server.requests[-1].get("Range") is None  # the second try was from the start


def test_pieces_of_two_files_are_fetched_anew(server, fetch):
    first, server.cuts = server.body, [300_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch()
    server.body, server.etag, server.ranges = b"2" * len(first), None, "careless"
    fetch(known_sum=digest(server.body))
    assert fetch.path.read_bytes() == server.body


def test_a_place_that_was_not_asked_for_is_refused(server, fetch):
    server.cuts, server.ranges = [300_000], "shifted"
    fetch()
    assert fetch.path.read_bytes() == server.body
    assert [headers.get("Range") for headers in server.requests] == [None, "bytes=300000-", None]


def test_without_a_validator_nothing_is_gone_on_with(server, fetch):
    server.cuts, server.etag = [300_000], None
    fetch()
    assert [headers.get("Range") for headers in server.requests] == [None, None]
    assert fetch.path.read_bytes() == server.body


def test_more_declared_than_sent_is_never_kept(server, fetch):
    server.extra_length = 5
    with pytest.raises(DownloadError, match="resumed with another file"):
        fetch()
    assert not fetch.path.exists()


def test_less_declared_than_sent_is_never_kept(server, fetch):
    server.extra_length = -5
    with pytest.raises(DownloadError, match="was published"):
        fetch(known_sum=digest(server.body))
    assert left(fetch) == set()

    def check(path: Path) -> None:
        if path.stat().st_size != len(server.body):
            raise DataError("truncated")

    with pytest.raises(DataError, match="truncated"):
        fetch(check=check)
    assert left(fetch) == set()


def test_an_unknown_length_needs_chunks_or_a_checksum(server, fetch):
    server.ranges = "endless"
    with pytest.raises(DownloadError, match="does not declare the length"):
        fetch()
    assert fetch(known_sum=digest(server.body)).read_bytes() == server.body


def test_chunks_are_read_and_their_breaking_off_is_seen(server, fetch):
    server.chunked, server.cuts = True, [200_000]
    fetch()
    assert fetch.path.read_bytes() == server.body
    assert len(server.requests) == 2


def test_silence_ends_an_attempt_not_the_download(server, fetch):
    server.stall = [1.5]
    fetch()
    assert fetch.path.read_bytes() == server.body
    assert server.requests[1]["Range"] == "bytes=256000-"


@pytest.mark.parametrize("code", [404, 403, 410])
def test_a_refusal_is_final(server, fetch, code):
    server.codes = [code]
    with pytest.raises(DownloadError, match=f"the server returned {code} [A-Z]"):
        fetch()
    assert len(server.requests) == 1
    assert left(fetch) == set()


def test_a_fault_of_the_server_is_waited_out(server, fetch):
    server.codes = [500, 503]
    fetch()
    assert len(server.requests) == 3
    server.codes = [500] * 9
    fetch.path.unlink()
    with pytest.raises(DownloadError, match="the server returned 500"):
        fetch()


def test_a_range_that_cannot_be_satisfied_starts_anew(server, fetch):
    server.cuts, server.codes = [300_000], [0, 416]
    fetch()
    assert [headers.get("Range") for headers in server.requests] == [None, "bytes=300000-", None]
    assert fetch.path.read_bytes() == server.body


def test_redirects_are_followed_but_not_anywhere(server, fetch):
    server.redirect = "file:///etc/passwd"
    with pytest.raises(DownloadError, match=r"302 Found - .* is not allowed"):
        fetch()
    server.redirect = f"{server.url}/again"
    with pytest.raises(DownloadError, match="the server returned 302"):
        fetch()
    assert left(fetch) == set()


def test_https_never_becomes_http(tmp_path):
    safe = SimpleNamespace(type="https")
    response = (tmp_path / "x").open("wb")
    with pytest.raises(DownloadError, match="less safe"):
        connection._SafeRedirects().redirect_request(
            safe, response, 302, "", None, "http://example.org/"
        )
    assert response.closed


def test_a_redirect_leads_to_the_file(server, fetch, monkeypatch):
    handler = connection._SafeRedirects.redirect_request

    def once(self, *arguments):
        server.redirect = None
        return handler(self, *arguments)

    monkeypatch.setattr(connection._SafeRedirects, "redirect_request", once)
    server.redirect = f"{server.url}/elsewhere"
    fetch()
    assert fetch.path.read_bytes() == server.body


def test_compressed_and_oversized_files_are_refused(server, fetch):
    server.encoding = "gzip"
    with pytest.raises(DownloadError, match="compresses"):
        fetch()
    server.encoding = None
    with pytest.raises(DownloadError, match="1 MB exceed the limit for this file"):
        fetch(max_bytes=100_000)
    server.chunked = True
    with pytest.raises(DownloadError, match="exceeds the limit of 0 MB"):
        fetch(max_bytes=100_000)
    assert not fetch.path.exists()


def test_a_full_disk_is_named_before_a_byte_is_fetched(server, fetch, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=20_000_000))
    with pytest.raises(StorageError, match=r"file\.pth: it needs 33 MB and 20 MB are free"):
        fetch()
    assert left(fetch) == set()


def test_another_file_than_at_first_use_is_refused(server, fetch):
    fetch()
    fetch.path.unlink()
    server.body = b"other" * 1000
    with pytest.raises(DownloadError, match=r"at first use; delete .*file\.pth\.sha256 if the pub"):
        fetch()
    assert left(fetch) == {"file.pth.sha256"}
    fetch.path.with_name("file.pth.sha256").unlink()
    fetch()
    assert fetch.path.read_bytes() == server.body


def test_a_file_that_was_put_there_is_held_to_the_same_sums(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"1")
    assert hold_to_sum(path, path, digest(b"1")) == digest(b"1")
    with pytest.raises(DownloadError, match="was published"):
        hold_to_sum(path, path, digest(b"2"))


def test_offline_asks_nobody(server, fetch, monkeypatch):
    for value in ("0", "false", ""):
        monkeypatch.setenv("RTDETR_OFFLINE", value)
        assert not is_offline()
    monkeypatch.setenv("RTDETR_OFFLINE", "1")
    with pytest.raises(DownloadError, match="RTDETR_OFFLINE is set"):
        fetch()
    assert server.requests == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "x.pt"])
def test_other_addresses_are_refused(url, tmp_path, server):
    with pytest.raises(DownloadError, match="the address must begin with https:// or http://"):
        download(url, tmp_path / "x")


def test_nobody_there_is_said_after_a_few_attempts(server, tmp_path, capsys):
    with pytest.raises(DownloadError, match=r"no connection .*refused"):
        download("http://127.0.0.1:9/x", tmp_path / "x")
    assert capsys.readouterr().err.count("trying again") == 2


def test_lines_without_a_terminal_say_how_far_it_is(server, fetch, capsys, monkeypatch):
    monkeypatch.setattr(module, "_LINE_EVERY_S", 0.0)
    server.body = bytes(3_000_000)
    fetch()
    err = capsys.readouterr().err
    assert "file.pth: 2 MB of 3\n" in err
    assert "\x1b" not in err
    assert "\r" not in err


FETCH = textwrap.dedent("""
    import sys
    from pathlib import Path
    from rtdetr_cli.core.download import download
    download(sys.argv[1], Path(sys.argv[2]))
""")


def start(url: str, path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", FETCH, url, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def test_two_processes_at_once_download_once(server, tmp_path):
    server.stall = [0.8]
    path = tmp_path / "file.pth"
    both = [start(f"{server.url}/x", path) for _ in range(2)]
    talk = b"".join(process.communicate(timeout=60)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert path.read_bytes() == server.body
    assert len(server.requests) == 1
    assert talk.count(b"downloading http") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there a process cannot be killed like this")
def test_a_killed_process_blocks_nobody_and_its_half_is_used(server, fetch):
    server.stall = [30.0]
    process = start(f"{server.url}/file.pth", fetch.path)
    part = fetch.path.with_name(".file.pth.part")
    deadline = time.monotonic() + 30
    while not (part.is_file() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    fetch()
    assert fetch.path.read_bytes() == server.body
    assert server.requests[-1]["Range"].startswith("bytes=")
