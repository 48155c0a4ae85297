"""The same image through every kind of source gives the same boxes to 1e-4."""

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from rtdetr_cli.api import RTDETR
from rtdetr_cli.backends.torch import build_network
from rtdetr_cli.config.load import load_model_config
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint

NAMES = {0: "cat", 1: "dog"}
SIZE_HW = (48, 64)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """rtdetr-n with random weights, at 64x96."""
    torch.manual_seed(0)
    config = load_model_config("rtdetr-n")
    weights = build_network(config, len(NAMES)).state_dict()
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_checkpoint(path, Checkpoint(config, NAMES, weights, Preprocessing(size_hw=(64, 96))))
    return RTDETR(path, device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One random image as JPEG, and the pixels of that JPEG without loss in other formats."""
    root = tmp_path_factory.mktemp("files")
    (root / "in").mkdir()
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8)))
    image.save(root / "in" / "a.jpg", quality=90)
    decoded = Image.open(root / "in" / "a.jpg").convert("RGB")
    other = Image.new("RGB", decoded.size)
    for suffix, options in (("png", {}), ("webp", {"lossless": True})):
        decoded.save(root / f"moving.{suffix}", save_all=True, append_images=[other], **options)
    writer = cv2.VideoWriter(
        str(root / "a.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MPNG"), 10, SIZE_HW[::-1]
    )
    assert writer.isOpened()
    for _ in range(3):
        writer.write(np.asarray(decoded)[..., ::-1].copy())
    writer.release()
    (root / "a.txt").write_text("in/a.jpg\n")
    (root / "a.csv").write_text("in/a.jpg,in/a.jpg\n")
    return root


@pytest.fixture(scope="module")
def address(files):
    """Serves the files, and /live as MJPEG of one frame a request."""
    content = (files / "in" / "a.jpg").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            live = self.path == "/live"
            self.send_response(200)
            self.send_header(
                "Content-Type", "multipart/x-mixed-replace; boundary=b" if live else "image/jpeg"
            )
            if self.path == "/a.avi":
                body = (files / "a.avi").read_bytes()
            elif live:
                body = b"--b\r\n\r\n" + content + b"\r\n--b--\r\n"
            else:
                body = content
            if not live:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def pixels(files):
    return np.asarray(Image.open(files / "in" / "a.jpg").convert("RGB"))


@pytest.fixture(scope="module")
def expected(model, files):
    """The boxes of the pixels themselves."""
    (results,) = model(pixels(files)[..., ::-1], conf=0.0)
    assert len(results) > 100
    return results.boxes.data


def from_stdin(content, monkeypatch):
    buffer = io.BufferedReader(io.BytesIO(content))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(buffer))
    return "-"


def streams_file(files, url):
    (files / "a.streams").write_text(f"{url}/live\n{url}/live\n")
    return files / "a.streams"


KINDS = {
    "file": lambda files, url, patch: str(files / "in" / "a.jpg"),
    "Path": lambda files, url, patch: files / "in" / "a.jpg",
    "folder": lambda files, url, patch: str(files / "in"),
    "pattern": lambda files, url, patch: f"{files}/**/*.jpg",
    "txt": lambda files, url, patch: str(files / "a.txt"),
    "csv": lambda files, url, patch: str(files / "a.csv"),
    "apng": lambda files, url, patch: str(files / "moving.png"),
    "webp": lambda files, url, patch: str(files / "moving.webp"),
    "video": lambda files, url, patch: str(files / "a.avi"),
    "image URL": lambda files, url, patch: f"{url}/a.jpg",
    "URL without suffix": lambda files, url, patch: f"{url}/photo",
    "video URL": lambda files, url, patch: f"{url}/a.avi",
    "stream": lambda files, url, patch: f"{url}/live",
    "streams": lambda files, url, patch: streams_file(files, url),
    "stdin image": lambda files, url, patch: from_stdin(
        (files / "in" / "a.jpg").read_bytes(), patch
    ),
    "stdin list": lambda files, url, patch: from_stdin(str(files / "in/a.jpg").encode(), patch),
    "bytes": lambda files, url, patch: (files / "in" / "a.jpg").read_bytes(),
    "file object": lambda files, url, patch: (files / "in" / "a.jpg").open("rb"),
    "Pillow": lambda files, url, patch: Image.open(files / "in" / "a.jpg"),
    "BGR": lambda files, url, patch: pixels(files)[..., ::-1],
    "BGRA": lambda files, url, patch: np.dstack([pixels(files)[..., ::-1], pixels(files)[..., 0]]),
    "BHWC": lambda files, url, patch: pixels(files)[None, ..., ::-1],
    "uint8 tensor": lambda files, url, patch: torch.from_numpy(pixels(files).copy()).permute(
        2, 0, 1
    ),
    "float tensor": lambda files, url, patch: (
        torch.from_numpy(pixels(files).copy()).permute(2, 0, 1)[None] / 255
    ),
    "list": lambda files, url, patch: [str(files / "in" / "a.jpg"), pixels(files)[..., ::-1]],
    "generator": lambda files, url, patch: iter([files / "in" / "a.jpg"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_boxes(model, files, address, expected, monkeypatch, kind):
    monkeypatch.delenv("RTDETR_OFFLINE")
    source = KINDS[kind](files, address, monkeypatch)
    found = list(islice(model(source, stream=True, conf=0.0), 1))
    torch.testing.assert_close(found[0].boxes.data, expected, atol=1e-4, rtol=0)
    assert found[0].orig_shape == SIZE_HW
    if hasattr(source, "close"):
        source.close()


def test_gray_gives_the_boxes_of_its_three_equal_channels(model, files):
    gray = pixels(files)[..., 0]
    found = [model(source, conf=0.0)[0] for source in (gray, np.dstack([gray] * 3))]
    torch.testing.assert_close(found[0].boxes.data, found[1].boxes.data, atol=1e-4, rtol=0)
