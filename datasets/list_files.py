"""List files by whatever name: what says which images are of which split is read or refused, never passed over."""

import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

from segloss.datasets.finding import image_files, walk, without_suffix
from segloss.datasets.list_lines import BETWEEN, is_comment, read_list
from segloss.datasets.missing import MissingSplitError
from segloss.datasets.splits import WORDS, splits_of
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
OF_SPLITS = re.compile(r"is_?(train|val|valid|test)(ing|ation)?|(split|subset|partition|fold|phase)s?(_?(id|idx|no))?")
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


def _files(root: Path, images: Path, masks: Path) -> Iterator[Path]:
    """What may be lists in the data folder and three levels below; of images and masks only what lies at their top."""
    for parent, folders, files in walk(root):
        place = Path(parent)
        deep = len(place.relative_to(root).parts)
        kind = place in (images, masks)
        if {*RUN_FILES} <= {*files}:  # a run that was trained into the data folder
            folders[:] = []
            continue
        folders[:] = [] if deep == 3 or kind else folders
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
