"""A page is one file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which

import numpy as np
import pytest

from rtdetr_cli.core.errors import StorageError
from rtdetr_cli.report import parts
from rtdetr_cli.report.images import jpeg
from rtdetr_cli.report.page import write_page
from rtdetr_cli.report.parts import Card, Html, Panel


@pytest.fixture
def page(tmp_path: Path) -> str:
    image = jpeg(np.zeros((4, 6, 3), np.uint8))
    body = [parts.paragraph("text"), parts.gallery([Card("caption", (Panel(image, "truth"),))])]
    write_page(tmp_path / "report.html", "A <title> & $body", body)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


class Links(HTMLParser):
    """Collects every attribute that makes a browser load something, and all elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        loading = {"src", "href", "srcset", "action", "data", "poster", "background", "xlink:href"}
        self.urls += [value for name, value in attrs if name in loading]
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)


def test_nothing_is_loaded_and_no_script_runs(page):
    links = Links(page)
    assert len(links.urls) == 2  # the image, and the icon that keeps a browser from asking for one
    assert all(url.startswith("data:") for url in links.urls)
    assert not links.tags & {"script", "iframe", "object", "embed", "base", "form"}
    style = re.search("<style>(.*)</style>", page, re.S)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_forbids_requests_and_scripts_and_allows_only_its_own_style(page):
    policy = re.search('Content-Security-Policy" content="([^"]*)"', page)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    style = re.search("<style>(.*)</style>", page, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # The policy comes before anything that it is to hold for.
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_the_title_is_text_and_no_placeholder(page):
    assert "<title>A &lt;title&gt; &amp; $body</title>" in page
    assert "<h1>A &lt;title&gt; &amp; $body</h1>" in page


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_page(tmp_path / "file" / "report.html", "title", [])


@pytest.mark.slow
@pytest.mark.skipif(which("chromium") is None, reason="chromium is not installed")
def test_a_browser_requests_the_page_alone_even_with_foreign_markup_in_it(tmp_path):
    """Through a proxy that sees every request; those of the browser itself are to other hosts."""
    image = jpeg(np.zeros((4, 6, 3), np.uint8))
    foreign = Html('<img src="/x.png"><script src="/x.js"></script><link rel=stylesheet href=/x>')
    parts_of_page = [parts.gallery([Card("caption", (Panel(image),))]), foreign]
    write_page(tmp_path / "report.html", "title", parts_of_page)
    seen: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.path)
            content = (tmp_path / "report.html").read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        words = [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
        ]
        words += [f"--user-data-dir={tmp_path / 'profile'}", f"--proxy-server={address}"]
        words += [f"--screenshot={tmp_path / 'page.png'}", f"http://{address}/report.html"]
        browser = subprocess.run(words, capture_output=True, text=True, timeout=120)
        server.shutdown()
    assert (tmp_path / "page.png").stat().st_size > 1000
    assert [path for path in seen if path.startswith("/")] == ["/report.html"]
    messages = [line for line in browser.stderr.splitlines() if "CONSOLE" in line]
    assert len(messages) == 3  # one for each foreign element: its policy refuses it
    assert all("Content Security Policy" in line for line in messages)
