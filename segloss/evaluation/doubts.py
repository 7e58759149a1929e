"""What makes the scores of masks doubtful though every file can be read: judged by what was counted of all of them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from segloss.datasets.classes import ClassTable, void_among
from segloss.datasets.masks import id_table, ranges, turned_grey
from segloss.datasets.tables import ADE20K, look_like_train_ids
from segloss.errors import Finding, InputError
from segloss.evaluation.results import Totals
from segloss.evaluation.written import BLACK_AND_WHITE, COLOR, Written
from segloss.losses.labels import IGNORE_INDEX
from segloss.schema import Groups

UNKNOWN_SHARE = 0.01  # of the valid pixels predicted as no class; above it the ids are doubtful
SWAPPED = 2 / 3  # of a class's pixels that go to one other, and of that one's back; chance is 1 / C
WRITTEN_FOR = 0.25  # of a class's pixels under an id that is no class; above it that id stands for the class
FEWEST = 10  # pixels that are no accident
ANOTHER_ORDER = "the ids or colours of predictions and labels seem to be in another order; check --class-table"
IMAGES = 6  # whose predictions hold the same counts, which is no accident


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
    found += _void(name, classes)
    if label_ids == "auto" and (reduced := reduced_ids("labels", {*written.labels}, classes)):
        found.append(Finding("warning", name, reduced))
    shifted, wrapped = _shifted(totals.matrix), _wrapped(totals, predicted_classes)
    if wrapped:
        found.append(Finding("warning", name, InputError(wrapped, "save them as 16-bit PNG")))
    elif shifted:
        cure = "the ids seem to begin at another number than the class table's"
        found.append(Finding("warning", name, InputError(shifted, cure)))
    else:
        found += [*_swapped(name, totals.matrix, classes), *_unknown(name, totals, predicted_classes)]
    found += [*_one_picture(name, totals, classes), *_palettes(name, written, classes)]
    return sorted(found, key=lambda finding: finding.severity != "error")


def reduced_ids(seen: str, values: Collection[int], classes: ClassTable) -> InputError | None:
    """ADE20K whose ids were made 0..149 of 1..150, "other" 255, which the masks of the download never hold.

    Args:
        seen: whose ``values`` they are, in words.
    """
    last = ADE20K.ids[-1]
    if (classes.names, classes.ids) != (ADE20K.names, ADE20K.ids) or IGNORE_INDEX not in values or last in values:
        return None
    what = f"{seen} hold {IGNORE_INDEX} and no {last}: these look like ids reduced to 0..149, every class one off"
    cure = "give the masks of the download, or a class file with the 150 names in order, whose ids are 0..149"
    return InputError(what, cure)


def _void(name: str, classes: ClassTable) -> Iterator[Finding]:
    if void := void_among(classes.names):
        what = f"class {void[0]!r} is scored like any other"
        yield Finding("warning", name, InputError(what, void[1]))


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


def _wrapped(totals: Totals, classes: ClassTable) -> str:
    """Words where ids above 255 are predicted as what 8 bits hold of them, and none as it is; else none."""
    true, predicted, table = totals.matrix.sum(1), totals.matrix.sum(0), id_table(classes)
    ids = {c: {value for value, label in classes.mask_ids if label == c} for c in np.flatnonzero(true).tolist()}
    large = [c for c, values in ids.items() if values and min(values) > 255]
    pixels = 0
    for c in large:
        for value in {v & 255 for v in ids[c]} | {255}:
            column = int(table[value])
            known = column < len(true)
            pixels += totals.matrix[c, column] if known else totals.written.unknown[c, value]
    if not large or predicted[large].any() or pixels < max(FEWEST, WRITTEN_FOR * true[large].sum()):
        return ""
    left = f"{pixels / true[large].sum():.1%} of the pixels of such ids are predicted as what 8 bits hold of them"
    return f"no prediction holds an id above 255, and {left}"


def _swapped(name: str, matrix: np.ndarray, classes: ClassTable) -> Iterator[Finding]:
    """Classes in another order: each one's pixels go to the next of a ring, and the last one's to the first.

    Also, as of a class that no label holds there is no ring, those that go to one; and the commonest class as another.
    """
    true, square = matrix.sum(1), matrix[:, : len(matrix)]
    next_of, share = square.argmax(1), square.max(1) / np.maximum(true, 1)
    told: set[int] = set()
    waiting = {c for c in range(len(matrix)) if true[c] >= FEWEST and share[c] > SWAPPED and next_of[c] != c}
    while waiting:
        ring = [waiting.pop()]
        while int(next_of[ring[-1]]) in waiting:
            ring.append(int(next_of[ring[-1]]))
            waiting.remove(ring[-1])
        if next_of[ring[-1]] == ring[0]:
            told |= {*ring}
            names = [classes.names[c] for c in ring]
            ways = ", ".join(
                f"{share[a]:.1%} of {classes.names[a]} as {classes.names[b]}"
                for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)
            )
            what = f"{' and '.join(names)} are predicted for one another: {ways}"
            yield Finding("warning", name, InputError(what, ANOTHER_ORDER))
    goes = [c for c in range(len(matrix)) if share[c] > SWAPPED and next_of[c] != c and c not in told]
    alone = square.max(1) > SWAPPED * square.sum(0)[next_of]  # what goes there is of this class
    into = [c for c in goes if alone[c] and not true[next_of[c]]]
    if np.count_nonzero(true) > 1 and true[into].sum() > UNKNOWN_SHARE * true.sum():
        named = ", ".join(f"{share[c]:.1%} of {classes.names[c]} as {classes.names[next_of[c]]}" for c in into)
        what = f"predicted as a class that is in no label: {named}"
        yield Finding("warning", name, InputError(what, ANOTHER_ORDER))
    elif goes and 2 * true[goes].max() > true.sum() and np.count_nonzero(matrix.sum(0)) > 1:
        c = max(goes, key=lambda c: int(true[c]))
        what = f"{share[c]:.1%} of {classes.names[c]}, the commonest class, is predicted as {classes.names[next_of[c]]}"
        yield Finding("warning", name, InputError(what, ANOTHER_ORDER))


def _unknown(name: str, totals: Totals, classes: ClassTable) -> Iterator[Finding]:
    """Predicted ids that are no class: many, or few that stand where one class is."""
    matrix, noted = totals.matrix, {value for _, value in totals.written.unknown}
    unknown = {value for value in noted if value < COLOR}
    values = {classes.ids[c] for c in np.flatnonzero(matrix.sum(0)[: len(matrix)])} | unknown
    stray = matrix[:, len(matrix) :].sum() - sum(totals.written.unlabelled.values())
    stands_for, share = _stands_for(totals, classes), stray / max(1, matrix.sum())
    cause = turned_grey(sorted(values), classes) if unknown - BLACK_AND_WHITE else ""
    cause = cause or cause_of_unknown(values - {classes.ignored}, classes)
    if share > UNKNOWN_SHARE:
        strange = f"ids that are no class: {ranges(sorted(unknown)[:20])}" if unknown else "colours that are no class"
        strange += "" if unknown else f": {'; '.join(map(_value, sorted(noted)[:3]))}"
        plain = f"{strange}; check --class-table against the ids that were written"
        cause = cause or (f"{plain}: {stands_for}" if stands_for else plain)
        yield Finding("warning", name, InputError(f"{share:.1%} of the pixels are predicted as no class", cause))
    elif stands_for:
        yield Finding("warning", name, InputError(stands_for, cause or "save each class under its own id or colour"))


def _stands_for(totals: Totals, classes: ClassTable) -> str:
    """Words on an id that is no class and stands on more of a class's pixels than its own and than of others'.

    Of a class that is never predicted few pixels are enough.
    """
    true, predicted, pixels_of = totals.matrix.sum(1), totals.matrix.sum(0), totals.written.unknown
    shares = {
        (c, value): pixels / true[c]
        for (c, value), pixels in pixels_of.items()
        if pixels >= (FEWEST if predicted[c] else 1)
    }
    for (c, value), share in sorted(shares.items(), key=lambda item: -item[1]):
        elsewhere = sum(pixels for (other, v), pixels in pixels_of.items() if v == value and other != c)
        own = totals.matrix[c, c] / true[c]
        if share > max(own, WRITTEN_FOR if predicted[c] else 0, 2 * elsewhere / max(1, true.sum() - true[c])):
            whole = f"the pixels of {classes.names[c]} ({true[c] / true.sum():.2%} of all)"
            by = f"id {classes.ids[c]}" if value < COLOR else "colour"
            return f"{share:.1%} of {whole} are written as {_value(value)}, {own:.1%} by its own {by}"
    return ""


def _value(value: int) -> str:
    """An id, or a colour as ``R,G,B``."""
    return str(value) if value < COLOR else f"{value & 255},{value >> 8 & 255},{value >> 16 & 255}"


def _one_picture(name: str, totals: Totals, classes: ClassTable) -> Iterator[Finding]:
    """Predictions of one class alone, or that are the same picture again and again, of other labels or of the same."""
    true, predicted = totals.matrix.sum(1), totals.matrix.sum(0)
    of_images, labels = totals.counts[:, 2], totals.counts[:, 1]
    one = np.count_nonzero(predicted) == 1 and not predicted[len(true)]
    if one and totals.images > 1 and np.count_nonzero(true) > 1:
        what = f"every pixel is predicted as {classes.names[int(predicted.argmax())]}"
        yield Finding("warning", name, InputError(what, "look at a prediction: is it what the network said?"))
    elif totals.images >= IMAGES and np.count_nonzero(of_images[0]) > 1 and (of_images == of_images[0]).all():
        all_alike = " and labels" if (labels == labels[0]).all() else ""
        what = f"all {totals.images} predictions{all_alike} hold the same number of pixels of each class"
        yield Finding("warning", name, InputError(what, "are they one picture?"))


def _palettes(name: str, written: Written, classes: ClassTable) -> Iterator[Finding]:
    """Palettes that differ from file to file, so that an index does not mean the same in all; or from the class file.

    An error where the class file has the colours of palettes that differ: some of the indices are wrong for sure.
    """
    ids, colors = dict(classes.mask_ids), dict(classes.mask_colors)
    for side, masks in enumerate(("labels", "predictions")):
        found: dict[int, list[int]] = {}
        for (of, value, color), pixels in written.palettes.most_common():
            if of == side and pixels >= FEWEST:
                found.setdefault(value, []).append(color)
        meant = [(v, colors.get((c & 255, c >> 8 & 255, c >> 16))) for v, several in found.items() for c in several]
        known = bool(colors) and all(label is not None for _, label in meant)
        apart = next((value for value, several in found.items() if len(several) > 1), None)
        if apart is not None:
            yield Finding("error" if known else "warning", name, palettes_apart(masks, apart, found[apart]))
        elif known and any(label != ids.get(value) for value, label in meant):
            what = f"palettes of {masks} show other classes than their indices, which are what is read"
            yield Finding("warning", name, InputError(what, "give each class its id in the class file"))


def palettes_apart(
    masks: str,
    index: int,
    colors: Sequence[int],
    places: tuple[str, str] = ("in one file", "in another"),
    where: Path | None = None,
) -> InputError:
    """What to say of an index that has two colours, or more."""
    (one, other), (first, second) = places, (_value(color + COLOR) for color in colors[:2])
    what = f"palettes of {masks} differ: index {index} is {first} {one}, {second} {other}"
    cure = "indices are what is read; save ids by one palette, or the colours as RGB with a class file"
    return InputError(what, cure, where)


def same_counts(totals: Mapping[str, Totals]) -> Iterator[Finding]:
    """Runs or folders that are right and wrong by the same counts in each image: one given twice."""
    for a, b in combinations(totals, 2):
        first, second = totals[a].counts, totals[b].counts
        wrong = bool((first[:, 0] != first[:, 1]).any())  # two may well be without fault
        if wrong and len(first) > 1 and first.shape == second.shape and (first == second).all():
            what = f"has the counts of {a} in each image: the same predictions twice?"
            yield Finding("warning", b, InputError(what, "as two seeds of a setting they make its interval too short"))


def other_groups(groups: Mapping[str, Groups]) -> Iterator[Finding]:
    """Runs or folders whose head, middle and tail are of other classes than those of the first."""
    first, *others = groups
    for name in others:
        ours, theirs = ([each.classes for each in (g.head, g.middle, g.tail)] for g in (groups[first], groups[name]))
        if ours != theirs:
            what = f"has other classes in head, middle and tail than {first}, so these means are not comparable"
            cure = "give --training-counts, or compare the classes"
            yield Finding("warning", name, InputError(what, cure))


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
