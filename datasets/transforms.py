"""What happens to image and labels between the file and the network.

Training: random scale, pad with ignored labels, crop, flip, colour; a file of the user's own stands in for scale, flip
and colour. Evaluation: the image is resized, the labels stay as they are: scores are computed at the label's own
resolution. Labels are only ever resized by nearest neighbour, about the centres of pixels, as images are. Bands other
than 8-bit RGB have no colour to turn: their contrast and level change.
"""

import math
import random
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import yaml

from segloss.datasets.bands import RGB, Bands
from segloss.datasets.base import Color
from segloss.datasets.classes import ignored_in
from segloss.datasets.masks import class_histogram, id_histogram
from segloss.datasets.mirroring import MIRRORING, HorizontalFlip, mirroring_among
from segloss.datasets.plain_files import read_yaml
from segloss.errors import InputError
from segloss.losses.labels import IGNORE_INDEX

PAD_COLOR = (124, 116, 104)  # ImageNet's mean, 8-bit RGB: near 0 after normalisation
EXAMPLE = "- HorizontalFlip: {p: 0.5}"
CROP_REDRAWS = 10  # mmsegmentation's RandomCrop

COLORS: dict[Color, Callable[[], list[Any]]] = {
    "none": lambda: [],
    "light": lambda: [
        A.ColorJitter(brightness=(0.7, 1.3), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.02, 0.02), p=1)
    ],
    "strong": lambda: [
        A.ColorJitter(brightness=(0.5, 1.5), contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=(-0.05, 0.05), p=1),
        A.GaussianBlur(blur_limit=(3, 5), p=0.3),
        A.GaussNoise(std_range=(0.01, 0.05), p=0.3),  # of the range of values
    ],
}


def train_transform(
    crop_size: tuple[int, int],
    seed: int,
    *,
    image_scale: float = 1.0,
    scale_range: tuple[float, float] = (1.0, 1.0),
    color: Color = "light",
    augmentations: str | Path | None = None,
    guided_crops: float = 0.0,
    cat_max_ratio: float = 1.0,
    class_pixels: Sequence[int] = (),
    seeks: bool = False,
    bands: Bands = RGB,
) -> "TrainTransform":
    """The transform of the training split.

    Args:
        crop_size: ``(h, w)`` of what comes out.
        seed: any non-negative integer.
        image_scale: resizes every image by this factor.
        scale_range: random factor on top of it, uniform.
        color: one of ``COLORS``.
        augmentations: file read by :func:`read_augmentations`, in place of random scale, flip and colour.
        guided_crops, cat_max_ratio, class_pixels: of :class:`GuidedCrop`; the last says how many classes there are.
        seeks: crops around a given class will be asked for, see :class:`TrainTransform`.
        bands: of the images, counted unless they are 8-bit RGB.

    Raises:
        InputError: the file cannot be used.
    """
    ignored = ignored_in(len(class_pixels))
    looks = guided_crops > 0 or cat_max_ratio < 1 or seeks
    crop = GuidedCrop(*crop_size, guided_crops, cat_max_ratio, class_pixels) if looks else A.RandomCrop(*crop_size)
    around: dict[str, Any] = {"position": "random", "border_mode": cv2.BORDER_CONSTANT, "fill_mask": ignored}
    pad = A.PadIfNeeded(*crop_size, fill=PAD_COLOR, **around) if bands.is_rgb else BandPad(*crop_size, bands, **around)
    fit = [pad, crop]
    if augmentations is not None:
        own = read_augmentations(augmentations, ignored)
        return TrainTransform([_scale(image_scale, image_scale), *own, *fit], seed, augmentations, bands)
    scale = _scale(*(image_scale * factor for factor in scale_range))
    colors = COLORS[color]() if bands.is_rgb else [BandJitter(bands, **JITTER[color])] if color in JITTER else []
    return TrainTransform([scale, *fit, HorizontalFlip(p=0.5), *colors], seed, bands=bands)


class RandomScale(A.RandomScale):  # type: ignore[misc]  # albumentations has no types
    """Random scale of image and labels about the centres of their pixels, each side at least one pixel."""

    def apply(self, img: np.ndarray, scale: float, **params: Any) -> np.ndarray:
        return resize_image(img, scale)

    def apply_to_mask(self, mask: np.ndarray, scale: float, **params: Any) -> np.ndarray:
        return resize_labels(mask, scale)


