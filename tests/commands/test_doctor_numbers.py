"""What the doctor sees in numbers, places and likeness of images beside each other."""

from pathlib import Path

import numpy as np
import pytest
from data_trees import random_image, random_mask, write_png

from segloss.datasets import build_dataset
from segloss.datasets.bands import choose_bands
from segloss.doctor import examine

SIZE = (32, 48)


def said(root: Path, check: str = "all", splits=("train", "val")) -> list[str]:
    datasets = [build_dataset("folder", root, split, lonely=True) for split in splits]
    choose_bands(datasets)
    return [f"{finding.severity} {finding.split}: {finding}" for finding in examine(datasets, check)[0]]


def tree(root: Path, image, counts=(("train", 8), ("val", 3))) -> Path:
    """``image``: of split and number, what is saved; as .npy unless it is 8-bit RGB."""
    for split, count in counts:
        for number in range(count):
            pixels = image(split, number + 100 * len(split))
            path = root / f"images/{split}/{split}{number}"
            if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
                write_png(path.with_suffix(".png"), pixels)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path.with_suffix(".npy"), pixels)
            write_png(root / f"masks/{split}/{split}{number}.png", random_mask(number + 100 * len(split), SIZE, (0, 1)))
    (root / "classes.yaml").write_text("- field\n- water\n")
    return root


def picture(seed: int) -> np.ndarray:
    return random_image(seed, SIZE)


def deep(seed: int) -> np.ndarray:
    """Two bands of 0..1, in some images a tenth as bright as in others."""
    return np.random.default_rng(seed).random((*SIZE, 2), np.float32) * (1, 0.1, 0.4)[seed % 3]


OTHER_UNITS = {  # split and number -> the image; what is said of val
    "bytes beside 0..1": (lambda s, n: deep(n) * (255 if s == "val" else 1), "of band 1 numbers reach 1"),
    "reflectance": (lambda s, n: deep(n) * (1 if s == "val" else 10000), "numbers reach 0.39"),
    "one band": (lambda s, n: deep(n) * ((1, 100) if s == "val" else (1, 1)), "of band 2 numbers reach"),
    "12 bits": (lambda s, n: picture(n)[..., :1].astype(np.uint16) * (16 if s == "val" else 256), "reach 4,048"),
    "decibels": (lambda s, n: deep(n) * (-25 if s == "val" else 1), "of band 1 numbers reach 9.9"),
    "standardised": (
        lambda s, n: deep(n) % 0.1 * 40 - (2 if s == "train" else 0),
        "do not go below 0 where they do in train",
    ),
    "8 bits": (lambda s, n: picture(n) // (16 if s == "val" else 1), "numbers reach 15 where they reach 25"),
}


@pytest.mark.parametrize("check", ["all", "sample"])
@pytest.mark.parametrize("case", OTHER_UNITS)
def test_a_split_in_other_units_is_told(tmp_path, case, check):
    image, words = OTHER_UNITS[case]
    lines = [line for line in said(tree(tmp_path, image), check) if "same units" in line]
    assert len(lines) == 1 and lines[0].startswith("warning val: ") and "val0." in lines[0], lines
    assert words in lines[0] and "(and 2 more files); save all images in the same units" in lines[0]


@pytest.mark.parametrize(
    "image",
    [
        lambda s, n: deep(n),
        lambda s, n: deep(n) - 0.5 * (n % 2),
        lambda s, n: deep(n) * 10.0 ** -(n % 4),  # as water and land: sizes without a gap
        lambda s, n: picture(n) // 16 if n % 4 == 0 else picture(n),  # by night and by day
        lambda s, n: np.zeros((*SIZE, 2), np.float32) if s == "val" and n % 2 else deep(n),
    ],
)
def test_numbers_that_differ_by_image_are_none_of_other_units(tmp_path, image):
    assert [line for line in said(tree(tmp_path, image)) if "same units" in line] == []


def test_images_in_other_units_than_most_are_told(tmp_path):
    lines = said(tree(tmp_path, lambda s, n: deep(n) * (255 if n % 4 == 1 else 1)))
    (line,) = [line for line in lines if "same units" in line]
    assert line.startswith("warning train: ") and "train1.npy: of band 1 numbers reach" in line
    assert "in most images (and 2 more files)" in line


@pytest.mark.parametrize("where", [("train", "val"), ("val",)])
def test_images_of_0_and_1_alone_are_told_once(tmp_path, where):
    lines = said(tree(tmp_path, lambda s, n: picture(n) // 128 if s in where else picture(n)))
    assert [line.split(":")[0] for line in lines] == [f"warning {split}" for split in where]
    assert all("holds 0 and 1 alone, all but black" in line and "multiply by 255" in line for line in lines)


@pytest.mark.parametrize("gray", ["train", "val", "some", "both"])
def test_a_gray_split_beside_one_in_colour_is_told(tmp_path, gray):
    def image(split: str, number: int) -> np.ndarray:
        plain = picture(number)
        return np.repeat(plain[..., :1], 3, 2) if gray in (split, "both") or (gray == "some" and number % 2) else plain

    lines = said(tree(tmp_path, image))
    assert len(lines) == (gray in ("train", "val"))
    if lines:
        assert f"images are {'in colour' if gray == 'train' else 'gray throughout'}, those of train are" in lines[0]


@pytest.mark.parametrize("check", ["all", "sample"])
@pytest.mark.parametrize(("case", "told"), [("all", 11), ("a few", 3), ("two", 0), ("one class", 0), ("one image", 0)])
def test_one_mask_of_several_images_is_told(tmp_path, check, case, told):
    root = tree(tmp_path, lambda s, n: picture(7 if case == "one image" else n))
    mask = random_mask(0, SIZE, (0, 1)) * (case != "one class")
    for path in sorted((root / "masks").glob("*/*.png"))[: {"a few": 3, "two": 2}.get(case)]:
        write_png(path, mask)
    lines = [line for line in said(root, check) if "the same mask as" in line]
    assert len(lines) == bool(told)
    if lines:
        assert lines[0].startswith("warning train: ") and f"train0.png; {told} images have it; check the" in lines[0]
