"""Colours that everybody can tell apart: how far apart two look, also to those who see no red or no green.

Those: Machado, Oliveira & Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009,
severity 1, in linear RGB. Distance: CIEDE2000 (Sharma, Wu & Dalal, 2005) under D65; 1 is about what one just sees, side
by side.
"""

from collections.abc import Sequence

import numpy as np

Color = tuple[int, int, int]  # RGB, 0..255
Colors = Sequence[Sequence[int]]

VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
# sRGB's primaries and D65.
XYZ = np.array([[0.41246, 0.35758, 0.18044], [0.21267, 0.71515, 0.07217], [0.01933, 0.11919, 0.95030]])

APART = 8.0  # CIEDE2000; patches that are not side by side can be told apart
# Found by a search for colours far apart in all visions: the 8 by 14.5, the 20 by 12.3, and from ERROR_COLORS by 12.
PALETTES: tuple[tuple[Color, ...], ...] = (
    (
        *((230, 159, 0), (204, 121, 167), (0, 150, 110), (60, 200, 150), (0, 60, 140), (120, 200, 255)),
        *((120, 20, 20), (0, 100, 80)),
    ),
    (
        *((210, 195, 120), (120, 120, 120), (150, 165, 255), (135, 30, 0), (0, 0, 150), (225, 120, 0)),
        *((165, 135, 105), (90, 60, 60), (90, 105, 135), (180, 165, 180), (0, 0, 60), (135, 135, 180)),
        *((135, 90, 75), (210, 210, 255), (15, 75, 90), (255, 255, 165), (255, 255, 225), (60, 15, 0)),
        *((210, 180, 165), (15, 75, 165)),
    ),
)
CORRECT_COLOR = (225, 225, 225)
IGNORED_COLOR = (0, 0, 0)
ERROR_COLORS = ((255, 225, 0), (180, 80, 0), (170, 0, 255))  # of the places of errors


def linear(rgb: Colors) -> np.ndarray:
    """sRGB 0..255 -> light 0..1."""
    share = np.asarray(rgb, float) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(rgb: Colors, vision: str = "normal") -> np.ndarray:
    """CIE L*a*b* ``(..., 3)`` of sRGB 0..255 as a vision has it."""
    seen = np.clip(linear(rgb) @ VISIONS[vision].T, 0, 1)
    ratio = seen @ XYZ.T / XYZ.sum(1)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distance of L*a*b* values ``(..., 3)``."""
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(first, -1, 0), np.moveaxis(second, -1, 0)
    mean_c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1 + 0.5 * (1 - np.sqrt(mean_c7 / (mean_c7 + 25.0**7)))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    grey, apart = c1 * c2 == 0, np.abs(h1 - h2) > 180
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    lift, chroma, hue = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2)
    mean_l, mean_c, total = (l1 + l2) / 2, (c1 + c2) / 2, h1 + h2
    mean_h = np.where(grey, total, np.where(~apart, total / 2, (total + np.where(total < 360, 360, -360)) / 2))

    def cos(angle: np.ndarray) -> np.ndarray:
        return np.cos(np.radians(angle))

    t = 1 - 0.17 * cos(mean_h - 30) + 0.24 * cos(2 * mean_h) + 0.32 * cos(3 * mean_h + 6) - 0.2 * cos(4 * mean_h - 63)
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    s_c, s_h = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t
    rotation = 2 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7))
    twist = -np.sin(np.radians(60 * np.exp(-(((mean_h - 275) / 25) ** 2)))) * rotation
    lift, chroma, hue = lift / s_l, chroma / s_c, hue / s_h
    return np.sqrt(lift**2 + chroma**2 + hue**2 + twist * chroma * hue)


def nearest(colors: Colors, others: Colors | None = None) -> float:
    """Smallest distance of a colour to one of the others, or of two of the colours, in any of the visions."""
    found = []
    for vision in VISIONS:
        first = lab(colors, vision)
        every = ciede2000(first[:, None], (first if others is None else lab(others, vision))[None])
        found.append(every[np.triu_indices(len(first), 1)] if others is None else every)
    return float(np.min(found, initial=np.inf))


def shown_colors(colors: Colors) -> tuple[Color, ...]:
    """The classes' own colours where everybody can tell them apart, else those of a palette that are most alike.

    More than 20 classes keep their own: there are not so many colours that far apart.

    >>> shown_colors([(230, 159, 0), (0, 114, 178)])  # far apart
    ((230, 159, 0), (0, 114, 178))
    >>> shown_colors([(128, 0, 0), (128, 64, 0)])  # to those who see no red a shade of one colour
    ((120, 20, 20), (230, 159, 0))
    """
    own = tuple((int(red), int(green), int(blue)) for red, green, blue in colors)
    enough = [palette for palette in PALETTES if len(palette) >= len(own)]
    if not enough or nearest(own) >= APART:
        return own
    left, found = list(enough[0]), []
    for color in own:
        distances = ciede2000(lab([color]), lab(left))
        found.append(left.pop(int(distances.argmin())))
    return tuple(found)
