"""Images and masks that the lines of a list file mean."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path, PureWindowsPath

from segloss.datasets.finding import list_images, without_suffix
from segloss.datasets.list_lines import columns, is_header, list_lines, rebased, refuse_twice
from segloss.datasets.missing import no_masks
from segloss.datasets.naming import learn_naming
from segloss.datasets.pairing import Pairing, pair
from segloss.errors import InputError, unknown_name
from segloss.files import composed

NUMBERS = re.compile(r"[\d\s,;.]*")  # run lengths, counts, labels
Kinds = tuple[dict[str, Path], dict[str, Path]]  # images and masks by name
Named = Callable[[str], str | None]
Paired = Callable[[str], tuple[Path, Path | None] | None]


def listed(root: Path, lists: Path, images: Path, masks: Path, split: str, classes: Sequence[str]) -> Pairing:
    """A list file's pairs: lines of one name, looked up in images and masks, or of two paths, image and mask.

    Behind either may stand the classes that the image labels.
    """
    images_of = list_images(images) if images.is_dir() else {}
    lines = list_lines(lists, images_of)
    form = lists.relative_to(root).as_posix()
    masks_of = list_images(masks) if masks.is_dir() else None
    lasts = _last_names(images_of)
    name_of = cache(partial(_listed_name, root, beside=lists.parent, images=images, images_of=images_of, lasts=lasts))
    two_of = cache(partial(_two_paths, root, beside=lists.parent, kinds=(images_of, masks_of or {})))
    lines, parts = _classes_aside(lines, name_of, two_of, classes, lists)
    names = [name_of(line) for line in lines]
    unread = names[0] is None and two_of(lines[0]) is None
    if unread and names[1:] and not PureWindowsPath(lines[0]).suffix and is_header(lines[0]):
        lines, names, parts = lines[1:], names[1:], parts[1:]
    if None in names:
        _refuse_doubtful(lists, lines, name_of, (images_of, masks_of or {}))
        two = [two_of(line) for line in lines]
        unknown = [line for line, pair, name in zip(lines, two, names, strict=True) if not (pair or name)]
        _refuse_unknown(root, lists, images, unknown, name_of)
        pairs = _listed_pairs(lists, lines, names, two, masks_of or {})
        refuse_twice(lists, [image for image, _ in pairs])
        shared = sum(mask is not None for _, mask in pairs) - len({mask for _, mask in pairs if mask is not None})
        form += f" of images and masks{f', {shared} of them on the mask of another image' * bool(shared)}"
        found = Pairing(form, pairs, unique_names(root, [image for image, _ in pairs]))
        found.doubts += _of_other_names(lists, pairs, images_of, masks_of or {})
        names = [*found.names]
    else:
        chosen = {name: images_of[name] for name in sorted(name for name in names if name)}
        refuse_twice(lists, [images_of[name] for name in names if name])
        if masks_of is None and split != "test":
            raise no_masks(split, masks)
        form = f"names from {form}, {images.name}/ and {masks.name}/"
        found = pair(chosen, masks_of, form, images, masks, images_of)
        if split == "test" and not found.pairs:
            found = pair(chosen, None, form, images, masks)
        found.lonely_masks = {}  # of other splits
    found.labelled = {name: part for name, part in zip(names, parts, strict=True) if name and part}
    found.lists = lists
    return found


def _classes_aside(
    lines: list[str], name_of: Named, two_of: Paired, classes: Sequence[str], lists: Path
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Lines without a last column of classes, and these classes; InputError for one that there is not."""
    found = [((line, ()) if name_of(line) or two_of(line) else _cut(line, name_of, two_of, classes)) for line in lines]
    for line, (_, part) in zip(lines, found, strict=True):
        unknown = next((name for name in part if name not in classes), None)
        if unknown is not None:
            raise unknown_name("class", unknown, classes, f"{lists}: {line}")
    return [line for line, _ in found], [part for _, part in found]


