"""``--predictions --images DIR``: the photographs of the masks are on the page, however they are named."""

import re

import cv2
import numpy as np
import pytest
from data_trees import random_mask, write_png

import eval_seg
from segloss.datasets.classes import ClassTable
from segloss.errors import InputError
from segloss.evaluation.mask_source import MaskSource

CLASSES = ClassTable(("wall", "lamp"))


def tree(root, image_name="{}.jpg", label_name="{}.png", size=(24, 32), count=4):
    """Labels, predictions that are wrong by a corner, and photographs that are as grey as their number."""
    for place in range(count):
        labels = np.kron(random_mask(place, (3, 4), (0, 1)), np.ones((8, 8), np.uint8))
        predicted = labels.copy()
        predicted[:4, :4] ^= 1
        write_png(root / "true" / label_name.format(f"f{place}"), labels)
        write_png(root / "masks" / label_name.format(f"f{place}"), predicted)
        (root / "photos").mkdir(exist_ok=True)
        picture = np.full((*size, 3), 40 + 50 * place, np.uint8)
        assert cv2.imwrite(str(root / "photos" / image_name.format(f"f{place}")), picture)
    (root / "classes.json").write_text('["wall", "lamp"]')


def source(root, **options):
    return MaskSource("m", root / "masks", root / "true", CLASSES, workers=1, images=root / "photos", **options)


@pytest.mark.parametrize(
    ("image_name", "label_name"),
    [("{}.jpg", "{}.png"), ("{}.png", "{}.png"), ("{}_rgb.jpg", "{}_mask.png"), ("{}.png", "{}_L.png")],
)
def test_photographs_are_found_by_what_their_names_share(tmp_path, image_name, label_name):
    tree(tmp_path, image_name, label_name)
    made = source(tmp_path)
    grey = [made.picture(name)[0] for name in made.names]
    assert [round(float(one.mean()), -1) for one in grey] == [40, 90, 140, 190]
    assert all(one.shape == (24, 32, 3) and one.dtype == np.uint8 for one in grey)


def test_a_photograph_of_another_size_is_shown_at_the_labels(tmp_path):
    tree(tmp_path, size=(48, 64))
    assert source(tmp_path).image("f0").shape == (24, 32, 3)


def test_an_image_without_photograph_is_shown_without(tmp_path):
    tree(tmp_path)
    (tmp_path / "photos/f2.jpg").unlink()
    made = source(tmp_path)
    assert made.picture("f2")[0] is None and made.picture("f1")[0] is not None


@pytest.mark.parametrize("what", ["no folder", "empty", "others"])
def test_a_folder_of_no_photograph_of_these_masks_is_refused_before_the_work(tmp_path, what):
    tree(tmp_path)
    for path in (tmp_path / "photos").iterdir():
        path.unlink() if what != "others" else path.rename(path.with_name(f"{path.stem}{path.stem}xyz-unlike.jpg"))
    if what == "no folder":
        (tmp_path / "photos").rmdir()
    expected = {"no folder": "is no folder", "empty": "holds no images", "others": "holds no image of the labels"}[what]
    with pytest.raises(InputError, match=expected) as found:
        source(tmp_path)
    assert "--images" in found.value.cure


def test_the_page_holds_them_and_scores_are_the_same_without(tmp_path):
    tree(tmp_path)
    masks = ["--predictions", str(tmp_path / "masks"), "--labels", str(tmp_path / "true")]
    eval_seg.evaluate([*masks, "--output-dir", str(tmp_path / "with"), "--images", str(tmp_path / "photos")])
    eval_seg.evaluate([*masks, "--output-dir", str(tmp_path / "without")])
    found = {how: (tmp_path / how / "report.html").read_text() for how in ("with", "without")}
    titles = {how: re.findall('<span class="title">([a-z]+)</span>', page) for how, page in found.items()}
    assert titles["with"] == ["image", "truth", "prediction", "errors"] * 4
    assert titles["without"] == ["truth", "prediction", "errors"] * 4
    assert f"<dt>images</dt><dd><code>{tmp_path / 'photos'}</code>" in found["with"]
    scores = [(tmp_path / how / "metrics.json").read_bytes() for how in ("with", "without")]
    assert scores[0] == scores[1]
