"""A folder of damaged and odd files for `rtdetr predict`: `hostile_folder.py FOLDER MODEL [COUNT]`.

Plants COUNT (500) files in FOLDER/files, runs the real command on them in several ways, and prints
exit code, seconds, peak memory, and every fault. Right is: each file with the name of an image or a
video is either detected in or named once on stderr, the files that no reader can decode are named,
the sound ones have detections, the exit code is 3, and there is no traceback.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from rtdetr_cli.core.errors import printable

NAMES = (
    "new\nline {}.jpg", "tab\t{}.jpg", "-{}.jpg", "--help {}.jpg", "\udcff\udcfe {}.jpg",
    "\U0001f6a6 {}.jpg", "a=b {}.jpg", "quote'\" {}.jpg", "[bold]{}.jpg", "%s {}.jpg",
    "\u202egpj.{}.jpg", "trailing {} .jpg", "\x1b[31m{}.jpg", "{}..jpg", "http:{}.jpg", "*{}?.jpg",
)  # fmt: skip
"""Names that shells, terminals and parsers trip over."""
SUFFIXES = ("jpg", "png", "webp", "tif", "gif", "bmp", "avif", "jp2", "ppm", "qoi", "exr", "mp4")
HEADERS = (
    b"P6 99999 99999 255\n", b"P6 1 1 " + b"9" * 5000, b"8BPS\0\1", b"\x89PNG\r\n\x1a\n", b"GIF89a",
    b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff", b"\0\0\0\x0cjP  ",
    b"\0\0\1\0", b"qoif", b"\x76\x2f\x31\x01\2\0\0\0", b"#EXTM3U\nfile:///etc/passwd\n",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
)  # fmt: skip
"""Starts of formats, with nothing behind them."""
_SIZE_FIELDS = {"png": (16, ">II"), "bmp": (18, "<ii"), "gif": (6, "<HH")}
"""Where a format declares width and height."""


@dataclass
class Planted:
    """The files by what must become of them.

    Attributes:
        sound: decodable; must give a result.
        broken: must be named once.
        either: damaged in a way that a decoder may or may not notice.
    """

    sound: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    either: list[Path] = field(default_factory=list)


def plant(folder: Path, count: int, seed: int = 0) -> Planted:
    """Make `count` files, the same for the same seed; each kind in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    planted, rng = Planted(), random.Random(seed)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        name = rng.choice(NAMES) if rng.random() < 0.2 else "{}." + rng.choice(SUFFIXES)
        kind(planted, rng, folder / name.format(f"{number:04d}"))
    return planted


def _sound(planted: Planted, rng: random.Random, path: Path) -> None:
    """A sound image, often under the suffix of another format."""
    if path.suffix in {".mp4", ".exr"}:
        path = path.with_suffix(".jpg")
    path.write_bytes(_image(rng)[1])
    planted.sound.append(path)


def _cut(planted: Planted, rng: random.Random, path: Path) -> None:
    """The first bytes of an image: too few for any pixel."""
    path.write_bytes(_image(rng)[1][: rng.randrange(12)])
    planted.broken.append(path)


def _text(planted: Planted, rng: random.Random, path: Path) -> None:
    """Something else than an image."""
    texts = (b"", b"\0" * 5000, b"<html>not found</html>", b"a,b\n1,2\n", rng.randbytes(2000))
    path.write_bytes(rng.choice(texts))
    planted.broken.append(path)


def _header(planted: Planted, rng: random.Random, path: Path) -> None:
    """The start of a format and nothing behind it."""
    path.write_bytes(rng.choice(HEADERS))
    planted.broken.append(path)


def _huge(planted: Planted, rng: random.Random, path: Path) -> None:
    """An image whose header declares up to 65,535 x 65,535 pixels."""
    suffix, content = rng.choice([one for one in _images() if one[0] in _SIZE_FIELDS])
    at, form = _SIZE_FIELDS[suffix]
    sides = (65535, rng.choice((65535, 2500) if suffix != "gif" else (65535, 32767, 20000, 60)))
    changed = bytearray(content)
    struct.pack_into(form, changed, at, *sides)
    path = path.with_suffix(f".{suffix}")
    path.write_bytes(changed)
    (planted.either if suffix == "gif" else planted.broken).append(path)


def _mutated(planted: Planted, rng: random.Random, path: Path) -> None:
    """Bits exchanged, bytes removed or repeated, or the end cut off."""
    suffix, content = _image(rng)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 3, 30))):
        at = int(len(changed) * rng.random() ** 2)
        changed[at] ^= 1 << rng.randrange(8)
    match rng.randrange(4):
        case 0:
            del changed[rng.randrange(len(changed)) :]
        case 1:
            at = rng.randrange(len(changed))
            del changed[at : at + rng.randrange(1, 30)]
        case 2:
            at = rng.randrange(len(changed))
            changed[at:at] = changed[at : at + rng.randrange(1, 200)]
    path = path if path.suffix not in {".mp4"} else path.with_suffix(f".{suffix}")
    path.write_bytes(changed)
    planted.either.append(path)


def _special(planted: Planted, rng: random.Random, path: Path) -> None:
    """A pipe, a loop of links, a link to nothing, or a socket-like device."""
    match rng.randrange(4):
        case 0:
            os.mkfifo(path)
        case 1:
            path.symlink_to(path.name)
        case 2:
            path.symlink_to("absent")
        case 3:
            path.symlink_to("/dev/zero")
    planted.broken.append(path)


def _unreadable(planted: Planted, rng: random.Random, path: Path) -> None:
    """A file without permission to read; root reads it all the same."""
    path.write_bytes(_image(rng)[1])
    path.chmod(0)
    (planted.either if os.geteuid() == 0 else planted.broken).append(path)


