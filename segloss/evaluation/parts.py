"""Mean IoU by sub-folder or by sequence of the images."""

from collections.abc import Iterable

import numpy as np
import torch

from segloss.datasets.folds import part_of
from segloss.errors import InputError
from segloss.evaluation.results import Totals
from segloss.metrics import Scores, none_if_nan
from segloss.schema import Part


def require_parts(names: Iterable[str], by: str) -> None:
    """InputError where all images are one part, or each is one of its own."""
    names = list(names)
    found = {part_of(name, by) for name in names}
    if len(found) == 1 and len(names) > 1:
        what = f"all images are in one {by}: {found.pop() or 'names without one'}"
        raise InputError(what, f"try --by {'sequence' if by == 'folder' else 'folder'}, or leave it out", f"--by {by}")
    if by == "sequence" and len(found) == len(names) > 1:
        what = f"every image is a sequence of its own, as {names[0]}"
        raise InputError(what, "names must end with the number of the frame, as 0001TP_008550", f"--by {by}")


def part(name: str, counts: np.ndarray, protocol: str) -> Part:
    """Of right, true and predicted pixels ``(images, 3, C)``."""
    hits, true, predicted = torch.from_numpy(counts).unbind(1)
    scores = Scores.from_counts(hits, true, predicted, protocol)
    return Part(name, len(counts), scores.classes_averaged, none_if_nan(scores.miou))


def parts_of(totals: Totals, by: str, protocol: str) -> tuple[Part, ...]:
    """:func:`part` of every folder or sequence, by name."""
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(totals.names):
        groups.setdefault(part_of(name, by), []).append(place)
    return tuple(part(name or ".", totals.counts[places], protocol) for name, places in sorted(groups.items()))
