"""Class tables: what a mask's ids mean, and the files that say so."""

import json
import re

import numpy as np
import pytest

from segloss.datasets.class_files import read_class_file
from segloss.datasets.classes import STRAY, ClassTable, distinct_colors, mirrored_classes, told_as_mirrored
from segloss.datasets.masks import lookup
from segloss.datasets.tables import CAMVID_11
from segloss.errors import InputError


def ids_of(table: ClassTable) -> np.ndarray:
    """What each of the 256 values of an 8-bit mask becomes."""
    return lookup(np.arange(256, dtype=np.uint8)[None], table)[0]


def test_lookup_maps_ids_to_classes_ignored_ids_to_255_and_the_rest_to_stray():
    table = ClassTable(names=("road", "car", "sky"), ids=(7, 0, 200), ignore_ids=(3, 11))
    expected = np.full(256, STRAY)
    expected[[7, 0, 200]] = [0, 1, 2]
    expected[[3, 11, 255]] = 255  # 255 is ignored without being asked for
    np.testing.assert_array_equal(ids_of(table), expected)
    assert ids_of(table).dtype == np.uint8


def test_without_ids_the_place_is_the_id():
    table = ClassTable(names=("a", "b", "c"))
    assert table.ids == (0, 1, 2)
    assert table.ignore_ids == (255,)
    assert len(table) == 3


def test_255_can_be_a_class_and_is_then_not_ignored():
    table = ClassTable(names=("background", "crack"), ids=(0, 255))
    assert table.ignore_ids == ()
    assert ids_of(table)[255] == 1


def test_254_classes_fit_and_none_looks_like_a_stray_id():
    table = ClassTable(names=tuple(f"c{i}" for i in range(254)))
    np.testing.assert_array_equal(ids_of(table)[:254], np.arange(254))
    assert ids_of(table)[254] == STRAY


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ("a", "b", "a")}, "class name given twice: a"),
        ({"names": ("a", "b", "c"), "ids": (1, 2, 1)}, "class id given twice: 1"),
        ({"names": ("a", "b", "c"), "ids": (1, 2)}, "got 3 names, 2 ids, 3 colors"),
        ({"names": ("a", "b"), "colors": ((1, 2, 3),)}, "got 2 names, 2 ids, 1 colors"),
        ({"names": ("a", "b"), "ids": (0, 65536)}, re.escape("must be in 0..65535, got [65536]")),
        ({"names": ("a", "b"), "ids": (-1, 0)}, re.escape("must be in 0..65535, got [-1]")),
        ({"names": ("a", "b"), "ignore_ids": (70000,)}, re.escape("must be in 0..65535, got [70000]")),
        ({"names": ("a", "b"), "colors": ((0, 0, 256), (1, 2, 3))}, re.escape("got (0, 0, 256)")),
        ({"names": ("a", "b"), "colors": ((0, 0), (1, 2, 3))}, re.escape("got (0, 0)")),
        ({"names": ("a",)}, "needs 2 to 4096 classes, got 1"),
        ({"names": tuple(map(str, range(4097)))}, "needs 2 to 4096 classes, got 4097"),
    ],
)
def test_a_table_that_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        ClassTable(**options)


@pytest.mark.parametrize(
    "table",
    [
        CAMVID_11,
        ClassTable(names=("Straße", "ciel"), ids=(9, 4), colors=((1, 2, 3), (4, 5, 6)), ignore_ids=(0,)),
        ClassTable(names=("background", "crack"), ids=(0, 255)),
    ],
)
def test_a_table_survives_json(table):
    again = ClassTable.from_dict(json.loads(json.dumps(table.to_dict())))
    assert again.to_dict() == table.to_dict()


@pytest.mark.parametrize("count", [2, 11, 150, 254])
def test_automatic_colors_are_distinct_and_none_is_black(count):
    colors = distinct_colors(count)
    assert len(set(colors)) == count
    assert (0, 0, 0) not in colors
    assert all(0 <= value <= 255 for color in colors for value in color)


def test_camvid_has_the_eleven_classes_of_segnet_and_void_ignored():
    order = [
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign_symbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ]
    assert CAMVID_11.names == tuple(order)
    assert CAMVID_11.ids == tuple(range(11))
    assert ids_of(CAMVID_11)[11] == ids_of(CAMVID_11)[255] == 255
    assert (ids_of(CAMVID_11)[12:255] == STRAY).all()
    assert CAMVID_11.colors[order.index("road")] == (128, 64, 128)
    assert CAMVID_11.colors[order.index("bicyclist")] == (0, 128, 192)


NAMES_ONLY = ClassTable(names=("road", "café", "sky"))
IN_FULL = ClassTable(
    names=("road", "sky"), ids=(7, 2), colors=(distinct_colors(2)[0], (70, 130, 180)), ignore_ids=(0, 11)
)
FULL_ENTRIES = [{"name": "road", "id": 7}, {"name": "sky", "id": 2, "color": [70, 130, 180]}]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("classes.txt", "road\ncafé\n\n  sky  \n", NAMES_ONLY),
        ("classes.txt", "road\r\ncafé\r\nsky", NAMES_ONLY),
        ("classes.yaml", "- road\n- café\n- sky\n", NAMES_ONLY),
        ("classes.yml", "classes:\n  - road\n  - café\n  - name: sky\n", NAMES_ONLY),
        ("classes.json", '["road", "café", "sky"]', NAMES_ONLY),
        ("classes.json", json.dumps({"classes": FULL_ENTRIES, "ignore": [0, 11]}), IN_FULL),
        (
            "classes.yaml",
            "classes:\n- {name: road, id: 7}\n- {name: sky, id: 2, color: [70, 130, 180]}\nignore: [0, 11]\n",
            IN_FULL,
        ),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte-order mark"])
