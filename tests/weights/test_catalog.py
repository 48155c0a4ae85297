from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rtdetr_cli.config.load import load_dataset_config, load_model_config
from rtdetr_cli.config.model import Preprocessing
from rtdetr_cli.core.coco_classes import COCO_NAMES
from rtdetr_cli.weights.catalog import (
    BACKBONES,
    CATALOG,
    find_backbone,
    find_published,
)

ROOT = Path(__file__).parents[2]


def test_every_published_file_has_an_address_and_an_architecture():
    assert {"rtdetr-l.pt", "rtdetr-x.pt", "rtdetrv2-r18.pt"} <= CATALOG.keys()
    assert len({entry.original for entry in CATALOG.values()}) == len(CATALOG)
    for name, entry in CATALOG.items():
        assert re.fullmatch(
            r"https://github\.com/lyuwenyu/storage/releases/download/v0\.[12]/\w[\w.]+\.pth",
            entry.url,
        )
        assert load_model_config(entry.architecture).name == entry.architecture
        assert entry.name == name
        assert entry.licence.stated_where.startswith("https://")
        assert (entry.licence.name is None) == (entry.licence.stated_by is None)
        assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)
        low = 20 if entry.data == "Objects365" else 40
        assert low < entry.ap < entry.ap50 < 80


def test_every_backbone_has_an_address_and_an_architecture():
    # rtdetrv2_pytorch/src/nn/backbone/hgnetv2.py and presnet.py; the last by D-FINE
    assert {entry.file.removeprefix("v0.1/") for entry in BACKBONES.values()} == {
        "PPHGNetV2_L_ssld_pretrained_from_paddle.pth",
        "PPHGNetV2_X_ssld_pretrained_from_paddle.pth",
        "PPHGNetV2_H_ssld_pretrained_from_paddle.pth",
        "ResNet18_vd_pretrained_from_paddle.pth",
        "ResNet34_vd_pretrained_from_paddle.pth",
        "ResNet50_vd_ssld_v2_pretrained_from_paddle.pth",
        "ResNet101_vd_ssld_pretrained_from_paddle.pth",
        "dfinev1.0/PPHGNetV2_B0_stage1.pth",
    }
    for name, entry in BACKBONES.items():
        assert load_model_config(entry.architecture).name == entry.architecture
        assert entry.name == name
        assert entry.url.endswith(f"/storage/releases/download/{entry.file}")
        assert find_backbone(name) is find_backbone(entry.original.name) is entry
    assert find_backbone("presnet19") is None


def test_only_the_dsp_files_sample_discretely():
    discrete = {name for name, entry in CATALOG.items() if entry.sampling == "discrete"}
    assert discrete == {name for name in CATALOG if "dsp" in name}
    assert len(discrete) == 6


def test_preprocessing_is_that_of_the_official_code():
    read = {entry.preprocessing for entry in CATALOG.values()}
    assert read == {Preprocessing(size_hw=(640, 640), antialias=True)}


def test_class_names_are_those_of_the_shipped_data_sets():
    assert load_dataset_config("coco128").names == COCO_NAMES


@pytest.mark.parametrize(
    "name", ["rtdetr-r18", "rtdetr-r18.pt", "rtdetr_r18vd_dec3_6x_coco_from_paddle.pth"]
)
def test_an_entry_is_found_by_its_names(name):
    entry = find_published(name)
    assert entry is CATALOG["rtdetr-r18.pt"]
    assert find_published("rtdetr-r19.pt") is None


def test_the_catalog_does_not_import_torch():
    code = "import sys, rtdetr_cli.weights.catalog; assert not {'torch', 'yaml'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
