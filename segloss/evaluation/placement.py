"""Whether predictions lie on their labels: not mirrored or turned, nor saved under the name of another image.

A few images are looked at, as thumbnails, and something is said only where another placement is far better. Agreement
is beyond chance (Cohen's kappa, over all of them together), so that what a network says everywhere tells nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from segloss.datasets.naming import in_number_order
from segloss.errors import Finding, InputError
from segloss.evaluation.results import Totals

IMAGES, FEWEST = 16, 4  # that are looked at, at most; below so many nothing is said
SIDE = 48  # points of a thumbnail along each side
GOOD = 0.9  # kappa above which no other placement is looked for
BETTER = 0.5  # kappa of another placement, at the least
LEFT = 2 / 3  # of what is missing to a kappa of 1, at the most, with another placement
CONSISTENT = 7 / 8  # of the images are better so

UNLIKE = 0.7  # kappa above which labels of other images that were not chosen are not read

Map = np.ndarray
SYMMETRIES: dict[str, Callable[[Map], Map]] = {
    "mirrored left to right": lambda a: a[:, ::-1],
    "upside down": lambda a: a[::-1],
    "turned by 180 degrees": lambda a: a[::-1, ::-1],
    "with rows and columns exchanged": lambda a: a.T,
    "turned by 90 degrees": lambda a: np.rot90(a),
    "turned by 270 degrees": lambda a: np.rot90(a, 3),
    "mirrored along the other diagonal": lambda a: a[::-1, ::-1].T,
}


@dataclass(frozen=True)
class Thumbs:
    """Points of the maps of an image, and of its prediction in each other way in which it is of its label's size."""

    labels: Map
    predicted: Map
    turned: dict[str, Map]


def placement_findings(
    name: str, totals: Totals, read: Callable[[str], tuple[Map, Map]], count: int, workers: int = 1
) -> Iterator[Finding]:
    """A warning where predictions fit far better in another way than as they lie.

    Args:
        name: of the predictions.
        totals: of all images.
        read: labels and predicted class numbers ``(H, W)`` of an image by its name.
        count: of classes C; larger numbers are no class, and such labels are ignored.
    """
    chosen = _telling(totals)
    if len(chosen) < FEWEST or _kappa_of(totals.matrix) > GOOD:
        return
    names = in_number_order(totals.names)

    def look(each: str) -> Thumbs:
        labels, predicted = read(each)
        fitting = {how: turn(predicted) for how, turn in SYMMETRIES.items()}
        turned = {how: _thumb(found) for how, found in fitting.items() if found.shape == labels.shape}
        return Thumbs(_thumb(labels), _thumb(predicted), turned)

    try:
        with ThreadPoolExecutor(workers) as pool:
            thumbs = dict(zip(chosen, pool.map(look, chosen), strict=True))
            as_is = [_agreement(each.labels, each.predicted, count) for each in thumbs.values()]
            turned = {
                how: [_agreement(each.labels, each.turned[how], count) for each in thumbs.values()]
                for how in SYMMETRIES
                if all(how in each.turned for each in thumbs.values())
            }
            how = max(turned, key=lambda how: _pooled(turned[how]))
            if _far_better(turned[how], as_is):
                what = f"predictions fit their labels far better {how}: {_compared(turned[how], as_is)}"
                yield Finding("warning", name, InputError(what, "save them as the labels lie"))
                return
            found = _of_others(thumbs, count)
            if found is None and len(chosen) < len(names) and _pooled(as_is) < UNLIKE:
                found = _of_orders(names, thumbs, lambda each: _thumb(read(each)[0]), count)
    except (InputError, OSError):  # a file that was there when it was counted
        return
    if found is not None:
        partners, kappas = found
        moved = [f"{each} fits {of}" for each, of in partners.items() if of != each]
        like = f"{', '.join(moved[:3])}, ...; {kappas}"
        what = f"predictions fit labels of other images far better than their own: {like}"
        cure = "check which image each was saved for: as text 10 comes before 2, and numbers begin at 0 or at 1"
        yield Finding("warning", name, InputError(what, cure))


def _telling(totals: Totals) -> list[str]:
    """Images that hold several classes in label and prediction, spread over all of them."""
    several = (np.count_nonzero(totals.counts[:, 1:], axis=2) > 1).all(1)
    places = np.flatnonzero(several)
    spread = np.unique(np.linspace(0, len(places) - 1, IMAGES).round().astype(int)) if len(places) else places
    return [totals.names[place] for place in places[spread].tolist()]


