from __future__ import annotations

import pytest

from rtdetr_cli.config.load import load_dataset_config, load_model_config
from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.catalog import CATALOG, COCO_NAMES, resolve_weights


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def test_every_published_file_has_an_address_and_an_architecture():
    assert {"rtdetr-l.pt", "rtdetr-x.pt", "rtdetrv2-r18.pt"} <= CATALOG.keys()
    assert len({entry.url for entry in CATALOG.values()}) == len(CATALOG)
    for name, entry in CATALOG.items():
        assert entry.url.startswith("https://github.com/lyuwenyu/storage/releases/download/v0.")
        assert load_model_config(entry.architecture).name == entry.architecture
        assert entry.name == name
        assert 40 < entry.ap < entry.ap50 < 80


def test_class_names_are_those_of_the_shipped_data_sets():
    assert load_dataset_config("coco128").names == COCO_NAMES


def test_a_path_is_taken_as_given(tmp_path):
    path = tmp_path / "mine.pt"
    path.touch()
    assert resolve_weights(str(path)) == path


@pytest.mark.parametrize("kept", ["rtdetr-r50m.pt", "rtdetr_r50vd_m_6x_coco_from_paddle.pth"])
def test_published_files_are_found_at_home_under_either_name(kept, home):
    (home / kept).touch()
    assert resolve_weights("rtdetr-r50m.pt") == home / kept
    assert resolve_weights("rtdetr-r50m") == home / kept


def test_an_absent_published_file_says_where_it_comes_from_and_goes(home):
    with pytest.raises(WeightsError) as caught:
        resolve_weights("rtdetr-l.pt")
    assert str(caught.value) == (
        "rtdetr-l.pt is not on this machine: download https://github.com/lyuwenyu/storage/releases/"
        "download/v0.1/rtdetrv2_hgnetv2_l_6x_coco_from_paddle.pth and save it as "
        f"{home / 'rtdetr-l.pt'}"
    )


def test_other_names_get_the_nearest_published_one(home):
    with pytest.raises(WeightsError, match=r"rtdetr-1\.pt does not exist; did you mean rtdetr-"):
        resolve_weights("rtdetr-1.pt")
    (home / "mine.pt").touch()
    assert resolve_weights("mine.pt") == home / "mine.pt"
