"""Fonts of labels: the one that matplotlib brings, or an installed one for scripts it lacks."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

from rtdetr_cli.core.console import warn
from rtdetr_cli.core.errors import BackendError, UsageError

_UNASSIGNED = "\U0010ffff"
"""A code point that no font draws; what is drawn instead stands for missing characters."""
_INSTALLED = (
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansSC-Regular.otf"),
    *("wqy-zenhei.ttc", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf"),
    *("NotoSansThai-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "NotoSansBengali-Regular.ttf"),
    *("NotoSansTamil-Regular.ttf", "NotoEmoji-Regular.ttf", "FreeSans.ttf", "unifont.otf"),
    *("Arial Unicode.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc"),
    *("msyh.ttc", "malgun.ttf", "YuGothM.ttc", "LeelawUI.ttf", "Nirmala.ttc", "Nirmala.ttf"),
)
"""Files of fonts for other scripts on Linux, macOS and Windows; Pillow searches their folders."""


def font_for(text: str, path: str | None, size: float) -> ImageFont.FreeTypeFont:
    """The font for a label: DejaVu Sans, or an installed one that has the letters it lacks.

    Args:
        text: what is to be drawn.
        path: a TrueType file that is used whatever the text is.
        size: height in pixels.
    """
    missing = "" if path else _missing(frozenset(text))
    return load_font(path or (_installed_font(missing) if missing else None), size)


@lru_cache(maxsize=8)
def load_font(path: str | None, size: float) -> ImageFont.FreeTypeFont:
    """Load a TrueType font; by default the DejaVu Sans shipped with matplotlib."""
    file = path or str(_dejavu())
    try:
        return ImageFont.truetype(file, size)
    except OSError as error:
        raise UsageError(f"font {file} cannot be read as a TrueType file") from error


@lru_cache(maxsize=1024)
def _missing(letters: frozenset[str]) -> str:
    """The letters that DejaVu Sans lacks, sorted."""
    other = sorted(letter for letter in letters if letter > "\u024f")  # it has all Latin ones
    return _lacking(load_font(None, 16), "".join(other)) if other else ""


@lru_cache(maxsize=64)
def _installed_font(letters: str) -> str | None:
    """The name of an installed font that has the letters; None, after a warning, if none has."""
    for name in _INSTALLED:
        try:
            font = ImageFont.truetype(name, 16)
        except OSError:
            continue
        if not _lacking(font, letters):
            return name
    warn(
        f"labels: no installed font was found for {letters[:20]}; install Noto Sans CJK (or of "
        "your script), or in Python give plot(font=) a TrueType file"
    )
    return None


def _lacking(font: ImageFont.FreeTypeFont, letters: str) -> str:
    absent = _drawn(font, _UNASSIGNED)
    return "".join(letter for letter in letters if _drawn(font, letter) == absent)


def _drawn(font: ImageFont.FreeTypeFont, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _dejavu() -> Path:
    """The font in matplotlib's folder, which is found without importing it: that takes 0.3 s."""
    package = find_spec("matplotlib")
    if package is None or package.origin is None:
        raise BackendError("matplotlib, whose font labels are drawn in, is not installed")
    return Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
