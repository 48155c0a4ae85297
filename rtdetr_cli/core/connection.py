"""HTTP requests with safe redirects, a minimum transfer rate and bounded headers.

All bytes from a server pass through `_Paced`, so that no server can stall a download forever.
download.py writes the response to a file. Standard library only.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from typing import IO, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from rtdetr_cli.core.errors import BrokenError, DownloadError, OversizeError
from rtdetr_cli.core.urls import ascii_url

TIMEOUT_S = 30.0
"""Timeout of a read, seconds."""
MIN_PACE = 1000.0
"""Minimum bytes per second, averaged over `PACE_WINDOW_S`; a slower transfer is aborted."""
PACE_WINDOW_S = 60.0
MAX_HEAD = 1 << 18
"""Maximum bytes of status lines and headers, including interim responses, as in browsers."""

HEADERS = {"User-Agent": "rtdetr", "Accept-Encoding": "identity"}
"""Headers of every request."""

_TRANSIENT = {408, 416, 425, 429, 500, 502, 503, 504}  # 416: range beyond the end of the file


def connect(
    url: str, headers: Mapping[str, str], timeout_s: float | None = None
) -> http.client.HTTPResponse:
    """Request a file; the caller reads the body of the response.

    A header `Authorization` is not sent to where the server redirects.

    Raises:
        DownloadError: the server refuses, or redirects to an unsafe address.
        BrokenError: no connection, or a transient server error.
    """
    try:
        opener = build_opener(_Http, _Https, _SafeRedirects)
        own = {key: value for key, value in headers.items() if key != "Authorization"}
        request = Request(ascii_url(url), headers=own)
        for key in headers.keys() - own.keys():
            request.add_unredirected_header(key, headers[key])
        return cast(
            "http.client.HTTPResponse", opener.open(request, timeout=timeout_s or TIMEOUT_S)
        )
    except HTTPError as error:
        error.close()
        reason = " ".join(str(error.reason).splitlines()[:1])
        sentence = f"the server returned {error.code} {reason}"
        if error.code in _TRANSIENT:
            raise BrokenError(sentence, error.code) from None
        raise DownloadError(sentence) from None
    except URLError as error:
        if isinstance(error.reason, socket.gaierror | ssl.SSLCertVerificationError):
            raise DownloadError(f"no connection ({error.reason})") from None
        raise BrokenError(f"no connection ({error.reason})") from None
    except (OSError, http.client.HTTPException) as error:
        raise BrokenError(f"no connection ({error or type(error).__name__})") from None
    except ValueError as error:
        raise DownloadError(f"the address {error}") from None


def declared_length(response: http.client.HTTPResponse, max_bytes: int) -> int | None:
    """Check the head of a response with a whole file; returns its declared length.

    Raises:
        DownloadError: another status than 200, compression, or more than `max_bytes`.
    """
    refuse_compressed(response)
    if response.status != 200:
        raise DownloadError(f"the server returned {response.status} {response.reason}")
    if (response.length or 0) > max_bytes:
        raise OversizeError(response.length or 0)
    return response.length


def refuse_compressed(response: http.client.HTTPResponse) -> None:
    """Reject a body that is not the file itself.

    Raises:
        DownloadError: the server compresses it.
    """
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError("the server compresses the file despite Accept-Encoding: identity")


def read_block(response: http.client.HTTPResponse, limit: int) -> bytes:
    """Read at most `limit` bytes of the body; nothing at its end.

    Raises:
        BrokenError: the connection broke.
    """
    try:
        return response.read1(limit)
    except (OSError, http.client.HTTPException) as error:
        raise BrokenError(f"the connection broke ({error})") from None


class _SafeRedirects(HTTPRedirectHandler):
    """Follows redirects to http and https only, and never from https to http."""

    max_redirections = 5

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> Request | None:
        fp.close()  # the body is not needed and may be endless
        allowed = {"https"} if req.type == "https" else {"http", "https"}
        if urlsplit(newurl).scheme not in allowed:
            raise DownloadError(f"the server redirects to {newurl}, which is less safe")
        return super().redirect_request(req, fp, code, msg, headers, ascii_url(newurl))

    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage
    ) -> object:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError as error:
            fp.close()
            raise DownloadError(f"the server redirects to an invalid address ({error})") from None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Paced(io.RawIOBase):
    """A socket stream with a minimum transfer rate and bounded headers."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._began, self._received = time.monotonic(), 0
        self.head_left: int | None = MAX_HEAD
        """Remaining bytes before the body must begin; None in the body."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = cast("int | None", self._raw.readinto(buffer)) or 0
        self._received += count
        elapsed = time.monotonic() - self._began
        if elapsed > PACE_WINDOW_S:
            if self._received < MIN_PACE * elapsed:
                raise BrokenError(
                    f"the server sends {self._received / elapsed:.0f} bytes per second, less than "
                    f"the required {MIN_PACE:.0f}"
                )
            self._began, self._received = time.monotonic(), 0
        if self.head_left is not None:
            self.head_left -= count
            if self.head_left < 0:
                raise DownloadError("the server's headers do not end")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response read through `_Paced`."""

    def __init__(self, sock: socket.socket, *arguments: object, **keys: object) -> None:
        super().__init__(sock, *arguments, **keys)  # type: ignore[arg-type]
        self._paced = _Paced(self.fp.detach())
        self.fp = io.BufferedReader(self._paced)

    def begin(self) -> None:
        super().begin()
        self._paced.head_left = None

    def _read_and_discard_trailer(self) -> None:
        """Bound the trailing headers like the leading ones."""
        self._paced.head_left = MAX_HEAD
        super()._read_and_discard_trailer()  # type: ignore[misc]


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SafeConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Http(HTTPHandler):
    def http_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(HTTPSHandler):
    def https_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(_SafeConnection, req)
