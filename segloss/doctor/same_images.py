"""Images that occur twice, within a split or in two."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from segloss.datasets.bands import Bands, read_bands
from segloss.datasets.images import read_header
from segloss.datasets.naming import sources_of
from segloss.doctor.findings import SAMPLE, Finding, SplitFacts, more_files
from segloss.errors import InputError

SMALLEST_FILE = 2**12  # bytes that may all be headers
FEWEST = 3  # images of one mask; two may be copies, one of them brighter
ENDS = 2**16  # bytes at either end of a file that tell files of one size apart


def _file_digest(path: Path) -> str:
    digest = hashlib.sha1()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _ends_digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha1(file.read(ENDS))
        file.seek(max(0, path.stat().st_size - ENDS))
        digest.update(file.read())
    return digest.hexdigest()


def _alike(members: list[tuple[str, Path]], mark: Callable[[Path], object]) -> list[list[tuple[str, Path]]]:
    """The files that share a mark with another."""
    groups: dict[object, list[tuple[str, Path]]] = defaultdict(list)
    for split, path in members:
        with suppress(OSError):  # a file that cannot be read is a finding of its own, where it is examined
            groups[mark(path)].append((split, path))
    return [group for group in groups.values() if len(group) > 1]


def same_images(splits: Sequence[SplitFacts], check: str) -> Iterator[Finding]:
    """Images that occur twice: by their pixels where all were decoded, else by file size and both ends of the file."""
    if check == "all":
        marks = {
            facts.dataset.pairs[place][0]: pair.digest
            for facts in splits
            for place, pair in zip(facts.places, facts.pairs, strict=True)
            if pair.digest
        }
        decoded = [(s.dataset.split, path) for s in splits for path, _ in s.dataset.pairs if path in marks]
        groups = _alike(decoded, marks.__getitem__)
    else:  # ever dearer looks at ever fewer files
        groups = [[(s.dataset.split, path) for s in splits for path, _ in s.dataset.pairs if path.is_file()]]
        for mark in (lambda path: path.stat().st_size, _ends_digest, _file_digest):
            groups = [alike for group in groups for alike in _alike(group, mark)]
    bands = {split.dataset.split: split.dataset.bands for split in splits}
    groups = [group for group in groups if not _is_blank(group[0][1], bands[group[0][0]])]
    twins: dict[tuple[str, ...], list[tuple[Path, Path]]] = defaultdict(list)
    for members in groups:
        (split, path), (other, twin) = members[0], members[-1]
        twins[(other, split) if other != split else (split,)].append((path, twin))
    for names, pairs in twins.items():
        first, second = pairs[0]
        what = f"the same image as {first}{f' of {names[1]}' if len(names) == 2 else ''}{more_files(pairs)}"
        if len(names) == 2:
            yield Finding("error", names[0], InputError(what, "keep each image in one split", second))
        else:
            yield Finding("warning", names[0], InputError(what, "remove one", second))


def same_masks(splits: Sequence[SplitFacts]) -> Iterator[Finding]:
    """Images that are not the same and have one mask, of several classes: a script wrote one for all of them."""
    groups: dict[str, list[tuple[str, Path, Path]]] = defaultdict(list)
    sources = sources_of([name for facts in splits for name in facts.dataset.names])
    pictures: dict[Path, str] = {}
    for facts in splits:
        for place, pair in zip(facts.places, facts.pairs, strict=True):
            (image, mask), histogram = facts.dataset.pairs[place], pair.histogram
            if mask and pair.mask_digest and histogram is not None and (histogram[:-1] > 0).sum() > 1:
                groups[pair.mask_digest].append((facts.dataset.split, image, mask))
                pictures[image] = sources[facts.dataset.names[place]]
    many = [group for group in groups.values() if len({pictures[image] for _, image, _ in group}) >= FEWEST]
    for group in sorted(many, key=len, reverse=True)[:1]:
        with suppress(OSError):
            if len({_file_digest(image) for _, image, _ in group[:SAMPLE]}) >= FEWEST:
                (_, _, first), (split, _, second) = group[:2]
                what = f"the same mask as {first}; {len(group)} images have it"
                cure = "check the script that wrote the masks, unless all show one scene"
                yield Finding("warning", split, InputError(what, cure, second))


def _is_blank(path: Path, bands: Bands) -> bool:
    """Of one colour, as tiles at the edge of a scan are: no evidence of anything."""
    try:
        height, width = read_header(path)[:2]
        most = SMALLEST_FILE + height * width * bands.pixel_bytes / 48  # compressed, one colour takes less
        if path.stat().st_size > most:  # not decoded
            return False
        image, _ = read_bands(path, bands)
    except (InputError, OSError):
        return False
    return bool((image == image[0, 0]).all())
