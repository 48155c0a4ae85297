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
from rtdetr_cli.weights.licence import DFINE, DFINE_OBJECTS365

ROOT = Path(__file__).parents[2]


def test_every_published_file_has_an_address_and_an_architecture():
    assert {"rtdetr-l.pt", "rtdetr-x.pt", "rtdetrv2-r18.pt"} <= CATALOG.keys()
    assert len({entry.original for entry in CATALOG.values()}) == len(CATALOG)
    addresses = "|".join(
        (
            r"https://github\.com/lyuwenyu/storage/releases/download/v0\.[12]/\w[\w.]+\.pth",
            r"https://github\.com/Peterande/storage/releases/download/dfinev1\.0/dfine_\w+\.pth",
            r"https://drive\.google\.com/file/d/[\w-]{33}",
            r"https://huggingface\.co/Intellindust/DEIMv2_\w+/resolve/main/model\.safetensors",
        )
    )
    for name, entry in CATALOG.items():
        assert re.fullmatch(addresses, entry.url)
        assert entry.is_fetched == ("drive.google" not in entry.url)
        assert load_model_config(entry.architecture).name == entry.architecture
        assert entry.name == name
        assert entry.licence.stated_where.startswith("https://")
        assert (entry.licence.name is None) == (entry.licence.stated_by is None)
        assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)
        low = 20 if entry.data == "Objects365" or entry.architecture[:6] == "deimv2" else 40
        assert low < entry.ap < (entry.ap50 or 60) < 80


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
        *(f"dfinev1.0/PPHGNetV2_{size}_stage1.pth" for size in ("B0", "B2", "B4", "B5", "B6")),
    }
    for name, entry in BACKBONES.items():
        assert load_model_config(entry.architecture).name == entry.architecture
        assert entry.name == name
        assert entry.url.endswith(f"/storage/releases/download/{entry.file}")
        assert find_backbone(name) is find_backbone(entry.original.name) is entry
    assert find_backbone("presnet19") is None


def test_files_from_objects365_are_set_apart_as_their_authors_do():
    """D-FINE issue 357: Apache-2.0 for the files trained on COCO alone."""
    for entry in CATALOG.values():
        if entry.family == "D-FINE":
            assert entry.licence is (DFINE if entry.data == "COCO" else DFINE_OBJECTS365)
        if entry.family in {"DEIM", "RT-DETRv4", "DEIMv2"}:
            assert entry.licence.name is None


def test_the_name_of_a_saved_file_says_its_family():
    """Its decoder has SiLU, which its tensors do not show."""
    for name, entry in CATALOG.items():
        if not entry.is_fetched:
            assert entry.original.name == f"{name}h"


def test_only_the_dsp_files_sample_discretely():
    discrete = {name for name, entry in CATALOG.items() if entry.sampling == "discrete"}
    assert discrete == {name for name in CATALOG if "dsp" in name}
    assert len(discrete) == 6


def test_preprocessing_is_that_of_the_official_code():
    sides = {"deimv2-atto.pt": 320, "deimv2-femto.pt": 416}
    for name, entry in CATALOG.items():
        side = sides.get(name, 640)
        assert entry.preprocessing == Preprocessing((side, side), antialias=True)


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
