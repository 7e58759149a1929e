"""Colours of the page are apart to everybody's eyes; measured by the published formula and by models of dichromats."""

import base64

import cv2
import numpy as np
import pytest

from segloss.datasets import TABLES
from segloss.datasets.classes import distinct_colors
from segloss.report.color_vision import (
    APART,
    CORRECT_COLOR,
    ERROR_COLORS,
    IGNORED_COLOR,
    PALETTES,
    VISIONS,
    ciede2000,
    lab,
    nearest,
    shown_colors,
)
from segloss.report.image_cards import page_colors
from segloss.report.painting import error_picture, label_picture

# Sharma, Wu & Dalal, 2005, table 1: pairs of L*a*b* and their distance.
PUBLISHED = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, -1.1848, -84.8006), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (58, 24, 15), 19.4535),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("first", "second", "distance"), PUBLISHED)
def test_distances_are_the_published_ones(first, second, distance):
    assert ciede2000(np.array(first), np.array(second)) == pytest.approx(distance, abs=5e-5)
    assert ciede2000(np.array(second), np.array(first)) == pytest.approx(distance, abs=5e-5)


def test_lab_is_that_of_opencv():
    colors = np.random.default_rng(0).integers(0, 256, (50, 1, 3)).astype(np.uint8)
    expected = cv2.cvtColor(colors.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[:, 0]
    assert np.abs(lab(colors[:, 0].tolist()) - expected).max() < 0.3  # which interpolates in a table


@pytest.mark.parametrize("vision", VISIONS)
def test_no_vision_changes_grey(vision):
    greys = [(level,) * 3 for level in (0, 60, 128, 200, 255)]
    assert np.abs(lab(greys, vision) - lab(greys)).max() < 0.5


@pytest.mark.parametrize("vision", ["protanopia", "deuteranopia"])
def test_red_and_green_of_one_lightness_are_one_colour_to_dichromats(vision):
    red, green = (200, 100, 60), (150, 125, 60) if vision == "deuteranopia" else (120, 112, 60)
    normal, seen = (float(ciede2000(*lab([red, green], which))) for which in ("normal", vision))
    assert seen < normal / 2


def test_errors_were_told_from_trees_by_nobody_but_are_now():
    assert nearest([(220, 40, 40)], [(128, 128, 0)]) < 2.6  # CamVid's tree, and the red that stood for wrong before
    camvid = shown_colors(TABLES["camvid"].colors)
    assert nearest(ERROR_COLORS, camvid) > 12


def test_the_colours_of_errors_are_apart_from_each_other_and_from_all_that_is_beside_them():
    beside = [CORRECT_COLOR, IGNORED_COLOR]
    assert nearest(ERROR_COLORS) > 30 and nearest(ERROR_COLORS, beside) > 29


@pytest.mark.parametrize(("palette", "count", "least"), [(PALETTES[0], 8, 14), (PALETTES[1], 20, 12)])
def test_any_two_colours_of_a_palette_are_apart(palette, count, least):
    assert nearest(palette) > least and nearest(palette, ERROR_COLORS) > 12 and len(set(palette)) == count
    assert nearest(palette, [(246, 248, 250), (21, 27, 35)]) > 10  # the card that background lets through


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if len(table) <= len(PALETTES[-1])])
def test_built_in_tables_of_few_classes_are_apart_on_the_page(name):
    assert nearest(TABLES[name].colors) < 4 < APART < nearest(shown_colors(TABLES[name].colors))


@pytest.mark.parametrize("count", [1, 2, 5, 12, 20])
def test_the_automatic_colours_are_apart_on_the_page(count):
    found = shown_colors(distinct_colors(count))
    assert len(found) == count and nearest(found) >= APART


def test_colours_that_are_apart_stay_and_so_do_those_of_many_classes():
    apart = [(0, 114, 178), (230, 159, 0), (240, 228, 66)]
    assert nearest(apart) > APART and shown_colors(apart) == tuple(apart)
    assert shown_colors(distinct_colors(21)) == distinct_colors(21)


def test_vocs_twenty_things_are_apart_as_its_background_takes_no_colour():
    names, own = TABLES["voc"].names, TABLES["voc"].colors
    shown = page_colors(names, own)
    assert shown[0] == own[0] and nearest(shown[1:]) > 12


def decoded(picture) -> np.ndarray:
    kind, content = picture.uri.split(",", 1)
    assert kind == "data:image/png;base64"
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels.shape == (picture.height, picture.width, 4)
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)


def test_background_is_clear_classes_keep_their_colour_and_the_ignored_is_hatched():
    labels = np.repeat([[0, 1, 2, 255]], 8, axis=0).repeat(8, axis=1).astype(np.uint8)
    pixels = decoded(label_picture(labels, [(9, 9, 9), (200, 0, 0), (0, 0, 200)], clear=0))
    assert (pixels[:, :8, 3] == 0).all() and (pixels[:, 8:, 3] == 255).all()
    assert (pixels[:, 8:16, :3] == (200, 0, 0)).all() and (pixels[:, 16:24, :3] == (0, 0, 200)).all()
    assert {tuple(color) for color in pixels[:, 24:, :3].reshape(-1, 3).tolist()} == {(0, 0, 0), (255, 255, 255)}


def test_wide_maps_are_scaled_down_without_a_new_colour():
    labels = np.random.default_rng(0).integers(0, 3, (100, 1500)).astype(np.uint8)
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    pixels = decoded(label_picture(labels, colors))
    assert pixels.shape[:2] == (32, 480)
    assert {tuple(color) for color in pixels[..., :3].reshape(-1, 3).tolist()} == set(colors)
    wrong = decoded(error_picture(labels, np.zeros_like(labels), 3))
    allowed = {CORRECT_COLOR, *ERROR_COLORS}
    assert {tuple(color) for color in wrong[..., :3].reshape(-1, 3).tolist()} <= allowed
