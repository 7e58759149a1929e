"""Augmentation and samplers: labels stay labels, and a sample is a function of (seed, epoch, index)."""

import copy
import math
import pickle
import random
from fractions import Fraction
from itertools import pairwise
from typing import get_args

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from data_trees import folder_tree, write_png
from hypothesis import given, settings
from hypothesis import strategies as st

from segloss.datasets import build_dataset
from segloss.datasets.base import Color
from segloss.datasets.loading import EpochSampler, collate_samples, evaluation_loader, training_loader
from segloss.datasets.transforms import (
    COLORS,
    EvalTransform,
    RandomScale,
    TrainTransform,
    read_augmentations,
    resize_image,
    resize_labels,
    train_transform,
)
from segloss.errors import InputError

IGNORED = 255


def blocks(seed: int, size: tuple[int, int], classes: int = 5, side: int = 8) -> np.ndarray:
    """Labels in squares, so that scaling and flipping leave whole areas."""
    rows, columns = (-(-length // side) for length in size)
    coarse = np.random.default_rng(seed).integers(0, classes, (rows, columns), dtype=np.uint8)
    return np.kron(coarse, np.ones((side, side), np.uint8))[: size[0], : size[1]]


def painted(labels: np.ndarray) -> np.ndarray:
    """A picture that shows its labels as greys 60 levels apart."""
    return np.repeat((labels * 60)[..., None], 3, axis=2)


sizes = st.tuples(st.integers(3, 90), st.integers(3, 90))


@given(sizes, st.tuples(st.integers(32, 64), st.integers(32, 64)), st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_training_samples_have_the_crop_size_and_no_new_label(size, crop, index):
    labels = blocks(index, size) * 40  # 0, 40, ... 160: any average of two of them would be new or wrong
    transform = train_transform(crop, 0, scale_range=(0.5, 2.0))
    image, out = transform(painted(blocks(index, size)), labels, (0, index))
    assert image.shape == (*crop, 3) and image.dtype == np.uint8
    assert out.shape == crop and out.dtype == np.uint8
    assert set(np.unique(out)) <= {*np.unique(labels), IGNORED}


@given(sizes, st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_padded_pixels_and_no_others_are_ignored(size, index):
    """At scale 1 as many pixels are ignored as the image lacks, and those it has form one rectangle."""
    crop = (48, 56)
    transform = train_transform(crop, 3)
    image, labels = transform(np.full((*size, 3), 255, np.uint8), np.ones(size, np.uint8), (0, index))
    kept = [min(length, side) for length, side in zip(size, crop, strict=True)]
    inside = labels == 1
    assert inside.sum() == np.prod(kept)
    assert (labels[~inside] == IGNORED).all()
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert [np.ptp(rows) + 1, np.ptp(columns) + 1] == kept
    # White stays the brightest under any colour step, padding is a middle grey.
    if not inside.all():
        assert image[inside].min() > image[~inside].max()


def test_image_and_labels_move_together():
    """The colour step changes greys but not their order, so each label keeps a band of its own inside its areas."""
    labels = blocks(0, (96, 128), side=16)
    image = painted(labels)
    transform = train_transform((64, 80), 1, scale_range=(0.8, 1.5))
    for index in range(30):
        out_image, out = transform(image, labels, (0, index))
        neighbours = np.stack([np.roll(out, shift, (0, 1)) for shift in ((2, 0), (-2, 0), (0, 2), (0, -2))])
        inner = (neighbours == out).all(axis=0)
        inner[:2] = inner[-2:] = inner[:, :2] = inner[:, -2:] = False
        bands = [out_image[inner & (out == c)] for c in range(5)]
        bands = [band for band in bands if len(band)]
        assert len(bands) >= 3
        for darker, brighter in pairwise(bands):
            assert np.percentile(darker, 98) < np.percentile(brighter, 2)


def test_half_of_the_samples_are_mirrored():
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    transform = train_transform((40, 40), 0)
    mirrored = [transform(painted(labels), labels, (0, index))[1][0, 0] == 1 for index in range(200)]
    assert 0.4 < np.mean(mirrored) < 0.6  # binomial, three standard deviations


@pytest.mark.parametrize("image_scale", [0.5, 2.0])
def test_image_scale_multiplies_the_random_scale(image_scale):
    """A square of 40 comes out between 40 * scale * 0.8 and 40 * scale * 1.2, and not always the same."""
    labels = np.full((120, 120), 2, np.uint8)
    labels[40:80, 40:80] = 1
    transform = train_transform((320, 320), 0, image_scale=image_scale, scale_range=(0.8, 1.2))
    sides = []
    for index in range(40):
        square = transform(painted(labels), labels, (0, index))[1] == 1
        sides.append(np.ptp(np.flatnonzero(square.any(axis=0))) + 1)
    relative = np.array(sides) / (40 * image_scale)
    assert 0.8 - 0.03 < relative.min() < 0.88  # 0.03: half a pixel on each side of a square of 20
    assert 1.12 < relative.max() < 1.2 + 0.03


def test_the_same_key_gives_the_same_sample_and_another_key_another():
    labels = blocks(0, (60, 80))
    image = painted(labels)

    def sample(seed, key):
        return train_transform((48, 64), seed, scale_range=(0.75, 1.6))(image, labels, key)

    first = sample(0, (3, 7))
    for part, again in zip(first, sample(0, (3, 7)), strict=True):
        np.testing.assert_array_equal(part, again)
    for seed, key in ((1, (3, 7)), (0, (4, 7)), (0, (3, 8)), (0, (7, 3))):
        other = sample(seed, key)
        assert any((part != changed).any() for part, changed in zip(first, other, strict=True)), (seed, key)


def test_a_sample_does_not_depend_on_the_samples_before_it():
    labels = blocks(0, (60, 80))
    transform = train_transform((48, 64), 0, scale_range=(0.75, 1.6))
    forwards = [transform(painted(labels), labels, (0, index)) for index in range(6)]
    backwards = [transform(painted(labels), labels, (0, index)) for index in reversed(range(6))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_inputs_and_the_global_random_states_are_left_alone():
    labels = blocks(0, (60, 80))
    image = painted(labels)
    before = image.copy(), labels.copy()
    states = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    transform = train_transform((48, 64), 0, scale_range=(0.75, 1.6))
    for index in range(10):
        transform(image, labels, (0, index))
    np.testing.assert_array_equal(np.random.get_state()[1], states[0])
    assert random.getstate() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


@pytest.mark.parametrize("color", ["none", "light", "strong"])
def test_colour_changes_nothing_but_the_colour(color):
    labels = blocks(0, (60, 80))
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    plain, own = (train_transform((48, 64), 2, scale_range=(0.75, 1.6), color=name) for name in ("none", color))
    changes = []
    for index in range(20):
        (expected, expected_labels), (got, got_labels) = (
            plain(image, labels, (0, index)),
            own(image, labels, (0, index)),
        )
        np.testing.assert_array_equal(got_labels, expected_labels)
        assert got.dtype == np.uint8
        changes.append(np.abs(got.astype(int) - expected).mean())
    low, high = {"none": (0, 0), "light": (5, 40), "strong": (20, 80)}[color]  # grey levels, over 20 samples
    assert low <= np.mean(changes) <= high


# ---- crops that look at the labels


def rare_spot(row: int, column: int) -> np.ndarray:
    """Class 1 in one pixel of 64 x 80, class 2 in a quarter, the rest 0."""
    labels = np.zeros((64, 80), np.uint8)
    labels[32:, 40:] = 2
    labels[row, column] = 1
    return labels


def places(transform, labels, count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Row and column of the pixel of class 1 in each crop that holds it, and all crops' labels."""
    crops = [transform(painted(labels), labels, (0, index))[1] for index in range(count)]
    return np.array([np.argwhere(crop == 1)[0] for crop in crops if (crop == 1).any()]), crops


@pytest.mark.parametrize("spot", [(0, 0), (63, 79), (0, 79), (20, 30), (40, 60)])
def test_a_guided_crop_holds_a_pixel_of_the_rare_class_wherever_it_lies(spot):
    counts = (10**9, 1, 10**9)
    transform = train_transform((32, 48), 0, guided_crops=1, class_pixels=counts)
    found, crops = places(transform, rare_spot(*spot), 60)
    assert len(found) == len(crops)


def test_the_place_of_the_rare_pixel_in_a_guided_crop_is_uniform():
    labels = np.zeros((200, 200), np.uint8)
    labels[100, 90] = 1
    found, _ = places(train_transform((32, 32), 0, guided_crops=1, class_pixels=(10**9, 1)), labels, 400)
    for axis in range(2):  # 400 of a uniform distribution over 0 .. 31, mirrored or not
        assert found[:, axis].min() <= 1 and found[:, axis].max() >= 30
        assert abs(found[:, axis].mean() - 15.5) < 4 * 9.2 / 20  # four standard errors
        assert np.histogram(found[:, axis], 4, (0, 32))[0].min() > 60  # 100 each


def test_guided_crops_of_nearly_the_whole_image_do_not_stick_to_its_corners():
    labels = np.zeros((48, 48), np.uint8)
    labels[24, 24] = 1
    found, _ = places(train_transform((40, 40), 0, guided_crops=1, class_pixels=(10**9, 1)), labels, 400)
    counts = np.bincount(found[:, 0], minlength=25)
    assert counts[:16].sum() == 0 and counts[16:].min() > 20  # nine places, 44 each


def test_the_class_of_a_guided_crop_is_drawn_by_its_rarity():
    """Two single pixels so far apart that a crop holds one of them: 3 : 1 as their training counts say."""
    labels = np.full((40, 400), 255, np.uint8)
    labels[20, 50], labels[20, 350] = 0, 1
    transform = train_transform((40, 64), 0, guided_crops=1, class_pixels=(100, 300))
    crops = [transform(painted(labels % 5), labels, (0, index))[1] for index in range(400)]
    assert all((crop < 255).any() for crop in crops)
    assert abs(np.mean([(crop == 0).any() for crop in crops]) - 0.75) < 4 * 0.0217


def test_crops_that_are_not_guided_are_those_of_a_run_without_guiding():
    labels = blocks(0, (96, 128), side=16)
    plain = train_transform((32, 32), 1, scale_range=(0.75, 1.6))
    guided = train_transform((32, 32), 1, scale_range=(0.75, 1.6), guided_crops=0.5, class_pixels=(5,) * 5)
    same = [
        np.array_equal(*(transform(painted(labels), labels, (0, index))[0] for transform in (plain, guided)))
        for index in range(200)
    ]
    assert 0.35 < np.mean(same) < 0.65


def test_guiding_does_not_depend_on_the_random_scale():
    labels = np.zeros((400, 400), np.uint8)
    labels[190:194, 190:194] = 1  # of a size that any scale keeps, and that plain crops seldom meet
    transform = train_transform((32, 32), 1, scale_range=(0.5, 1.5), guided_crops=0.5, class_pixels=(10**9, 1))
    scale = transform.compose.transforms[0]
    draw, scales = scale.get_params, []
    scale.get_params = lambda: scales.append(draw()["scale"]) or {"scale": scales[-1]}
    guided = np.array([(transform(painted(labels), labels, (0, i))[1] == 1).any() for i in range(400)])
    small = np.array(scales) < 1
    assert 120 < small.sum() < 280
    assert abs(guided[small].mean() - guided[~small].mean()) < 4 * 0.05


def test_the_share_of_guided_crops_is_the_one_asked_for():
    labels = np.zeros((40, 2000), np.uint8)
    labels[20, 1000] = 1
    transform = train_transform((40, 40), 0, guided_crops=0.3, class_pixels=(10**9, 1))
    found, crops = places(transform, labels, 400)
    assert abs(len(found) / len(crops) - 0.3 - 0.7 * 40 / 1960) < 4 * 0.023


def test_image_and_labels_move_together_in_guided_crops():
    labels = blocks(0, (96, 128), side=16)
    transform = train_transform((64, 80), 1, color="none", guided_crops=0.5, cat_max_ratio=0.6, class_pixels=(5,) * 5)
    for index in range(20):
        image, out = transform(painted(labels), labels, (0, index))
        np.testing.assert_array_equal(image, painted(out))


def test_guided_crops_of_images_without_labelled_pixels_are_plain():
    labels = np.full((50, 70), 255, np.uint8)
    transform = train_transform((40, 40), 0, guided_crops=1, cat_max_ratio=0.5, class_pixels=(1, 1))
    assert transform(np.zeros((50, 70, 3), np.uint8), labels, (0, 0))[1].shape == (40, 40)


def test_crops_of_one_class_are_drawn_again():
    """A band of class 1 is in 2 of 10 crops; of 11 draws one of them has it almost always, and it is kept."""
    labels = np.zeros((40, 400), np.uint8)
    labels[:, 200:240] = 1

    def share(ratio: float) -> float:
        transform = train_transform((40, 40), 0, cat_max_ratio=ratio, class_pixels=(1, 1))
        crops = [transform(painted(labels), labels, (0, index))[1] for index in range(200)]
        return float(np.mean([max((crop == 0).mean(), (crop == 1).mean()) <= 0.8 for crop in crops]))

    once = 64 / 360  # of the places of a crop those with 8 to 32 columns of the band, twice
    assert share(0.999999) >= once
    assert abs(share(0.8) - (1 - (1 - once * 50 / 64) ** 11)) < 0.08


def test_ignored_pixels_do_not_count_as_a_class_in_a_crop():
    labels = np.full((64, 64), 255, np.uint8)
    labels[::2, 0], labels[1::2, 0] = 0, 1
    transform = train_transform((64, 64), 0, cat_max_ratio=0.6, class_pixels=(1, 1))
    crop = transform.compose.transforms[2]
    assert crop._mixed(labels, (0, 0, 64, 64)) and not crop._mixed(labels, (1, 0, 64, 64))


# ---- the user's own pipeline

OWN = """
- HorizontalFlip: {p: 0.5}
- Affine: {scale: [0.8, 1.4], rotate: [-20, 20], p: 1}
- OneOf:
    transforms:
      - GaussNoise
      - MotionBlur: {blur_limit: 5}
    p: 0.7
- CLAHE:
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    return path


def test_a_pipeline_of_the_users_replaces_scale_flip_and_colour(own):
    steps = [type(step).__name__ for step in train_transform((48, 64), 0, augmentations=own).compose.transforms]
    assert steps == ["RandomScale", "HorizontalFlip", "Affine", "OneOf", "CLAHE", "PadIfNeeded", "RandomCrop"]


@pytest.mark.parametrize("image_scale", [0.5, 1.0])
def test_samples_of_a_pipeline_of_the_users_have_the_crop_size_and_no_new_label(own, image_scale):
    labels = blocks(0, (90, 120)) * 40
    transform = train_transform(
        (48, 64), 0, augmentations=own, image_scale=image_scale, guided_crops=0.5, class_pixels=(9,) * 161
    )
    transform = pickle.loads(pickle.dumps(transform))  # as spawned workers get it
    samples = [transform(painted(labels // 40), labels, (0, index)) for index in range(20)]
    for image, out in samples:
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8 and out.shape == (48, 64)
        assert set(np.unique(out)) <= {*np.unique(labels), IGNORED}
    assert any((one[0] != other[0]).any() for one, other in pairwise(samples))
    for index in reversed(range(20)):  # a function of the key alone
        again = transform(painted(labels // 40), labels, (0, index))
        for part, expected in zip(again, samples[index], strict=True):
            np.testing.assert_array_equal(part, expected)


def test_the_steps_of_a_pipeline_are_drawn_independently(tmp_path):
    """Two flips, each in half of the samples: each of the four pictures in a quarter of them."""
    (tmp_path / "own.yaml").write_text("- HorizontalFlip\n- VerticalFlip\n")
    labels = np.arange(4, dtype=np.uint8).reshape(2, 2).repeat(32, 0).repeat(32, 1)
    transform = train_transform((64, 64), 0, augmentations=tmp_path / "own.yaml")
    corners = [int(transform(painted(labels), labels, (0, index))[1][0, 0]) for index in range(400)]
    assert np.bincount(corners, minlength=4).min() > 100 - 4 * 8.7  # four standard deviations


def test_scale_place_flip_and_brightness_are_drawn_independently():
    """Seeded step by step, albumentations draws them all from the beginning of one stream: correlation 1."""
    size, crop = (200, 200), (80, 80)
    rows, columns = np.indices(size)
    labels = np.zeros(size, np.uint8)
    ramp = np.stack([rows, columns, np.full(size, 128)], -1).astype(np.uint8)
    transform = train_transform(crop, 0, scale_range=(0.75, 1.6), color="none")
    bright = train_transform(crop, 0, scale_range=(0.75, 1.6))
    drawn = []
    for index in range(300):
        out = transform(ramp, labels, (0, index))[0].astype(float)
        height = out[-1, 0, 0] - out[0, 0, 0]  # of the source that the crop shows: the scale
        flipped = out[0, 0, 1] > out[0, -1, 1]
        grey = bright(np.full((*size, 3), 128, np.uint8), labels, (0, index))[0].mean()
        top, left = out[0, 0, 0], min(out[0, 0, 1], out[0, -1, 1])
        drawn.append((height, top / (199 - height), left / (199 - height), flipped, grey))
    correlation = np.corrcoef(np.array(drawn).T)
    assert np.abs(correlation - np.eye(5)).max() < 4 / 300**0.5  # four standard deviations of no correlation


def test_blur_and_noise_are_drawn_independently():
    transform = train_transform((64, 64), 0, color="strong")
    applied: dict[str, set[int]] = {"GaussianBlur": set(), "GaussNoise": set()}
    for step in transform.compose.transforms[-2:]:
        indices = applied[type(step).__name__]
        step.get_params = lambda at=indices: at.add(index) or {}  # asked for only where the step is applied
    for index in range(400):
        transform(np.full((64, 64, 3), 128, np.uint8), np.zeros((64, 64), np.uint8), (0, index))
    blurred, noisy = applied.values()
    for some, share in ((blurred, 0.3), (noisy, 0.3), (blurred & noisy, 0.09)):
        assert abs(len(some) / 400 - share) < 4 * 0.023


def test_a_saved_pipeline_is_read_as_its_plain_list(own, tmp_path):
    steps = read_augmentations(own)
    A.save(A.Compose(steps), tmp_path / "saved.yaml", data_format="yaml")
    A.save(steps[1], tmp_path / "one.yaml", data_format="yaml")
    labels = blocks(0, (60, 80))
    plain, saved = (train_transform((48, 64), 0, augmentations=path) for path in (own, tmp_path / "saved.yaml"))
    for index in range(10):
        for one, other in zip(
            plain(painted(labels), labels, (0, index)), saved(painted(labels), labels, (0, index)), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    assert [type(step).__name__ for step in read_augmentations(tmp_path / "one.yaml")] == ["Affine"]
    A.save(A.Compose(steps, p=0.5), tmp_path / "half.yaml", data_format="yaml")
    (whole,) = read_augmentations(tmp_path / "half.yaml")
    assert whole.p == 0.5 and len(whole.transforms) == len(steps)


def test_borders_that_a_pipeline_makes_up_are_ignored(tmp_path):
    labels = np.ones((64, 64), np.uint8)
    A.save(A.Compose([A.Rotate((45, 45), p=1)]), tmp_path / "saved.yaml", data_format="yaml")
    (tmp_path / "plain.yaml").write_text("- Rotate: {limit: [45, 45], p: 1}")
    (tmp_path / "own.yaml").write_text("- Rotate: {limit: [45, 45], p: 1, fill_mask: 2}")
    (tmp_path / "deep.yaml").write_text("- OneOf: {p: 1, transforms: [Rotate: {limit: [45, 45], p: 1, fill_mask: 2}]}")
    for name, border in (("saved", IGNORED), ("plain", IGNORED), ("own", 2), ("deep", 2)):
        transform = train_transform((64, 64), 0, augmentations=tmp_path / f"{name}.yaml")
        out = transform(painted(labels), labels, (0, 0))[1]
        assert out[0, 0] == border and out[32, 32] == 1


@pytest.mark.parametrize("interpolation", [cv2.INTER_NEAREST, cv2.INTER_LINEAR])
def test_labels_are_never_mixed_whatever_a_pipeline_asks_for(tmp_path, interpolation):
    labels = blocks(0, (64, 64)) * 40
    path = tmp_path / "own.yaml"
    path.write_text(f"- Rotate: {{limit: [20, 20], p: 1, mask_interpolation: {interpolation}}}")
    out = train_transform((64, 64), 0, augmentations=path)(painted(labels // 40), labels, (0, 0))[1]
    assert set(np.unique(out)) <= {*np.unique(labels), IGNORED}


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("- HorizontalFlipp: {p: 0.5}", ("no transform 'HorizontalFlipp'", "did you mean HorizontalFlip")),
        ("- os: {}", ("no transform 'os'",)),
        ("- 5: {}", ("expected 'Name' or",)),
        ("- HorizontalFlip: {5: 5}", ("expected 'Name' or",)),
        ("- HorizontalFlip: {p: 3}", ("HorizontalFlip: p: Input should be less than or equal to 1",)),
        ("- HorizontalFlip: {pp: 0.5}", ("HorizontalFlip: Argument(s) 'pp' are not valid",)),
        ("- HorizontalFlip: [0.5]", ("expected 'Name' or 'Name: {argument: value}', got {'HorizontalFlip': [0.5]}",)),
        ("- {HorizontalFlip: {}, VerticalFlip: {}}", ("expected 'Name' or",)),
        ("- RandomCrop", ("RandomCrop: height: Field required",)),
        ("- LongestMaxSize: {max_size: 40, area_for_downscale: image_mask}", ("averages class ids; write area_for_",)),
        ("- OneOf: {p: 1}", ("OneOf: ", "missing", "transforms")),
        ("- OneOf: {transforms: HorizontalFlip}", ("expected a list of transforms", "got 'HorizontalFlip'")),
        ("- OneOf: {transforms: [Flop]}", ("no transform 'Flop'",)),
        ("transform: {__class_fullname__: Composed, p: 1}", ("no transform 'Composed'", "did you mean Compose")),
        ("lr: 0.1", ("expected a list of transforms",)),
        ("", ("expected a list of transforms",)),
        ("- [", ("is not YAML",)),
        ("\udcff", ("is not YAML",)),
        (None, ("cannot be read: No such file",)),
    ],
)
def test_a_wrong_pipeline_is_answered_in_one_line_that_names_file_and_transform(tmp_path, content, parts):
    path = tmp_path / "own.yaml"
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError) as raised:
        read_augmentations(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    for part in parts:
        assert part in message


class Averaging(A.DualTransform):
    """A step that nobody thought of."""

    def apply(self, img, **params):
        return img

    def apply_to_mask(self, mask, **params):
        return np.full_like(mask, 7)

    @property
    def targets(self):
        return {"image": self.apply, "mask": self.apply_to_mask}


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("- Normalize", "must leave uint8 images (H, W, 3), got float32"),
        ("- Averaging", "makes labels that the mask does not hold, 7 for instance"),
        ("- CropNonEmptyMaskIfExists: {height: 500, width: 500}", "cannot be applied to images with labels: "),
    ],
)
def test_a_pipeline_that_does_not_fit_the_images_is_named(tmp_path, monkeypatch, content, part):
    monkeypatch.setattr(A, "Averaging", Averaging, raising=False)
    path = tmp_path / "own.yaml"
    path.write_text(content)
    transform = train_transform((48, 64), 0, augmentations=path)
    with pytest.raises(InputError) as raised:
        transform(painted(blocks(0, (60, 80))), blocks(0, (60, 80)), (0, 0))
    assert str(raised.value).startswith(f"{path}: ") and part in str(raised.value)


# ---- evaluation


@pytest.mark.parametrize(("factor", "size"), [(1.0, (37, 53)), (0.5, (18, 26)), (2.0, (74, 106)), (0.001, (1, 1))])
def test_evaluation_resizes_the_image_and_leaves_the_labels_alone(factor, size):
    labels = blocks(0, (37, 53))
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    out_image, out_labels = EvalTransform(factor)(image, labels, (0, 0))
    assert out_image.shape == (*size, 3) and out_image.dtype == np.uint8
    np.testing.assert_array_equal(out_labels, labels)
    if factor == 1:
        np.testing.assert_array_equal(out_image, image)


def test_evaluation_takes_images_without_labels():
    image, labels = EvalTransform(0.5)(np.zeros((20, 30, 3), np.uint8), None, (0, 0))
    assert image.shape == (10, 15, 3)
    assert labels is None


@pytest.mark.parametrize("factor", [0.31, 0.5, 0.75, 1, 1.37, 2, 3.9])
def test_each_label_is_that_on_which_its_centre_lies(factor):
    labels = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
    resized = resize_labels(labels, factor)
    assert resized.dtype == labels.dtype
    assert resized.shape == resize_image(np.zeros((37, 53, 3), np.uint8), factor).shape[:2]
    rows, columns = (
        [math.floor((i + Fraction(1, 2)) * Fraction(whole, made)) for i in range(made)]
        for whole, made in zip(labels.shape, resized.shape, strict=True)
    )
    np.testing.assert_array_equal(resized, labels[np.ix_(rows, columns)])


STEPS_THAT_MOVE = """
RandomScale: {scale_limit: 0.5, p: 1}
LongestMaxSize: {max_size: [101, 77, 150], p: 1}
SmallestMaxSize: {max_size: [70, 100], p: 1}
Resize: {height: 71, width: 101, p: 1}
RandomResizedCrop: {size: [80, 110], scale: [0.6, 1], p: 1}
RandomSizedCrop: {min_max_height: [60, 90], size: [75, 99], p: 1}
CropAndPad: {percent: [-0.1, 0.1], p: 1}
Affine: {scale: [0.6, 1.4], rotate: [-30, 30], p: 1}
Perspective: {p: 1}
GridDistortion: {p: 1}
ElasticTransform: {alpha: 20, sigma: 8, p: 1}
OpticalDistortion: {p: 1}
OneOf: {transforms: [Resize: {height: 71, width: 101}]}
"""


@pytest.mark.parametrize("step", ["", *STEPS_THAT_MOVE.strip().splitlines()])
def test_labels_stay_where_their_image_is(tmp_path, step):
    """Centres of gravity of a square in image and labels, in pixels of what comes out; they were 0.5 apart."""
    (tmp_path / "steps.yaml").write_text(f"- {step}\n")
    steps = read_augmentations(tmp_path / "steps.yaml") if step else [RandomScale((-0.25, 0.6), p=1)]  # the default's
    transform = TrainTransform(steps, 0)
    draw, apart = np.random.default_rng(0), []
    for key in range(60):
        top, left = draw.integers(30, 45), draw.integers(30, 65)
        labels = np.zeros((90, 120), np.uint8)
        labels[top : top + 11, left : left + 13] = 1
        image, labels = transform(np.repeat(255 * labels[..., None], 3, 2), labels, (key,))
        if (labels == 1).sum() > 20:
            apart.append(centre(labels == 1) - centre(image[..., 0] / 255))
    assert len(apart) > 50
    assert np.abs(np.mean(apart, 0)).max() < 0.12


def centre(weights: np.ndarray) -> np.ndarray:
    places = np.indices(weights.shape)
    return (places * weights).sum((1, 2)) / weights.sum()


def test_shrinking_averages_areas():
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    means = image.reshape(4, 2, 6, 2, 3).mean(axis=(1, 3))
    assert np.abs(resize_image(image, 0.5) - means).max() <= 0.5


# ---- samplers


def test_a_shuffled_epoch_is_a_permutation_and_another_epoch_another_one():
    sampler = EpochSampler(50, shuffle=True, seed=4)
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key[0] for key in keys} == {epoch}
        assert list(sampler) == keys
        epochs.append([index for _, index in keys])
        assert sorted(epochs[-1]) == list(range(50))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert [index for _, index in EpochSampler(50, shuffle=True, seed=5)] != epochs[0]


def test_without_shuffling_the_order_is_that_of_the_data():
    assert list(EpochSampler(4, shuffle=False)) == [(0, 0), (0, 1), (0, 2), (0, 3)]


@given(st.integers(1, 40), st.integers(1, 6), st.booleans(), st.integers(0, 5))
@settings(deadline=None)
def test_ranks_share_the_data_without_overlap(length, world_size, shuffle, epoch):
    seen, lengths = [], []
    for rank in range(world_size):
        sampler = EpochSampler(length, shuffle=shuffle, seed=1, rank=rank, world_size=world_size)
        sampler.set_epoch(epoch)
        indices = [index for _, index in sampler]
        assert len(sampler) == len(indices)
        seen += indices
        lengths.append(len(indices))
    assert len(set(seen)) == len(seen)
    if shuffle:  # all processes step together, so what does not fill them all is left out
        assert set(lengths) == {length // world_size}
    else:  # scores must count each image once: none padded, none left out
        assert sorted(seen) == list(range(length))


# ---- loaders


@pytest.fixture(scope="module")
def train_split(tmp_path_factory):
    root = folder_tree(tmp_path_factory.mktemp("data"), images=[f"i{i}" for i in range(7)], splits=("train",))
    return build_dataset("folder", root, "train", train_transform((32, 40), 5, scale_range=(0.75, 1.6)))


def batches_of(loader, epoch: int) -> list[dict]:
    loader.sampler.set_epoch(epoch)
    return list(loader)


def assert_same_batches(some: list[dict], others: list[dict]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["labels"], other["labels"])


REPEAT = torch.tensor([1.0, 2.5, 1.0, 1.0, 3.2, 1.0, 1.0])
EVERYTHING = {"guided_crops": 0.5, "cat_max_ratio": 0.7, "class_pixels": (900, 30, 5)}


@pytest.fixture(params=["default", "guided", "own"])
def varied_split(request, train_split, own):
    """The training split with the transform of each kind."""
    split = copy.copy(train_split)
    split.transform = {
        "default": lambda: train_transform((32, 40), 5, scale_range=(0.75, 1.6)),
        "guided": lambda: train_transform((32, 40), 5, scale_range=(0.75, 1.6), color="strong", **EVERYTHING),
        "own": lambda: train_transform((32, 40), 5, augmentations=own, **EVERYTHING),
    }[request.param]()
    return split


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")  # more than this machine's cores
@pytest.mark.parametrize("repeat", [None, REPEAT], ids=["once", "repeated"])
def test_samples_do_not_depend_on_the_number_of_workers_nor_on_resuming(varied_split, repeat):
    def loader(workers: int):
        return training_loader(varied_split, 3, seed=5, workers=workers, repeat=repeat)

    uninterrupted = loader(0)
    expected = [batches_of(uninterrupted, epoch) for epoch in range(3)]
    assert not torch.equal(expected[0][0]["image"], expected[1][0]["image"])
    for workers in (1, 3):
        persistent = loader(workers)
        for epoch in range(3):
            assert_same_batches(batches_of(persistent, epoch), expected[epoch])
    resumed = loader(2)
    assert_same_batches(batches_of(resumed, 2), expected[2])


def test_spawned_workers_make_the_same_samples(train_split, own):
    split = copy.copy(train_split)
    split.transform = train_transform((32, 40), 5, augmentations=own, **EVERYTHING)
    expected = training_loader(split, 3, seed=5, workers=0, repeat=REPEAT)
    spawned = training_loader(split, 3, seed=5, workers=2, repeat=REPEAT)
    spawned.multiprocessing_context = "spawn"  # as on macOS and Windows
    for epoch in range(2):
        assert_same_batches(batches_of(spawned, epoch), batches_of(expected, epoch))


def test_training_batches_are_full_and_stacked(train_split):
    batches = list(training_loader(train_split, 3, seed=0, workers=0))
    assert len(batches) == 2  # of 7 images one is left over
    for batch in batches:
        assert set(batch) == {"image", "labels", "name"}
        assert batch["image"].shape == (3, 3, 32, 40) and batch["image"].dtype == torch.uint8
        assert batch["labels"].shape == (3, 32, 40) and batch["labels"].dtype == torch.uint8


def test_fewer_images_than_a_batch_give_one_batch_of_all(train_split):
    (batch,) = training_loader(train_split, 100, seed=0, workers=0)
    assert batch["image"].shape[0] == 7
    (batch,) = training_loader(train_split, 100, seed=0, workers=0, rank=1, world_size=2)
    assert batch["image"].shape[0] == 3


def test_evaluation_sees_every_sample_once_in_order_at_its_own_size(tmp_path):
    for place, size in enumerate([(12, 17), (9, 30), (20, 8)]):
        folder_tree(tmp_path, images=(f"i{place}",), splits=("val",), size=size)
    dataset = build_dataset("folder", tmp_path, "val", EvalTransform())
    loader = evaluation_loader(dataset, 2, workers=0)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [2, 1]
    samples = [sample for batch in batches for sample in batch]
    assert [sample["name"] for sample in samples] == ["i0", "i1", "i2"]
    assert [sample["size"] for sample in samples] == [(12, 17), (9, 30), (20, 8)]
    shares = [evaluation_loader(dataset, 2, workers=0, rank=rank, world_size=2) for rank in range(2)]
    assert sorted(sample["name"] for share in shares for batch in share for sample in batch) == ["i0", "i1", "i2"]
    assert all(sample["labels"].dtype == torch.uint8 for sample in samples)  # between processes: a byte each
    for place, sample in enumerate(samples):
        assert torch.equal(sample["labels"].long(), dataset[place]["labels"])
    unlabelled = [{"image": sample["image"]} for sample in samples]
    assert collate_samples(unlabelled) == unlabelled


def test_every_colour_choice_is_a_list_of_steps():
    assert get_args(Color) == tuple(COLORS)


# ---- classes of a left and a right side


def sided_tree(root):
    """A picture whose green and blue are the row and column of a pixel; the hands left and right of the middle."""
    rows, columns = np.indices((64, 64)).astype(np.uint8)
    write_png(root / "images/train/a.png", np.dstack([columns, rows, np.full_like(rows, 99)]))
    write_png(root / "masks/train/a.png", np.where(columns < 32, 1, 2).astype(np.uint8))
    (root / "classes.yaml").write_text("- wall\n- left_hand\n- right_hand\n")
    return root


MIRRORED = "- HorizontalFlip", "- VerticalFlip", "- Transpose: {p: 0.5}", "- D4", "- SquareSymmetry"
INSIDE = (
    "- HorizontalFlip\n- VerticalFlip\n- Transpose",
    "- OneOf: {transforms: [HorizontalFlip, VerticalFlip, RandomRotate90]}",
    "- OneOrOther: {transforms: [HorizontalFlip, VerticalFlip]}\n- HorizontalFlip",
    "- SomeOf: {transforms: [HorizontalFlip, Transpose], n: 3, replace: true}",
    "- Sequential: {p: 0.7, transforms: [HorizontalFlip: {p: 1}, OneOf: {transforms: [D4, NoOp]}]}",
    "- Affine: {scale: {x: [-1, -1], y: [1, 1]}, p: 0.5}",
    "transform: {__class_fullname__: Compose, transforms: [{__class_fullname__: HorizontalFlip}]}",
)


@pytest.mark.parametrize("steps", [None, *MIRRORED, *INSIDE])
def test_the_other_sides_name_is_given_where_a_sample_is_mirrored_and_nowhere_else(tmp_path, steps):
    dataset = build_dataset("folder", sided_tree(tmp_path), "train")
    if steps is not None:
        (tmp_path / "own.yaml").write_text(steps)
    own = None if steps is None else tmp_path / "own.yaml"
    transform = train_transform((64, 64), 0, color="none", augmentations=own, class_pixels=[1] * 3)
    dataset.transform = pickle.loads(pickle.dumps(transform))
    found = []
    for epoch in range(40):
        sample = dataset[epoch, 0]
        rows, columns = sample["image"].numpy()[1:].astype(int)
        inside = sample["labels"].numpy() != IGNORED
        steps_of = [[np.median(np.diff(of, axis=axis)) for axis in (0, 1)] for of in (rows, columns)]
        mirrored = np.linalg.det(steps_of) < 0
        expected = np.where((columns < 32) != mirrored, 1, 2)
        assert (sample["labels"].numpy() == expected)[inside].all() and inside.mean() > 0.9
        found.append(mirrored)
    assert {*found} == {False, True}


def test_turns_are_no_mirrors(tmp_path):
    dataset = build_dataset("folder", sided_tree(tmp_path), "train")
    (tmp_path / "own.yaml").write_text("- RandomRotate90\n- HorizontalFlip: {p: 1}\n- VerticalFlip: {p: 1}\n")
    dataset.transform = train_transform((64, 64), 0, augmentations=tmp_path / "own.yaml", class_pixels=[1] * 3)
    for epoch in range(20):
        sample = dataset[epoch, 0]
        assert (sample["labels"].numpy() == np.where(sample["image"][2].numpy() < 32, 1, 2)).all()
