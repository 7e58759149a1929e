"""What happens to image and labels between the file and the network.

Training: random scale, pad with ignored labels, crop, flip, colour. Evaluation: the image is resized, the labels stay
as they are: scores are computed at the label's own resolution. Labels are only ever resized by nearest neighbour.
"""

import os

import cv2
import numpy as np

from segloss.losses.reduction import IGNORE_INDEX

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer release

import albumentations as A

PAD_COLOR = (124, 116, 104)  # ImageNet's mean, 8-bit RGB: near 0 after normalisation


class TrainTransform:
    """Joint augmentation of image and labels; all its randomness is a function of (seed, epoch, index).

    Args:
        image_scale: resizes every image by this factor.
        scale_range: random factor on top of it, uniform.
        crop_size: ``(h, w)`` of what comes out.
        seed: any non-negative integer.
    """

    def __init__(self, image_scale: float, scale_range: tuple[float, float], crop_size: tuple[int, int], seed: int):
        self.seed = seed
        height, width = crop_size
        low, high = (image_scale * factor - 1 for factor in scale_range)  # RandomScale adds 1 to what it draws
        self.compose = A.Compose(
            [
                A.RandomScale(
                    (low, high),
                    interpolation=cv2.INTER_LINEAR,
                    area_for_downscale="image",
                    mask_interpolation=cv2.INTER_NEAREST,
                    p=1,
                ),
                A.PadIfNeeded(
                    height,
                    width,
                    position="random",
                    border_mode=cv2.BORDER_CONSTANT,
                    fill=PAD_COLOR,
                    fill_mask=IGNORE_INDEX,
                ),
                A.RandomCrop(height, width),
                A.HorizontalFlip(p=0.5),
                A.ColorJitter(
                    brightness=(0.7, 1.3), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.02, 0.02), p=1
                ),
            ]
        )

    def __call__(
        self, image: np.ndarray, labels: np.ndarray | None, key: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        # Left to itself albumentations replays one stream in every worker and every epoch.
        state = np.random.SeedSequence([self.seed, *key]).generate_state(1)
        self.compose.set_random_seed(int(state[0]))
        out = self.compose(image=image, mask=labels)
        return out["image"], out["mask"]


class EvalTransform:
    """Resize the image by ``image_scale`` (area average when shrinking); labels are left alone."""

    def __init__(self, image_scale: float = 1.0):
        self.image_scale = image_scale

    def __call__(
        self, image: np.ndarray, labels: np.ndarray | None, key: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return resize_image(image, self.image_scale), labels


def resize_image(image: np.ndarray, factor: float) -> np.ndarray:
    """uint8 ``(H, W, 3)`` resized by ``factor``, each side at least one pixel."""
    if factor == 1:
        return image
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
