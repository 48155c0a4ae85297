"""Results of many images: after any number of kills each image has one row, in the same bytes."""

import errno
import json
import random
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtdetr_cli.config.settings.predict import PredictSettings
from rtdetr_cli.core.errors import BackendError, DataError, StorageError, UsageError
from rtdetr_cli.core.results import Results
from rtdetr_cli.engine.predicting import rows as rows_module
from rtdetr_cli.engine.predicting.shards import own_share, write_results

HOLD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_shards import Fake, settings, write_results
class Waiting(Fake):
    def detect(self, source):
        print("writing", flush=True)
        time.sleep(60)
write_results(settings(shard="0/2"), Waiting())
"""
"""Begins a share and does not end."""
RUN_AND_DIE = """
import os, pickle, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
from test_shards import Slow, write_results
shares, rng, killed = pickle.loads(bytes.fromhex(sys.argv[2])), random.Random(8), 0
for _ in range(10):
    workers = []
    for settings in shares:
        pid = os.fork()
        if not pid:
            write_results(settings, Slow())
            os._exit(0)
        workers.append(pid)
    time.sleep(rng.uniform(0, 0.12))
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
print(killed)
"""
"""Runs shares in processes that are killed, as if the machine took them away."""


class Fake:
    """Opens a detector that finds one box, whose score is the brightness of the image."""

    opened = 0

    def __call__(self, settings):
        self.opened += 1
        assert not settings.save
        return self.detect

    def detect(self, source):
        for item in source:
            if item.image is None:
                yield item, item
                continue
            score = float(item.image.mean()) / 255
            boxes = np.array([[1, 2, 3, 4, score, 0]], np.float32)
            yield item, Results(item.image, item.path, {0: "thing"}, boxes)


class Slow(Fake):
    def detect(self, source):
        import time

        for outcome in super().detect(source):
            time.sleep(0.008)
            yield outcome


@pytest.fixture
def images(tmp_path, monkeypatch):
    """40 images, of which two cannot be read, and a file of weights."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    Path("images").mkdir()
    for number in range(40):
        cv2.imwrite(f"images/{number:02d}.png", np.full((8, 8, 3), number * 6, np.uint8))
    Path("images/07.png").write_bytes(b"")
    Path("images/25.png").write_bytes(b"no image")
    Path("weights.pt").write_bytes(b"1")
    return tmp_path


def settings(out="out", **keys):
    return PredictSettings(
        **{"source": "images", "model": "weights.pt", "out": out, **SIZE, **keys}
    )


SIZE = {"part_size": 6}


def write(out="out", detector=None, **keys):
    return write_results(settings(out, **keys), detector or Fake())


def content(out="out"):
    """All visible files and their bytes; nothing else may be in the folder."""
    assert not [path.name for path in Path(out).iterdir() if path.name.startswith(".")]
    return {path.name: path.read_bytes() for path in Path(out).iterdir()}


