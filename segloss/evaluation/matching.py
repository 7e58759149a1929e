"""Which prediction belongs to which label, by the names of their files; and what the ids of both mean."""

import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from segloss.datasets import TABLES
from segloss.datasets.class_files import read_class_file
from segloss.datasets.classes import ClassTable
from segloss.datasets.finding import ARRAYS, image_files, list_images, walk
from segloss.datasets.folder import CLASS_FILES
from segloss.datasets.missing import unread_pictures
from segloss.datasets.naming import Words, files_named, learn_naming
from segloss.datasets.splits import SPLIT_NAMES, splits_of
from segloss.datasets.tables import CITYSCAPES, LABEL_ENDINGS, LabelKind
from segloss.errors import InputError, unknown_name
from segloss.evaluation.posterior_maps import files_of, number_classes

COMMON = "folders that all files of a side lie in left out"
ENDINGS = tuple(LABEL_ENDINGS.values())
FRAME = re.compile(r"[^/_]+_\d{6}_\d{6}(?=_|$)")  # CITY_SEQ_FRAME of Cityscapes' file names
IDS = re.compile(r"(?i)train_?ids?")  # in a name, which speaks of no split
OF_SPLITS = frozenset(name for names in SPLIT_NAMES.values() for name in names)
KEPT = {"predictions": "the class ids", "images": "the photographs"}
SHOWN = 5  # names in the message on files without partner


@dataclass(frozen=True)
class Triple:
    """One image: its name, the predicted mask and the true one."""

    name: str
    predicted: Path
    true: Path


class Matched(NamedTuple):
    """Labels and their predictions.

    Attributes:
        triples: the pairs.
        kind: of the true masks, where they are Cityscapes'.
        unmatched: with ``skip_bad`` a line for each mask without partner, which is left out.
        form: words on what was taken off the names of either side; none where they are the same.
        passed_over: of either folder, files that seem to be masks and are not looked at.
    """

    triples: list[Triple]
    kind: LabelKind | None
    unmatched: list[str]
    form: str
    passed_over: list[InputError]


class Keys(NamedTuple):
    """Names under which the files of two sides can be the same, and what was taken off to get them."""

    predicted: dict[str, str]
    true: dict[str, str]
    form: str = ""


def class_table(choice: str | None, labels: Path) -> ClassTable:
    """A built-in table, a class file, or the one beside the labels; Cityscapes is known by its file names.

    Raises:
        InputError: nothing says what the ids mean.
    """
    if choice in TABLES:
        return TABLES[choice]
    if choice is not None:
        if not Path(choice).is_file():
            raise unknown_name("--class-table", choice, (*TABLES, "a class file"))
        return read_class_file(Path(choice))
    require_folder(labels, "labels")
    for folder in (labels, labels.parent, labels.parent.parent):
        for name in CLASS_FILES:
            if (folder / name).is_file():
                return read_class_file(folder / name)
    if any(name.endswith(ENDINGS) for name in list_images(labels)):
        return CITYSCAPES
    raise InputError(
        "no class file says what the ids mean", f"give --class-table {', '.join(TABLES)} or a class file", labels
    )


def require_folder(path: Path, flag: str) -> Path:
    if not path.is_dir():
        raise InputError("is no folder", f"check --{flag}", path)
    return path


def _by_key(files: dict[str, Path], keys: dict[str, str], what: str) -> dict[str, Path]:
    """Files by the key of their name; InputError for two of one."""
    found: dict[str, Path] = {}
    for name, path in files.items():
        if keys[name] in found:
            raise InputError(f"a second {what} of {keys[name]} beside {found[keys[name]]}", "keep one of the two", path)
        found[keys[name]] = path
    return found


def _labels_of(folder: Path) -> tuple[dict[str, Path], LabelKind | None, list[InputError]]:
    """True masks by name, the kind of Cityscapes' masks where they are such, and what is passed over."""
    files = list_images(require_folder(folder, "labels"))
    over = _unread(folder, files)
    for kind, ending in LABEL_ENDINGS.items():
        chosen = {name: path for name, path in files.items() if name.endswith(ending)}
        if chosen:
            return chosen, kind, [*over, *_unchosen(folder, files, chosen, ending)]
    if not files:
        raise InputError("holds no masks", "check --labels", folder)
    return files, None, over


def _held(folder: Path) -> str:
    """``: 8 files .mat, 1 files .txt, which are not read``."""
    files = (Path(parent, name) for parent, _, names in walk(folder) for name in names)
    paths = [path for path in files if path.is_file() and not path.name.startswith(".")]
    endings = Counter("".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix for path in paths)
    if not endings:
        return ": it is empty"
    counted = [f"{count} files {ending or 'without ending'}" for ending, count in endings.most_common(3)]
    return f": {', '.join(counted)}, which are not read"


