"""List files by whatever name: what says which images are of which split is read or refused, never passed over."""

import csv
import io
import os
import re
from collections.abc import Container, Iterator
from pathlib import Path, PureWindowsPath

from segloss.datasets.finding import image_files, without_suffix
from segloss.datasets.listing import BETWEEN, is_comment, read_list
from segloss.datasets.missing import MissingSplitError
from segloss.errors import InputError

SUFFIXES = (".txt", ".lst", ".list", ".csv", ".tsv")
TABLES = (".xlsx", ".xls", ".ods", ".mat", ".pkl", ".pickle", ".npy", ".npz", ".parquet", ".feather")
NAMED_LIST = re.compile(
    r"(train|training|val|valid|validation|test|testing|trainval|splits?|folds?|partitions?)"
    r"([ _-]?(list|ids?|idx|ind(ex|ices)|split|set|data|images?|files?|names?))?"
)
OF_LISTS = re.compile(r"(?i)(image)?(sets?|splits?|lists?|folds?|partitions?|cv)")  # a folder
OF_FOLDS = re.compile(r"(?i)(fold|split|set|part|subset|cv)?[ _-]?\d+")  # a file
UNREAD = (".json", ".jsonl", ".yaml", ".yml", ".xml")  # that may hold lists, which are not read
WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
WORDS |= {"test": "test", "testing": "test", "trn": "train", "tst": "test", "eval": "val", "holdout": "test"}
GLUED = re.compile(  # behind a known word: oval, interval, strain and latest speak of no split
    r"(voc|sbd|coco|ade|camvid|cityscapes|kitti|bdd|vistas|nyu|isic|loveda|potsdam|pascal|data|images?|imgs?|masks?"
    r"|labels?|annotations?|lists?|files?|names?|ids?|sets?|splits?|folds?|mini|sub|my|new)(train|val|test)"
)
OF_SPLITS = re.compile(r"is_?(train|val|valid|test)(ing|ation)?|(split|subset|partition|fold|phase)s?(_?(id|idx|no))?")
HEADERS = ("image", "img", "id", "name", "file", "path", "mask", "label", "annotation", "gt", "split", "stem", "class")
OF_HEADERS = re.compile(rf"[ _.-]*(?:(?:{'|'.join(HEADERS)})(?:e?s|led)?[ _.-]*)+")  # filename, image_path, Labels
NO_HEADER = ("", "Unnamed: 0")  # what pandas writes above the numbers of rows
RUN_FILES = ("config.yaml", "used.yaml")  # of every run folder
MOST_LINES, MOST_BYTES, MOST_FILES = 200, 2**26, 64  # that are looked at to find out whether a file is a list


def other_list(root: Path, split: str, images: Path, masks: Path) -> Path | None:
    """The file that lists a split where none of the usual names does; None where no file lists images.

    Raises:
        InputError: a file lists images of a split in a way that is not read, or does not say of which, or there are
            two for one split.
        MissingSplitError: there are lists, but none of this split.
    """
    names, stems = _names_of(images)
    found: dict[str, Path] = {}
    tables: list[Path] = []
    nameless: list[Path] = []
    for path in _files(root, images, masks):
        if path.suffix.lower() in TABLES:
            tables.append(path)
            continue
        splits = splits_of(path.stem)
        if not splits and not _has_column_of_splits(path):
            if _lists_a_part(path, stems, len(names)):
                nameless.append(path)
            continue
        if not _names_images(path, stems):
            _refuse_strange(path, {*splits} or {split}, split, images)
            continue
        if len(splits) != 1 or path.suffix.lower() in UNREAD:
            what = "lists images of several splits" if len(splits) != 1 else "lists images in a form that is not read"
            raise InputError(what, "write train.txt and val.txt with a name or path a line", path)
        if splits[0] in found:
            what = f"lists images of {splits[0]}, and {found[splits[0]]} too"
            raise InputError(what, "keep one of the two", path)
        found[splits[0]] = path
    if nameless and not found:
        what = "lists a part of the images, and its name does not say of which split"
        raise InputError(what, "name the lists train.txt and val.txt, or move it away", nameless[0])
    if tables and not found:
        what = "may list the images of a split, in a form that is not read"
        raise InputError(what, "write train.txt and val.txt with a name or path a line, or move it away", tables[0])
    if found and split not in found:
        first = found.get("train", next(iter(found.values())))
        kind = MissingSplitError if "train" in found else InputError
        what = f"is a list, but there is none of {split}, so there is no split {split!r}"
        raise kind(what, f"write {split}.txt beside it, or choose another split", first)
    return found.get(split)


def _refuse_strange(path: Path, splits: set[str], split: str, images: Path) -> None:
    """InputError for a file that is called a list of this split, or of train or val, and names other images."""
    asked = splits & {split, "train", "val"} and path.suffix.lower() not in UNREAD
    if asked and NAMED_LIST.fullmatch(path.stem.lower()):
        first = next((line.strip() for line in _head(path) if line.strip()), "")
        what = f"is called a list, but most of its lines are no images of {images}"
        what += f", as {first[:60]}" if first else "; it is empty"
        raise InputError(what, "mend its names, or move it away", path)


