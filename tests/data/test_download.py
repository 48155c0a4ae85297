"""Data sets that their YAML says where to get: whole, verified, or one sentence."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile

import cv2
import numpy as np
import pytest

from rtdetr_cli.config.dataset import DatasetConfig, Download
from rtdetr_cli.core import download
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.data.splits import open_split
from rtdetr_cli.data.unpack import is_below, unpack


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def picture() -> bytes:
    return cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()


@pytest.fixture
def config(server, tmp_path, monkeypatch):
    """A data set of one picture whose archive has its own name as top folder."""
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "PAUSES_S", (0.01,))
    files = {"cats/images/val/1.png": picture(), "cats/labels/val/1.txt": b"0 .5 .5 .1 .1"}
    server.body = zipped(files)
    one = Download(f"{server.url}/cats.zip", hashlib.sha256(server.body).hexdigest())
    path = tmp_path / "datasets" / "cats"
    return DatasetConfig(path, val=("images/val",), names={0: "cat"}, download=(one,))


def test_an_absent_data_set_is_fetched_and_read(config, server):
    assert open_split(config, "val").num_boxes == 1
    assert sorted(path.name for path in config.path.iterdir()) == ["images", "labels"]
    open_split(config, "val")
    assert len(server.requests) == 1


def test_a_wrong_checksum_leaves_nothing(config, server):
    server.body = zipped({"images/val/1.png": picture()})
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
        (hostile_link(), "link is a link"),
        (damaged(), "Bad CRC-32"),
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


def test_places_that_lead_out(tmp_path):
    assert is_below("a/b")
    assert not any(map(is_below, ("..", "a/../b", "/a", "C:a", "a\\b")))


def test_a_damaged_archive_leaves_no_folder(config, server):
    server.body = zipped({"images/val/1.png": picture(), "../evil": b"1"})
    one = Download(config.download[0].url, hashlib.sha256(server.body).hexdigest())
    broken = DatasetConfig(config.path, val=("images/val",), names={0: "cat"}, download=(one,))
    with pytest.raises(DataError, match="leads out of its folder"):
        open_split(broken, "val")
    assert not config.path.exists()


def test_other_archives_are_named_before_they_are_fetched(config, server):
    one = Download(f"{server.url}/cats.tar.gz", "0" * 64)
    tar = DatasetConfig(config.path, val=("images/val",), names={0: "cat"}, download=(one,))
    with pytest.raises(DataError, match=r"cats\.tar\.gz is no zip archive; unpack it into"):
        open_split(tar, "val")
    assert server.requests == []


def test_files_go_where_the_yaml_says(config, server):
    server.body = b"{}"
    one = Download(f"{server.url}/a.json", hashlib.sha256(b"{}").hexdigest(), "annotations")
    both = DatasetConfig(config.path, val=("annotations",), names={0: "cat"}, download=(one,))
    with pytest.raises(DataError, match="no pictures"):
        open_split(both, "val")
    assert (config.path / "annotations" / "a.json").read_bytes() == b"{}"


def test_a_place_outside_is_refused(config):
    one = Download(config.download[0].url, config.download[0].sha256, "../elsewhere")
    out = DatasetConfig(config.path, val=("x",), names={0: "cat"}, download=(one,))
    with pytest.raises(DataError, match=r"download\.to \.\./elsewhere leads out of"):
        open_split(out, "val")