def _unread(folder: Path, files: dict[str, Path]) -> list[InputError]:
    """What is said of pictures of other formats in a folder of masks, and of arrays beside pictures."""
    found = []
    if files and (unread := unread_pictures(folder.absolute())):
        found.append(InputError(f"holds {len(files)} masks{unread}", "save them as PNG", folder))
    if any(path.suffix.lower() != ARRAYS for path in files.values()):
        names = {path.with_suffix("") for path in files.values()}
        arrays = [path.name for path in image_files(folder, (ARRAYS,)) if path.with_suffix("") not in names]
        if arrays:
            what = f"holds pictures, beside which {len(arrays)} arrays are passed over: {some(arrays)}"
            found.append(InputError(what, "save all masks as PNG", folder))
    return found


def _unchosen(folder: Path, files: dict[str, Path], chosen: dict[str, Path], *endings: str) -> list[InputError]:
    """What is said of files without an ending that others have, and that are not another picture of one of these."""
    stems = {name.removesuffix(ending) for name in chosen for ending in endings}
    stems |= {stem[: found.start()] for stem in stems if (found := re.search(r"_[^\W\d_]+$", stem))}  # a of a_gt
    frames = {_frame(name) for name in chosen}
    others = [name for name in files if name not in chosen and _frame(name) not in frames]
    others = [name for name in others if not any(name[:cut] in stems for cut in range(1, len(name) + 1))]
    if not others:
        return []
    what = f"{len(others)} of {len(files)} files are not named *{' or *'.join(endings)} as others are, and passed over"
    return [InputError(f"{what}: {some(others)}", "name all masks alike", folder)]


def _frame(name: str) -> str:
    found = FRAME.search(name.rsplit("/", 1)[-1])
    return found[0] if found else name


def some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _keys(predicted: dict[str, Path], true: dict[str, Path], side: str = "predictions") -> Keys:
    """Under which names predictions and labels can be the same, see :func:`match`; their own where nothing is alike.

    Args:
        side: what the first are called.

    Raises:
        InputError: a label has several predictions, or a prediction several labels; or what is taken off two names
            speaks of different splits.
    """
    for places, left_out in ((_whole, ""), (_below_common_folders, COMMON), (_last, "folders left out")):
        for turned in (False, True):
            first, second = (predicted, true) if turned else (true, predicted)
            of_first, of_second = places(first), places(second)
            images = {of_first[name]: path for name, path in first.items()}
            masks = {of_second[name]: path for name, path in second.items()}
            naming = learn_naming(images, masks)
            keys = {name: naming.key(of_first[name]) for name in first}
            mask_keys = {name: naming.mask_key(of_second[name]) for name in second}
            common = len({*keys.values()} & {*mask_keys.values()})
            if common and (places is _whole or 2 * common > min(len(images), len(masks))):
                for name in images:
                    if several := naming.several(name):
                        what = f"holds several {'labels' if turned else side} of {name}: {files_named(several, masks)}"
                        cure = f"keep {'labels' if turned else KEPT[side]} alone in the folder, one for each"
                        raise InputError(what, cure, masks[several[0]].parent)
                ours, theirs = (keys, naming.words, of_first), (mask_keys, naming.mask_words, of_second)
                (of_predicted, words, kept), (of_true, true_words, true_kept) = (
                    (ours, theirs) if turned else (theirs, ours)
                )
                splits = _splits(of_predicted, words, kept), _splits(of_true, true_words, true_kept)
                _require_one_split(predicted, true, *splits)
                named = (("predictions", words), ("labels", true_words))
                said = [f"{side} named {before}NAME{after}" for side, (before, after) in named if before + after]
                return Keys(of_predicted, of_true, ", ".join(filter(None, (*said, left_out))))
    return Keys(_whole(predicted), _whole(true))


def _require_no_maps(folder: Path, files: dict[str, Path], error: InputError) -> None:
    """InputError in place of this one, where a label has several predictions as each is a picture of one class."""
    folders = {path.parent for path in files.values()}
    if error.where in folders and folder not in folders and all(number_classes(files_of(each)) for each in folders):
        what = f"holds folders of several pictures: {some(sorted(path.name for path in folders))}"
        cure = "say --prediction-form probability if each is of a class, or keep one mask for each label"
        raise InputError(what, cure, folder) from error


def _splits(keys: dict[str, str], words: Words, kept: dict[str, str]) -> dict[str, tuple[str, set[str]]]:
    """By key the name, and the splits that the words and folders which were taken off it speak of."""
    of_words = {*splits_of(IDS.sub("", " ".join(words)))}
    found = {}
    for name, key in keys.items():
        folders = name[: len(name) - len(kept[name])].lower().split("/")
        found[key] = name, of_words | {*splits_of(" ".join(folder for folder in folders if folder in OF_SPLITS))}
    return found


