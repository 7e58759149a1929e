r"""Class weights from pixel counts, for the weighted losses.

====================  ==================================================  =======================================
recipe                weight w_c                                          source
====================  ==================================================  =======================================
``median_frequency``  :math:`\mathrm{median}(f) / f_c`,                   Eigen & Fergus, ICCV 2015
                      f_c = n_c / pixels of the images that hold c
``inverse``           :math:`1 / n_c`, scaled to mean 1                   inverse class frequency
``inverse_sqrt``      :math:`1 / \sqrt{n_c}`, scaled to mean 1            Mikolov et al. 2013, Mahajan et al. 2018
``enet``              :math:`1 / \log(1.02 + n_c / \sum n)`               ENet, Paszke et al., arXiv:1606.02147
``effective``         :math:`1 / E_c`, scaled to mean 1                   Cui et al., CVPR 2019
====================  ==================================================  =======================================
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from segloss.errors import InputError
from segloss.losses.checks import numbers
from segloss.losses.label_values import Counts, class_counts, effective_number, fill_empty

CLASS_WEIGHTS = ("median_frequency", "inverse", "inverse_sqrt", "enet", "effective")


def class_weights_from_counts(
    counts: Counts,
    recipe: str = "median_frequency",
    *,
    pixels_of_images: Tensor | Sequence[int] | None = None,
    beta: float | None = None,
) -> Tensor:
    """Weights w from the pixel counts of the training set; the formulas stand in this module's head.

    Args:
        counts: training pixels per class, ignored pixels left out, shape ``(C,)``, or a ``PixelCounts``.
        recipe: one of ``CLASS_WEIGHTS``.
        pixels_of_images: of ``"median_frequency"``: labelled pixels of the images that hold each class ``(C,)``.
            None takes those of a ``PixelCounts``, else all pixels, as if every image held every class.
        beta: of ``"effective"``, in [0, 1); default 1 - 1 / median of the positive counts.

    Returns:
        float32 ``(C,)``, positive. A class without pixels takes the weight of the rarest class that has some.

    Raises:
        ValueError: counts or pixels that cannot be, or an unknown recipe.

    >>> class_weights_from_counts([9000, 900, 100], "inverse_sqrt")
    tensor([0.2198, 0.6951, 2.0852])
    """
    if not isinstance(recipe, str):
        raise InputError(f"recipe must be one of {', '.join(CLASS_WEIGHTS)}, got {recipe!r}")
    if pixels_of_images is None:
        pixels_of_images = getattr(getattr(counts, "complete", counts), "pixels_of_images", None)
    counts, recipe = class_counts(counts), recipe.lower()
    if recipe == "median_frequency":
        frequency = counts / (counts.sum() if pixels_of_images is None else _image_pixels(pixels_of_images, counts))
        weights = frequency[counts > 0].quantile(0.5) / frequency
    elif recipe == "inverse":
        weights = 1 / counts
    elif recipe == "inverse_sqrt":
        weights = counts.rsqrt()
    elif recipe == "enet":
        weights = 1 / torch.log(1.02 + counts / counts.sum())
    elif recipe == "effective":
        weights = 1 / effective_number(counts, beta)
    else:
        raise ValueError(f"recipe must be one of {', '.join(CLASS_WEIGHTS)}, got {recipe!r}")
    if beta is not None and recipe != "effective":
        raise ValueError(f"beta belongs to the recipe 'effective', and changes nothing of {recipe}")
    weights = fill_empty(weights, counts)
    if recipe in ("inverse", "inverse_sqrt", "effective"):
        weights = weights / weights.mean()
    return weights.float()


def _image_pixels(pixels_of_images: Tensor | Sequence[int], counts: Tensor) -> Tensor:
    pixels = numbers("pixels_of_images", pixels_of_images, torch.float64, "cpu")
    if pixels.shape != counts.shape:
        raise ValueError(f"pixels_of_images must have shape ({len(counts)},), got {tuple(pixels.shape)}")
    fits = (pixels >= counts) & torch.isfinite(pixels)
    if not bool(fits.all()):
        stray = int((~fits).nonzero()[0])
        raise ValueError(
            f"pixels_of_images must be at least the pixels of the class itself, got {pixels[stray]:g} "
            f"for class {stray} with {counts[stray]:g}"
        )
    return pixels