def test_every_form_of_a_class_file_is_read(tmp_path, name, text, expected, mark):
    path = tmp_path / name
    path.write_bytes((mark + text).encode())
    assert read_class_file(path) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classes.yaml", b"a: [", "cannot be read as a class file"),
        ("classes.json", b"[1, 2", "cannot be read as a class file"),
        ("classes.txt", b"\x89PNG\xff\x00", "cannot be read as a class file"),
        ("classes.yaml", b"\x89PNG\xff\x00", "cannot be read as a class file"),
        ("classes.json", b"\x89PNG\xff\x00", "cannot be read as a class file"),
        ("classes.yaml", b"", "expected a list of names"),
        ("classes.yaml", b"just words", "expected a list of names"),
        ("classes.yaml", b"ignore: [3]", "expected a list of names"),
        ("classes.yaml", b"- {id: 3}\n- b\n", "expected a list of names"),
        ("classes.yaml", b"classes: abc", "expected a list of names"),  # not the classes a, b, c
        ("classes.yaml", b"classes: {0: road, 1: car}", "expected a list of names"),  # not the classes 0 and 1
        ("classes.yaml", b"classes: [a, b]\nignore: sky", "an id must be a whole number"),
        ("classes.yaml", b"- {name: a, id: first}\n- b", "whole number"),
        ("classes.yaml", b"- {name: a, color: red}\n- b", "a color is three numbers in 0..255"),
        ("classes.yaml", b"- {name: a, color: [1, 2]}\n- b", "three numbers in 0..255"),
        ("classes.yaml", b"- {name: a, color: [1, 2, 300]}\n- b", "three numbers in 0..255"),
        ("classes.yaml", b"- {name: a, id: 70000}\n- b", "must be in 0..65535"),
        ("classes.txt", b"road\nroad\n", "given twice: road"),
        ("classes.txt", b"", "needs 2 to 4096 classes"),
    ],
)
def test_a_broken_class_file_is_refused_by_name(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as refusal:
        read_class_file(path)
    assert str(path) in str(refusal.value)


def test_a_missing_class_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml: cannot be read"):
        read_class_file(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [a, b]\nignore: [0]", "both a class and ignored"),
        ("classes: [a, b]\nignroe: [5]", "unknown key 'ignroe'"),
        ("- {name: a}\n- {name: b, idd: 1}", "unknown key 'idd'"),
        ("- {name: a, id: 0.7}\n- b", "whole number, got 0.7"),
        ("- a\n-", "write the name in quotes"),
        ("- road\n- no", "a class is named False"),
    ],
)
def test_a_class_file_that_says_something_else_than_it_seems_is_refused(tmp_path, text, message):
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_class_file(path)
    assert str(path) in str(error.value)


def test_a_mask_of_0_and_255_is_read_with_255_as_a_class(tmp_path):
    path = tmp_path / "classes.yaml"
    path.write_text("classes:\n  - {name: background, id: 0}\n  - {name: crack, id: 255}\n")
    table = read_class_file(path)
    assert ids_of(table)[[0, 255]].tolist() == [0, 1] and table.ignore_ids == ()


@pytest.mark.parametrize(
    "text",
    [
        "background: 0\nroad: 1\nignore_index: 255\n",
        "classes: {background: 0, road: 1}\nignore_index: 0\n",
        "names: {0: background, 1: road}\nignored: [0]\n",
    ],
)
def test_another_word_for_ignore_is_no_class_and_not_passed_over(tmp_path, text):
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(InputError, match=r"unknown key 'ignore.*write the ids that are ignored as ignore: \[255\]"):
        read_class_file(tmp_path / "classes.yaml")


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (("skin", "l_eye", "r_eye", "hair"), (0, 2, 1, 3)),  # CelebAMask-HQ
        (("Left-arm", "Right-arm", "Face", "Right-shoe", "Left-shoe"), (1, 0, 2, 4, 3)),  # LIP
        (("left hand", "RightHand"), (1, 0)),
        (("LArm", "RArm", "eyeL", "eyeR"), (1, 0, 3, 2)),
        (("arrow left", "arrow right", "arrow left-to-right", "Arrow (Right) to Left"), (1, 0, 3, 2)),
        (("right", "left", "L", "R"), (1, 0, 3, 2)),
        (("left_hand", "hand", "left", "l_hand"), ()),  # of no other side
        (("L1", "R1", "lamp", "ramp", "cleft", "copyright", "rock", "lock"), ()),
        (("left_hand", "left-hand", "right_hand"), ()),  # of which nobody can tell
        (("road", "car"), ()),
    ],
)
def test_classes_of_two_sides_are_each_others_in_a_mirrored_image(names, others):
    assert mirrored_classes(names) == others
    assert bool(told_as_mirrored(names)) == bool(others)


def test_many_pairs_are_told_in_one_line():
    names = tuple(f"{side} {part}" for part in ("arm", "leg", "shoe", "ear", "eye") for side in ("left", "right"))
    told = "left arm and right arm; left leg and right leg; left shoe and right shoe and 2 more pairs"
    assert told_as_mirrored(names) == told
