"""What makes the scores of masks doubtful though every file can be read: judged by what was counted of all of them."""

from collections.abc import Collection, Iterator

import numpy as np

from segloss.datasets.classes import ClassTable
from segloss.datasets.masks import ranges, turned_grey
from segloss.datasets.tables import look_like_train_ids
from segloss.errors import Finding, InputError
from segloss.evaluation.results import Totals
from segloss.evaluation.written import BLACK_AND_WHITE, Written
from segloss.losses.reduction import IGNORE_INDEX

UNKNOWN_SHARE = 0.01  # of the valid pixels predicted as no class; above it the ids are doubtful
SWAPPED = 2 / 3  # of a class's pixels that go to one other, and of that one's back; chance is 1 / C
WRITTEN_FOR = 0.25  # of a class's pixels under an id that is no class; above it that id stands for the class
FEWEST = 10  # pixels that are no accident


def label_findings(name: str, totals: Totals) -> Iterator[Finding]:
    """An error where no label has a valid pixel, a warning where some have none."""
    blank = np.flatnonzero(totals.counts[:, 1].sum(1) == 0)
    if not len(blank):
        return
    first = totals.names[blank[0]]
    if len(blank) == totals.images:
        what = f"no label has a valid pixel: all {totals.ignored:,} pixels are ignored ({totals.images} images)"
        yield Finding("error", name, InputError(what, "check the ids of the masks against the ignored ones"))
    else:
        what = f"{len(blank)} of {totals.images} labels have no valid pixel, the first {first}"
        yield Finding("warning", name, InputError(what, "they add nothing to any score"))


def mask_findings(
    name: str, totals: Totals, classes: ClassTable, predicted_classes: ClassTable, *, label_ids: str = "auto"
) -> list[Finding]:
    """All that is doubtful in predictions and labels, errors first.

    Args:
        name: of the predictions.
        totals: of all images, what was noted of their files among them.
        classes, predicted_classes: what ids mean in labels and in predictions.
        label_ids: as asked for; whoever says which ids labels hold is not doubted.
    """
    written = totals.written
    found = [*label_findings(name, totals), *_black_and_white(name, written, classes)]
    if label_ids == "auto" and look_like_train_ids(written.labels, classes):
        what = f"no label holds an id above {max({*written.labels} - {classes.ignored})}: trainIds, read as labelIds"
        found.append(Finding("error", name, InputError(what, "give --label-ids trainIds, or labelIds if they are")))
    if not found:
        found += _ignored_class(name, totals, classes)
    shifted = _shifted(totals.matrix)
    if shifted:
        cure = "the ids seem to begin at another number than the class table's"
        found.append(Finding("warning", name, InputError(shifted, cure)))
    else:
        found += [*_swapped(name, totals.matrix, classes), *_unknown(name, totals, predicted_classes)]
    return sorted(found, key=lambda finding: finding.severity != "error")


def _black_and_white(name: str, written: Written, classes: ClassTable) -> Iterator[Finding]:
    """Labels of 0 and 255, alone or among labels of 0 and 1: their second class is ignored."""
    held, others = {*written.labels}, written.others
    if not written.black_and_white or (255, IGNORE_INDEX) not in classes.mask_ids:
        return
    cure = "--check off if 255 is meant to be ignored"
    if held == BLACK_AND_WHITE:
        what = f"labels hold 0 and 255 alone, and 255 is ignored: {classes.names[0]} is all that is scored"
        cure = f"give the second class id: 255 in the class file, or save masks as 0 and 1 ({cure})"
    elif len(classes) == 2 and 255 not in others and others - {0}:
        listed = " and ".join(map(str, sorted(others)))
        what = f"{written.black_and_white} labels hold 0 and 255 alone, the first {written.first}, others {listed}"
        cure = f"save 255 as the second class ({cure})"
    else:
        return
    yield Finding("error", name, InputError(what, cure))


def _ignored_class(name: str, totals: Totals, classes: ClassTable) -> Iterator[Finding]:
    """A class that is in no label and is predicted where these are ignored; one class alone."""
    true, predicted, ignored = totals.matrix.sum(1), totals.matrix.sum(0), totals.written.ignored
    for c, pixels in ignored.most_common(1):
        if not true[c] and pixels >= FEWEST and 2 * pixels > max(totals.ignored, predicted[c] + pixels):
            values = [v for v, label in classes.mask_ids if label == classes.ignored and v in totals.written.labels]
            what = f"{classes.names[c]} is in no label, but {pixels / totals.ignored:.1%} of the ignored pixels are "
            what += f"predicted as it; ignored is {ranges(values)}" if values else "predicted as it"
            yield Finding("warning", name, InputError(what, "is that its id? check the class file"))
            return
    if np.count_nonzero(true) == 1:
        what = f"every valid label is {classes.names[int(true.argmax())]}"
        yield Finding("warning", name, InputError(what, "check the ids of the masks against the class table"))


