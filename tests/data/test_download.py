"""Data sets that their YAML says where to get: whole, verified, or one sentence."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from rtdetr_cli.config.dataset import DatasetConfig, Download, ListedImages
from rtdetr_cli.core import connection, download, small_download
from rtdetr_cli.core.errors import DataError, StorageError
from rtdetr_cli.core.files import asset_dir
from rtdetr_cli.data import download as fetching
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


def test_what_macos_adds_is_left_out(tmp_path):
    files = {"a/1.txt": b"1", "a/.DS_Store": b"1", "__MACOSX/a/._1.txt": b"1", ".DS_Store": b"1"}
    (tmp_path / "x.zip").write_bytes(zipped(files))
    unpack(tmp_path / "x.zip", tmp_path / "in", strip="a")
    assert tree(tmp_path / "in") == {"1.txt"}


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
    with pytest.raises(
        DataError, match=r"cats\.tar\.gz is not a zip or tar archive; unpack it into"
    ):
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


def numbered(number: int) -> bytes:
    return cv2.imencode(".png", np.full((32, 32, 3), number, np.uint8))[1].tobytes()


@pytest.fixture
def listed(server, tmp_path, monkeypatch):
    """A data set of three images whose labels are in a table beside its YAML."""
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "PAUSES_S", ())
    monkeypatch.setattr(small_download, "PAUSES_S", ())
    monkeypatch.setattr(connection, "TIMEOUT_S", 0.3)
    rows = ["# a comment"]
    for number in range(3):
        checksum = hashlib.sha256(numbered(number)).hexdigest()
        rows += [f"images/val/{number}.png 32 32 {checksum}", "0 .5 .5 .1 .1"]
    (tmp_path / "cfg" / "datasets").mkdir(parents=True)
    (tmp_path / "cfg" / "datasets" / "mini.txt").write_text("\n".join(rows))
    monkeypatch.setattr("rtdetr_cli.config.dataset.asset_dir", lambda _: tmp_path / "cfg")
    server.files = {f"/val/{number}.png": numbered(number) for number in range(3)}
    images = ListedImages("mini.txt", f"{server.url}/val/", f"{server.url}/mini.zip")
    return DatasetConfig(
        tmp_path / "home" / "datasets" / "mini",
        val=("images/val",),
        names={0: "cat"},
        images=images,
        origin=tmp_path / "mini.yaml",
    )


def test_listed_images_are_fetched_one_by_one(listed, server):
    assert open_split(listed, "val").num_boxes == 3
    assert tree(listed.path.parent) == {
        *("mini", ".mini.lock", "mini/images", "mini/images/val", "mini/labels", "mini/labels/val"),
        *(f"mini/images/val/{number}.png" for number in range(3)),
        *(f"mini/labels/val/{number}.txt" for number in range(3)),
    }
    open_split(listed, "val")
    assert sorted(server.paths) == sorted(server.files)


def test_a_half_fetched_data_set_is_resumed(listed, server, capsys):
    wanted = server.files.pop("/val/2.png")  # the last one: the others are under way
    with pytest.raises(DataError, match=r"^mini\.yaml: .*/mini\.zip could not .*2 of 3 images are"):
        open_split(listed, "val")
    assert not listed.path.exists()
    server.files["/val/2.png"] = wanted
    server.paths.clear()
    assert open_split(listed, "val").num_boxes == 3
    assert server.paths == ["/val/2.png"]
    assert "downloading 1 image from" in capsys.readouterr().err


def test_what_a_killed_process_leaves_is_removed(listed, server):
    half = listed.path.with_name(".mini.partial") / "images" / "val"
    half.mkdir(parents=True)
    (half / ".0-123.png").write_bytes(numbered(0)[:50])
    (half / "0.png").write_bytes(numbered(0)[:50])
    (half / "1.png").write_bytes(numbered(1))
    assert open_split(listed, "val").num_boxes == 3
    assert tree(listed.path / "images" / "val") == {"0.png", "1.png", "2.png"}
    assert sorted(server.paths) == ["/val/0.png", "/val/2.png"]


def test_without_the_image_server_the_archive_is_taken(listed, server, capsys):
    """Its labels are not used: those of the table are."""
    files = {f"mini/images/val/{number}.png": numbered(number) for number in range(3)}
    server.files = {"/mini.zip": zipped({**files, "mini/labels/val/0.txt": b"9 9 9 9 9"})}
    assert open_split(listed, "val").num_boxes == 3
    assert "the server returned 404 Not Found; trying " in capsys.readouterr().err
    assert {path.suffix for path in listed.path.parent.iterdir()} == {"", ".lock"}


def test_the_archive_has_to_have_the_same_images(listed, server):
    server.files = {"/mini.zip": zipped({"mini/images/val/0.png": numbered(0)})}
    with pytest.raises(
        DataError, match=r"mini\.zip has no images/val/1\.png; 1 of 3 images are kept"
    ):
        open_split(listed, "val")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no image", "cannot be read as an image"), (png()[:60], "cannot"), (b"", "is empty")],
)
def test_a_broken_image_ends_with_its_name(listed, server, content, reason):
    server.files["/val/2.png"] = content
    with pytest.raises(
        DataError, match=rf"^mini\.yaml: 2\.png .*{reason}.*; 2 of 3 images are kept"
    ):
        open_split(listed, "val")
    assert not listed.path.exists()


def test_nothing_is_left_if_no_image_is_right(listed, server):
    server.files = {path: cv2.imencode(".png", np.zeros((9, 9, 3)))[1] for path in server.files}
    server.files = {path: content.tobytes() for path, content in server.files.items()}
    with pytest.raises(DataError, match=r"\.png has 9x9 pixels, not 32x32$"):
        open_split(listed, "val")
    assert tree(listed.path.parent) == {".mini.lock"}


def test_a_link_in_the_place_of_the_partial_folder_is_not_followed(listed, tmp_path):
    (tmp_path / "user").mkdir()
    listed.path.parent.mkdir(parents=True)
    (listed.path.parent / ".mini.partial").symlink_to(tmp_path / "user")
    with pytest.raises(StorageError, match="a link is in the way"):
        open_split(listed, "val")
    assert tree(tmp_path / "user") == set()


def test_a_silent_server_ends(listed, server):
    server.stall = [2] * 9
    sentence = (
        r"^mini\.yaml: \d\.png: the connection broke \(timed out\); http.*/mini\.zip could not"
    )
    with pytest.raises(DataError, match=sentence):
        open_split(listed, "val")
    assert not listed.path.exists()


def test_a_full_disk_is_named(listed, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*\.png: no space left on the device"):
        open_split(listed, "val")
    assert not list(listed.path.parent.rglob("*.png"))


@pytest.mark.parametrize("name", ["coco8", "coco8.yaml", "COCO8.yaml"])
def test_a_shipped_set_offline_says_what_to_unpack(name, tmp_path, monkeypatch):
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path))
    monkeypatch.setenv("RTDETR_OFFLINE", "1")
    with pytest.raises(DataError, match=r"^coco8\.yaml: not on this .*/coco8\.zip into .*/coco8$"):
        open_split(load_data(name), "val")
    monkeypatch.delenv("RTDETR_OFFLINE")
    with pytest.raises(DataError, match=r"^coco8\.yaml: not on this machine; unpack https"):
        open_split(load_data(name, download=False), "val")
    assert tree(tmp_path) == set()


def test_two_processes_fetch_each_image_once(server, shared_data, tmp_path):
    folder = shared_data / "coco8" / "images"
    server.files = {f"/train2017/{path.name}": path.read_bytes() for path in folder.rglob("*.jpg")}
    script = (
        "from rtdetr_cli.data.splits import *; print(len(open_split(load_data('coco8'), 'val')))"
    )
    environment = {**os.environ, "RTDETR_HOME": str(tmp_path), "RTDETR_MIRROR": f"{server.url}/"}
    command = [sys.executable, "-c", script]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == [b"4\n", b"4\n"]
    assert sorted(server.paths) == sorted(server.files)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_larger_than_its_recorded_size_is_refused(config, server):
    one = replace(config.download[0], num_bytes=len(server.body) - 1)
    with pytest.raises(DataError, match="MB exceed the limit for this file"):
        open_split(replace(config, download=(one,), may_download=True), "val")
    exact = replace(one, num_bytes=len(server.body))
    assert open_split(replace(config, download=(exact,)), "val").num_boxes == 1


def test_a_large_download_needs_consent(config, server, monkeypatch, capsys):
    large = replace(config, download=(replace(config.download[0], num_bytes=2_500_000_000),))
    sentence = (
        r"not on this machine; download=true or RTDETR_YES=1 downloads 2\.5 GB from http.*/cats"
    )
    with pytest.raises(DataError, match=sentence):
        open_split(large, "val")
    monkeypatch.setattr(sys, "stdin", Terminal("n\ny\n"))
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(DataError, match=r"not downloaded; unpack http.*cats\.zip into .*/cats"):
        open_split(large, "val")
    assert (server.requests, config.path.parent.exists()) == ([], False)
    assert open_split(large, "val").num_boxes == 1
    asked = f"the data set: download 2.5 GB from {server.url}/cats.zip into {config.path}? [y/N] "
    assert asked in sys.stderr.getvalue()


def test_a_disk_too_small_for_all_is_named_before_the_download(config, server, monkeypatch):
    """3 GB packed and unpacked, of which 1 GB is there; the sizes are those of the YAML."""
    one = replace(config.download[0], num_bytes=3_000_000_000)
    large = replace(config, download=(one,), may_download=True)
    part = fetching.rtdetr_home() / "downloads" / f".{one.sha256}.part"
    part.parent.mkdir(parents=True)
    with part.open("wb") as file:
        file.truncate(1_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4_990_000_000))
    sentence = (
        r"^cannot download the data set: .* need 5\.0 GB and 5\.0 GB are free in .*/datasets$"
    )
    with pytest.raises(StorageError, match=sentence):
        open_split(large, "val")
    assert server.requests == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_010_000_000))
    assert open_split(large, "val").num_boxes == 1


@pytest.mark.parametrize("how", ["key", "variable"])
def test_consent_is_given_ahead(config, monkeypatch, how):
    monkeypatch.setattr(fetching, "ASK_ABOVE", 100)
    if how == "variable":
        monkeypatch.setenv("RTDETR_YES", "1")
    assert open_split(replace(config, may_download=how == "key" or None), "val").num_boxes == 1


def test_a_size_that_only_the_server_knows_needs_consent_too(config, server, monkeypatch):
    monkeypatch.setattr(fetching, "ASK_ABOVE", 100)
    with pytest.raises(DataError, match=r"download=true or RTDETR_YES=1 downloads 0\.0 GB"):
        open_split(config, "val")
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert open_split(config, "val").num_boxes == 1


def test_files_of_unknown_size_are_counted_together(config, server, monkeypatch):
    server.files = {f"/{name}": zipped({f"{name}.txt": bytes(500)}) for name in "abc"}
    files = [
        Download(f"{server.url}{path}", hashlib.sha256(body).hexdigest())
        for path, body in server.files.items()
    ]
    monkeypatch.setattr(fetching, "ASK_ABOVE", 2 * len(server.files["/a"]))
    with pytest.raises(DataError, match=r"RTDETR_YES=1 downloads 0\.0 GB"):
        open_split(replace(config, download=tuple(files)), "val")
    cached = {path.name for path in (fetching.rtdetr_home() / "downloads").iterdir()}
    assert [one.sha256 in cached for one in files] == [True, True, False]


def test_download_false_never_downloads(config, server):
    with pytest.raises(DataError, match="not on this machine; unpack"):
        open_split(replace(config, may_download=False), "val")
    assert server.requests == []


def peer_yaml(folder: Path, entry: str) -> Path:
    """A YAML as Ultralytics writes it."""
    path = folder / "cats.yaml"
    text = "path: cats\ntrain: images/val\nval: images/val\ntest:\nnames:\n  0: cat\n"
    path.write_text(f"{text}channels: 3\ndownload: {entry}\n")
    return path


def test_a_url_without_a_checksum_is_offered(config, server, tmp_path):
    yaml = peer_yaml(tmp_path, f"{server.url}/cats.zip")
    sentence = (
        r"^cats\.yaml: not on this machine; download=true or RTDETR_YES=1 downloads a file of "
        r"unknown size without a checksum from http.*/cats\.zip into .*/cats$"
    )
    with pytest.raises(DataError, match=sentence):
        open_split(load_data(yaml), "val")
    assert server.requests == []
    assert open_split(load_data(yaml, download=True), "val").num_boxes == 1
    assert (tmp_path / "cats" / "images").is_dir()
    assert open_split(load_data(yaml), "val").num_boxes == 1


def test_the_checksum_at_first_use_is_held_to(config, server, tmp_path):
    yaml = peer_yaml(tmp_path, f"[{server.url}/cats.zip]")
    open_split(load_data(yaml, download=True), "val")
    shutil.rmtree(tmp_path / "cats")
    server.body = zipped({"cats/images/val/1.png": png(), "cats/labels/val/1.txt": b"0 1 1 0 0"})
    with pytest.raises(
        DataError, match=r"its SHA-256 is .* at first use; delete .*\.sha256 if the"
    ):
        open_split(load_data(yaml, download=True), "val")
    assert not (tmp_path / "cats").exists()


@pytest.mark.parametrize("script", ["bash get_cats.sh", "|\n  import os\n  os.mkdir('cats')\n"])
def test_a_script_is_named_and_not_run(server, tmp_path, script):
    yaml = peer_yaml(tmp_path, script)
    sentence = (
        r"a script, which is never run \((bash|import).*run it yourself, or put the data into"
    )
    with pytest.raises(DataError, match=sentence):
        open_split(load_data(yaml, download=True), "val")
    assert not (tmp_path / "cats").exists()
    (tmp_path / "cats/images/val").mkdir(parents=True)
    (tmp_path / "cats/images/val/1.png").write_bytes(png())
    (tmp_path / "cats/images/val/1.txt").write_bytes(b"")
    assert len(open_split(load_data(yaml), "val")) == 1


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_a_tar_archive_is_unpacked(config, server):
    server.body = tarred({"cats/images/val/1.png": png(), "cats/labels/val/1.txt": b"0 1 1 0 0"})
    one = Download(f"{server.url}/cats.tar", hashlib.sha256(server.body).hexdigest())
    assert len(open_split(replace(config, download=(one,)), "val")) == 1


@pytest.mark.parametrize(("name", "total"), [("coco", 20_405_354_669), ("voc", 2_910_691_840)])
def test_official_archives_are_large_and_pinned(name, total, tmp_path, monkeypatch):
    """Sizes and checksums are those of TensorFlow Datasets; the sum is in the head of the YAML."""
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path))
    monkeypatch.delenv("RTDETR_OFFLINE")
    config = load_data(name)
    assert sum(one.num_bytes for one in config.download) == total
    assert all(one.sha256 for one in config.download)
    with pytest.raises(DataError, match=rf"RTDETR_YES=1 downloads {total / 1e9:.1f} GB from http"):
        open_split(config, "val")
    assert f"{total / 1e9:.1f} GB" in (asset_dir("cfg") / "datasets" / f"{name}.yaml").read_text()
    assert tree(tmp_path) == set()


def coco_archives() -> dict[str, bytes]:
    """The three archives of COCO 2017 with one image each, in their layout."""
    annotations, files = {}, {}
    for split in ("train2017", "val2017"):
        content = {
            "images": [{"id": 1, "file_name": "1.jpg", "height": 32, "width": 32}],
            "categories": [{"id": 7, "name": "cat"}],
            "annotations": [{"id": 5, "image_id": 1, "category_id": 7, "bbox": [0, 0, 9, 9]}],
        }
        annotations[f"annotations/instances_{split}.json"] = json.dumps(content).encode()
        files[f"/zips/{split}.zip"] = zipped({f"{split}/1.jpg": png()})
    return {**files, "/annotations/annotations_trainval2017.zip": zipped(annotations)}


def voc_archives() -> dict[str, bytes]:
    """The three archives of VOC with one image each, in their layout."""
    box = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
    xml = f"<a><object><name>cat</name><bndbox>{box}</bndbox></object></a>".encode()
    files = {}
    for path, year, split in (
        ("voc2012/VOCtrainval_11-May-2012.tar", "VOC2012", "trainval"),
        ("voc2007/VOCtrainval_06-Nov-2007.tar", "VOC2007", "trainval"),
        ("voc2007/VOCtest_06-Nov-2007.tar", "VOC2007", "test"),
    ):
        content = {
            f"ImageSets/Main/{split}.txt": f"{split}1\n".encode(),
            f"Annotations/{split}1.xml": xml,
            f"JPEGImages/{split}1.jpg": png(),
        }
        files[f"/pascal/VOC/{path}"] = tarred(
            {f"VOCdevkit/{year}/{name}": body for name, body in content.items()}
        )
    return files


@pytest.mark.parametrize(
    ("name", "archives", "sizes"),
    [
        ("coco", coco_archives(), {"train": 1, "val": 1}),
        ("voc", voc_archives(), {"train": 2, "val": 1}),
    ],
)
def test_official_archives_are_assembled(name, archives, sizes, server, tmp_path, monkeypatch):
    """The shipped YAML with other addresses and checksums."""
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path / "home"))
    server.files = archives
    text = (asset_dir("cfg") / "datasets" / f"{name}.yaml").read_text()
    text = re.sub(r"http://[^/]+(?=/(zips|annotations|pascal)/.*)", server.url, text)
    text = re.sub(r" +(num_bytes|sha256): .*\n", "", text)
    (tmp_path / f"{name}.yaml").write_text(text)
    config = load_data(tmp_path / f"{name}.yaml", download=True)
    assert {split: open_split(config, split).num_boxes for split in sizes} == sizes
    assert sorted(server.paths) == sorted(archives)
    assert {path.suffix for path in (tmp_path / "home/downloads").iterdir()} == {".lock", ".sha256"}
