"""Data sets that their YAML says where to get: whole, verified, or one sentence."""

from __future__ import annotations

import hashlib
import io
import shutil
import stat
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from rtdetr_cli.config.dataset import DatasetConfig, Download
from rtdetr_cli.core import download
from rtdetr_cli.core.errors import DataError, StorageError
from rtdetr_cli.data import unpack as module
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.data.unpack import unpack


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def png() -> bytes:
    return cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()


@pytest.fixture
def config(server, tmp_path, monkeypatch):
    """A data set of one image whose archive has its own name as top folder."""
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "PAUSES_S", (0.01,))
    files = {"cats/images/val/1.png": png(), "cats/labels/val/1.txt": b"0 .5 .5 .1 .1"}
    server.body = zipped(files)
    one = Download(f"{server.url}/cats.zip", hashlib.sha256(server.body).hexdigest())
    path = tmp_path / "home" / "datasets" / "cats"
    return DatasetConfig(path, val=("images/val",), names={0: "cat"}, download=(one,))


def test_an_absent_data_set_is_fetched_and_read(config, server):
    assert open_split(config, "val").num_boxes == 1
    assert sorted(path.name for path in config.path.iterdir()) == ["images", "labels"]
    open_split(config, "val")
    assert len(server.requests) == 1


def test_a_wrong_checksum_leaves_nothing(config, server):
    server.body = zipped({"images/val/1.png": png()})
    with pytest.raises(DataError, match=r"cats\.zip could not be downloaded .*was published.*unp"):
        open_split(config, "val")
    assert not config.path.exists()


def test_offline_says_what_to_unpack_where(config, server, monkeypatch):
    monkeypatch.setenv("RTDETR_OFFLINE", "1")
    with pytest.raises(DataError, match=r"not on this machine; unpack http.*cats\.zip into .*cats"):
        open_split(config, "val")
    assert server.requests == []


def hostile_link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc")
    return buffer.getvalue()


def nameless() -> bytes:
    """An entry whose name of one letter is declared to be extra data."""
    body = bytearray(zipped({"a": b"1"}))
    for lengths in (26, body.index(b"PK\1\2") + 28):
        body[lengths : lengths + 4] = b"\0\0\1\0"
    return bytes(body)


def damaged() -> bytes:
    body = bytearray(zipped({"a.txt": b"12345678"}))
    body[body.index(b"12345678")] = 0
    return bytes(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (zipped({"good.txt": b"1", "../evil.txt": b"1"}), r"evil\.txt' leads out"),
        (zipped({"/evil.txt": b"1"}), "leads out"),
        (zipped({"C:/evil.txt": b"1"}), "leads out"),
        (zipped({"a/../../evil.txt": b"1"}), "leads out"),
        (hostile_link(), "'link' is a link"),
        (damaged(), "Bad CRC-32"),
        (zipped({"good.txt": b"1", "Good.TXT": b"1"}), r"'Good\.TXT' is a duplicate"),
        (zipped({"caf\u00e9": b"1", "CAFE\u0301": b"1"}), "is a duplicate"),
        (zipped({"good/1": b"1", "Good/2": b"1"}), r"'[gG]ood' and '[gG]ood' are the same"),
        (zipped({"good": b"1", "good/2": b"1"}), "'good' is a file and a folder"),
        (zipped({"a\\..\\evil": b"1"}), "leads out"),
        (nameless(), "'' is not a file name"),
        (zipped({"good/nul.txt": b"1"}), "'good/nul.txt' is a name that Windows reserves"),
        (zipped({"good" * 100: b"1"}), r"unpacked: '(good){19}g\.\.\.' is too long$"),
        (zipped({"evil\x1b[2J": b"1"}), r"'evil.*\[2J' holds control characters"),
    ],
)
def test_hostile_archives_write_nothing_outside(body, reason, tmp_path):
    archive = tmp_path / "x.zip"
    archive.write_bytes(body)
    with pytest.raises(DataError, match=reason):
        unpack(archive, tmp_path / "in" / "deep")
    assert not list(tmp_path.rglob("evil*"))
    assert not list(tmp_path.rglob("good*"))
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_an_archive_may_not_be_larger_than_allowed(tmp_path, monkeypatch):
    archive = tmp_path / "x.zip"
    archive.write_bytes(zipped({"a": bytes(1000)}))
    monkeypatch.setattr("rtdetr_cli.data.unpack.MAX_BYTES", 999)
    with pytest.raises(DataError, match="1 files of 1000 bytes"):
        unpack(archive, tmp_path / "in")


