"""Zip archives given to the unpacker: hostile names and bytes exchanged anywhere in them."""

from __future__ import annotations

import random
import stat
import warnings
import zipfile
from pathlib import Path

from rtdetr_cli.core.errors import RTDETRError
from rtdetr_cli.data.unpack import is_zip, unpack

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
PLAIN = ("a.txt", "sub/b.jpg", "sub/c/d.txt", "sub/e.txt", "folder/", "code.py")
NAMES = (
    "a.txt",
    "A.TXT",
    "sub/b.jpg",
    "Sub/c.jpg",
    "sub",
    "../up.txt",
    "/tmp/absolute.txt",
    "C:\\drive.txt",
    "caf\u00e9",
    "cafe\u0301",
    "nul",
    "x" * 300,
    "\x1b[31m",
    "folder/",
    ".",
    "code.py",
)


def case(rng: random.Random, folder: Path) -> None:
    """Write an archive, damage it, unpack it; nothing may appear beside the folder it goes to."""
    archive, out = folder / "x.zip", folder / "in" / "deep"
    _write(rng, archive)
    body = bytearray(archive.read_bytes())
    for _ in range(rng.choice([0, 1, 1, 3, 10])):
        _damage(rng, body)
    archive.write_bytes(body)
    try:
        if is_zip(archive):
            unpack(archive, out, strip=rng.choice(["", "sub"]))
    except RTDETRError as error:
        _check_sentence(str(error))
        raise
    finally:
        places = {path for path in folder.rglob("*") if out not in (path, *path.parents)}
        assert places <= {archive, out.parent}, f"written outside: {places}"
        assert not any(path.is_symlink() for path in folder.rglob("*"))


def _check_sentence(sentence: str) -> None:
    assert len(sentence) < 600, "the sentence is not bounded"
    assert sentence.isprintable(), "the sentence has control characters"


def _write(rng: random.Random, archive: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(archive, "w") as opened:
        warnings.simplefilter("ignore")  # a name that is there twice
        plain = rng.random() < 0.7
        for name in rng.choices(PLAIN if plain else NAMES, k=rng.randrange(5)):
            entry = zipfile.ZipInfo(name)
            entry.compress_type = rng.choice(METHODS)
            if rng.random() < 0.1:
                entry.external_attr = rng.choice([stat.S_IFLNK, stat.S_IFCHR, stat.S_IFREG]) << 16
            content = rng.choice([bytes(rng.randrange(100_000)), rng.randbytes(rng.randrange(300))])
            opened.writestr(entry, b"" if name.endswith("/") else content)


def _damage(rng: random.Random, body: bytearray) -> None:
    """Exchange a few bytes, mostly those of a header; or cut, double or drop a part."""
    marks = [place for place in range(len(body)) if body[place : place + 2] == b"PK"]
    place = rng.randrange(len(body))
    if marks and rng.random() < 0.6:
        place = min(rng.choice(marks) + rng.randrange(50), len(body) - 1)
    kind = rng.random()
    if kind < 0.8:
        fresh = rng.choice([b"\0", b"\xff", b"\xff" * 4, rng.randbytes(1), rng.randbytes(4)])
        body[place : place + len(fresh)] = fresh
    elif kind < 0.9:
        del body[place : place + rng.randrange(1, 100)]
    else:
        body[place:place] = body[place : place + rng.randrange(1, 100)]
    if not body:
        body += b"\0"
