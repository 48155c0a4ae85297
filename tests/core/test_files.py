"""Writing is all or nothing; a refused write is one sentence."""

import errno
import hashlib
import os
import socket
import sys
from pathlib import Path

import pytest

from rtdetr_cli.core.errors import DataError, StorageError, UsageError
from rtdetr_cli.core.files import (
    asset_dir,
    atomic_folder,
    atomic_write,
    is_there,
    new_folder,
    new_run_dir,
    refuse_special,
    rtdetr_home,
    run_path,
    sha256,
    storage_errors,
    tilde,
)


def test_assets_are_found_in_the_checkout() -> None:
    assert (asset_dir("models") / "rtdetr-l.yaml").is_file()
    assert (asset_dir("cfg") / "train.yaml").is_file()


def test_assets_inside_the_package_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "rtdetr_cli"
    (package / "models").mkdir(parents=True)
    monkeypatch.setattr("rtdetr_cli.core.files._PACKAGE", package)
    assert asset_dir("models") == package / "models"
    assert asset_dir("cfg") == tmp_path / "cfg"


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path))
    assert rtdetr_home() == tmp_path
    monkeypatch.delenv("RTDETR_HOME")
    assert rtdetr_home() == Path.home() / ".cache" / "rtdetr"


def test_atomic_write_makes_folders_and_keeps_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "new" / "best.pt"
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".pt"
        assert temporary.parent == path.parent
        temporary.write_text("weights")
        assert not path.exists()
    assert path.read_text() == "weights"
    assert os.listdir(path.parent) == ["best.pt"]  # noqa: PTH208  (hidden files count)


def write_pair(folder: Path, text: str) -> None:
    with atomic_folder(folder, ("a", "b")) as temporary:
        (temporary / "a").write_text(text)
        assert not (folder / "a").exists() or (folder / "a").read_text() != text
        (temporary / "b").write_text(text)


def test_a_folder_appears_and_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    for text in ("first", "second"):
        write_pair(folder, text)
        assert [(folder / name).read_text() for name in "ab"] == [text, text]
        assert os.listdir(folder.parent) == ["out"]  # noqa: PTH208  (hidden files count)


def test_a_folder_that_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    write_pair(tmp_path / "out", "first")

    def half(folder: Path) -> None:
        with atomic_folder(folder, ("a", "b")) as temporary:
            (temporary / "a").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="no space left"):
        half(tmp_path / "out")
    assert (tmp_path / "out" / "a").read_text() == "first"
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208  (hidden files count)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    path.write_text("old")

    def write() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "no space left on the device"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "the file system is read-only"),
    ],
)
def test_a_refused_write_is_one_sentence(tmp_path: Path, number: int, reason: str) -> None:
    path = tmp_path / "out.onnx"

    def write() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise OSError(number, os.strerror(number))

    with pytest.raises(StorageError) as caught:
        write()
    assert str(caught.value) == f"cannot write {path}: {reason}"
    assert list(tmp_path.iterdir()) == []


def test_no_space_left_for_real() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageError, match="no space left"), storage_errors(full):
        full.write_text("x")


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), storage_errors(tmp_path):
        (tmp_path / "absent").read_text()


@pytest.mark.parametrize("is_there_before", [False, True])
def test_a_new_folder_gets_its_name_when_it_is_complete(
    tmp_path: Path, is_there_before: bool
) -> None:
    folder = tmp_path / "new" / "out"
    if is_there_before:
        folder.mkdir(parents=True)
    with new_folder(folder) as temporary:
        (temporary / "a").write_text("1")
        assert not (folder / "a").exists()
    assert (folder / "a").read_text() == "1"
    assert os.listdir(folder.parent) == ["out"]  # noqa: PTH208  (hidden files count)


