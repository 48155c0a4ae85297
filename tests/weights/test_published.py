"""Addresses and local paths of published files; test_store.py downloads them."""

from __future__ import annotations

from rtdetr_cli.weights.published import STORAGE, Published, weights_home


def test_a_local_copy_has_the_published_name_or_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path))
    entry = Published("a.pt", "rtdetr-l", "v1/a.pth", 50.0, None)
    assert entry.url == f"{STORAGE}v1/a.pth"
    assert entry.original == weights_home() / "a.pth"
    named = Published(
        "b.pt", "rtdetr-l", "x/model.safetensors", 50.0, None, saved_as="b.safetensors"
    )
    assert named.original == weights_home() / "b.safetensors"
    assert named.kept is None
    named.original.parent.mkdir()
    named.original.touch()
    assert named.kept == named.original