def lines(out="out"):
    parts = sorted(Path(out).glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def test_every_image_has_a_row_in_the_order_of_the_source(images, capsys):
    assert write() == 3
    assert [row["path"] for row in lines()] == [f"images/{n:02d}.png" for n in range(40)]
    assert {row["path"] for row in lines() if "error" in row} == {"images/07.png", "images/25.png"}
    score = lines()[20]["detections"][0]["confidence"]
    assert score == pytest.approx(120 / 255, abs=1e-5)  # its brightness
    out, log = capsys.readouterr()
    assert out == "out: 40 rows in 7 files, 2 of images that cannot be read\n"
    assert log.count("cannot be read as an image") == 2


def test_the_manifest_lists_the_parts_with_their_checksums(images):
    write()
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert (manifest["rows"], manifest["errors"]) == (40, 2)
    assert manifest["run"] == json.loads(Path("out/run.json").read_text())
    last = manifest["parts"][6]
    assert (last["file"], last["files"], last["rows"]) == ("part-000006.jsonl", 4, 4)
    assert last["sha256"] == __import__("hashlib").sha256(content()[last["file"]]).hexdigest()


def test_killed_shares_leave_the_bytes_of_an_undisturbed_run(images, capsys):
    import pickle

    write("undisturbed")
    shares = [settings(shard=f"{share}/2", resume=True) for share in (0, 1)]
    script = [sys.executable, "-c", RUN_AND_DIE, str(Path(__file__).parent)]
    done = subprocess.run(
        [*script, pickle.dumps(shares).hex()], capture_output=True, text=True, check=True
    )
    assert int(done.stdout.splitlines()[-1]) >= 5  # of 20; the others were done earlier
    for part in Path("out").glob("part-*"):  # only whole parts are visible
        assert part.read_bytes() == Path("undisturbed", part.name).read_bytes()
    for share in shares:
        assert write_results(share, Fake()) == 3
    assert content() == content("undisturbed")


def test_any_number_of_shares_writes_the_same_files(images):
    write("one")
    for share in random.Random(0).sample(range(5), 5):
        assert not Path("many/manifest.json").exists()
        write("many", shard=f"{share}/5")
    assert content("one") == content("many")


def test_a_share_without_parts_is_done_at_once(images):
    detector = Fake()
    assert write(shard="8/9", detector=detector) == 0
    assert detector.opened == 0


def test_workers_of_torchrun_take_the_share_of_their_rank(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert own_share(settings()) == (2, 3)
    assert own_share(settings(shard="0/7")) == (0, 7)


def test_resume_skips_what_is_done(images, capsys):
    write()
    before, detector = content(), Fake()
    assert write(resume=True, detector=detector) == 3  # as before: two images are unreadable
    assert detector.opened == 0
    assert "7 files of 7 are done already" in capsys.readouterr().err
    assert content() == before


def test_existing_results_are_not_written_again_without_resume(images):
    write(shard="0/2")
    write(shard="1/2")  # another share of the same run is welcome
    with pytest.raises(UsageError, match="7 files of 7 exist already; resume=true continues"):
        write()


@pytest.mark.parametrize(
    "keys", [{"conf": 0.5}, {"part_size": 7}, {"classes": (0,)}, {"batch": 2}, {"imgsz": 64}]
)
def test_other_arguments_are_refused(images, keys):
    write(shard="0/2")
    with pytest.raises(UsageError, match=f"results of another run: {next(iter(keys))} was"):
        write(resume=True, **keys)


def test_other_weights_or_files_are_refused(images):
    write(shard="0/2")
    Path("weights.pt").write_bytes(b"2")
    with pytest.raises(UsageError, match="model_sha256 was"):
        write(resume=True)
    Path("weights.pt").write_bytes(b"1")
    Path("images/00.png").rename("images/99.png")
    with pytest.raises(UsageError, match="the names of the files differ"):
        write(resume=True)
    Path("images/00.png").write_bytes(b"")
    with pytest.raises(UsageError, match="files was 40 and is 41"):
        write(resume=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[:-1],
        lambda text: text[: len(text) // 2],
        lambda text: text.split(b"\n", 1)[1],
        lambda text: text.replace(b"/13.png", b"/14.png"),
        lambda text: text + text.split(b"\n", 1)[0] + b"\n",
    ],
)
def test_a_damaged_part_is_written_again(images, damage, capsys):
    write()
    before, part = content(), Path("out/part-000002.jsonl")
    part.write_bytes(damage(part.read_bytes()))
    assert write(resume=True) == 3
    assert "part-000002.jsonl is damaged" in capsys.readouterr().err
    assert content() == before


def test_a_changed_number_is_found_by_the_checksum_of_the_manifest(images, capsys):
    write()
    before, part = content(), Path("out/part-000002.jsonl")
    part.write_bytes(part.read_bytes().replace(b'"x1":1.0', b'"x1":9.0', 1))
    assert write(resume=True) == 3
    assert "its checksum is not that of manifest.json" in capsys.readouterr().err
    assert content() == before


def test_a_damaged_part_of_another_share_is_an_error(images):
    write(shard="0/2")
    Path("out/part-000002.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match=r"part-000002\.jsonl is damaged"):
        write(shard="1/2")
    assert not Path("out/manifest.json").exists()


def test_a_folder_with_other_files_is_refused(images):
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"the folder holds other files \(thesis\.tex\)"):
        write()
    assert [path.name for path in Path("out").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ["", "[]", "{", "\0"])
def test_a_damaged_run_file_is_refused(images, text):
    Path("out").mkdir()
    Path("out/run.json").write_text(text)
    with pytest.raises(UsageError, match=r"out"):
        write(resume=True)


def test_a_file_in_place_of_the_folder_is_an_error(images):
    Path("out").write_text("")
    with pytest.raises(StorageError, match="cannot write out"):
        write()


def test_a_full_disk_keeps_the_parts_before(images, monkeypatch):
    write("undisturbed")

    def full(path, rows, form):
        if "000003" in path.name:
            path.write_bytes(b"{")
            raise OSError(errno.ENOSPC, "No space left on device")
        rows_module.write_rows(path, rows, form)

    with monkeypatch.context() as patch:
        patch.setattr("rtdetr_cli.engine.predicting.shards.write_rows", full)
        with pytest.raises(StorageError, match=r"part-000003\.jsonl: no space left on the device"):
            write()
    assert sorted(content()) == [*(f"part-00000{n}.jsonl" for n in range(3)), "run.json"]
    write(resume=True)
    assert content() == content("undisturbed")


def test_repeated_paths_get_one_row(images, capsys):
    Path("list.txt").write_text("images/01.png\nimages/00.png\nimages/01.png\n./images/00.png\n")
    assert write(source="list.txt") == 0
    assert [row["path"] for row in lines()] == ["images/01.png", "images/00.png"]
    assert "list.txt: 2 repeated paths left out" in capsys.readouterr().err


def test_an_animation_is_one_source_with_a_row_per_frame(images):
    from PIL import Image

    frames = [Image.new("RGB", (8, 8), (n * 50, 0, 0)) for n in range(5)]
    frames[0].save("images/08.gif", save_all=True, append_images=frames[1:], duration=40)
    write(vid_stride=2)
    assert [row["frame"] for row in lines() if row["path"].endswith(".gif")] == [1, 3, 5]
    assert write(resume=True, vid_stride=2) == 3


@pytest.mark.parametrize("source", ["-", "0", "rtsp://127.0.0.1/live", "http://127.0.0.1/a.jpg"])
def test_sources_that_cannot_be_listed_again_are_refused(images, source):
    with pytest.raises(UsageError, match="out= needs files"):
        write(source=source)


def test_random_weights_are_refused(images):
    with pytest.raises(UsageError, match="is an architecture without them"):
        write(model="rtdetr-n.yaml")


def test_parquet_is_refused_before_anything_is_written(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendError, match="parquet"):
        write(rows="parquet")
    assert not Path("out").exists()


def test_parquet_after_a_kill_has_the_same_bytes(images):
    pytest.importorskip("pyarrow")
    write("undisturbed", rows="parquet")
    write(rows="parquet", shard="1/2")
    Path("out/part-000001.parquet").write_bytes(b"PAR1")
    Path("out/.part-000000-123.parquet").write_bytes(b"left by a killed process")
    write(rows="parquet", resume=True)
    assert content() == content("undisturbed")


def test_a_share_that_another_process_writes_is_refused_and_a_killed_one_leaves_no_lock(images):
    command = [sys.executable, "-c", HOLD, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"writing\n"
        with pytest.raises(UsageError, match=r"out \(share 0/2\) is being written by another"):
            write(shard="0/2", resume=True)
        assert write(shard="1/2", resume=True) == 3  # its two unreadable images are in it
        other.kill()
    write(shard="0/2", resume=True)
    write("undisturbed")
    assert content() == content("undisturbed")
    assert sorted(path.name for path in Path("out").glob(".*")) == []
