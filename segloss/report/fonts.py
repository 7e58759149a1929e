"""Fonts for the letters of names: matplotlib's own, DejaVu Sans, holds no Chinese, Japanese or Korean."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

OWN = "DejaVu Sans"
OTHERS = (  # taken where they are installed, in this order
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans",
    "Malgun Gothic",
    "Arial Unicode MS",
)


def fonts_of(letters: Iterable[str]) -> tuple[list[str], set[str]]:
    """Fonts that hold the letters, the one that is drawn with first, and the letters that none of them holds."""
    lacking = {letter for letter in letters if letter.isprintable()}
    fonts: list[str] = []
    for font in _candidates():
        held = _held(font)
        found = {letter for letter in lacking if ord(letter) in held}
        if found or (held and not fonts):
            fonts.append(font)
        lacking -= found
        if fonts and not lacking:
            break
    return fonts or [OWN], lacking


def _candidates() -> Iterator[str]:
    """The families that matplotlib is set to, its own, and those that may be installed."""
    from matplotlib import rcParams

    settings: Any = rcParams
    for family in settings["font.family"]:
        yield from settings.get(f"font.{family}", [family])  # sans-serif and others stand for several
    yield OWN
    _take_new()
    yield from OTHERS


def _held(font: str) -> set[int]:
    """Numbers of the letters that a font holds; none where it is not installed."""
    from matplotlib import font_manager

    if all(entry.name != font for entry in font_manager.fontManager.ttflist):
        return set()
    return {*font_manager.get_font(font_manager.findfont(font)).get_charmap()}


def _take_new() -> None:
    """Fonts installed since matplotlib made its list of them, which it keeps from run to run."""
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            with suppress(OSError, RuntimeError, ValueError):  # bitmap fonts and others that it does not read
                font_manager.fontManager.addfont(path)
