"""Images and videos of a loopback server, by suffix or by content type; the rest is refused."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.media import web
from rtdetr_cli.media.addresses import parse_address
from rtdetr_cli.media.source import open_source
from rtdetr_cli.media.web import is_live, read_web

PNG = cv2.imencode(".png", np.full((4, 6, 3), (255, 0, 0), np.uint8))[1].tobytes()


@pytest.fixture
def server(monkeypatch):
    """Serves `files`: by path, content and content type, or an address to redirect to."""
    monkeypatch.delenv("RTDETR_OFFLINE", raising=False)
    files, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            content, kind = files.get(self.path.split("?")[0], (b"", ""))
            if not kind:
                self.send_error(404)
                return
            if kind == "redirect":
                self.send_response(302)
                self.send_header("Location", content)
            else:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if kind != "redirect":
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", files, asked
    httpd.shutdown()
    httpd.server_close()


def test_an_image_by_suffix_or_by_content_type(server):
    root, files, _ = server
    files |= {"/a.png": (PNG, "text/plain"), "/photo": (PNG, "image/png")}
    for path in ("/a.png", "/a.png?size=large", "/photo"):
        (found,) = open_source(root + path)
        assert found.path == root + path
        assert found.image[0, 0].tolist() == [0, 0, 255]


def test_a_video_is_downloaded_and_removed(server, tmp_path, write_video, monkeypatch):
    root, files, _ = server
    content = write_video(tmp_path / "a.mp4", frames=6).read_bytes()
    files |= {"/in/road.mp4": (content, "video/mp4"), "/watch": (content, "video/mp4")}
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for path, stem in (("/in/road.mp4", "road.mp4"), ("/watch", "watch.mp4")):
        found = list(read_web(parse_address(root + path), stride=2))
        assert [one.frame for one in found] == [1, 3, 5]
        assert {one.path for one in found} == {root + path}
        assert found[0].clip.path.endswith(stem)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_damaged_video_is_named_by_its_address(server, tmp_path, write_video):
    root, files, _ = server
    files["/a.mp4"] = (b"no video", "video/mp4")
    (found,) = open_source(f"{root}/a.mp4")
    assert found.error.startswith(f"{root}/a.mp4: cannot be read as a video")


def test_what_is_no_image_is_refused_before_the_model_is_opened(server):
    root, files, _ = server
    files["/page"] = (b"<html>", "text/html; charset=utf-8")
    with pytest.raises(DataError, match="is text/html, not an image, a video or a stream"):
        open_source(f"{root}/page")
    with pytest.raises(DataError, match="/gone: the server returned 404"):
        open_source(f"{root}/gone")
    (found,) = open_source(f"{root}/gone.jpg")
    assert "gone.jpg: the server returned 404" in found.error


def test_an_image_larger_than_the_limit_is_refused(server, monkeypatch):
    root, files, _ = server
    files["/a.png"] = (PNG, "image/png")
    monkeypatch.setattr(web, "MAX_IMAGE_BYTES", 10)
    (found,) = open_source(f"{root}/a.png")
    assert "exceed the limit" in found.error


def test_playlists_and_endless_parts_are_streams(server):
    root, files, _ = server
    files["/a"] = (b"", "multipart/x-mixed-replace; boundary=b")
    files["/b"] = (b"#EXTM3U", "application/vnd.apple.mpegurl")
    assert all(is_live(parse_address(root + path)) for path in ("/a", "/b", "/c.m3u8"))


def test_a_redirect_to_a_file_is_not_followed(server):
    root, files, _ = server
    files["/a.png"] = ("file:///etc/passwd", "redirect")
    (found,) = open_source(f"{root}/a.png")
    assert "Redirection to url 'file:///etc/passwd' is not allowed" in found.error


def test_a_password_is_sent_as_a_header_and_not_to_where_the_server_redirects(server):
    root, files, asked = server
    files |= {"/live": ("/other", "redirect"), "/other": (PNG, "image/png")}
    assert not is_live(parse_address(root.replace("//", "//me:secret@") + "/live"))
    assert [path for path, _ in asked] == ["/live", "/other"]
    assert asked[0][1].startswith("Basic ")
    assert asked[1][1] is None


def test_nothing_is_fetched_offline(server, monkeypatch):
    root, files, asked = server
    files["/a.png"] = (PNG, "image/png")
    monkeypatch.setenv("RTDETR_OFFLINE", "1")
    (found,) = open_source(f"{root}/a.png")
    assert found.error == f"{root}/a.png: RTDETR_OFFLINE is set"
    assert asked == []