def _scale(low: float, high: float) -> RandomScale:
    return RandomScale((low - 1, high - 1), p=1)  # it adds 1 to what it draws


# Of albumentations, that resize masks; others look up the pixel on which a turned or bent centre lies by themselves.
RESIZING = (
    *(A.CropAndPad, A.LongestMaxSize, A.RandomResizedCrop, A.RandomScale, A.RandomSizedBBoxSafeCrop),
    *(A.RandomSizedCrop, A.Resize, A.SmallestMaxSize),
)

SCALING = (A.LongestMaxSize, A.RandomScale, A.Resize, A.SmallestMaxSize)  # of these, that keep all of the image


def _take_nearest(step: Any) -> None:
    """Labels by nearest neighbour in a step and the steps inside it, about the centres of pixels where they resize."""
    if hasattr(step, "mask_interpolation"):
        step.mask_interpolation = cv2.INTER_NEAREST_EXACT if isinstance(step, RESIZING) else cv2.INTER_NEAREST
    for inner in getattr(step, "transforms", ()):
        _take_nearest(inner)


class TrainTransform:
    """Joint augmentation of image and labels; all its randomness is a function of seed and key.

    ``around`` is a class: the crop is one around a pixel of it, if there is any and the steps hold a GuidedCrop.

    Args:
        steps: the last of them gives uint8 images of one size.
        seed: any non-negative integer.
        source: the file some steps came from, for messages.
        bands: of the images.

    Attributes:
        mirroring: the steps that may mirror an image.
    """

    def __init__(self, steps: Sequence[Any], seed: int, source: str | Path | None = None, bands: Bands = RGB):
        self.compose = A.Compose(steps)
        _take_nearest(self.compose)
        self.fills = _fills(steps)
        self.mirroring = mirroring_among(steps)
        self.guided = [step for step in steps if isinstance(step, GuidedCrop)]
        self.seed = seed
        self.source = source
        self.bands = bands

    def __call__(
        self, image: np.ndarray, labels: np.ndarray | None, key: tuple[int, ...], around: int | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        # Left to itself albumentations replays one stream in every worker and every epoch; set_random_seed would begin
        # the same stream anew for each step, so that scale, place of the crop and brightness were drawn alike.
        first, second, third = map(int, np.random.SeedSequence([self.seed, *key]).generate_state(3))
        self.compose.set_random_state(np.random.default_rng(first), random.Random(second))
        for step in self.guided:
            step.draws, step.around = np.random.default_rng(third), around
        for flip in self.mirroring:
            flip.times = 0
        out = self.compose(image=image, mask=labels) if self.source is None else self._apply_own(image, labels)
        return out["image"], out["mask"]

    @property
    def mirrored(self) -> bool:
        """Whether the last sample is; flipped along both sides it is turned, and left stays left."""
        return sum(step.times for step in self.mirroring) % 2 == 1

    def _apply_own(self, image: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
        given = image.copy() if image.dtype == np.uint8 else self.bands.to_unit(image)
        try:
            out: dict[str, Any] = self.compose(image=given, mask=None if labels is None else labels.copy())
        except Exception as error:  # whatever a pipeline that nobody here has seen may raise
            what = f"cannot be applied to images with labels: {error}"
            raise InputError(what, "change the step that it names", self.source) from error
        made = out["image"]
        if not isinstance(made, np.ndarray) or made.dtype != given.dtype or made.shape[2:] != given.shape[2:]:
            wanted = f"{given.dtype} images (H, W, {given.shape[2]})"
            what = f"must leave {wanted}, got {made.dtype} {tuple(made.shape)}"
            cure = "take out Normalize, ToFloat and the like: the network normalises by itself"
            raise InputError(what, cure, self.source)
        if labels is not None and (made_up := _values(out["mask"]) - _values(labels) - self.fills):
            what = f"makes labels that the mask does not hold, {min(made_up)} for instance"
            raise InputError(what, "take out the step that averages or changes class ids", self.source)
        return out if image.dtype == np.uint8 else {**out, "image": self.bands.from_unit(made)}

    def own_sizes(self, image: np.ndarray, labels: np.ndarray | None, draws: int = 8) -> list[tuple[int, int, float]]:
        """What the user's steps make of an image at each draw: height and width before padding and crop, and by how
        much they enlarge what is in it; 0 where a crop and a change of scale are one step, or a choice of steps."""
        found = []
        self.compose.set_random_state(np.random.default_rng(self.seed), random.Random(self.seed))
        for _ in range(draws):
            made: dict[str, Any] = {"image": image if image.dtype == np.uint8 else self.bands.to_unit(image)}
            made |= {} if labels is None else {"mask": labels}
            factor = 1.0
            for place, step in enumerate(self.compose.transforms[:-2]):
                before = made["image"].shape
                made = step(**{key: value.copy() for key, value in made.items()})
                if isinstance(step, SCALING):
                    factor *= (math.prod(made["image"].shape[:2]) / math.prod(before[:2])) ** (0.5 if place else 0)
                elif _resizes(step):
                    factor = 0.0
            found.append((*made["image"].shape[:2], factor))
        return found


def _resizes(step: Any) -> bool:
    return isinstance(step, RESIZING) or any(map(_resizes, getattr(step, "transforms", ())))


def _values(labels: np.ndarray) -> set[float]:
    if labels.dtype not in (np.uint8, np.uint16):  # of a step of the user's
        return {*np.unique(labels).tolist()}
    return {*np.flatnonzero(id_histogram(labels)).tolist()}


def _fills(steps: Sequence[Any]) -> set[float]:
    """The labels that steps, and those within them, write into what they make up or cover."""
    found: set[float] = set()
    for step in steps:
        found |= _fills(getattr(step, "transforms", ()))
        if getattr(step, "fill_mask", None) is not None:
            found |= {*np.ravel(step.fill_mask).tolist()}
    return found


JITTER: dict[str, dict[str, Any]] = {
    "light": {"contrast": 0.2, "shift": 0.3},
    "strong": {"contrast": 0.5, "shift": 0.6, "noise": 0.1, "rough": 0.3},
}


class BandJitter(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations has no types
    r"""Contrast and level of all bands alike, whatever their number and range.

    .. math::
        x' = \mu + c (x - \mu) + b \sigma, \qquad c \in [1 - k, 1 + k],\ b \in [-s, s]

    Args:
        bands: their mean and std.
        contrast, shift: k and s.
        noise: standard deviation of noise, in std of the band.
        rough: probability of that noise, and of a blur.
    """

    def __init__(self, bands: Bands, contrast: float, shift: float, noise: float = 0.0, rough: float = 0.0):
        super().__init__(p=1)
        self.mean, self.std = (np.asarray(values, np.float32) for values in (bands.fill, bands.spread))
        self.contrast, self.shift, self.noise, self.rough = contrast, shift, noise, rough

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        draw = self.random_generator
        contrast, shift = 1 + draw.uniform(-1, 1) * self.contrast, draw.uniform(-1, 1) * self.shift
        made = self.mean + np.float32(contrast) * (img - self.mean) + np.float32(shift) * self.std
        if draw.random() < self.rough:
            made = cv2.GaussianBlur(made, (3, 3), 0).reshape(img.shape)
        if draw.random() < self.rough:
            made += self.noise * self.std * draw.standard_normal(img.shape, np.float32)
        return np.asarray(made.round().clip(0, 255).astype(np.uint8) if img.dtype == np.uint8 else made)


class BandPad(A.PadIfNeeded):  # type: ignore[misc]
    """Padding by the mean of each band, of any number of them: OpenCV pads four."""

    def __init__(self, height: int, width: int, bands: Bands, **options: Any):
        super().__init__(height, width, **options)
        self.mean = bands.fill

    def apply(
        self, img: np.ndarray, pad_top: int, pad_bottom: int, pad_left: int, pad_right: int, **params: Any
    ) -> np.ndarray:
        height, width, count = img.shape
        made = np.empty((height + pad_top + pad_bottom, width + pad_left + pad_right, count), img.dtype)
        made[:] = self.mean
        made[pad_top : pad_top + height, pad_left : pad_left + width] = img
        return made


class GuidedCrop(A.RandomCrop):  # type: ignore[misc]  # albumentations has no types
    """A crop that looks at the labels.

    With probability ``guided`` it is one around a pixel of a rare class: a class c of those present is drawn with
    probability proportional to 1 / class_pixels[c], then a pixel of it, then one of the crops that hold the pixel. Any
    other crop is drawn again, at most ``CROP_REDRAWS`` times, while one class holds more than ``cat_max_ratio`` of its
    labelled pixels or none is labelled.

    Args:
        height, width: of the crop.
        guided: probability.
        cat_max_ratio: in (0, 1], 1: off.
        class_pixels: training pixels of each class.

    Source: cat_max_ratio is that of mmsegmentation's RandomCrop.
    """

    def __init__(self, height: int, width: int, guided: float, cat_max_ratio: float, class_pixels: Sequence[int]):
        super().__init__(height, width)
        self.guided = guided
        self.cat_max_ratio = cat_max_ratio
        self.rarity = 1 / np.maximum(class_pixels, 1)
        # Numbers of its own, so that a crop that is not guided is the one of a run without guiding.
        self.draws = np.random.default_rng(0)
        self.around: int | None = None  # a class that the next crop is to hold

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        labels = data["mask"]
        sought = self._sought(labels)
        if sought is not None:
            row, column = divmod(int(self.draws.choice(np.flatnonzero(labels == sought))), labels.shape[1])
            return {"crop_coords": self._around(row, column, labels.shape), "pad_params": None}
        drawn: dict[str, Any] = super().get_params_dependent_on_data(params, data)
        for _ in range(CROP_REDRAWS):
            if self.cat_max_ratio == 1 or self._mixed(labels, drawn["crop_coords"]):
                break
            drawn = super().get_params_dependent_on_data(params, data)
        return drawn

    def _sought(self, labels: np.ndarray) -> int | None:
        """The class around a pixel of which the crop is placed; None: anywhere."""
        if self.around is not None and (labels == self.around).any():
            return self.around
        if self.guided > 0 and self.draws.random() < self.guided:
            weights = self.rarity * (class_histogram(labels, len(self.rarity))[:-1] > 0)
            if weights.any():
                return int(self.draws.choice(len(weights), p=weights / weights.sum()))
        return None

    def _around(self, row: int, column: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        # Among the places inside the image: one cut off at its edges would lie in a corner most of the time.
        draw = self.draws.integers
        top = int(draw(max(0, row - self.height + 1), min(row, size[0] - self.height) + 1))
        left = int(draw(max(0, column - self.width + 1), min(column, size[1] - self.width) + 1))
        return left, top, left + self.width, top + self.height

    def _mixed(self, labels: np.ndarray, box: tuple[int, int, int, int]) -> bool:
        left, top, right, bottom = box
        pixels = class_histogram(labels[top:bottom, left:right], len(self.rarity))[:-1]
        return bool(0 < pixels.max() <= self.cat_max_ratio * pixels.sum())


def read_augmentations(path: str | Path, ignored: int = IGNORE_INDEX) -> list[Any]:
    """The steps of a user's pipeline: what ``albumentations.save(..., data_format="yaml")`` wrote, or a plain list.

    .. code-block:: yaml

        - HorizontalFlip: {p: 0.5}
        - OneOf:
            transforms: [GaussNoise, MotionBlur: {blur_limit: 5}]

    Borders that a step makes up are ``ignored`` pixels: a ``fill_mask`` of 0, albumentations' default, would make them
    the first class.

    Raises:
        InputError: the file is missing or no YAML, or names a transform or argument that albumentations does not have.
    """
    try:
        content = read_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--augmentations cannot be read: {error.strerror}", "put the file there", path) from error
    except (UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        what = f"--augmentations is not YAML: {' '.join(str(error).split())}"
        raise InputError(what, "mend that line", path) from error
    if isinstance(content, dict) and "transform" in content:
        step = _build_step(content["transform"], path, ignored)
        return list(step.transforms) if type(step) is A.Compose and step.p == 1 else [step]
    return _build_steps(content, path, ignored)


def _build_steps(entries: Any, path: str | Path, ignored: int) -> list[Any]:
    if not isinstance(entries, list):
        raise InputError(f"expected a list of transforms, got {entries!r:.60}", f"write {EXAMPLE!r}", path)
    return [_build_step(entry, path, ignored) for entry in entries]


def _build_step(entry: Any, path: str | Path, ignored: int) -> Any:
    """One transform from ``Name``, ``{Name: {argument: value}}`` or albumentations' own form."""
    name, arguments = _name_and_arguments(entry, path)
    kind = MIRRORING.get(name) or getattr(A, name, None)
    if not (isinstance(kind, type) and issubclass(kind, A.BasicTransform | A.BaseCompose)):
        near = get_close_matches(str(name), dir(A), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see the list of transforms of albumentations"
        raise InputError(f"albumentations {A.__version__} has no transform {name!r}", hint, path)
    if "transforms" in arguments:
        arguments["transforms"] = _build_steps(arguments["transforms"], path, ignored)
    default = signature(kind).parameters.get("fill_mask")
    if default is not None and default.default == 0 and arguments.get("fill_mask", 0) == 0:
        arguments["fill_mask"] = ignored
    if arguments.get("area_for_downscale") == "image_mask":
        raise InputError(f"{name}: image_mask averages class ids", "write area_for_downscale: image", path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an argument that does not exist is a warning only
            return kind(**arguments)
    except (TypeError, ValueError, Warning) as error:
        pydantic: Any = error.__cause__
        wrong = pydantic.errors()[0] if hasattr(pydantic, "errors") else None
        reason = f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}" if wrong else " ".join(str(error).split())
        raise InputError(f"{name}: {reason}", "see albumentations' page on it", path) from error


def _name_and_arguments(entry: Any, path: str | Path) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, dict) and "__class_fullname__" in entry:
        arguments = {key: value for key, value in entry.items() if key != "__class_fullname__"}
        return str(entry["__class_fullname__"]).rsplit(".", 1)[-1], arguments
    if isinstance(entry, dict) and len(entry) == 1:
        name, arguments = next(iter(entry.items()))
        if (
            isinstance(name, str)
            and isinstance(arguments, dict | None)
            and all(isinstance(k, str) for k in arguments or ())
        ):
            return name, dict(arguments or {})
    raise InputError(f"expected 'Name' or 'Name: {{argument: value}}', got {entry!r:.60}", f"as {EXAMPLE!r}", path)


class EvalTransform:
    """Resize the image by ``image_scale`` (area average when shrinking); labels are left alone."""

    def __init__(self, image_scale: float = 1.0):
        self.image_scale = image_scale

    def __call__(
        self, image: np.ndarray, labels: np.ndarray | None, key: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return resize_image(image, self.image_scale), labels


def resize_image(image: np.ndarray, factor: float) -> np.ndarray:
    """``(H, W, N)`` resized by ``factor``: the area's average when shrinking, else linear."""
    if factor == 1:
        return image
    size, interpolation = _resized(image, factor), cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    fours = np.split(image, range(4, image.shape[2], 4), 2)  # OpenCV averages areas of no more bands at a time
    resized = [cv2.resize(np.ascontiguousarray(bands), size[::-1], interpolation=interpolation) for bands in fours]
    made = [bands.reshape(*size, -1) for bands in resized]  # of one band OpenCV drops the axis
    return made[0] if len(made) == 1 else np.concatenate(made, 2)


def resize_labels(labels: np.ndarray, factor: float) -> np.ndarray:
    r"""``(H, W)`` resized by ``factor``: each pixel is that of the label on which its centre lies.

    .. math::
        k(i) = \left\lfloor \left(i + \tfrac{1}{2}\right) \frac{H}{h} \right\rfloor

    of h rows out of H. OpenCV's ``INTER_NEAREST`` has floor(i H / h), whose labels lie half a pixel below and right of
    the image's pixels, which are resized about their centres.
    """
    if factor == 1:
        return labels
    for axis, made in enumerate(_resized(labels, factor)):
        labels = labels.take((2 * np.arange(made) + 1) * labels.shape[axis] // (2 * made), axis)
    return labels


def _resized(image: np.ndarray, factor: float) -> tuple[int, int]:
    """(H, W) of an image resized by ``factor``, each side at least one pixel."""
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    return height, width