def _kappa_of(matrix: np.ndarray) -> float:
    """Of all pixels."""
    pixels = max(1, matrix.sum())
    right = matrix.diagonal().sum() / pixels
    chance = (matrix.sum(1) / pixels) @ (matrix.sum(0)[: len(matrix)] / pixels)
    return float((right - chance) / max(1e-9, 1 - chance))


def _thumb(full: Map) -> Map:
    """Points of a map, evenly spread; of maps of another size the same places."""
    rows, columns = ((2 * np.arange(SIDE) + 1) * size // (2 * SIDE) for size in full.shape)
    return full[rows[:, None], columns].astype(np.int64).ravel()


def _agreement(labels: Map, predicted: Map, count: int) -> tuple[float, float]:
    """What is right beyond chance, and what could be: their ratio is kappa."""
    valid = labels < count
    if not valid.any():
        return 0.0, 0.0
    labels, predicted = labels[valid], np.minimum(predicted[valid], count)
    shares = [np.bincount(each, minlength=count + 1) / len(labels) for each in (labels, predicted)]
    chance = float(shares[0] @ shares[1])
    return float((labels == predicted).mean()) - chance, 1 - chance


def _pooled(pairs: Sequence[tuple[float, float]]) -> float:
    right, most = np.sum(pairs, axis=0)
    return float(right / most) if most else 0.0


def _far_better(other: Sequence[tuple[float, float]], own: Sequence[tuple[float, float]]) -> bool:
    """In sum, and in nearly every image that tells the two apart."""
    ahead = [a[0] - b[0] for a, b in zip(other, own, strict=True) if abs(a[0] - b[0]) > 1e-3]
    kappa = _pooled(other)
    clear = kappa >= BETTER and 1 - kappa <= LEFT * (1 - _pooled(own))
    return clear and len(ahead) >= FEWEST and sum(each > 0 for each in ahead) >= CONSISTENT * len(ahead)


def _compared(other: Sequence[tuple[float, float]], own: Sequence[tuple[float, float]]) -> str:
    return f"agreement beyond chance {_pooled(other):.2f} instead of {_pooled(own):.2f} in {len(own)} images"


Partners = tuple[dict[str, str], str]


def _of_others(thumbs: Mapping[str, Thumbs], count: int) -> Partners | None:
    """Whose label of the chosen each prediction fits, where that is clear: far better than the next, and one to one."""
    chosen, every = [*thumbs], [*thumbs.values()]
    pairs = np.array([[_agreement(b.labels, a.predicted, count) for b in every] for a in every])  # (n, n, 2)
    kappas = pairs[..., 0] / np.maximum(pairs[..., 1], 1e-9)
    best, rows = kappas.argmax(1), np.arange(len(chosen))
    moved = np.flatnonzero(best != rows)
    if len(moved) < max(FEWEST, len(chosen) / 2) or len({*best.tolist()}) < CONSISTENT * len(chosen):
        return None
    rest = kappas.copy()
    rest[rows, best] = -np.inf
    found, next_best = ([(*pairs[row, of[row]],) for row in moved] for of in (best, rest.argmax(1)))
    if not (_far_better(found, next_best) and 1 - _pooled(found) <= LEFT**2 * (1 - _pooled(next_best))):
        return None
    partners = {chosen[row]: chosen[best[row]] for row in rows.tolist()}
    return partners, _compared(found, [(*pairs[row, row],) for row in moved])


def _orders(names: Sequence[str]) -> list[dict[str, str]]:
    """Whose prediction each file may hold that was numbered otherwise: by or from the order of text, or one further."""
    as_text = sorted(names)
    others = (as_text, [*names[1:], names[0]], [names[-1], *names[:-1]])
    found = [dict(zip(names, order, strict=True)) for order in others]
    return [*found, dict(zip(as_text, names, strict=True))]


def _of_orders(
    names: Sequence[str], thumbs: Mapping[str, Thumbs], label_of: Callable[[str], Map], count: int
) -> Partners | None:
    """Which labels the chosen would fit if files had been numbered otherwise; a few of them are looked at first."""
    for of in _orders(names):
        moved = [each for each in thumbs if of[each] != each]
        for some in (moved[:FEWEST], moved):
            own = [_agreement(thumbs[each].labels, thumbs[each].predicted, count) for each in some]
            other = [_agreement(label_of(of[each]), thumbs[each].predicted, count) for each in some]
            if not some or not _far_better(other, own):
                break
        else:
            return {each: of[each] for each in moved}, _compared(other, own)
    return None
