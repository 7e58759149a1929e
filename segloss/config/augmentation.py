"""Options of what the network sees of the images in training."""

from dataclasses import dataclass

from segloss.config.ranges import CROP, INTERVAL, SCALE
from segloss.datasets.base import Color
from segloss.datasets.mixing import Mix
from segloss.flags import Options, option
from segloss.losses.ranges import PROBABILITY, SHARE


@dataclass(frozen=True)
class AugmentationOptions(Options):
    """What the network sees of the images: --crop-size 256 256 --color strong --guided-crops 0.5"""

    image_scale: float = option(1.0, "resize images (not the labels they are scored on) by this factor", *SCALE)
    scale_range: tuple[float, float] = option(
        (0.75, 1.6), "random scale on top of it, in training", *INTERVAL, metavar=("LOW", "HIGH")
    )
    crop_size: tuple[int, int] | None = option(
        None, "training crop; default: the first image's size, at most 512", *CROP, metavar=("H", "W")
    )
    color: Color = option("light", "random colour changes")
    augmentations: str | None = option(
        None, "albumentations pipeline in YAML instead of random scale, flip and colour", metavar="FILE", path=True
    )
    guided_crops: float = option(0.0, "share of training crops placed around a pixel of a rare class", *SHARE)
    cat_max_ratio: float = option(
        1.0, "draw other crops again while one class holds more than this share; 1: off", *PROBABILITY
    )
    repeat_threshold: float = option(
        0.0, "repeat images of classes that a smaller share of images hold; 0: off", *SHARE
    )
    mix: Mix = option("none", "training samples of two images; paste: regions of the rarest third of the classes")
    mix_share: float = option(0.5, "share of the training samples that --mix makes of two", *SHARE)
