"""Named weights: fetched from a loopback server, stamped, converted, kept; or one sentence."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from rtdetr_cli import RTDETR
from rtdetr_cli.config.load import load_model_config, model_config_to_dict
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core import download
from rtdetr_cli.core.errors import UsageError, WeightsError
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights import published as published_files
from rtdetr_cli.weights import store
from rtdetr_cli.weights.archive import TorchArchive
from rtdetr_cli.weights.backbone import Backbone
from rtdetr_cli.weights.catalog import BACKBONES, CATALOG
from rtdetr_cli.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rtdetr_cli.weights.licence import ASKED
from rtdetr_cli.weights.published import Published, PublishedBackbone
from rtdetr_cli.weights.store import open_start, resolve_weights

ROOT = Path(__file__).parents[2]
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "PAUSES_S", (0.01,))
    folder = tmp_path / "home" / "weights"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def tiny(tiny_config, tmp_path):
    """An architecture file, and a training checkpoint of it as the official code writes one."""
    heads = {"num_heads": 8, "hidden_dim": 16}
    config = replace(
        tiny_config,
        encoder=replace(tiny_config.encoder, **heads),
        decoder=replace(tiny_config.decoder, **heads, num_queries=300, eval_layers=2),
    )
    values = model_config_to_dict(config)
    for derived in ("name", "norm_eps"):
        values.pop(derived)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    torch.manual_seed(0)
    network = RTDETRNetwork(config, 80)
    torch.save({"ema": {"module": network.state_dict()}}, tmp_path / "tiny.pth")
    return path, network, (tmp_path / "tiny.pth").read_bytes()


@pytest.fixture
def published(tiny, server, home, monkeypatch):
    """The tiny checkpoint as an entry of the catalogue, served by this machine."""
    architecture, _, server.body = tiny
    entry = Published("tiny.pt", str(architecture), "v0.1/tiny_official.pth", 50.0, 60.0)
    monkeypatch.setitem(CATALOG, "tiny.pt", entry)
    monkeypatch.setattr(published_files, "STORAGE", f"{server.url}/")
    return entry


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_a_published_name_is_downloaded_converted_and_runs(published, server, home, tiny, capsys):
    model = RTDETR("tiny.pt", device="cpu")
    assert len(model(IMAGE, conf=0.0)) == 1
    assert names(home) == {"tiny.pt", "tiny_official.pth", "tiny_official.pth.sha256"}
    assert (home / "tiny_official.pth").read_bytes() == server.body
    assert f"tiny.pt: converted to {home / 'tiny.pt'}\n" in capsys.readouterr().err
    kept = load_checkpoint(home / "tiny.pt")
    assert kept.config.name == "tiny"
    assert kept.config.decoder.eval_layers == 2
    assert kept.notes[-1] == f"published at {server.url}/v0.1/tiny_official.pth"
    assert kept.licence == ASKED.describe()
    assert all(torch.equal(kept.weights[k], v) for k, v in tiny[1].state_dict().items())
    RTDETR("tiny", device="cpu")
    assert len(server.requests) == 1


def test_the_catalog_supplies_what_tensors_do_not_contain(published, monkeypatch):
    preprocessing = Preprocessing((320, 320), antialias=False)
    entry = replace(published, sampling="discrete", preprocessing=preprocessing)
    monkeypatch.setitem(CATALOG, "tiny.pt", entry)
    kept = load_checkpoint(resolve_weights("tiny.pt"))
    assert kept.config.decoder.sampling == "discrete"
    assert kept.preprocessing == preprocessing


def test_a_file_that_the_user_put_there_is_converted_offline(published, server, home, monkeypatch):
    monkeypatch.setenv("RTDETR_OFFLINE", "1")
    (home / "tiny_official.pth").write_bytes(server.body)
    assert resolve_weights("tiny_official.pth") == home / "tiny.pt"
    recorded = (home / "tiny_official.pth.sha256").read_text()
    assert recorded.startswith(hashlib.sha256(server.body).hexdigest())
    assert server.requests == []


def test_a_damaged_download_is_reported(published, server, home, monkeypatch):
    entry = replace(published, sha256=hashlib.sha256(server.body).hexdigest())
    monkeypatch.setitem(CATALOG, "tiny.pt", entry)
    (home / "tiny_official.pth").write_bytes(server.body[:-1])
    with pytest.raises(WeightsError, match=r"tiny_official\.pth is not the published file .*its S"):
        resolve_weights("tiny.pt")
    assert names(home) == {"tiny_official.pth"}


def test_a_file_of_that_name_is_opened_as_it_is(published, server, home, tiny_config):
    network = RTDETRNetwork(tiny_config, 2)
    mine = Checkpoint(tiny_config, {0: "a", 1: "b"}, network.state_dict())
    save_checkpoint(home / "tiny.pt", mine)
    assert RTDETR("tiny.pt", device="cpu").names == {0: "a", 1: "b"}
    assert server.requests == []


def test_a_path_takes_precedence_over_a_name(published, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.pt").touch()
    assert resolve_weights("tiny.pt") == Path("tiny.pt")
    assert server.requests == []


@pytest.mark.parametrize("path", ["", "/", "/deep/er"])
def test_a_mirror_replaces_the_storage(published, server, home, monkeypatch, path):
    monkeypatch.setattr(published_files, "STORAGE", "https://elsewhere.invalid/")
    monkeypatch.setenv("RTDETR_MIRROR", server.url + path)
    assert store.mirrored(published) == f"{server.url}{path.rstrip('/')}/v0.1/tiny_official.pth"
    assert resolve_weights("tiny.pt") == home / "tiny.pt"


def test_without_a_mirror_the_published_address_is_used(monkeypatch):
    monkeypatch.delenv("RTDETR_MIRROR", raising=False)
    entry = CATALOG["rtdetr-l.pt"]
    assert store.mirrored(entry) == entry.url
    monkeypatch.setenv("RTDETR_MIRROR", "https://mirror.example/x")
    expected = "https://mirror.example/x/v0.1/rtdetrv2_hgnetv2_l_6x_coco_from_paddle.pth"
    assert store.mirrored(entry) == expected
    monkeypatch.setenv("RTDETR_MIRROR", "/mnt/files")
    with pytest.raises(UsageError, match="RTDETR_MIRROR must begin with https:// or http://"):
        store.mirrored(entry)


def test_offline_the_message_gives_address_and_path(home):
    with pytest.raises(WeightsError) as caught:
        resolve_weights("rtdetr-l.pt")
    file = "rtdetrv2_hgnetv2_l_6x_coco_from_paddle.pth"
    assert str(caught.value) == (
        "rtdetr-l.pt is not on this machine: download https://github.com/lyuwenyu/storage/releases/"
        f"download/v0.1/{file} and save it as {home / file}"
    )


def test_a_failure_says_what_happened_and_what_to_do(published, server, home):
    server.codes = [404]
    with pytest.raises(WeightsError) as caught:
        resolve_weights("tiny.pt")
    url = f"{server.url}/v0.1/tiny_official.pth"
    assert str(caught.value) == (
        "tiny.pt could not be downloaded (the server returned 404 Not Found); "
        f"download {url} and save it as {home / 'tiny_official.pth'}"
    )
    assert names(home) == set()


@pytest.mark.parametrize("body", [b"<html>please log in</html>", b"PK\x03\x04" + b"?" * 5000, b""])
def test_what_is_no_checkpoint_is_not_kept(published, server, home, body):
    server.body = body
    with pytest.raises(WeightsError, match=r"tiny\.pt could not be downloaded"):
        resolve_weights("tiny.pt")
    assert names(home) == set()


def test_a_truncated_file_with_a_fitting_length_is_not_kept(published, server, home):
    server.extra_length = -1000
    with pytest.raises(WeightsError, match="is damaged"):
        resolve_weights("tiny.pt")
    assert names(home) == set()


def test_another_network_under_the_name_is_not_kept(published, home, monkeypatch):
    monkeypatch.setitem(CATALOG, "tiny.pt", replace(published, architecture="rtdetr-r18"))
    with pytest.raises(WeightsError, match="holds another network than rtdetr-r18"):
        resolve_weights("tiny.pt")
    assert names(home) == set()


def test_a_known_checksum_decides(published, server, home, monkeypatch):
    monkeypatch.setitem(CATALOG, "tiny.pt", replace(published, sha256="0" * 64))
    with pytest.raises(WeightsError, match=r"but 0000000000000000\.\.\. was published"):
        resolve_weights("tiny.pt")
    assert names(home) == set()
    good = hashlib.sha256(server.body).hexdigest()
    monkeypatch.setitem(CATALOG, "tiny.pt", replace(published, sha256=good))
    assert resolve_weights("tiny.pt").is_file()


def test_names_that_nobody_publishes(home):
    with pytest.raises(WeightsError, match=r"rtdetr-1\.pt does not exist; did you mean rtdetr-"):
        resolve_weights("rtdetr-1.pt")
    (home / "mine.pt").touch()
    assert resolve_weights("mine.pt") == home / "mine.pt"


@pytest.fixture
def imagenet(tiny, server, home, monkeypatch):
    """The tiny backbone as an entry of the catalogue; its file has a classifier."""
    architecture, network, _ = tiny
    state = {key: tensor + 1 for key, tensor in network.backbone.state_dict().items()}
    buffer = io.BytesIO()
    torch.save(state | {"fc.weight": torch.ones(3, 2)}, buffer)
    server.body = buffer.getvalue()
    entry = PublishedBackbone("tinynet", str(architecture), "v0.1/Tiny_ssld.pth", 0.1)
    monkeypatch.setitem(BACKBONES, "tinynet", entry)
    monkeypatch.setattr(published_files, "STORAGE", f"{server.url}/")
    return entry


@pytest.mark.parametrize("name", ["backbone", "tinynet", "Tiny_ssld.pth"])
def test_the_backbone_of_an_architecture_is_fetched_once(name, imagenet, server, home, tiny):
    config = replace(load_model_config(imagenet.architecture), name="mine", norm_eps=1e-3)
    backbone = open_start(name, config)
    assert isinstance(backbone, Backbone)
    assert backbone.origin == "tinynet (Tiny_ssld.pth, ImageNet)"
    assert backbone.notes == ("1 classifier tensors dropped: fc.weight",)
    stem = "backbone.stem.stem1.conv.weight"
    assert torch.equal(backbone.weights[stem], tiny[1].state_dict()[stem] + 1)
    assert names(home) == {"Tiny_ssld.pth", "Tiny_ssld.pth.sha256"}
    assert (home / "Tiny_ssld.pth").read_bytes() == server.body
    assert open_start(name, config).weights.keys() == backbone.weights.keys()
    assert len(server.requests) == 1


def test_a_backbone_that_changed_since_its_first_use_is_named(imagenet, server, home):
    config = load_model_config(imagenet.architecture)
    (home / "Tiny_ssld.pth").write_bytes(server.body)
    open_start("backbone", config)
    assert server.requests == []
    (home / "Tiny_ssld.pth").write_bytes(server.body[:-1])
    with pytest.raises(WeightsError, match=r"Tiny_ssld\.pth is not the published file \(its SHA"):
        open_start("backbone", config)


def test_offline_says_where_the_backbone_comes_from_and_goes(home):
    with pytest.raises(WeightsError) as caught:
        open_start("backbone", load_model_config("rtdetr-r50m"))
    file = "ResNet50_vd_ssld_v2_pretrained_from_paddle.pth"
    assert str(caught.value) == (
        "presnet50 is not on this machine: download https://github.com/lyuwenyu/storage/releases/"
        f"download/v0.1/{file} and save it as {home / file}"
    )


def test_an_architecture_without_a_published_backbone_is_told_so(home, tiny_config):
    with pytest.raises(WeightsError, match=r"^tiny has a custom backbone.*hgnetv2-l \(rtdetr"):
        open_start("backbone", tiny_config)


def test_the_backbone_of_n_lies_elsewhere_but_on_the_same_mirror(home, monkeypatch):
    file = "dfinev1.0/PPHGNetV2_B0_stage1.pth"
    with pytest.raises(WeightsError, match=f"github.com/Peterande/storage/releases/.*/{file} and"):
        open_start("backbone", load_model_config("rtdetr-n"))
    monkeypatch.setenv("RTDETR_MIRROR", "https://mirror.example")
    assert store.mirrored(BACKBONES["hgnetv2-b0"]) == f"https://mirror.example/{file}"


def test_a_detector_in_the_place_of_a_backbone_is_not_kept(imagenet, server, home, tiny):
    server.body = tiny[2]
    with pytest.raises(WeightsError, match="holds a whole detector instead of tinynet"):
        open_start("backbone", load_model_config(imagenet.architecture))
    assert names(home) == set()


def test_another_backbone_under_the_name_is_not_kept(imagenet, home, monkeypatch):
    monkeypatch.setitem(BACKBONES, "tinynet", replace(imagenet, architecture="rtdetr-r18"))
    with pytest.raises(WeightsError, match="holds another backbone than tinynet"):
        open_start("tinynet", load_model_config("rtdetr-r18"))
    assert names(home) == set()


def test_pretrained_still_takes_a_checkpoint(published, tiny):
    config = load_model_config(published.architecture)
    assert isinstance(open_start("tiny.pt", config), Checkpoint)


BOTH = """
import sys
from rtdetr_cli.weights import catalog, published, store
url, architecture = sys.argv[1:]
published.STORAGE = url
entry = published.Published("tiny.pt", architecture, "v0.1/tiny_official.pth", 50.0, 60.0)
catalog.CATALOG["tiny.pt"] = entry
store.load_model_config(architecture)
print(store.resolve_weights("tiny.pt"))
"""


@pytest.mark.slow  # two processes import torch
def test_two_processes_at_once_fetch_and_convert_once(published, server, home):
    server.stall = [1.0]
    command = [sys.executable, "-c", BOTH, f"{server.url}/", published.architecture]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=900) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [out.strip() for out, _ in said] == [str(home / "tiny.pt")] * 2
    assert len(server.requests) == 1
    assert "".join(err for _, err in said).count("converted to") == 1


def test_a_name_without_a_suffix_means_the_same_local_file(
    published, server, tmp_path, monkeypatch, capsys
):
    """`model=tiny` and `model=tiny.pt` never open different weights; the local file is named."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.pt").touch()
    store._say_once.cache_clear()
    assert resolve_weights("tiny") == resolve_weights("tiny.pt") == Path("tiny.pt")
    assert resolve_weights("tiny") == Path("tiny.pt")
    line = "tiny: taking tiny.pt of the current folder, not the published file\n"
    assert capsys.readouterr().err == line
    assert server.requests == []


