"""Tar archives given to the unpacker: hostile names and kinds, bytes exchanged in the headers."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

from rtdetr_cli.core.errors import RTDETRError
from rtdetr_cli.data.unpack_tar import is_tar, unpack_tar

FORMATS = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
NAMES = ("a.txt", "A.TXT", "sub/b.jpg", "sub", "../up.txt", "/tmp/absolute.txt", "caf\u00e9", "nul")
NAMES += ("x" * 120, "y" * 99 + "/" + "z" * 130, "folder/", ".", "code.py", "\x1b[31m")
KINDS = (
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
    tarfile.GNUTYPE_SPARSE,
)


def case(rng: random.Random, folder: Path) -> None:
    """Write an archive, damage it, unpack it; nothing may appear beside the folder it goes to."""
    archive, out = folder / "x.tar", folder / "in" / "deep"
    body = bytearray(_tarred(rng))
    for _ in range(rng.choice([0, 1, 1, 3, 10])):
        _damage(rng, body)
    archive.write_bytes(body)
    try:
        if is_tar(archive):
            unpack_tar(archive, out, strip=rng.choice(["", "sub"]))
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


def _tarred(rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=rng.choice(FORMATS)) as archive:
        for name in rng.choices(NAMES[:3] if rng.random() < 0.7 else NAMES, k=rng.randrange(5)):
            entry = tarfile.TarInfo(name)
            content = rng.randbytes(rng.choice([0, 1, 600, rng.randrange(50_000)]))
            entry.size = len(content)
            entry.mtime = rng.choice([0, 1.5])  # a fraction needs a header of its own
            if rng.random() < 0.1:
                entry.type = rng.choice(KINDS)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _damage(rng: random.Random, body: bytearray) -> None:
    """Exchange bytes of a header and mend its checksum, so that the damage is read; or cut."""
    start = 512 * rng.randrange(max(1, len(body) // 512))
    if rng.random() < 0.1 or len(body) < start + 512:
        del body[start + rng.randrange(512) :]
        return
    place = start + rng.choice([rng.randrange(512), 124, 156, 482, 483])  # size, kind, sparse
    fresh = rng.choice([b"\0", b"\xff" * 12, b"\x80", b"7" * 11, b"-1", rng.randbytes(2), b"xgLKS"])
    body[place : place + len(fresh)] = fresh
    body[start + 148 : start + 156] = b" " * 8
    body[start + 148 : start + 156] = b"%06o\0 " % sum(body[start : start + 512])
