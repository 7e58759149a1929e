"""What the doctor sees in numbers, places and likeness of images beside each other."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from band_trees import write_geotiff
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


def filled(pixels: np.ndarray, value: float, dtype: str = "float32") -> np.ndarray:
    """Some pixels at the edge are ``value``."""
    pixels = (300 + 900 * pixels).astype(dtype)
    pixels[:6, :6] = value
    return pixels


@pytest.mark.parametrize(
    ("value", "dtype", "severity"),
    [
        (-9999, "float32", "warning"),
        (-32768, "int16", "warning"),
        (65535, "uint16", "warning"),
        (-3.4028234663852886e38, "float32", "error"),
        (9.969209968386869e36, "float64", "error"),
    ],
)
def test_numbers_that_stand_where_nothing_was_measured_are_told(tmp_path, recwarn, value, dtype, severity):
    lines = said(tree(tmp_path, lambda s, n: filled(deep(n), value, dtype) if s == "val" else deep(n).astype(dtype)))
    found = [line for line in lines if "far from all other numbers" in line]
    assert len(found) == 1 and found[0].startswith(f"{severity} val: "), lines
    assert f"val0.npy: holds {value:.8g} on 2.34% of band 1" in found[0] and "(and 2 more files)" in found[0]
    assert not any("copy of" in line for line in lines) and not recwarn.list


@pytest.mark.parametrize(
    "image",
    [
        lambda n: filled(deep(n), -999) - 700 * (np.arange(SIZE[1])[:, None] % 3),  # on a scale that goes there
        lambda n: np.where(filled(deep(n), 0) > 600, 65535, 0).astype(np.uint16),  # black and white
        lambda n: (
            np.where(np.arange(SIZE[1])[:, None] + n % 99 == 5, 65535, filled(deep(n), 0, "uint16") % 4000)
            * (np.arange(SIZE[0])[:, None, None] < 10).astype(np.uint16)
        ),  # a few pixels are too light
    ],
)
def test_numbers_at_an_end_that_may_be_measured_are_not_told(tmp_path, image):
    assert [line for line in said(tree(tmp_path, lambda s, n: image(n))) if "far from all" in line] == []


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


INVERTED = {  # shares of water in the masks of train and val; whether it is told
    "val is inverted": ((0.1, 0.2, 0.05, 0.1), (0.9, 0.8, 0.95), True),
    "train is inverted": ((0.9, 0.8, 0.95, 0.9), (0.1, 0.2, 0), True),
    "one mask is like those": ((0.1, 0.2, 0.6, 0.1), (0.9, 0.8, 0.95), False),
    "about half": ((0.4, 0.45, 0.3, 0.4), (0.6, 0.7, 0.55), False),
    "two masks": ((0.1, 0.2, 0.05, 0.1), (0.9, 0.8), False),
    "alike": ((0.1, 0.2, 0.05, 0.1), (0.1, 0.2, 0.05), False),
}


@pytest.mark.parametrize("check", ["all", "sample"])
@pytest.mark.parametrize("case", INVERTED)
def test_a_split_whose_masks_seem_inverted_is_told(tmp_path, case, check):
    train, val, told = INVERTED[case]
    root = tree(tmp_path, lambda s, n: picture(n), (("train", len(train)), ("val", len(val))))
    for split, shares in (("train", train), ("val", val)):
        for number, share in enumerate(shares):
            mask = np.zeros(SIZE, np.uint8)
            mask.reshape(-1)[: round(share * mask.size)] = 1
            write_png(root / f"masks/{split}/{split}{number}.png", mask)
    lines = [line for line in said(root, check) if "inverted" in line]
    assert len(lines) == told
    if told:
        shares = ("90%", "10%") if val[0] > 0.5 else ("10%", "90%")
        assert f"val0.png: water is on {shares[0]} of a mask, in train on {shares[1]}" in lines[0], lines


# ---- copies of one picture


def soft(seed: int, size=(96, 128)) -> np.ndarray:
    """A photograph: large shapes and a grain."""
    large = cv2.resize(random_image(seed, (6, 8)), size[::-1], interpolation=cv2.INTER_CUBIC).astype(int)
    return np.clip(large + np.random.default_rng(seed).normal(0, 8, large.shape), 0, 255).astype(np.uint8)


COPIES = {  # of a picture of train, among those of val
    "as JPEG": lambda x: cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR),
    "resized": lambda x: cv2.resize(x, (112, 84)),
    "mirrored": lambda x: x[:, ::-1],
    "turned": np.rot90,
    "brighter": lambda x: np.clip(x.astype(int) + 15, 0, 255).astype(np.uint8),
    "of another picture": lambda x: soft(99),
    "a crop": lambda x: x[:48, :64],
}


def pictures(root: Path, splits: dict[str, dict[str, np.ndarray]]) -> Path:
    for split, images in splits.items():
        for name, pixels in images.items():
            write_png(root / f"images/{split}/{name}.png", np.ascontiguousarray(pixels))
            mask = random_mask(sum(map(ord, split + name)), pixels.shape[:2], (0, 1))
            write_png(root / f"masks/{split}/{name}.png", mask)
    (root / "classes.yaml").write_text("- field\n- water\n")
    return root


@pytest.mark.parametrize("names", ["{split}{number}", "{number:04d}"])
@pytest.mark.parametrize("case", COPIES)
def test_copies_that_are_not_equal_to_the_bit_are_told(tmp_path, case, names):
    train = {names.format(split="train", number=k): soft(k) for k in range(6)}
    val = {names.format(split="val", number=k): soft(k) for k in range(10, 13)}
    val[names.format(split="val", number=14)] = COPIES[case](soft(4))
    lines = [line for line in said(pictures(tmp_path, {"train": train, "val": val})) if "a copy of" in line]
    assert len(lines) == (case not in ("of another picture", "a crop")), lines
    if lines:
        assert lines[0].startswith("warning val: ") and "4.png of train" in lines[0] and "that do: 1;" in lines[0]
        assert lines[0].index("14.png: looks like a copy") < lines[0].index("4.png of train")


def test_frames_of_a_film_by_one_camera_are_no_copies(tmp_path):
    still, rng = soft(0), np.random.default_rng(0)
    frames = {k: np.clip(still + rng.normal(0, 3, still.shape), 0, 255).astype(np.uint8) for k in range(12)}
    splits = {s: {f"cam_{k:04d}": frames[k] for k in some} for s, some in (("train", range(8)), ("val", range(8, 12)))}
    others = {f"other{k}": soft(k) for k in range(1, 9)}
    splits["train"] |= others
    lines = said(pictures(tmp_path, splits))
    assert [line for line in lines if "looks like a copy" in line] == [] and any(
        "neighbouring" in line for line in lines
    )


def test_empty_fields_of_one_microscope_are_no_copies(tmp_path):
    """They share how the light falls off, and nothing else."""
    y, x = np.mgrid[-1:1:96j, -1:1:128j]
    light = 200 - 60 * (x**2 + y**2)[..., None]
    noise = np.random.default_rng(0)
    fields = [np.clip(light + noise.normal(0, 6, (96, 128, 3)), 0, 255).astype(np.uint8) for _ in range(12)]
    splits = {
        "train": {f"t{chr(97 + k)}": fields[k] for k in range(8)},
        "val": {f"v{k}x": fields[k] for k in range(8, 12)},
    }
    assert [line for line in said(pictures(tmp_path, splits)) if "a copy of" in line] == []


@pytest.mark.parametrize(("val", "told"), [("b_hflip", 1), ("a_hflip", 0), ("c_hflip", 0)])
def test_augmented_copies_in_two_splits_are_told_by_their_names(tmp_path, val, told):
    """Of names that begin anew in each split nothing is known."""
    splits = {"train": {"a": soft(1), "b": soft(2)}, "val": {"a": soft(3), val: soft(4), "d": soft(5)}}
    lines = [line for line in said(pictures(tmp_path, splits)) if "a copy of the picture" in line]
    assert len(lines) == told and all(
        "a copy of the picture of b in train; pictures in both: 1" in line for line in lines
    )


# ---- GeoTIFFs

PIXEL = 0.5  # metres


def geotiff(path: Path, at=(0, 0), system=32633, names=(), south=False, turn: float = 0, scaling=None) -> None:
    """``at``: the column and row of its first pixel on a large picture; ``turn``: degrees; ``scaling``: of band 2."""
    x, y = 5e5 + at[0] * PIXEL, 5e6 - at[1] * PIXEL
    tags = [(33550, "d", 3, (PIXEL, PIXEL, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, x, y, 0.0), True)]
    if south or turn:
        cos, sin = PIXEL * np.cos(np.radians(turn)), PIXEL * np.sin(np.radians(turn))
        y -= PIXEL * SIZE[0] * south
        rows = (cos, sin, 0, x, sin, cos if south else -cos, 0, y, 0, 0, 0, 0, 0, 0, 0, 1)
        tags = [(34264, "d", 16, tuple(map(float, rows)), True)]
    if system:
        tags.append((34735, "H", 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, system), True))
    if names:
        items = [f'<Item name="DESCRIPTION" sample="{k}" role="description">{n}</Item>' for k, n in enumerate(names)]
        tags.append((42112, "s", 0, f"<GDALMetadata>{''.join(items)}</GDALMetadata>", True))
    if scaling:
        pairs = zip(("scale", "offset"), scaling, strict=True)
        items = [f'<Item name="{role.upper()}" sample="1" role="{role}">{number}</Item>' for role, number in pairs]
        tags.append((42112, "s", 0, f"<GDALMetadata>{''.join(items)}</GDALMetadata>", True))
    pixels = np.random.default_rng(sum(map(ord, path.stem))).integers(1, 4000, (*SIZE, 4), np.uint16)
    write_geotiff(path, pixels, extratags=tags)
    mask = random_mask(sum(map(ord, path.stem)), SIZE, (0, 1))
    write_png(path.parents[2] / f"masks/{path.parent.name}/{path.stem}.png", mask)


def maps(root: Path, places: dict[str, list[dict]]) -> list[str]:
    for split, every in places.items():
        for number, options in enumerate(every):
            geotiff(root / f"images/{split}/{split}{number}.tif", **options)
    (root / "classes.yaml").write_text("- field\n- water\n")
    return said(root)


APART = [{"at": (48 * k, 0)} for k in range(4)]  # side by side
OVERLAPS = {
    "side by side": ([{"at": (48 * k, 32)} for k in range(4)], 0),
    "a row or two": ([{"at": (48 * k, 31)} for k in range(4)], 0),
    "half": ([{"at": (24, 0)}, {"at": (24, 500)}], 1),
    "the same place": ([{"at": (0, 0)}, {"at": (48, 0)}], 2),
    "another system": ([{"at": (24, 0), "system": 32634}], 0),
    "no system": ([{"at": (24, 0), "system": 0}], 0),
    "from the south on": ([{"at": (24, 0), "south": True}], 1),
    "turned": ([{"at": (40, 8), "turn": 30}], 1),
    "turned, beside it": ([{"at": (20, 36), "turn": -45}], 0),
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_images_on_ground_of_train_are_told(tmp_path, case):
    val, told = OVERLAPS[case]
    lines = [line for line in maps(tmp_path, {"train": APART, "val": val}) if "lies on ground" in line]
    assert len(lines) == bool(told)
    if lines:
        assert (
            lines[0].startswith("warning val: ") and f"{told} of {len(val)} images lie on ground of train" in lines[0]
        )


FOUR = ("B02", "B03", "B04", "B08")
BAND_NAMES = {
    "other order": (("B04", "B03", "B02", "B08"), "error"),
    "another band": (("B02", "B03", "B04", "B11"), "warning"),
    "small letters": (("b02", "b03", "b04", "b08"), None),
    "other names": (("blue", "green", "red", "nir"), None),
    "none": ((), None),
}


@pytest.mark.parametrize("case", BAND_NAMES)
def test_bands_in_another_order_by_their_own_names_are_told(tmp_path, case):
    names, severity = BAND_NAMES[case]
    train = [{"at": (48 * k, 0), "names": FOUR} for k in range(4)]
    lines = maps(tmp_path, {"train": train, "val": [{"at": (0, 500), "names": names}]})
    assert [line.split()[0] for line in lines if "its bands are" in line] == [severity] * (severity is not None)


@pytest.mark.parametrize(
    ("train", "val", "told"),
    [
        ((0.0001, 0), (0.0001, 0), ""),
        (None, (1, 0), ""),
        ((0.0001, 0), (0.0002, 0), "names scale 0.0002 and offset 0 of band 2, train0.tif scale 0.0001 and offset 0;"),
        ((0.0001, 0), (0.0001, -0.1), "names scale 0.0001 and offset -0.1 of band 2, train0.tif scale 0.0001 and"),
        ((0.0001, 0), None, "names scale 1 and offset 0 of band 2, train0.tif scale 0.0001 and offset 0;"),
        (None, ("much", 0), ""),  # no number
    ],
)
def test_images_that_name_another_scale_of_their_numbers_are_told(tmp_path, train, val, told):
    places = {"train": [{"at": (48 * k, 0), "scaling": train} for k in range(4)]}
    lines = maps(tmp_path, places | {"val": [{"at": (48 * k, 500), "scaling": val} for k in range(2)]})
    found = [line for line in lines if " and offset " in line]
    assert len(found) == bool(told) and (not told or (found[0].startswith("warning val: ") and told in found[0]))
    assert not told or "both are read as stored (and 1 more files); save all images in the same units" in found[0]


# ---- tiles


@pytest.mark.parametrize(
    ("form", "step", "told"), [("city_{}_{}", 48, 0), ("city_{}_{}", 24, 4), ("city_r{}_c{}", 1, 0)]
)
def test_tiles_of_a_picture_in_two_splits_are_told(tmp_path, form, step, told):
    names = [form.format(step * row, step * column) for row in range(4) for column in range(4)]
    every = {name: soft(k, (48, 48)) for k, name in enumerate(names)}
    splits = {"train": {name: every[name] for name in names[4:]}, "val": {name: every[name] for name in names[:4]}}
    (line,) = [line for line in said(pictures(tmp_path, splits)) if "a tile of" in line]
    assert line.startswith("warning val: ") and "in train; 4 of 4 images are of such pictures" in line
    assert (f", {told} overlap;" in line) == bool(told) and "as --fold does" in line


def test_tiles_whose_names_begin_anew_in_each_split_are_of_other_pictures(tmp_path):
    names = [f"tile_{64 * row}_{64 * column}" for row in range(4) for column in range(4)]
    splits = {s: {name: soft(start + k) for k, name in enumerate(names)} for s, start in (("train", 0), ("val", 50))}
    assert not any("a tile of" in line for line in said(pictures(tmp_path, splits)))
