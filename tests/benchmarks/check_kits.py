"""Compare the boxes of one image: `rtdetr predict` and the program of each kit.

    python tests/benchmarks/check_kits.py best.onnx bus.jpg --onnxruntime ORT --node-modules NODE

ORT is an unpacked release of ONNX Runtime (include/, lib/) for the C++ runner, which also needs
CMake and OpenCV. NODE is a node_modules with onnxruntime-web and sharp; with --browser=chromium
the page itself is opened too. Options that are not given are skipped. The programs print two
digits of a pixel; exit code 1 if one differs by more than one in the last of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Line = tuple[str, float, list[float]]
PAGE = """<!doctype html><iframe src="index.html?image=image.jpg"></iframe><script>
const timer = setInterval(() => {
  const page = document.querySelector("iframe").contentDocument;
  if (!/objects/.test(page.querySelector("#status")?.textContent)) return;
  clearInterval(timer);
  fetch("found", { method: "POST", body: page.querySelector("#found").textContent });
}, 100);
</script>"""


def main() -> None:
    """Write the kits, run them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="ONNX file with labels, boxes and scores")
    parser.add_argument("image", type=Path)
    parser.add_argument("--onnxruntime", type=Path)
    parser.add_argument("--node-modules", type=Path)
    parser.add_argument("--browser")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = Path(shutil.copy(options.model, name))
        image = options.image.resolve()
        found = {
            "rtdetr predict": predict(model, image),
            "Python": run_python(write_kit(model, "onnxruntime-python"), image),
        }
        if options.onnxruntime:
            kit = write_kit(model, "onnxruntime-cpp")
            found["C++"] = run_cpp(kit, image, options.onnxruntime.resolve())
        if options.node_modules:
            kit = write_kit(model, "onnxruntime-web")
            (kit / "node_modules").symlink_to(options.node_modules.resolve())
            found["Node"] = run_node(kit, image)
            if options.browser:
                found["browser"] = run_browser(kit, image, options.browser)
    sys.exit(report(found))


def write_kit(model: Path, kit: str) -> Path:
    """The folder that the command writes."""
    run(["rtdetr_cli", "export", f"model={model}", f"kit={kit}"], module=True)
    return model.with_name(f"{model.stem}_{kit.replace('-', '_')}")


def predict(model: Path, image: Path) -> list[Line]:
    """Detections of our own command."""
    words = ["rtdetr_cli", "predict", f"model={model}", f"source={image}", "save=false", "json"]
    (found,) = json.loads(run(words, module=True))
    rows = found["detections"]
    return [(row["name"], row["confidence"], list(row["box"].values())) for row in rows]


def run_python(kit: Path, image: Path) -> list[Line]:
    """The runner on ONNX Runtime, numpy and Pillow."""
    return parse(run([sys.executable, kit / "detect.py", image]))


def run_cpp(kit: Path, image: Path, onnxruntime: Path) -> list[Line]:
    """The C++ runner, built first."""
    build = kit / "build"
    run(["cmake", "-S", kit, "-B", build, f"-DONNXRUNTIME_ROOT={onnxruntime}"])
    run(["cmake", "--build", build])
    return parse(run([build / "detect", kit / "model.onnx", image]))


def run_node(kit: Path, image: Path) -> list[Line]:
    """ONNX Runtime Web in Node."""
    return parse(run(["node", kit / "detect.mjs", image]))


def run_browser(kit: Path, image: Path, browser: str) -> list[Line]:
    """The page in a headless browser; a frame around it posts what it shows."""
    shutil.copy(image, kit / "image.jpg")
    (kit / "check.html").write_text(PAGE)
    PageServer.found, PageServer.ready = "", threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(PageServer, directory=str(kit))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/check.html"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server"]
        profile = f"--user-data-dir={kit / 'profile'}"
        with subprocess.Popen(
            [browser, *flags, profile, "--remote-debugging-port=0", address],
            stderr=subprocess.DEVNULL,
        ) as process:
            is_done = PageServer.ready.wait(120)
            process.terminate()
        server.shutdown()
    if not is_done:
        raise RuntimeError("the page showed no result within two minutes")
    return parse(PageServer.found)


class PageServer(SimpleHTTPRequestHandler):
    """Serve the kit and receive the detections that the page posts."""

    found = ""
    ready = threading.Event()
    extensions_map = {  # noqa: RUF012  (as in the class above)
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_POST(self) -> None:
        """Keep the text."""
        length = int(self.headers["Content-Length"])
        type(self).found = self.rfile.read(length).decode("utf-8")
        self.send_response(204)
        self.end_headers()
        self.ready.set()


def run(words: Sequence[object], module: bool = False) -> str:
    """Stdout of a program; its stderr is shown if it fails."""
    command = [str(word) for word in ([sys.executable, "-m", *words] if module else words)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}{done.stdout[-2000:]}")
    return done.stdout


def parse(text: str) -> list[Line]:
    """Lines of name, score and four edges; names may contain spaces."""
    rows = (line.rsplit(" ", 5) for line in text.splitlines())
    return [(name, float(score), [float(edge) for edge in box]) for name, score, *box in rows]


def largest_difference(ours: list[Line], theirs: list[Line]) -> tuple[float, float]:
    """In score and in pixels; infinite if number, order or names differ."""
    if [line[0] for line in ours] != [line[0] for line in theirs]:
        return float("inf"), float("inf")
    pairs = list(zip(ours, theirs, strict=True))
    scores = [abs(a[1] - b[1]) for a, b in pairs]
    edges = [abs(p - q) for a, b in pairs for p, q in zip(a[2], b[2], strict=True)]
    return max(scores, default=0.0), max(edges, default=0.0)


def report(found: dict[str, list[Line]]) -> int:
    """Print the boxes and the difference of each runner; return the exit code."""
    first, *others = found
    write = sys.stdout.write
    for row, (name, score, box) in enumerate(found[first]):
        if row == 10:
            write(f"... and {len(found[first]) - row} more\n")
            break
        write(f"{name}\n")
        for runner, lines in found.items():
            name, score, box = lines[row] if row < len(lines) else ("missing", 0.0, [])
            write(f"  {runner:<16}{score:.4f} {' '.join(f'{edge:8.2f}' for edge in box)}\n")
    is_wrong = False
    for runner in others:
        score, pixels = largest_difference(found[first], found[runner])
        is_wrong |= score > 0.00016 or pixels > 0.016  # half a digit of rounding and one more
        write(f"{runner}: {len(found[runner])} boxes, off by {score:.5f} and {pixels:.4f} px\n")
    return int(is_wrong)


if __name__ == "__main__":
    main()
