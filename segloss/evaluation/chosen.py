"""The images that ``--choose-on`` names: an operating point is chosen on these alone."""

from collections.abc import Sequence
from pathlib import Path

from segloss.datasets import SegmentationDataset
from segloss.errors import InputError


def chosen_images(words: Sequence[str], dataset: SegmentationDataset) -> set[str]:
    """The images whose names begin with one of the words, or are a line of a file of that name; all if no word.

    Raises:
        InputError: a word or a line fits no image, or a file cannot be read or lists none.
    """
    chosen = set() if words else set(dataset.names)
    for word in words:
        listed = _lines_of(Path(word)) if Path(word).is_file() else None
        if listed is None:
            found = {name for name in dataset.names if name.startswith(word)}
            unknown = [] if found else [word]
        else:
            found = listed.intersection(dataset.names)
            unknown = sorted(listed - found)
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise InputError(
                f"no image of {dataset.split} is called {unknown[0]!r}{more}",
                f"words are beginnings and lines of a file whole names, such as {dataset.names[0]!r}",
                "--choose-on" if listed is None else f"--choose-on {word}",
            )
        chosen |= found
    return chosen


def _lines_of(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        cure = "give a file of one name a line"
        raise InputError("cannot be read as text", cure, f"--choose-on {path}") from error
    found = {line.strip() for line in lines if line.strip()}
    if not found:
        cure = "write one name a line, or leave it out for all images"
        raise InputError("lists no image", cure, f"--choose-on {path}")
    return found
