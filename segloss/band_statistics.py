"""Mean and standard deviation of each band over a training split, counted image by image and kept beside its pixels."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from segloss.datasets.bands import MOST_NUMBER, Bands, read_gappy
from segloss.errors import InputError
from segloss.pixel_counts import available_cores, kept_array
from segloss.progress import Progress

if TYPE_CHECKING:
    from segloss.datasets import SegmentationDataset


def image_statistics(pixels: np.ndarray, empty: np.ndarray | None = None) -> np.ndarray:
    """Count, mean and variance of each band of one image, float64 ``(3, N)``; 0 of a band without numbers.

    Args:
        pixels: ``(H, W, N)``.
        empty: the numbers that mean nothing, ``(H, W, N)``.

    >>> image_statistics(np.array([[[1, 7], [3, 7]]]))
    array([[2., 2.],
           [2., 7.],
           [1., 0.]])
    """
    flat = pixels.reshape(-1, pixels.shape[2]).astype(np.float64)
    valid = np.ones(flat.shape, bool) if empty is None else ~empty.reshape(flat.shape)
    count = valid.sum(0).clip(1)
    with np.errstate(invalid="ignore", over="ignore"):  # of numbers that whoever counts refuses
        mean = flat.sum(0, where=valid) / count
        variance = np.square(flat - mean).sum(0, where=valid) / count
    return np.stack([valid.sum(0), mean, variance])


def combine(statistics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean and standard deviation over the pixels of all images, ``(N,)`` each.

    .. math::
        \mu = \frac{\sum_i n_i \mu_i}{\sum_i n_i}, \qquad
        \sigma^2 = \frac{\sum_i n_i (\sigma_i^2 + (\mu_i - \mu)^2)}{\sum_i n_i}

    Args:
        statistics: of each image, ``(images, 3, N)``, as :func:`image_statistics`.

    Source: Chan, Golub & LeVeque 1983; unlike the sum of squares it loses nothing where means are large.
    """
    count, mean, variance = np.moveaxis(statistics, 1, 0)
    total = count.sum(0)
    over_all = (count * mean).sum(0) / total
    return over_all, np.sqrt((count * (variance + np.square(mean - over_all))).sum(0) / total)


def load_or_count_bands(
    dataset: "SegmentationDataset", *, workers: int | None = None, progress: Progress | None = None
) -> Bands:
    """The bands of a split with their mean and std, from the user's cache where no image has changed since.

    8-bit RGB is not counted: it is normalised as its encoder was pretrained. The std of a band of one value is 1.

    Raises:
        InputError: an image is damaged, has other bands or numbers that cannot be measured ones, or a band holds
            nothing in any of them.
    """
    bands = dataset.bands
    if bands.is_rgb:
        return bands

    def count() -> np.ndarray:
        pool = ThreadPoolExecutor(workers or available_cores())
        try:
            results = pool.map(lambda pair: image_statistics(*read_gappy(pair[0], bands)), dataset.pairs)
            return np.stack(list(results if progress is None else progress(results, len(dataset))))
        finally:
            pool.shutdown(cancel_futures=True)

    shape, state = (len(dataset), 3, bands.count), dataset.images_state()
    statistics, _ = kept_array("bands", state, shape, np.dtype(np.float64), count)
    if not statistics[:, 0].sum(0).all():
        band = int(np.flatnonzero(statistics[:, 0].sum(0) == 0)[0]) + 1
        raise InputError(f"band {band} holds nothing in any image", "leave it out of the files", dataset.name)
    sizes = np.maximum(np.abs(statistics[:, 1]), np.sqrt(statistics[:, 2]))
    if (far := np.argwhere(~(sizes < MOST_NUMBER))).size:  # of NaN too
        place, band = far[0].tolist()
        what = f"holds numbers beyond 1e19 in band {band + 1}, as -3.4e38, which stand where nothing was measured"
        cure = "name them as the nodata value (gdal_edit.py -a_nodata), or save NaN there"
        raise InputError(what, cure, dataset.pairs[place][0])
    mean, std = combine(statistics)
    return replace(bands, mean=tuple(mean.tolist()), std=tuple(np.where(std > 0, std, 1).tolist()))
