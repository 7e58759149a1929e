"""Which images are shown: by counted pixels and the rarest class, not by a mean that one false pixel halves."""

import numpy as np
import pytest

from segloss.datasets.classes import ClassTable
from segloss.evaluation.extremes import EXTREMES, extremes
from segloss.evaluation.results import ImageResult, Totals
from segloss.evaluation.summary import MOST_CONFUSIONS, confusions

NAMES = ("road", "sky", "pole")


class Pictures:
    """A source that only has pictures, of nothing."""

    classes = ClassTable(NAMES)

    def __init__(self, training_pixels=None):
        self.training_pixels = training_pixels

    def picture(self, name):
        return None, np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8)


def shown(matrices, training_pixels=None):
    """Kind -> names, of confusion matrices by name."""
    totals = Totals.of(ImageResult(name, np.c_[np.array(rows), np.zeros(3, int)], 0) for name, rows in matrices.items())
    found: dict[str, list[str]] = {}
    for one in extremes(Pictures(training_pixels), totals):
        found.setdefault(one.kind, []).append(one.name)
    return found


def image(road=1000, sky=1000, pole=0, road_as_sky=0, road_as_pole=0, pole_as_road=0):
    return [[road, road_as_sky, road_as_pole], [0, sky, 0], [pole_as_road, 0, pole]]


def test_one_false_pixel_does_not_make_an_image_the_worst():
    """Its mean over three classes is 66.6 by one pixel taken for a pole; the others' are above 80."""
    images = {f"off {k}": image(road_as_sky=100 + k) for k in range(4)}
    found = shown({"one pixel": image(road_as_pole=1), **images})
    assert found["most wrong pixels"] == ["off 3", "off 2", "off 1"]
    assert not any("one pixel" in names for kind, names in found.items() if kind.startswith("most wrong"))


def test_the_rarest_class_has_its_own_worst_images():
    poles = {f"pole {k}": image(pole=20 - k, pole_as_road=k) for k in range(1, 4)}
    roads = {f"road {k}": image(road_as_sky=500 + k) for k in range(4)}
    found = shown({**roads, **poles, "right": image(pole=20), "invented": image(road_as_pole=15)})
    assert found["most wrong pixels of pole, the rarest class"] == ["pole 3", "pole 2", "pole 1"]
    assert found["best with a rare class"] == ["right"]  # the others are shown already


def test_best_are_images_that_hold_a_rare_class():
    """A blank sky is right to the last pixel and says nothing."""
    blank = {f"blank {k}": image() for k in range(5)}
    found = shown({**blank, "half": image(pole=10, pole_as_road=10), "most": image(pole=19, pole_as_road=1)})
    assert found == {"most wrong pixels": ["half", "most"]}
    found = shown({**blank, "a": image(pole=3), "b": image(pole=30, sky=900), "c": image(pole=8, road_as_sky=1)})
    assert found == {"most wrong pixels": ["c"], "best with a rare class": ["a", "b"]}


def test_the_rarest_class_is_that_of_the_training_if_it_is_known_and_in_some_image():
    images = {f"{k}": image(pole=900, sky=10, road_as_sky=k, pole_as_road=10 * k) for k in range(12)}
    assert [kind for kind in shown(images) if "rarest" in kind] == ["most wrong pixels of sky, the rarest class"]
    kinds = shown(images, (500, 900, 5))
    assert [kind for kind in kinds if "rarest" in kind] == ["most wrong pixels of pole, the rarest class in training"]
    no_pole = {f"{k}": image(road_as_sky=k) for k in range(12)}
    assert "most wrong pixels of road, the rarest class in training" in shown(no_pole, (10, 900, 5))


def test_an_image_is_shown_once_and_few_of_each_kind():
    generator = np.random.default_rng(0)
    totals = Totals.of(ImageResult(str(k), generator.integers(1, 99, (3, 4)), 0) for k in range(40))
    found = extremes(Pictures(), totals)
    assert len({one.name for one in found}) == len(found) == 3 * EXTREMES
    assert all(one.said for one in found)


@pytest.mark.parametrize("pixels", [0, 7])
def test_nothing_labelled_or_nothing_wrong_has_no_worst_image(pixels):
    found = shown({"a": [[pixels, 0, 0], [0, pixels, 0], [0, 0, pixels]]})
    assert found == ({"best with a rare class": ["a"]} if pixels else {})


# Confusions in words.


def test_confusions_are_the_largest_shares_of_a_class():
    matrix = np.array([[90, 10, 0, 0], [0, 5, 3, 2], [1, 0, 199, 0]])
    found = [(row.true, row.predicted, row.share, row.pixels) for row in confusions(matrix, NAMES)]
    assert found == [("sky", "pole", 0.3, 3), ("sky", None, 0.2, 2), ("road", "sky", 0.1, 10)]  # 0.5 % is none


@pytest.mark.parametrize("classes", [1, 3, 254])
def test_confusions_of_nothing_and_of_all_right_are_none(classes):
    names = [str(c) for c in range(classes)]
    for matrix in (np.zeros((classes, classes + 1), int), np.eye(classes, classes + 1, dtype=int)):
        assert confusions(matrix, names) == ()


def test_confusions_are_few_however_many_classes():
    found = confusions(np.random.default_rng(0).integers(0, 9, (254, 255)), [str(c) for c in range(254)])
    shares = [row.share for row in found]
    assert len(found) <= MOST_CONFUSIONS and shares == sorted(shares, reverse=True)
    one = np.zeros((254, 255), int)
    one[200] = 0
    one[200, 3] = 40
    assert [(row.true, row.predicted, row.share) for row in confusions(one, [str(c) for c in range(254)])] == [
        ("200", "3", 1.0)
    ]