NOTES = ("only the first of", "videos hold frames up to")
"""Lines about images that can be read."""
RUNS = (
    ("json=lines", "save=false"),
    ("json=lines", "save=false", "batch=8"),
    ("json=lines", "save_txt", "save_conf", "save_crop", "save_frames", "save_json"),
    ("out=rows", "part_size=64"),
)
"""Ways to run the command."""
KINDS: tuple[Callable[[Planted, random.Random, Path], None], ...] = (
    _sound, _mutated, _cut, _mutated, _text, _mutated, _header, _mutated, _huge, _special, _mutated,
    _unreadable,
)  # fmt: skip


def _image(rng: random.Random) -> tuple[str, bytes]:
    return rng.choice(_images())


@cache
def _images() -> list[tuple[str, bytes]]:
    """A photo-like image of 160x120 in every format that this Pillow writes."""
    gradient = Image.linear_gradient("L").resize((160, 120))
    colored = Image.merge("RGB", (gradient, gradient.rotate(180), gradient))
    Image.init()
    kinds = {
        "jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF", "bmp": "BMP", "gif": "GIF",
        "jp2": "JPEG2000", "ppm": "PPM", "avif": "AVIF", "pcx": "PCX", "tga": "TGA", "sgi": "SGI",
    }  # fmt: skip
    found = []
    for suffix, kind in kinds.items():
        if kind not in Image.SAVE:  # a Pillow without its library
            continue
        stream = io.BytesIO()
        colored.save(stream, kind)
        found.append((suffix, stream.getvalue()))
    for suffix, options in (("gif", {}), ("webp", {}), ("png", {})):
        stream = io.BytesIO()
        further = [colored.rotate(angle) for angle in (30, 60)]
        colored.save(stream, suffix, save_all=True, append_images=further, duration=40, **options)
        found.append((suffix, stream.getvalue()))
    stream = io.BytesIO()
    colored.save(stream, "JPEG", progressive=True)
    found.append(("jpg", stream.getvalue()))
    return found


@dataclass
class Run:
    """The real command on a folder.

    Attributes:
        code: its exit code.
        seconds: wall time.
        peak_mb: largest resident memory.
        rows: results of each path; frames of an animation count.
        warnings: lines on stderr that name each path.
        stderr: all of it.
    """

    code: int
    seconds: float
    peak_mb: float
    rows: Counter[str]
    errors: Counter[str]
    stderr: str

    def faults(self, planted: Planted) -> list[str]:
        """What is wrong, a line each."""
        found = [f"exit code {self.code}"] if self.code != 3 else []
        for word in ("Traceback", "(a bug"):
            if word in self.stderr:
                found.append(f"{word} on stderr")
        for path in planted.sound:
            found += [f"no result of {path!r}"] if not self.rows[str(path)] else []
            found += [f"sound, but named: {path!r}"] if self.errors[str(path)] else []
        for path in planted.broken:
            found += [f"broken, but with a result: {path!r}"] if self.rows[str(path)] else []
        for path in planted.broken + planted.either:
            name, named = str(path), self._named(path)
            if self.errors[name] > 1 or (not self.errors[name] and not self.rows[name]):
                found.append(f"{self.errors[name]} errors, {self.rows[name]} rows: {path!r}")
            if named != self.errors[name]:
                found.append(f"named {named} times on stderr: {path!r}")
        return found

    def _named(self, path: Path) -> int:
        start = f"Warning: {printable(str(path))}: "
        lines = [line for line in self.stderr.splitlines() if line.startswith(start)]
        return sum(not any(note in line for note in NOTES) for line in lines)


def main() -> int:
    """Print a line a run and its faults; 1 if there are any."""
    folder, model = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    planted = plant(folder / "files", int(sys.argv[3]) if len(sys.argv) > 3 else 500)
    failed = False
    for number, arguments in enumerate(RUNS):
        cwd = folder / f"run{number}"
        cwd.mkdir()
        run = run_predict(model, folder / "files", arguments, cwd)
        faults = run.faults(planted)
        sys.stdout.write(
            f"{' '.join(arguments)}: exit code {run.code}, {run.seconds:.0f} s, peak "
            f"{run.peak_mb:.0f} MB, {len(run.rows)} files detected in, {len(run.errors)} named\n"
        )
        sys.stdout.write("".join(f"  {fault}\n" for fault in faults))
        sys.stdout.flush()
        failed |= bool(faults)
    return int(failed)


def run_predict(model: Path | str, source: Path, arguments: Sequence[str], cwd: Path) -> Run:
    """Run `rtdetr predict json=lines` in a process of its own."""
    command = [sys.executable, "-m", "rtdetr_cli", "predict", f"model={model}", f"source={source}"]
    began = time.monotonic()
    with (cwd / "out.jsonl").open("wb") as out, (cwd / "err.txt").open("wb") as err:
        process = subprocess.Popen([*command, *arguments], stdout=out, stderr=err, cwd=cwd)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    rows, errors = Counter[str](), Counter[str]()
    for line in _lines(cwd, arguments):
        values = json.loads(line)
        (errors if "error" in values else rows)[values["path"]] += 1
    text = (cwd / "err.txt").read_text(encoding="utf-8", errors="backslashreplace")
    peak_mb, seconds = usage.ru_maxrss / 1000, time.monotonic() - began
    return Run(process.returncode, seconds, peak_mb, rows, errors, text)


def _lines(cwd: Path, arguments: Sequence[str]) -> list[bytes]:
    out = next((one.partition("=")[2] for one in arguments if one.startswith("out=")), None)
    files = [cwd / "out.jsonl"] if out is None else sorted((cwd / out).glob("part-*.jsonl"))
    return [line for file in files for line in file.read_bytes().splitlines()]


if __name__ == "__main__":
    sys.exit(main())
