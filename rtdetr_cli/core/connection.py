"""One response of a web server: where redirects lead, how slow and how long its head may be.

Everything that a server sends passes `_Paced`, so that no server keeps a download busy for ever.
download.py makes a file of the response. Standard library only.
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

from rtdetr_cli.core.errors import printable
from rtdetr_cli.core.urls import ascii_url

TIMEOUT_S = 30.0
"""Silence of a server that ends an attempt, seconds."""
MIN_PACE = 1000.0
"""Bytes a second on average over `PACE_WINDOW_S`; a slower server ends the attempt."""
PACE_WINDOW_S = 60.0
MAX_HEAD = 1 << 18
"""Bytes of status lines and headers, those of interim responses included, as in browsers."""

_TRANSIENT = {408, 416, 425, 429, 500, 502, 503, 504}  # 416: it has less than we asked for
_SHOWN = 300  # characters of a server's own words


class DownloadError(Exception):
    """Why a file could not be had, in words; the caller adds what to do and its exit code."""

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence, _SHOWN))


class BrokenError(Exception):
    """An attempt failed in a way that another one may mend; `code` is the server's, or 0."""

    def __init__(self, sentence: str, code: int = 0) -> None:
        super().__init__(printable(sentence, _SHOWN))
        self.code = code


def connect(url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    """Request a file; the body of the response is read by the caller.

    Raises:
        DownloadError: the server refuses, or leads to where we do not follow.
        BrokenError: no connection, or a fault of the server that may pass.
    """
    try:
        opener = build_opener(_Http, _Https, _SafeRedirects)
        request = Request(ascii_url(url), headers=dict(headers))
        return cast("http.client.HTTPResponse", opener.open(request, timeout=TIMEOUT_S))
    except HTTPError as error:
        error.close()
        reason = " ".join(str(error.reason).splitlines()[:1])
        sentence = f"the server answered {error.code} {reason}"
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


class _SafeRedirects(HTTPRedirectHandler):
    """Follows to http and https only, and never from https to http."""

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
        fp.close()  # its body is of no use, and would be read to an end that it may not have
        allowed = {"https"} if req.type == "https" else {"http", "https"}
        if urlsplit(newurl).scheme not in allowed:
            raise DownloadError(f"the server leads to {newurl}, which is less safe")
        return super().redirect_request(req, fp, code, msg, headers, ascii_url(newurl))

    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage
    ) -> object:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError as error:
            fp.close()
            raise DownloadError(f"the server leads to an impossible address ({error})") from None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Paced(io.RawIOBase):
    """What a socket receives, as long as it comes fast enough and no head is endless."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._began, self._received = time.monotonic(), 0
        self.head_left: int | None = MAX_HEAD
        """Bytes that may come before the body begins; None in the body."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = cast("int | None", self._raw.readinto(buffer)) or 0
        self._received += count
        elapsed = time.monotonic() - self._began
        if elapsed > PACE_WINDOW_S:
            if self._received < MIN_PACE * elapsed:
                raise BrokenError(
                    f"the server sends {self._received / elapsed:.0f} bytes a second, less than "
                    f"the {MIN_PACE:.0f} it must"
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
    """A response that is read through `_Paced`."""

    def __init__(self, sock: socket.socket, *arguments: object, **keys: object) -> None:
        super().__init__(sock, *arguments, **keys)  # type: ignore[arg-type]
        self._paced = _Paced(self.fp.detach())
        self.fp = io.BufferedReader(self._paced)

    def begin(self) -> None:
        super().begin()
        self._paced.head_left = None

    def _read_and_discard_trailer(self) -> None:
        """Headers behind the last chunk are as bounded as those before the first."""
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