def packed(method: int, content: bytes = b"12345678" * 999) -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a.txt", content)
    return bytearray(buffer.getvalue())


@pytest.mark.parametrize(
    ("method", "place", "reason"),
    [
        (zipfile.ZIP_STORED, 35, "Bad CRC-32"),  # the local header of a.txt has 35 bytes
        (zipfile.ZIP_DEFLATED, 35, "Error -3 while decompressing"),
        (zipfile.ZIP_BZIP2, 35, "Invalid data stream"),
        (zipfile.ZIP_LZMA, 39, "format not supported"),  # the properties of the filter
        (zipfile.ZIP_LZMA, 45, "Corrupt|CRC"),
    ],
)
def test_damage_of_every_compressor_is_a_sentence(method, place, reason, tmp_path):
    body = packed(method)
    body[place : place + 5] = b"\xff" * 5
    (tmp_path / "x.zip").write_bytes(body)
    with pytest.raises(DataError, match=rf"^x\.zip cannot be unpacked: .*({reason})"):
        unpack(tmp_path / "x.zip", tmp_path / "in")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (8, 1, "encrypted"),  # the first general purpose bit, of the central directory
        (10, 93, "compression method is not supported"),  # zstd, which Python has from 3.14 on
        (10, 99, "compression method is not supported"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(field, value, reason, tmp_path):
    body = packed(zipfile.ZIP_DEFLATED)
    body[body.index(b"PK\1\2") + field] = value
    body[field - 2] = value  # the same in the local header
    (tmp_path / "x.zip").write_bytes(body)
    with pytest.raises(DataError, match=rf"^x\.zip cannot be unpacked: .*{reason}"):
        unpack(tmp_path / "x.zip", tmp_path / "in")


def declared(body: bytearray, size: int) -> bytes:
    """The archive with another unpacked size of its only entry."""
    for place in (body.index(b"PK\1\2") + 24, 22):
        body[place : place + 4] = size.to_bytes(4, "little")
    return bytes(body)


def test_an_entry_longer_than_it_is_is_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(declared(packed(zipfile.ZIP_DEFLATED), 999_999))
    with pytest.raises(DataError, match=r"'a\.txt' is shorter than it declares"):
        unpack(tmp_path / "x.zip", tmp_path / "in")


def test_a_ratio_that_no_images_have_is_refused(tmp_path, monkeypatch):
    """Deflate packs zeros a thousandfold."""
    monkeypatch.setattr(module, "_SMALL", 1_000_000)
    (tmp_path / "x.zip").write_bytes(packed(zipfile.ZIP_DEFLATED, bytes(1_000_001)))
    with pytest.raises(DataError, match=r"its 1\d\d\d bytes would become 1 files of 1000001 bytes"):
        unpack(tmp_path / "x.zip", tmp_path / "in")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compressor_is_read_in_pieces(method, tmp_path):
    """For the first byte zipfile unpacks all 20 MB (50 MB at the peak, of bzip2)."""
    content = bytes(20_000_000)
    (tmp_path / "x.zip").write_bytes(packed(method, content))
    tracemalloc.start()
    unpack(tmp_path / "x.zip", tmp_path / "in")
    assert tracemalloc.get_traced_memory()[1] < 15_000_000  # LZMA has a dictionary of 8 MiB
    tracemalloc.stop()
    assert (tmp_path / "in" / "a.txt").read_bytes() == content
    (tmp_path / "x.zip").write_bytes(declared(packed(method, content), 10))
    with pytest.raises(DataError, match="CRC"):
        unpack(tmp_path / "x.zip", tmp_path / "in")


def test_the_table_of_contents_is_bounded(tmp_path, monkeypatch):
    (tmp_path / "x.zip").write_bytes(zipped({f"{number}": b"" for number in range(99)}))
    monkeypatch.setattr(module, "MAX_ENTRIES", 98)
    with pytest.raises(DataError, match="more than 98 entries"):
        unpack(tmp_path / "x.zip", tmp_path / "in")
    monkeypatch.setattr(module, "MAX_DIRECTORY", 4000)
    with pytest.raises(DataError, match=r"its central directory has 4\d\d\d bytes"):
        unpack(tmp_path / "x.zip", tmp_path / "in")


def test_programs_are_left_out(tmp_path, capsys):
    files = {"a/1.txt": b"1", "a/usercustomize.py": b"1", "a/_C.SO": b"1"}
    (tmp_path / "x.zip").write_bytes(zipped(files))
    unpack(tmp_path / "x.zip", tmp_path / "in", strip="a")
    assert [file.name for file in (tmp_path / "in").iterdir()] == ["1.txt"]
    assert (
        "2 programs are not unpacked, for example 'a/usercustomize.py'" in capsys.readouterr().err
    )


def test_a_damaged_archive_leaves_no_folder(config, server):
    server.body = zipped({"images/val/1.png": png(), "../evil": b"1"})
    one = Download(config.download[0].url, hashlib.sha256(server.body).hexdigest())
    broken = DatasetConfig(config.path, val=("images/val",), names={0: "cat"}, download=(one,))
    with pytest.raises(DataError, match="leads out of its folder"):
        open_split(broken, "val")
    assert not config.path.exists()


def test_other_archives_are_named_before_they_are_fetched(config, server):
    one = Download(f"{server.url}/cats.tar.gz", "0" * 64)
    tar = DatasetConfig(config.path, val=("images/val",), names={0: "cat"}, download=(one,))
    with pytest.raises(DataError, match=r"cats\.tar\.gz is not a zip archive; unpack it into"):
        open_split(tar, "val")
    assert server.requests == []


def test_files_go_where_the_yaml_says(config, server):
    server.body = b"{}"
    one = Download(f"{server.url}/a.json", hashlib.sha256(b"{}").hexdigest(), "annotations")
    both = DatasetConfig(config.path, val=("annotations",), names={0: "cat"}, download=(one,))
    with pytest.raises(DataError, match="no images"):
        open_split(both, "val")
    assert (config.path / "annotations" / "a.json").read_bytes() == b"{}"


def write_yaml(folder: Path, path: str, server, body: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    server.body = body
    one = f"{{url: {server.url}/cats.zip, sha256: {hashlib.sha256(body).hexdigest()}}}"
    file = folder / "cats.yaml"
    file.write_text(f"path: {path}\nval: images/val\nnames: [a]\ndownload: [{one}]\n")
    return file


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "path",
    [
        "../elsewhere",
        "~/elsewhere",
        "{tmp}/elsewhere",
        "link/elsewhere",
        "dangling",
        "a/../../elsewhere",
        ".vscode",
        "a/.git/b",
        "aux",
        "{home}/elsewhere",
        "{home}/datasets/../elsewhere",
        "{home}/datasets",
    ],
)
def test_a_download_writes_below_two_folders_only(config, server, tmp_path, monkeypatch, path):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    own = tmp_path / "own"
    path = path.format(tmp=tmp_path, home=tmp_path / "home")
    yaml = write_yaml(own, path, server, zipped({"images/val/1.png": png()}))
    (tmp_path / "user").mkdir()
    (own / "link").symlink_to(tmp_path / "user")
    (own / "dangling").symlink_to(tmp_path / "user" / "absent")
    before = tree(tmp_path)
    with pytest.raises(DataError) as caught:
        open_split(load_data(yaml), "val")
    sentence = str(caught.value)
    assert sentence.startswith("cats.yaml: refusing to download into ")
    assert f"only below {tmp_path / 'home' / 'datasets'} or {own} and into no hidden" in sentence
    assert f"; unpack {server.url}/cats.zip there yourself, or change path" in sentence
    assert tree(tmp_path) == before
    assert server.requests == []


@pytest.mark.parametrize("path", ["cats", "deep/cats", "link/cats", "{home}/datasets/cats"])
def test_a_download_writes_below_its_yaml_and_its_home(config, server, tmp_path, path):
    """Also where the home is a link to another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "datasets").symlink_to(tmp_path / "disk")
    path = path.format(home=tmp_path / "home")
    body = zipped({"images/val/1.png": png(), "labels/val/1.txt": b"0 .5 .5 .1 .1"})
    yaml = write_yaml(tmp_path / "own", path, server, body)
    (tmp_path / "own" / "inside").mkdir()
    (tmp_path / "own" / "link").symlink_to(tmp_path / "own" / "inside")
    assert len(open_split(load_data(yaml), "val")) == 1
    assert [file.name[0] for file in (tmp_path / "home" / "downloads").iterdir()] == ["."]  # a lock


def test_a_folder_that_is_absent_is_named_without_control_characters(tmp_path):
    absent = DatasetConfig(tmp_path / "\x1b[31m", val=("x",), names={0: "cat"})
    with pytest.raises(DataError, match=r"its folder .* does not exist") as caught:
        open_split(absent, "val")
    assert str(caught.value).isprintable()


def test_what_exists_is_used_wherever_it_is(config, server, tmp_path):
    (tmp_path / "elsewhere" / "images" / "val").mkdir(parents=True)
    (tmp_path / "elsewhere" / "images" / "val" / "1.png").write_bytes(png())
    (tmp_path / "elsewhere" / "labels" / "val").mkdir(parents=True)
    (tmp_path / "elsewhere" / "labels" / "val" / "1.txt").touch()
    yaml = write_yaml(tmp_path / "own", "../elsewhere", server, b"")
    assert len(open_split(load_data(yaml), "val")) == 1


def test_a_link_in_the_place_of_a_helper_file_is_not_followed(config, server, tmp_path):
    own, body = tmp_path / "own", zipped({"images/val/1.png": png()})
    yaml = write_yaml(own, "cats", server, body)
    (tmp_path / "user").mkdir()
    (own / ".cats.unpacking").symlink_to(tmp_path / "user")
    with pytest.raises(StorageError, match="has the name of its folder"):
        open_split(load_data(yaml), "val")
    (own / ".cats.unpacking").unlink()
    (own / ".cats.lock").unlink()
    (own / ".cats.lock").symlink_to(tmp_path / "user" / "made")
    with pytest.raises(StorageError, match=r"cannot lock .*\.cats\.lock: a link or a pipe is in"):
        open_split(load_data(yaml), "val")
    assert tree(tmp_path / "user") == set()


def test_a_cached_archive_is_compared_with_its_checksum(config, server, tmp_path):
    cached = tmp_path / "home" / "downloads" / config.download[0].sha256
    cached.parent.mkdir(parents=True)
    cached.write_bytes(zipped({"cats/images/val/evil.png": png()}))
    assert open_split(config, "val").num_boxes == 1
    assert len(server.requests) == 1
    assert not cached.exists()


def test_a_refused_archive_leaves_nothing_that_blocks_the_next_try(config, server, tmp_path):
    body = damaged()
    yaml = write_yaml(tmp_path / "own", "cats", server, body)
    for requests in (1, 2):
        with pytest.raises(DataError, match=r"^cats\.zip cannot be unpacked: Bad CRC-32"):
            open_split(load_data(yaml), "val")
        assert len(server.requests) == requests
    assert tree(tmp_path / "own") == {"cats.yaml", ".cats.lock"}
    lock = f"downloads/.{hashlib.sha256(body).hexdigest()}.lock"
    assert tree(tmp_path / "home") == {"downloads", lock}


@pytest.mark.parametrize("name", ["", "a.py", "nul", "x%1b.zip"])
def test_a_file_needs_a_name_of_a_data_set(config, server, name):
    server.body = b"{}"
    one = Download(f"{server.url}/{name}", hashlib.sha256(b"{}").hexdigest())
    odd = DatasetConfig(config.path, val=("x",), names={0: "cat"}, download=(one,))
    with pytest.raises(DataError, match=r"is not allowed as a file name|is not a zip archive"):
        open_split(odd, "val")
    assert not config.path.exists()


def test_a_disk_too_small_for_the_files_is_named(tmp_path, monkeypatch):
    (tmp_path / "x.zip").write_bytes(zipped({"a": bytes(1000)}))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000))
    with pytest.raises(StorageError, match=r"cannot unpack x\.zip: it needs 0 MB and 0 MB are"):
        unpack(tmp_path / "x.zip", tmp_path / "in")
