"""Tar archives: unpacked inside their folder, or one sentence and nothing outside."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.data import unpack as rules
from rtdetr_cli.data import unpack_tar as module
from rtdetr_cli.data.unpack_tar import is_tar, unpack_tar


def tarred(files: dict[str, bytes], format_: int = tarfile.GNU_FORMAT, **header: object) -> bytes:
    """An archive of folders (names that end in /) and files; `header` changes every entry."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            entry.size = len(content)
            for key, value in header.items():
                setattr(entry, key, value)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def write(folder: Path, body: bytes) -> Path:
    path = folder / "x.tar"
    path.write_bytes(body)
    return path


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_are_unpacked_without_their_top_folder(tmp_path, format_):
    name = f"VOCdevkit/{'deep/' * 30}1.txt"
    files = {"VOCdevkit/": b"", "VOCdevkit/VOC2007/a.txt": b"a" * 2_000_000, name: b"1"}
    archive = write(tmp_path, tarred(files, format_))
    assert is_tar(archive)
    unpack_tar(archive, tmp_path / "in", strip="VOCdevkit")
    assert (tmp_path / "in/VOC2007/a.txt").read_bytes() == b"a" * 2_000_000
    assert (tmp_path / "in" / name.removeprefix("VOCdevkit/")).read_bytes() == b"1"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (tarred({"good.txt": b"1", "../evil.txt": b"1"}), r"evil\.txt' leads out"),
        (tarred({"/evil.txt": b"1"}), "leads out"),
        (tarred({"link": b""}, type=tarfile.SYMTYPE, linkname="/etc"), "'link' is a link or a dev"),
        (tarred({"link": b""}, type=tarfile.LNKTYPE, linkname="x"), "'link' is a link or a device"),
        (tarred({"null": b""}, type=tarfile.CHRTYPE), "'null' is a link or a device"),
        (tarred({"pipe": b""}, type=tarfile.FIFOTYPE), "'pipe' is a link or a device"),
        (tarred({"good.txt": b"1", "Good.TXT": b"1"}), r"'Good\.TXT' is a duplicate"),
        (tarred({"good": b"1", "good/2": b"1"}), "'good' is a file and a folder"),
        (tarred({"good/nul.txt": b"1"}), "'good/nul.txt' is a name that Windows reserves"),
        (tarred({"good.txt": b"1" * 9999})[:5000], "unexpected end of data|ends early"),
        (tarred({"good" * 9999: b"1"}), "a header has 39997 bytes|a header has 40"),
        (
            tarred({"a": b"1"}, tarfile.PAX_FORMAT, pax_headers={"comment": "x" * 20_000}),
            "a header has 20",
        ),
    ],
)
def test_hostile_archives_write_nothing(tmp_path, body, reason):
    archive = write(tmp_path, body)
    with pytest.raises(DataError, match=reason):
        unpack_tar(archive, tmp_path / "in" / "deep")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path != archive]


def test_a_sparse_file_is_no_file(tmp_path):
    """1 KiB that declares 1 TiB: GNU's old format, whose real size is at byte 483."""
    body = bytearray(tarred({"a": b""}, type=tarfile.GNUTYPE_SPARSE))
    body[483:495] = b"\x80" + (1 << 40).to_bytes(11, "big")
    body[148:156] = b" " * 8
    body[148:156] = b"%06o\0 " % sum(body[:512])
    with pytest.raises(DataError, match="'a' is a link or a device"):
        unpack_tar(write(tmp_path, bytes(body)), tmp_path / "in")


def test_limits_are_those_of_zip(tmp_path, monkeypatch):
    archive = write(tmp_path, tarred({"a": bytes(1000), "b": b"1"}))
    monkeypatch.setattr(module, "MAX_ENTRIES", 1)
    with pytest.raises(DataError, match="more than 1 entries"):
        unpack_tar(archive, tmp_path / "in")
    monkeypatch.undo()
    monkeypatch.setattr(rules, "MAX_BYTES", 999)
    with pytest.raises(DataError, match="2 files of 1001 bytes"):
        unpack_tar(archive, tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_other_files_are_no_tar(tmp_path):
    assert not is_tar(write(tmp_path, b"PK\3\4" + bytes(999)))
    assert not is_tar(write(tmp_path, b""))
    with pytest.raises(DataError, match=r"^x\.tar cannot be unpacked: "):
        unpack_tar(write(tmp_path, b"x" * 600), tmp_path / "in")