def list_beside(train: Path, split: str, images: Path) -> Path | None:
    """The list of a split under another of its names, beside ``train.txt``; InputError where there are two."""
    files = [path for path in sorted(train.parent.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
    files = [path for path in files if path != train and splits_of(path.stem) == [split]]
    stems = _names_of(images)[1] if files else set()
    found = [path for path in files if _names_images(path, stems)]
    if len(found) > 1:
        raise InputError(f"lists images of {split}, and {found[0]} too", "keep one of the two", found[1])
    return found[0] if found else None


def _names_of(images: Path) -> tuple[set[str], set[str]]:
    """The images below a folder by their names in it, and these with their stems."""
    names = {path.relative_to(images).with_suffix("").as_posix() for path in image_files(images)}
    return names, names | {name.rsplit("/", 1)[-1] for name in names}


def list_lines(path: Path, names: Container[str] = ()) -> list[str]:
    """As ``read_list``; the cells of a CSV file are parted by tabs, without their quotes."""
    lines = read_list(path, names)
    if path.suffix.lower() != ".csv":
        return lines
    delimiter = max(",;\t|", key=lines[0].count)
    rows = csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter, skipinitialspace=True)
    return ["\t".join(cell.strip() for cell in row).strip() for row in _without_index([*rows], names)]


def _without_index(rows: list[list[str]], names: Container[str]) -> list[list[str]]:
    """Rows without pandas' column of their numbers, which are the names of no images."""
    if any(len(row) < 2 for row in rows):
        return rows
    headed, numbers = rows[0][0].strip() in NO_HEADER, [row[0].strip() for row in rows]
    counts = all(map(str.isdigit, numbers[1:])) if headed else numbers == [*map(str, range(len(rows)))]
    is_index = counts and not any(number in names for number in numbers)
    return [row[1:] for row in rows] if is_index else rows


def is_header(line: str) -> bool:
    """Whether the cells of a line are made of words that stand above columns, and of nothing else.

    >>> is_header("image_path,mask"), is_header("img_1 mask_1"), is_header("video")
    (True, False, False)
    """
    return all(OF_HEADERS.fullmatch(cell.lower()) for cell in BETWEEN.split(line))


def _files(root: Path, images: Path, masks: Path) -> Iterator[Path]:
    """What may be lists in the data folder and three levels below; of images and masks only what lies at their top."""
    for parent, folders, files in os.walk(root):
        place = Path(parent)
        deep = len(place.relative_to(root).parts)
        kind = place in (images, masks)
        if {*RUN_FILES} <= {*files}:  # a run that was trained into the data folder
            folders[:] = []
            continue
        folders[:] = [] if deep == 3 or kind else sorted(name for name in folders if not name.startswith("."))
        some = [Path(parent, name) for name in sorted(files) if _may_list(name.lower())]
        some = [path for path in some if not path.name.startswith(".") and (not kind or splits_of(path.stem))]
        yield from (
            path
            for path in some[:MOST_FILES]
            if path.is_file() and (path.suffix.lower() in TABLES or path.stat().st_size <= MOST_BYTES)
        )


def _may_list(name: str) -> bool:
    stem, dot, _ = name.rpartition(".")
    if name.endswith(TABLES):
        return NAMED_LIST.fullmatch(stem) is not None
    return name.endswith((*SUFFIXES, *UNREAD)) or (not dot and bool(splits_of(name)))


def splits_of(stem: str) -> list[str]:
    """The splits that a file's name speaks of.

    >>> splits_of("voc2012_trainval"), splits_of("camvidtest"), splits_of("removal")
    (['train', 'val'], ['test'], [])
    """
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", stem).lower())
    found: list[str] = []
    for word in words:
        if word in WORDS:
            found.append(WORDS[word])
        elif re.match(r"(train|val|test)(?!ed|er|ue|ve|ley|[ei]s|s?$)", word) or GLUED.fullmatch(word):
            found += [part for part in ("train", "val", "test") if part in word]
    return [*dict.fromkeys(found)]


def _head(path: Path) -> list[str]:
    with path.open("rb") as file:
        head = file.read(2**16)
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    return head.decode("utf-16" if wide else "utf-8-sig", "replace").splitlines()[:MOST_LINES]


CELLS = re.compile(r"[\t,;|{}\[\]\"':]+|\s{2,}")


def _has_column_of_splits(path: Path) -> bool:
    """Whether most lines have a cell that is the name of a split, or the first calls a column so (``is_train``).

    Of a JSON or YAML file: whether it has two such names, or one and is called after splits itself.
    """
    lines = [[cell.strip().lower() for cell in re.split(r"[\s,;|{}\[\]\"':]+", line)] for line in _head(path)]
    if path.suffix.lower() in UNREAD:
        named = {WORDS[cell] for line in lines for cell in line if cell in WORDS}
        return len(named) > 1 or bool(named and NAMED_LIST.fullmatch(path.stem.lower()))
    if lines and len(lines[0]) > 1 and any(OF_SPLITS.fullmatch(cell) for cell in lines[0]):
        return True
    return bool(lines) and 2 * sum(any(cell in WORDS for cell in line) for line in lines) > len(lines)


def _lists_a_part(path: Path, stems: set[str], images: int) -> bool:
    """Whether a file that lies among lists, or is numbered as folds are, names some of the images and not all."""
    if not OF_LISTS.fullmatch(path.parent.name) and not OF_FOLDS.fullmatch(path.stem):
        return False
    return path.suffix.lower() not in UNREAD and _names_images(path, stems) and len(read_list(path, stems)) < images


def _names_images(path: Path, names: set[str]) -> bool:
    """Whether most of a list's lines, or a tenth of a JSON file's words, are names or paths of images."""
    lines = [line for line in _head(path) if line.strip() and not is_comment(line.strip(), names)]
    if path.suffix.lower() in UNREAD:
        return any(_is_name(cell, names) for line in lines for cell in CELLS.split(line))
    hits = sum(any(_is_name(cell, names) for cell in (line, *BETWEEN.split(line))) for line in lines)
    return 2 * hits >= len(lines) > 0


def _is_name(cell: str, names: set[str]) -> bool:
    path = without_suffix(PureWindowsPath(cell.strip().strip("\"'")).as_posix())
    return path in names or path.rsplit("/", 1)[-1] in names
