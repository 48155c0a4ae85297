"""What tests of several rooms share: real data, a home of their own, tiny networks, a server."""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rtdetr_cli.config.model import (
    DecoderConfig,
    EncoderConfig,
    HGNetv2Config,
    HGStage,
    ModelConfig,
    PResNetConfig,
)

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # before a test opens a video by itself
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images, labels and weights beside the repository; read-only, copy before writing."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data with real data is not on this machine")
    return folder


@pytest.fixture(autouse=True, scope="session")
def own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what tests download or draw out of the user's cache, and tests off the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RTDETR_OFFLINE", "1")
        patch.setenv("RTDETR_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def set_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes core/cpu.py see a CPU with the given flags of /proc/cpuinfo, and no other."""

    def set_flags(*flags: str) -> None:
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text(f"model name : made up\nflags : {' '.join(flags)}\n", encoding="utf-8")
        monkeypatch.setattr("rtdetr_cli.core.cpu._CPUINFO", cpuinfo)
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)

    return set_flags


@pytest.fixture(scope="session")
def fake_tensorrt() -> dict[str, Any]:
    """What tests/fake_tensorrt.py holds."""
    return runpy.run_path(str(ROOT / "tests" / "fake_tensorrt.py"))


@pytest.fixture(scope="session")
def toy_graph(fake_tensorrt: dict[str, Any]) -> str:
    """The official contract as ONNX text: score = mean, label = per cent, box = (w, h, w, h)."""
    text: str = fake_tensorrt["TOY"]
    return text


@pytest.fixture
def tensorrt(
    fake_tensorrt: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], ModuleType]:
    """Installs a stand-in for a release of TensorRT and for a GPU, with an empty home."""
    from rtdetr_cli.backends.tensorrt import detector as ours

    def install(version: str = "10.3.0") -> ModuleType:
        module: ModuleType = fake_tensorrt["make"](version)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setattr(ours, "Gpu", fake_tensorrt["Gpu"])
        monkeypatch.setenv("RTDETR_HOME", str(tmp_path / "home"))
        ours.error_log.cache_clear()
        return module

    yield install
    ours.error_log.cache_clear()


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """A complete HGNetv2 RT-DETR whose forward pass takes milliseconds."""
    return ModelConfig(
        name="tiny",
        backbone=HGNetv2Config(
            stem=(4, 8),
            stages=(
                HGStage(mid=4, out=8, blocks=1, layers=2),
                HGStage(mid=4, out=16, blocks=2, layers=2),
                HGStage(mid=8, out=16, blocks=1, kernel=5, layers=2, light=True),
                HGStage(mid=8, out=32, blocks=1, kernel=5, layers=2, light=True),
            ),
        ),
        encoder=EncoderConfig(hidden_dim=16, ffn_dim=32, num_heads=2, num_csp_blocks=1),
        decoder=DecoderConfig(hidden_dim=16, ffn_dim=32, num_layers=3, num_heads=2, num_queries=20),
    )


@pytest.fixture(params=["basic", "bottleneck"])
def tiny_presnet_config(request: pytest.FixtureRequest) -> ModelConfig:
    """The same on ResNet-vd, with narrow CSP blocks as in R18."""
    return ModelConfig(
        name=f"tiny-{request.param}",
        backbone=PResNetConfig(
            blocks=(1, 2, 1, 1),
            bottleneck=request.param == "bottleneck",
            stem=(4, 4, 8),
            widths=(8, 8, 8, 8),
        ),
        encoder=EncoderConfig(
            hidden_dim=16, ffn_dim=32, num_heads=2, num_csp_blocks=1, expansion=0.5
        ),
        decoder=DecoderConfig(hidden_dim=16, ffn_dim=32, num_layers=2, num_heads=2, num_queries=20),
    )


@dataclass
class Server:
    """A loopback server that behaves as badly as configured: one file at every path, or `files`.

    Lists are consumed, one entry per request; afterwards the server behaves correctly.
    """

    url: str
    body: bytes = bytes(range(256)) * 2000
    etag: str | None = '"first"'
    codes: list[int] = field(default_factory=list)
    """Status codes of the responses; 0 sends the file."""
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the connection breaks."""
    stall: list[float] = field(default_factory=list)
    """Seconds of silence in the middle of the body."""
    extra_length: int = 0
    """Added to the declared length."""
    ranges: str = "honest"
    """honest; ignored; endless: also without a length; shifted: another offset than requested;
    careless: If-Range is ignored."""
    redirect: str | None = None
    chunked: bool = False
    encoding: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    """Content by path, instead of `body`; every other path is not found."""
    requests: list[dict[str, str]] = field(default_factory=list)
    """Headers of each request."""
    paths: list[str] = field(default_factory=list)
    """Path of each request."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behavior: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        behavior = self.behavior
        behavior.requests.append(dict(self.headers))
        behavior.paths.append(self.path)
        self.close_connection = True
        self.body = behavior.files.get(self.path, b"") if behavior.files else behavior.body
        is_absent = bool(behavior.files) and self.path not in behavior.files
        code = behavior.codes.pop(0) if behavior.codes else 404 * is_absent
        if code:
            self._respond(code, {"Content-Length": "0"})
        elif behavior.redirect:
            self._respond(302, {"Location": behavior.redirect, "Content-Length": "0"})
        else:
            self._file(behavior)

    def _respond(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _file(self, behavior: Server) -> None:
        start = self._start(behavior)
        headers = {"ETag": behavior.etag} if behavior.etag else {}
        if behavior.encoding:
            headers["Content-Encoding"] = behavior.encoding
        if start:
            first = start + (7 if behavior.ranges == "shifted" else 0)
            size = len(self.body)
            headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
        body = self.body[start:]
        if behavior.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif behavior.ranges != "endless":
            headers["Content-Length"] = str(len(body) + behavior.extra_length)
        self._respond(206 if start else 200, headers)
        cut = behavior.cuts.pop(0) if behavior.cuts else len(body)
        self._send(body[: cut // 2])
        self.wfile.flush()
        time.sleep(behavior.stall.pop(0) if behavior.stall else 0)
        self._send(body[cut // 2 : cut])
        if behavior.chunked and cut == len(body):
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        if self.behavior.chunked and data:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        else:
            self.wfile.write(data)

    def _start(self, behavior: Server) -> int:
        asked = self.headers.get("Range")
        is_same = self.headers.get("If-Range") == behavior.etag or behavior.ranges == "careless"
        if not asked or behavior.ranges in {"ignored", "endless"} or not is_same:
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Ignore clients that disconnect."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A file server on this machine; the network is allowed and no proxy is used."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("RTDETR_OFFLINE", raising=False)
    http = Quiet(("127.0.0.1", 0), Handler)
    http.RequestHandlerClass = type("BoundHandler", (Handler,), {})
    behavior = Server(f"http://127.0.0.1:{http.server_address[1]}")
    http.RequestHandlerClass.behavior = behavior
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield behavior
    http.shutdown()
    http.server_close()
    thread.join()