def test_a_folder_of_a_published_name_does_not_hide_it(published, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny").mkdir()
    assert resolve_weights("tiny") == home / "tiny.pt"


def test_a_run_folder_is_its_best_weights_said_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    weights = Path("runs/train/weights")
    weights.mkdir(parents=True)
    store._say_once.cache_clear()
    with pytest.raises(WeightsError, match=r"runs/train is a folder without weights/best"):
        resolve_weights("runs/train")
    (weights / "last.pt").touch()
    assert resolve_weights("runs/train") == weights / "last.pt"
    (weights / "best.pt").touch()
    assert resolve_weights("runs/train") == resolve_weights("runs/train") == weights / "best.pt"
    assert resolve_weights("runs/train/weights") == weights / "best.pt"
    assert capsys.readouterr().err.splitlines() == [
        "runs/train: taking weights/last.pt",
        "runs/train: taking weights/best.pt",
        "runs/train/weights: taking best.pt",
    ]


@pytest.mark.parametrize("name", ["yolo11n.pt", "yolov8s-world.pt", "yolo11n"])
def test_yolo_networks_are_refused_by_name(name):
    with pytest.raises(WeightsError, match=f"{name} is a YOLO network, which is not part of"):
        resolve_weights(name)


def test_a_run_folder_of_ultralytics_is_answered_with_ours(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/train/weights").mkdir(parents=True)
    (tmp_path / "runs/train/weights/best.pt").touch()
    with pytest.raises(WeightsError, match=r"not in runs/detect: give runs/train/weights/best\.pt"):
        resolve_weights("runs/detect/train/weights/best.pt")
    with pytest.raises(WeightsError, match=r"not in runs/detect: give runs/train/weights/best\.pt"):
        TorchArchive(Path("runs/detect/train/weights/best.pt"))  # as `resume` opens it
    with pytest.raises(WeightsError, match=r"runs/detect/other/weights/best\.pt does not exist$"):
        resolve_weights("runs/detect/other/weights/best.pt")


@pytest.mark.parametrize("name", ["https://example.com/models/a1", "http://localhost:8000/yolo"])
def test_an_address_is_no_file(name, home):
    with pytest.raises(WeightsError, match="is an address; download the file and give its path"):
        resolve_weights(name)


@pytest.mark.parametrize("name", ["rtdetr-n", "rtdetr-n.pt"])
def test_an_architecture_without_published_weights_is_named(name, home):
    with pytest.raises(WeightsError, match="has no published weights; train it: rtdetr train mod"):
        resolve_weights(name)