def _require_one_split(
    predicted: dict[str, Path],
    true: dict[str, Path],
    ours: dict[str, tuple[str, set[str]]],
    theirs: dict[str, tuple[str, set[str]]],
) -> None:
    """InputError for the first pair whose names speak of different splits."""
    for key, (name, splits) in ours.items():
        other, true_splits = theirs.get(key, ("", set()))
        if splits and true_splits and splits.isdisjoint(true_splits):
            of_true = " and ".join(sorted(true_splits))
            what = f"is of {' and '.join(sorted(splits))} by its name, {true[other]} of {of_true}"
            raise InputError(what, "give folders of one split, or rename the files if they are", predicted[name])


def match_images(folder: Path, labels: dict[str, Path]) -> dict[str, Path]:
    """Photographs by the names of the labels that they belong to, brought together as :func:`match` does it.

    Raises:
        InputError: none belongs to a label, or two are of one name.
    """
    files = list_images(require_folder(folder, "images"))
    if all(FRAME.search(name) for name in labels):
        of_image, of_label = ({name: _frame(name) for name in side} for side in (files, labels))
    else:
        of_image, of_label, _ = _keys(files, labels, "images")
    found = _by_key(files, of_image, "image")
    matched = {name: found[of_label[name]] for name in labels if of_label[name] in found}
    if not matched:
        what = f"holds no image of the labels: {some(sorted(files))}" if files else "holds no images"
        raise InputError(what, f"check --images, the photographs of {some(sorted(labels))}", folder)
    return matched


def _whole(names: Collection[str]) -> dict[str, str]:
    return {name: name for name in names}


def _below_common_folders(names: Collection[str]) -> dict[str, str]:
    paths = {name: PurePosixPath("/", name) for name in names}
    above = os.path.commonpath([path.parent for path in paths.values()]) if paths else "/"
    return {name: path.relative_to(above).as_posix() for name, path in paths.items()}


def _last(names: Collection[str]) -> dict[str, str]:
    return {name: PurePosixPath(name).name for name in names}


def match(predictions: Path, labels: Path, *, skip_bad: bool = False, files: dict[str, Path] | None = None) -> Matched:
    """Every true mask with its prediction.

    By CITY_SEQ_FRAME where all labels are Cityscapes', else as images and masks of a data set are brought together
    (:func:`segloss.datasets.naming.learn_naming`): the same names, an ending of either side (``a_pred``, ``a.jpg.png``,
    ``a_L``), or words of each (``a_rgb_anon`` and ``a_gt_labelIds``). Below the same folders; else leaving out the
    folders that all files of a side lie in; else all folders.

    ``skip_bad``: leave out masks without partner. ``files``: the predictions by name, where they are no images.

    Raises:
        InputError: predictions are missing or belong to no label; the message lists them. With ``skip_bad`` only if
            no prediction has a label. Two predictions, or two labels, are of one name; or what tells the names of a
            pair apart speaks of different splits.
    """
    true, kind, over = _labels_of(labels)
    require_folder(predictions, "predictions")
    if files is None:
        files = list_images(predictions)
        over += _unread(predictions, files)
    if not files:
        cure = "save PNG of class ids, or .npy or .npz of probabilities (C, H, W)"
        raise InputError(f"holds no masks{_held(predictions)}", cure, predictions)
    if kind is not None and any(name.endswith(ENDINGS) for name in files):
        chosen = {name: path for name, path in files.items() if name.endswith(ENDINGS)}  # not the colour images beside
        over += _unchosen(predictions, files, chosen, *ENDINGS)
        files = chosen
    if kind is not None and all(FRAME.search(name) for name in true):
        of_predicted, of_true, form = {name: _frame(name) for name in files}, {name: _frame(name) for name in true}, ""
    else:
        try:
            of_predicted, of_true, form = _keys(files, true)
        except InputError as error:
            _require_no_maps(predictions, files, error)
            raise
    predicted, labelled = _by_key(files, of_predicted, "prediction"), _by_key(true, of_true, "label")
    lonely = {
        f"no prediction in {predictions} for": sorted(set(labelled) - set(predicted)),
        f"no label in {labels} for": sorted(set(predicted) - set(labelled)),
    }
    if any(lonely.values()) and not (skip_bad and set(labelled) & set(predicted)):
        found = ", and ".join(f"{what} {len(names)}: {some(names)}" for what, names in lonely.items() if names)
        cure = "masks are matched by what their names share, add them or take out their partners"
        can_skip = bool(set(labelled) & set(predicted))
        raise InputError(found, f"{cure} (--skip-bad leaves such images out)" if can_skip else cure)
    skipped = [f"{name}: {what.removesuffix(' for')}" for what, names in lonely.items() for name in names]
    both = sorted(set(labelled) & set(predicted))
    paired = [Triple(name, predicted[name], labelled[name]) for name in both]
    return Matched(paired, kind, skipped, form, over)
