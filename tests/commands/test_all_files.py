"""What counting and headers show of every file is judged on all of them, not on the sample."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from data_trees import random_image, random_mask, write_png
from PIL import Image

from segloss.datasets import build_dataset
from segloss.datasets.bands import choose_bands
from segloss.doctor.examination import check_histograms, check_scored, examine
from segloss.errors import InputError
from segloss.pixel_counts import count_dataset, count_images, require_two_classes
from segloss.resume import check_same_counts
from segloss.run_folder import COUNTS

SIZE = (16, 16)
CLASSES = "- {name: wall, color: [10, 20, 30]}\n- {name: crack, color: [200, 0, 0]}\n"


@pytest.fixture
def tree(tmp_path):
    for place in range(60):
        split = "train" if place < 40 else "val"
        write_png(tmp_path / f"images/{split}/{place:02d}.png", random_image(place, SIZE))
        write_png(tmp_path / f"masks/{split}/{place:02d}.png", random_mask(place, SIZE, (0, 1)))
    (tmp_path / "classes.yaml").write_text(CLASSES)
    return tmp_path


def lines(tree, check="sample"):
    return [
        f"{f.severity} {f}" for f in examine([build_dataset("folder", tree, s) for s in ("train", "val")], check)[0]
    ]


def outside_the_sample(tree):
    dataset = build_dataset("folder", tree, "train")
    places = {(2 * k + 1) * 40 // 32 for k in range(16)}
    return next(pair for place, pair in enumerate(dataset.pairs) if place not in places)


def test_a_turned_or_deep_image_outside_the_sample_is_warned_of(tree):
    assert lines(tree) == []
    image, _ = outside_the_sample(tree)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(random_image(0, SIZE)).save(image, exif=exif)
    assert any(f"{image.name}: is turned by its EXIF" in line for line in lines(tree))
    write_png(image, random_image(0, SIZE).astype(np.uint16) * 256)
    assert any(f"{image.name}: has 16 bits" in line for line in lines(tree))


def test_a_palette_of_another_order_outside_the_sample_is_an_error(tree):
    _, path = outside_the_sample(tree)
    mask = Image.fromarray(random_mask(0, SIZE, (0, 1)), mode="P")
    for palette, found in (([10, 20, 30, 200, 0, 0], 0), ([200, 0, 0, 10, 20, 30], 1)):
        mask.putpalette(palette)
        mask.save(path)
        assert sum(f"{path.name}: its palette shows other classes" in line for line in lines(tree)) == found


@pytest.mark.parametrize("count", [1, 6])
def test_masks_of_0_and_255_among_others_are_seen_in_the_counts(tree, count, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tree / "cache"))
    said: list[str] = []
    dataset = build_dataset("folder", tree, "train")
    check_histograms(dataset, count_images(dataset).numpy())
    for _, path in dataset.pairs[:count]:
        write_png(path, random_mask(1, SIZE, (0, 255)))
    more = f" (and {count - 1} more files)" if count > 1 else ""
    with pytest.raises(InputError) as refusal:
        check_histograms(dataset, count_images(dataset).numpy())
    assert refusal.value.where == dataset.pairs[0][1]
    assert refusal.value.what == f"holds 0 and 255 alone{more}, while other masks hold 0 and 1"
    with pytest.raises(InputError, match="holds 0 and 255 alone"):
        check_scored([dataset], "sample", said.append)
    check_scored([dataset], "off", said.append)
    write_png(dataset.pairs[-2][1], np.full(SIZE, 255, np.uint8))  # says nothing of what 255 means
    with pytest.raises(InputError, match="holds 0 and 255 alone"):
        check_histograms(dataset, count_images(dataset).numpy())
    write_png(dataset.pairs[-1][1], random_mask(1, SIZE, (0, 1, 255)))
    check_histograms(dataset, count_images(dataset).numpy())  # 255 is ignored elsewhere too


def test_a_split_without_a_valid_pixel_is_an_error(tree):
    for path in (tree / "masks/val").iterdir():
        write_png(path, np.full(SIZE, 255, np.uint8))
    assert any(line.startswith("error val: has no pixel that is not ignored") for line in lines(tree))
    _, last = build_dataset("folder", tree, "val").pairs[-1]
    write_png(last, random_mask(0, SIZE, (0, 1)))
    assert not [line for line in lines(tree) if line.startswith("error")]


def test_images_all_of_one_colour_are_an_error(tree):
    for place, path in enumerate(sorted((tree / "images/train").iterdir())):
        write_png(path, np.full((*SIZE, 3), place, np.uint8))
    assert any("error train: " in line and "every image is of one colour" in line for line in lines(tree))


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (3, 90, 7)])
def test_a_single_image_of_one_colour_is_named(tree, colour):
    path = tree / "images/val/41.png"
    write_png(path, np.full((*SIZE, 3), colour, np.uint8))
    (found,) = lines(tree, "all")
    assert found.startswith("warning val: ") and "val/41.png: is of one colour; replace it" in found
    write_png(tree / "images/val/44.png", np.zeros((*SIZE, 3), np.uint8))
    assert any("41.png: is of one colour (and 1 more files)" in line for line in lines(tree, "all"))


def test_an_image_of_one_colour_that_is_ignored_altogether_is_no_fault(tree):
    write_png(tree / "images/train/07.png", np.zeros((*SIZE, 3), np.uint8))
    write_png(tree / "masks/train/07.png", np.full(SIZE, 255, np.uint8))
    assert lines(tree, "all") == []


def test_one_band_or_sixteen_bits_of_one_value_are_of_one_colour_too(tmp_path):
    for place, value in enumerate((None, 700, None)):
        image = random_image(place, SIZE)[..., 0].astype(np.uint16) * 200
        write_png(tmp_path / f"images/train/{place}.png", image if value is None else np.full_like(image, value))
        write_png(tmp_path / f"masks/train/{place}.png", random_mask(place, SIZE, (0, 1)))
    (tmp_path / "classes.yaml").write_text(CLASSES)
    (tmp_path / "images/val").mkdir()
    dataset = build_dataset("folder", tmp_path, "train")
    choose_bands([dataset])
    assert ["1.png: is of one colour" in str(f) for f in examine([dataset])[0]].count(True) == 1


@pytest.mark.parametrize("check", ["sample", "all"])
def test_an_image_that_links_to_itself_is_one_finding(tree, check):
    path = tree / "images/train/00.png"
    path.unlink()
    path.symlink_to(path)
    found = lines(tree, check)
    assert check == "sample" or any(
        "00.png: cannot be read: Too many levels of symbolic links" in line for line in found
    )


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("check", ["sample", "all"])
def test_without_folders_of_splits_too_what_links_to_itself_is_one_finding(tmp_path, kind, check):
    for place in range(4):
        write_png(tmp_path / f"images/{place}.png", random_image(place, SIZE))
        write_png(tmp_path / f"masks/{place}.png", random_mask(place, SIZE, (0, 1)))
    (tmp_path / "classes.yaml").write_text(CLASSES)
    path = tmp_path / kind / "0.png"
    path.unlink()
    path.symlink_to(path)
    assert (
        sum("0.png: cannot be read: Too many levels of symbolic links" in line for line in lines(tmp_path, check)) == 1
    )


def test_another_image_of_the_same_name_and_length_is_noticed_where_a_run_goes_on(tree, tmp_path):
    image = tree / "images/train/00.bmp"
    (tree / "images/train/00.png").unlink()
    write_png(image, random_image(0, SIZE))
    counts = count_dataset(build_dataset("folder", tree, "train"))
    counts.save(tmp_path / COUNTS)
    (tmp_path / "config.yaml").touch()  # a run without one has not begun
    os.utime(image)
    check_same_counts(tmp_path, count_dataset(build_dataset("folder", tree, "train")))
    write_png(image, random_image(99, SIZE))
    with pytest.raises(InputError, match="began on other images of the same names"):
        check_same_counts(tmp_path, count_dataset(build_dataset("folder", tree, "train")))
    replace(counts, images_digest="").save(tmp_path / COUNTS)  # of an earlier version
    check_same_counts(tmp_path, counts)
    content = json.loads((tmp_path / COUNTS).read_text())
    content["pixels"][0] += 1
    content["pixels_of_images"][0] += 1
    (tmp_path / COUNTS).write_text(json.dumps(content))
    with pytest.raises(InputError, match="began on other masks"):
        check_same_counts(tmp_path, counts)


def test_of_many_class_names_some_are_printed(tree):
    counts = count_dataset(build_dataset("folder", tree, "train"))
    many = replace(counts, class_names=tuple(map(str, range(459))), pixels=(1, *[0] * 458))
    with pytest.raises(InputError, match=r"0 alone has pixels, of 0, 1, 2, 3, 4, 5, 6, 7, \.\.\. \(459 in all\)"):
        require_two_classes(many)