def _shifted(matrix: np.ndarray) -> str:
    """Words where several classes are predicted as the one beside them; else none."""
    count, pixels = len(matrix), max(1, matrix.sum())
    for step, where in ((-1, "before"), (1, "behind")):
        beside = np.diagonal(matrix[:, :count], step)
        share, of_true = beside.sum() / pixels, matrix.sum(1)[max(0, -step) :][: len(beside)]
        # Of several classes, not only of one that a weak model predicts everywhere.
        if share > 0.5 and np.count_nonzero(2 * beside > of_true) > 2:
            return f"{share:.1%} of the pixels are predicted as the class {where} the true one"
    return ""


def _swapped(name: str, matrix: np.ndarray, classes: ClassTable) -> Iterator[Finding]:
    """Classes in another order: each one's pixels go to the next of a ring, and the last one's to the first."""
    true, square = matrix.sum(1), matrix[:, : len(matrix)]
    next_of, share = square.argmax(1), square.max(1) / np.maximum(true, 1)
    waiting = {c for c in range(len(matrix)) if true[c] >= FEWEST and share[c] > SWAPPED and next_of[c] != c}
    while waiting:
        ring = [waiting.pop()]
        while int(next_of[ring[-1]]) in waiting:
            ring.append(int(next_of[ring[-1]]))
            waiting.remove(ring[-1])
        if next_of[ring[-1]] == ring[0]:
            names = [classes.names[c] for c in ring]
            ways = ", ".join(
                f"{share[a]:.1%} of {classes.names[a]} as {classes.names[b]}"
                for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)
            )
            what = f"{' and '.join(names)} are predicted for one another: {ways}"
            cure = "the ids or colours of predictions and labels seem to be in another order; check --class-table"
            yield Finding("warning", name, InputError(what, cure))


def _unknown(name: str, totals: Totals, classes: ClassTable) -> Iterator[Finding]:
    """Predicted ids that are no class: many, or few that stand where one class is."""
    matrix, unknown = totals.matrix, {value for _, value in totals.written.unknown}
    values = {classes.ids[c] for c in np.flatnonzero(matrix.sum(0)[: len(matrix)])} | unknown
    stands_for, share = _stands_for(totals, classes), matrix[:, len(matrix) :].sum() / max(1, matrix.sum())
    cause = turned_grey(sorted(values), classes) if unknown - BLACK_AND_WHITE else ""
    cause = cause or cause_of_unknown(values - {classes.ignored}, classes)
    if share > UNKNOWN_SHARE:
        strange = f"ids that are no class: {ranges(sorted(unknown)[:20])}" if unknown else "colours that are no class"
        plain = f"{strange}; check --class-table against the ids that were written"
        cause = cause or (f"{plain}: {stands_for}" if stands_for else plain)
        yield Finding("warning", name, InputError(f"{share:.1%} of the pixels are predicted as no class", cause))
    elif stands_for:
        yield Finding("warning", name, InputError(stands_for, cause or "save each class under its own id"))


def _stands_for(totals: Totals, classes: ClassTable) -> str:
    """Words on an id that is no class and stands on more of a class's pixels than its own and than of others'."""
    true, pixels_of = totals.matrix.sum(1), totals.written.unknown
    shares = {(c, value): pixels / true[c] for (c, value), pixels in pixels_of.items() if pixels >= FEWEST}
    for (c, value), share in sorted(shares.items(), key=lambda item: -item[1]):
        elsewhere = sum(pixels for (other, v), pixels in pixels_of.items() if v == value and other != c)
        own = totals.matrix[c, c] / true[c]
        if share > max(own, WRITTEN_FOR, 2 * elsewhere / max(1, true.sum() - true[c])):
            whole = f"the pixels of {classes.names[c]} ({true[c] / true.sum():.2%} of all)"
            return f"{share:.1%} of {whole} are written as {value}, {own:.1%} by its own id {classes.ids[c]}"
    return ""


def cause_of_unknown(values: Collection[int], classes: ClassTable) -> str:
    """What predicted values look like, some of which are no class; nothing where they have no common cause.

    >>> cause_of_unknown({1, 2, 3}, ClassTable(("wall", "floor", "lamp")))
    "ids seem to begin one behind the class table's 0; correct the ids of the class table"
    """
    values, known = {*values}, {value for value, label in classes.mask_ids if label != classes.ignored}
    if values and len(classes) < max(classes.ids):  # the table has ids of its own beside class numbers
        in_train_ids = known == {*range(len(classes))}
        if not in_train_ids and max(values) < len(classes) and values - known:
            return "these look like trainIds; give --prediction-ids trainIds"
        if in_train_ids and max(values) >= len(classes):
            return "these look like labelIds; give --prediction-ids labelIds"
    for step, where in ((-1, "before"), (1, "behind")):
        if values - known and values <= {value + step for value in known}:
            return f"ids seem to begin one {where} the class table's {min(known)}; correct the ids of the class table"
    return ""