def test_a_new_folder_that_another_program_has_filled_is_left_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def write_late() -> None:
        with new_folder(folder) as temporary:
            (temporary / "a").write_text("ours")
            folder.mkdir()
            (folder / "a").write_text("theirs")

    with pytest.raises(StorageError, match="out: it holds other files"):
        write_late()
    assert (folder / "a").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208  (hidden files count)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system without folders")
def test_a_new_folder_where_none_can_be_is_an_error() -> None:
    with (
        pytest.raises(StorageError, match="its file system does not support folders"),
        new_folder(Path("/proc/out")),
    ):
        pass


def test_run_folders_are_numbered(tmp_path: Path) -> None:
    runs = [new_run_dir(tmp_path / "runs", "train") for _ in range(3)]
    assert [run.name for run in runs] == ["train", "train2", "train3"]
    assert new_run_dir(tmp_path / "runs", "train", exist_ok=True) == runs[0]


def test_a_file_in_the_way_of_the_runs_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StorageError, match="a file has the name"):
        new_run_dir(tmp_path / "runs", "train")


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "..", ".", "", "/tmp/x", "link", "link/x", "up/x"]
)
@pytest.mark.parametrize("exist_ok", [True, False])
def test_a_name_cannot_leave_the_project(name: str, exist_ok: bool, tmp_path: Path) -> None:
    project = tmp_path / "runs"
    (tmp_path / "elsewhere").mkdir()
    project.mkdir()
    (project / "link").symlink_to(tmp_path / "elsewhere")
    (project / "up").symlink_to("..")
    with pytest.raises(UsageError, match="is not a folder inside project="):
        new_run_dir(project, name, exist_ok)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["elsewhere", "link", "runs", "up"]


def test_a_project_may_be_any_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    run = new_run_dir(tmp_path / "link" / ".." / "link", "käse/a b")
    assert run.is_dir()
    assert (tmp_path / "real" / "käse" / "a b").is_dir()


@pytest.mark.parametrize(("project", "name"), [("a", "x\0"), ("a\x1b", "x"), ("a", "b\nc")])
def test_a_run_folder_has_no_control_characters(project: str, name: str) -> None:
    with pytest.raises(UsageError, match="cannot contain control characters"):
        run_path(project, name)


def test_a_run_folder_whose_name_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the name is too long"):
        new_run_dir(tmp_path, "x" * 300)


def test_a_file_has_the_name_of_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(StorageError, match="a file has the name"):
        new_run_dir(tmp_path, "a", exist_ok=True)
    assert new_run_dir(tmp_path, "a").name == "a2"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system without folders")
def test_a_file_system_that_takes_no_folders() -> None:
    with pytest.raises(StorageError, match="cannot write /proc/runs/train"):
        new_run_dir("/proc/runs", "train")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and the special files of Unix")
def test_special_files_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(tmp_path, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/socket")  # a socket's path has 107 bytes at most
        os.close(folder)
        for name, noun in (("fifo", "a pipe"), ("link", "a pipe"), ("socket", "a socket")):
            with pytest.raises(DataError, match=f"{name}: is {noun}"):
                refuse_special(tmp_path / name, DataError)
    with pytest.raises(UsageError, match="/dev/null: is a device"):
        refuse_special("/dev/null", UsageError)
    for name in (tmp_path, tmp_path / "absent", "a\0b", "x" * 5000):
        refuse_special(name, DataError)


def test_sha256(tmp_path: Path) -> None:
    data = b"x" * (1 << 20) + b"tail"
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_the_home_folder_is_shown_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    assert tilde("/home/me/runs/best.pt") == "~/runs/best.pt"
    assert tilde("/home/me") == "~"
    assert tilde("/home/mexico") == "/home/mexico"
    assert tilde("runs") == "runs"


@pytest.mark.parametrize(
    ("name", "found"), [("a", True), ("b", False), ("x" * 5000, False), ("\0", False)]
)
def test_a_text_that_is_no_name_of_a_file_is_not_there(
    name: str, found: bool, tmp_path: Path
) -> None:
    (tmp_path / "a").touch()
    assert is_there(tmp_path / name) is found
