"""Labels are drawn in a font that has their letters; if there is none, it is said once."""

import shutil

import pytest

from rtdetr_cli.media import fonts
from rtdetr_cli.media.fonts import _dejavu, _missing, font_for, load_font


@pytest.fixture(autouse=True)
def _forget():
    fonts._installed_font.cache_clear()


def test_dejavu_has_the_letters_of_europe_and_the_near_east():
    for text in ("Straße", "żółw", "рюкзак", "σκύλος", "կատու", "ძაღლი", "حافلة", "אוטובוס"):
        assert _missing(frozenset(text)) == ""
        assert font_for(text, None, 12) is load_font(None, 12)


def test_it_lacks_chinese_japanese_korean_thai_and_hindi():
    assert _missing(frozenset("車 くるま 차 รถ क bus")) == "".join(sorted("車くるま차รถक"))


def test_an_installed_font_with_the_letters_is_used(tmp_path, monkeypatch):
    """A copy of DejaVu stands for one, and lacks no letters then."""
    shutil.copy(_dejavu(), tmp_path / "other.ttf")
    monkeypatch.setattr(fonts, "_INSTALLED", ("absent.ttf", str(tmp_path / "other.ttf")))
    monkeypatch.setattr(fonts, "_lacking", lambda font, letters: "")
    assert fonts._installed_font("車") == str(tmp_path / "other.ttf")


def test_letters_without_a_font_are_said_once(monkeypatch, capsys):
    monkeypatch.setattr(fonts, "_INSTALLED", ())
    for _ in range(3):
        assert font_for("車", None, 12) is load_font(None, 12)
    err = capsys.readouterr().err
    assert err.count("no installed font was found for 車; install Noto Sans CJK") == 1


def test_a_given_font_is_used_whatever_the_letters_are(capsys):
    path = str(_dejavu())
    assert font_for("車", path, 12) is load_font(path, 12)
    assert capsys.readouterr().err == ""
