"""Images whose numbers are in other units than those of others, or mean nothing; gray ones beside others in colour."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from segloss.datasets.bands import MOST_NUMBER, Bands
from segloss.doctor.findings import Fault, Finding, PairFacts, Severity, SplitFacts, more_files
from segloss.errors import InputError

LOOKED_AT = 2**12  # pixels of an image
ENDS = (1, 99)  # percentiles of them: a dead or a hot pixel tells nothing
GRAY = 2  # levels between red, green and blue that JPEG makes of gray
UNITS = 8  # times: 12 and 16 bits are 16 apart, 0..1 and 0..255 even more
BELOW_ZERO = 1 / 8  # of the largest number, from which on a band has a sign
FEWEST = 3  # images that tell what belongs to a split
# What programs write where nothing was measured; the largest of a type may be light too, unless there is much of it.
FILLS = (-999, -9999, -99999, -(2**15), -(2**31), 2**15 - 1, 2**16 - 1, 2**31 - 1, 2**32 - 1)
MUCH = 0.01  # of an image

Ends = dict[Path, tuple[float, float]]  # of each image, where the numbers of one band lie


def note_numbers(facts: PairFacts, image: np.ndarray, bands: Bands, path: Path) -> None:
    """Where the numbers of an image lie, whether it is gray, and a fault where 8 bits hold 0 and 1 alone."""
    if facts.blank:
        return
    step = max(1, round((image.shape[0] * image.shape[1] / LOOKED_AT) ** 0.5))
    some = image[::step, ::step].reshape(-1, image.shape[2])
    if bands.is_rgb:
        if image.max() == 1:
            what = "holds 0 and 1 alone, all but black, as floats of 0..1 saved as 8 bits do"
            fault = InputError(what, "multiply by 255 before they are saved", path)
            facts.faults.append(Fault("binary", fault, "warning"))
            return
        facts.gray = bool((some.max(1) - some.min(1) <= GRAY).all())
        some = some.reshape(-1, 1)
    fills = [None] * image.shape[2] if bands.is_rgb else [fill_of(band) for band in np.moveaxis(image, 2, 0)]
    facts.faults += _faults_of_fills(fills, image, path)
    filled = [  # 0 stands where there is nothing, too
        band[np.isfinite(band) & (band != 0) & (True if fill is None else band != fill)]
        for band, fill in zip(some.T, fills, strict=False)
    ]
    ends = [np.percentile(band, ENDS).tolist() if band.size else (0.0, 0.0) for band in filled]
    facts.levels = tuple((low, high) for low, high in ends)


def fill_of(band: np.ndarray) -> float | None:
    """The number of a band that stands where nothing was measured, by the looks of it; None where there is none.

    >>> fill_of(np.array([[-9999, 310], [288, 295]])), fill_of(np.array([[-9999, -310], [-8000, 295]]))
    (-9999.0, None)
    """
    for end in (band.min(), band.max()):
        value = float(end)
        if not abs(value) < MOST_NUMBER:
            return value
        if value in FILLS:
            others = band[band != end].astype(np.float64)
            much = value < 0 or others.size <= (1 - MUCH) * band.size
            if much and others.size and 0 < np.ptp(others) < np.abs(others - value).min():
                return value
    return None


def _faults_of_fills(fills: Sequence[float | None], image: np.ndarray, path: Path) -> Iterator[Fault]:
    for place, value in enumerate(fills):
        if value is not None:
            of_band = f" of band {place + 1}" if len(fills) > 1 else ""
            share = (image[..., place] == value).mean()
            what = f"holds {value:.8g} on {share:.2%}{of_band}, far from all other numbers, which is read as data"
            cure = "where nothing was measured name it as the nodata value (gdal_edit.py -a_nodata), or save NaN there"
            severity: Severity = "warning" if value in FILLS else "error"
            yield Fault("fill", InputError(what, cure, path), severity)
            return


def other_units(splits: Sequence[SplitFacts]) -> Iterator[Finding]:
    """Of each split the first band whose numbers are many times those of the first split, or have a sign that those
    have not; where there is none, images that are so beside others of the same splits."""
    bands = [[_ends(facts, band) for facts in splits] for band in range(splits[0].dataset.bands.count if splits else 0)]
    cure, apart = "save all images in the same units", False
    for number, facts in enumerate(splits[1:], 1):
        for band, ends in enumerate(bands):
            if said := _other_size(ends[0], ends[number]) or _other_sign(ends[0], ends[number]):
                what = f"{_of_band(facts, band)}{said} in {splits[0].dataset.split}{more_files(ends[number])}"
                yield Finding("warning", facts.dataset.split, InputError(what, cure, next(iter(ends[number]))))
                apart = True
                break
    for band, ends in enumerate(() if apart or not splits or splits[0].dataset.bands.dtype == "uint8" else bands):
        few, most = _parted({path: of for of_split in ends for path, of in of_split.items()})
        if said := _other_size(most, few):
            path = next(path for of_split in ends for path in of_split if path in few)
            split = next(facts.dataset.split for facts, of in zip(splits, ends, strict=True) if path in of)
            what = f"{_of_band(splits[0], band)}{said} in most images{more_files(few)}"
            yield Finding("warning", split, InputError(what, cure, path))
            break


def gray_beside_colour(splits: Sequence[SplitFacts]) -> Iterator[Finding]:
    """A split in colour where the first is gray throughout, or the other way round."""
    gray = [[pair.gray for pair in facts.pairs if pair.levels and facts.dataset.bands.is_rgb] for facts in splits]
    for facts, theirs in zip(splits[1:], gray[1:], strict=True):
        kinds = [(all(flags), 2 * sum(flags) < len(flags)) for flags in (gray[0], theirs) if flags]
        if len(kinds) == 2 and any(one[0] and other[1] for one, other in (kinds, kinds[::-1])):
            ours = "gray throughout" if kinds[1][0] else "in colour"
            what = f"images are {ours}, those of {splits[0].dataset.split} are {'gray' if kinds[0][0] else 'in colour'}"
            cure = "save both alike, or read the scores with care"
            yield Finding(
                "warning", facts.dataset.split, InputError(what, cure, facts.dataset.pairs[facts.places[0]][0])
            )


def _ends(facts: SplitFacts, band: int) -> Ends:
    pairs = [(facts.dataset.pairs[place][0], pair) for place, pair in zip(facts.places, facts.pairs, strict=True)]
    return {path: pair.levels[band] for path, pair in pairs if band < len(pair.levels) and any(pair.levels[band])}


def _sizes(ends: Ends) -> list[float]:
    return [max(abs(low), abs(high)) for low, high in ends.values()]


def _other_size(ours: Ends, theirs: Ends) -> str:
    """In words, where one's numbers are ``UNITS`` times the other's in the middle, and none near them."""
    if not ours or not theirs:
        return ""
    small, large = sorted((_sizes(ours), _sizes(theirs)), key=lambda sizes: float(np.median(sizes)))
    if np.median(large) < UNITS * np.median(small) or min(large) < 2 * max(small):
        return ""
    of_theirs, of_ours = (_number(float(np.median(_sizes(ends)))) for ends in (theirs, ours))
    return f"numbers reach {of_theirs} where they reach {of_ours}"


def _other_sign(ours: Ends, theirs: Ends) -> str:
    """In words, where all images of one have numbers well below 0, and none of the other."""
    below = [[low < -BELOW_ZERO * max(abs(low), abs(high)) for low, high in ends.values()] for ends in (ours, theirs)]
    if min(map(len, below)) < FEWEST or not any(all(one) and not any(other) for one, other in (below, below[::-1])):
        return ""
    return f"numbers {'go' if below[1][0] else 'do not go'} below 0 where they {'do not' if below[1][0] else 'do'}"


def _parted(ends: Ends) -> tuple[Ends, Ends]:
    """The few and the most, at the widest gap between sizes of numbers; nothing unless it is wider than either side."""
    order = [path for _, path in sorted(zip(_sizes(ends), ends, strict=True))]
    sizes = np.sort(_sizes(ends))
    if len(order) < 2 * FEWEST:
        return {}, {}
    cut = int(np.argmax(sizes[1:] / sizes[:-1])) + 1
    wide = sizes[cut] / sizes[cut - 1] > max(sizes[cut - 1] / sizes[0], sizes[-1] / sizes[cut])
    few, most = sorted((order[:cut], order[cut:]), key=len)
    return ({path: ends[path] for path in few}, {path: ends[path] for path in most}) if wide and few[1:] else ({}, {})


def _of_band(facts: SplitFacts, band: int) -> str:
    bands = facts.dataset.bands
    return "" if bands.is_rgb or bands.count == 1 else f"of band {band + 1} "


def _number(size: float) -> str:
    return f"{size:,.0f}" if size >= 100 else f"{size:.3g}"