def _cut(line: str, name_of: Named, two_of: Paired, classes: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What is image, or image and mask, of a line, and the classes behind it; the line where there are none."""
    cuts = [
        (front, [composed(name.strip(" \"'")) for name in re.split(r"[;,|\t]", rest)]) for front, rest in columns(line)
    ]
    for front, names in cuts:
        if two_of(front):
            return front, tuple(filter(None, names))
    for front, names in cuts:
        if name_of(front) and {*names} & {*classes}:
            return front, tuple(filter(None, names))
    return line, ()


def _refuse_doubtful(lists: Path, lines: Sequence[str], name_of: Named, kinds: Kinds) -> None:
    """InputError where each line has the name of an image and of a mask, and a number that may be no name of a mask, or
    the name of another image."""
    images_of, masks_of = kinds
    cuts = [cut[-1] if (cut := [*columns(line)]) else (line, "") for line in lines]
    found = [(name_of(front), number) for front, number in cuts]
    cure = "write one name a line, or the paths of image and mask with their endings"
    if all(name in masks_of and number.isdigit() for name, number in found):
        for line, (name, number) in zip(lines, found, strict=True):
            if name != number:
                what = f"lists {line}: image and mask are both called {name}, so {number} may be a count or a label"
                raise InputError(what, cure, lists)
    named = [(text, name_of(text)) for _, text in cuts]
    others = [n if n and PureWindowsPath(text).suffix in ("", images_of[n].suffix) else None for text, n in named]
    if all(name in masks_of and other not in (None, name) for (name, _), other in zip(found, others, strict=True)):
        raise InputError(f"lists {lines[0]}: two images, or an image and the mask of another?", cure, lists)


def _refuse_unknown(root: Path, lists: Path, images: Path, unknown: list[str], name_of: Named) -> None:
    """InputError for lines that are neither an image nor image and mask; of names and numbers it says what to write."""
    if unknown:
        cuts = (cut for line in unknown for cut in columns(line))
        numbers = any(name_of(front) and NUMBERS.fullmatch(rest) for front, rest in cuts)
        plain = "write one name a line, or move it away if it is no list"
        cure = plain if numbers else "add the files or remove the line"
        where = f"which is no image of {images} and no image and mask below {root}"
        raise InputError(f"lists {unknown[0]} ({len(unknown)} in all), {where}", cure, lists)


def _listed_pairs(
    lists: Path,
    lines: list[str],
    names: list[str | None],
    pairs: list[tuple[Path, Path | None] | None],
    masks_of: dict[str, Path],
) -> list[tuple[Path, Path | None]]:
    """Image and mask of every line; InputError for a line of one name though others are of two."""
    masks = {*masks_of.values()}
    turned = [line for line, pair in zip(lines, pairs, strict=True) if pair and pair[0] in masks]
    if turned:
        raise InputError(f"lists {turned[0]}, whose first file is a mask", "write the image first", lists)
    if None in pairs:
        one, two = lines[pairs.index(None)], lines[names.index(None)]
        what = f"lists {one}, an image, and {two}, image and mask"
        raise InputError(what, "write all lines in one form", lists)
    return [pair for pair in pairs if pair]


def _of_other_names(
    lists: Path, pairs: Sequence[tuple[Path, Path | None]], images_of: dict[str, Path], masks_of: dict[str, Path]
) -> list[InputError]:
    """What to say of images that have a mask of their own name and are given that of another image's."""
    naming = learn_naming(images_of, masks_of)
    image_keys = {path: naming.key(name) for name, path in images_of.items()}
    mask_keys = {path: naming.mask_key(name) for name, path in masks_of.items()}
    own, known = {key: path for path, key in mask_keys.items()}, {*image_keys.values()}
    keys = [(image, mask, image_keys.get(image), mask_keys.get(mask or lists)) for image, mask in pairs]
    crossed = [one for one in keys if one[2] != one[3] and one[2] in own and one[3] in known]
    if not crossed:
        return []
    image, mask, key, _ = crossed[0]
    more = f" (and {len(crossed) - 1} more lines so)" if crossed[1:] else ""
    what = f"gives {image.name} the mask {mask.name if mask else ''}, though {own[key or ''].name} is there{more}"
    return [InputError(what, "pair by names, with one name a line, unless numbers of images and masks differ", lists)]


def _last_names(images_of: dict[str, Path]) -> dict[str, str]:
    """Images by what their files are called, with ending and without, where no other is called so."""
    called = [
        (last, name) for name, path in images_of.items() for last in {name.rsplit("/", 1)[-1], composed(path.name)}
    ]
    counts = Counter(last for last, _ in called)
    return {last: name for last, name in called if counts[last] == 1}


def _listed_name(
    root: Path, line: str, beside: Path, images: Path, images_of: dict[str, Path], lasts: dict[str, str]
) -> str | None:
    """The image that a line of one name or path means; None if it is none."""
    for text in dict.fromkeys((line, line.strip("\"'"))):
        plain = composed(PureWindowsPath(text).as_posix())
        for name in (plain, without_suffix(plain)):
            if name in images_of:
                return name
    path = rebased(root, line, beside)
    if path is None:
        return lasts.get(plain)
    if images not in path.parents:
        return None
    name = composed(path.relative_to(images).with_suffix("").as_posix())
    return name if images_of.get(name) == path else None  # another file may have the same stem


def _two_paths(root: Path, line: str, beside: Path, kinds: Kinds) -> tuple[Path, Path | None] | None:
    """Image and mask of a line: paths, or names in the folders of images and masks."""
    for texts in columns(line):
        image, mask = (
            rebased(root, text, beside) or _named(without_suffix(text.strip("\"'")), kind)
            for text, kind in zip(texts, kinds, strict=True)
        )
        if image is not None and mask is not None:
            return image, mask
    return None


def _named(name: str, files: dict[str, Path]) -> Path | None:
    return files.get(composed(PureWindowsPath(name).as_posix()))


def unique_names(root: Path, images: list[Path]) -> list[str]:
    """The stems; where two are alike the paths below ``root``, and where these are too, with their endings."""
    paths = [image.relative_to(root) for image in images]
    stems = [path.stem for path in paths]
    plain = [path.with_suffix("").as_posix() for path in paths]
    return next((n for n in (stems, plain) if len({*n}) == len(n)), [path.as_posix() for path in paths])
