"""Download sections of data set YAMLs: odd addresses, checksums and places; no server is used.

The only address is port 9 of this machine, where nothing listens; what would be fetched is mostly
in the folder of downloads already.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

from rtdetr_cli.config.load import load_dataset_config
from rtdetr_cli.core import download
from rtdetr_cli.core.errors import RTDETRError
from rtdetr_cli.core.urls import ascii_url
from rtdetr_cli.data.download import fetch

download.PAUSES_S = ()
SERVER = "http://127.0.0.1:9/"
ENDS = (
    "x.zip",
    "x.txt",
    "",
    "a.tar.gz",
    "../x.txt",
    "%2e%2e%2fx",
    "nul",
    "\u00e4 \u30cd.txt",
    "\x1b[31m",
    "a" * 3000,
    "?id=3",
    "#x",
    "usercustomize.py",
    "\ud800",
)
URLS = (
    "file:///etc/passwd",
    "http://[x/",
    "http://a:b@127.0.0.1:9/x",
    "http://127.0.0.1:99999/x",
    "https://",
    "//127.0.0.1/x",
    "http://\u2100.example/x",
    "",
    "x" * 100_000,
)
SUMS = ("", "abc", "0" * 63, "0" * 65, "g" * 64, "/etc/passwd", "../" * 21 + "x", "\u0663" * 64)
PLACES = (
    ".",
    "..",
    "../up",
    "new",
    "deep/new",
    "link/new",
    "dangling",
    "loop/new",
    ".hidden",
    "a/.git/hooks",
    "~",
    "~/new",
    "~nobody/new",
    "~/.local/lib",
    "/proc/new",
    "home/datasets/new",
    "home/datasets",
    "home/downloads/new",
    "nul",
    "x" * 300,
    "\x1b[31m",
    "a\0b",
    "\ud800",
    "",
)
ODD = (None, 1, 1.5, [], {}, [[]], True, float("nan"), 10**30)


def case(rng: random.Random, folder: Path) -> None:
    """Load a YAML and fetch what it lists; its own folder and the home's may change, no more."""
    own, outside = folder / "own", folder / "outside"
    for path in (own, outside, folder / "home" / "downloads"):
        path.mkdir(parents=True)
    (outside / "x-thesis.txt").write_text("ten years of work")
    (own / "link").symlink_to(outside)
    (own / "dangling").symlink_to(outside / "absent")
    (own / "loop").symlink_to(own / "loop")
    os.environ["no_proxy"] = "*"
    yaml = own / "x.yaml"
    yaml.write_text(json.dumps(_values(rng, folder)), encoding="utf-8")
    os.environ.pop("RTDETR_OFFLINE", None)
    try:
        config = load_dataset_config(yaml)
        hosts = {urlsplit(ascii_url(one.url)).netloc for one in config.download or ()}
        if hosts <= {"127.0.0.1:9"} and not config.path.exists():
            fetch(config)
    except RTDETRError as error:
        _check_sentence(str(error))
        raise
    finally:
        os.environ["RTDETR_OFFLINE"] = "1"
        assert [path.name for path in outside.rglob("*")] == ["x-thesis.txt"]
        assert {path.name for path in folder.iterdir()} == {"own", "outside", "home"}
        assert {path.name for path in (folder / "home").iterdir()} <= {"downloads", "datasets"}


def _check_sentence(sentence: str) -> None:
    assert len(sentence) < 3000, "the sentence is not bounded"
    assert sentence.isprintable(), "the sentence has control characters"


def _values(rng: random.Random, folder: Path) -> dict[str, object]:
    path: object = rng.choice(PLACES if rng.random() < 0.5 else ("new", "deep/new"))
    if rng.random() < 0.2:
        path = f"{folder}/{path}"
    values: dict[str, object] = {"path": path, "val": "x", "names": ["a"]}
    values["download"] = [_entry(rng, folder) for _ in range(rng.choice([1, 1, 1, 2, 9]))]
    if rng.random() < 0.05:
        values[rng.choice(list(values))] = rng.choice(ODD)
    return values


def _entry(rng: random.Random, folder: Path) -> object:
    content = rng.choice([b"{}", _zipped(), _zipped()[:-5]])
    checksum = hashlib.sha256(content).hexdigest()
    if rng.random() < 0.8:
        cached = content if rng.random() < 0.8 else b"another file"
        (folder / "home" / "downloads" / checksum).write_bytes(cached)
    end = rng.choice(ENDS if rng.random() < 0.3 else ("x.zip", "x.txt"))
    entry: dict[str, object] = {"url": SERVER + end, "sha256": checksum}
    kind = rng.random()
    if kind < 0.1:
        entry["url"] = rng.choice(URLS)
    elif kind < 0.2:
        entry["sha256"] = rng.choice(SUMS)
    elif kind < 0.3:
        entry["to"] = rng.choice(PLACES)
    elif kind < 0.35:
        entry[rng.choice(["url", "sha256", "to", "more"])] = rng.choice(ODD)
    elif kind < 0.37:
        return rng.choice(ODD)
    return entry


def _zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/1.txt", "1")
    return buffer.getvalue()
