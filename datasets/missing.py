"""What a data set lacks, and how that is said."""

from pathlib import Path

from segloss.datasets.finding import IMAGE_SUFFIXES, OTHER_PICTURES, PICTURES, walk
from segloss.errors import InputError


class MissingSplitError(InputError):
    """The data set has no such split."""


class NoDataError(InputError):
    """There is no such data set: unknown name, no folder or no class file that can be read."""


def no_split(split: str, place: Path) -> MissingSplitError:
    return MissingSplitError(f"split {split!r} is missing", "add the folder, or check --data-path", place)


def no_masks(split: str, place: Path, cure: str = "add the folder, or check --data-path") -> InputError:
    return InputError(f"masks of split {split!r} are missing", cure, place)


def no_images(place: Path) -> InputError:
    """What is said of a folder without images; pictures in it that are not read are named."""
    what, unread = f"holds no images ({', '.join(IMAGE_SUFFIXES)})", unread_pictures(place)
    cure = "save them as PNG or JPEG" if unread else "check --data-path and --split"
    return InputError(f"{what}{unread}", cure, place)


def unread_pictures(place: Path) -> str:
    """``, but a.heic and 3 more, which are not read``: pictures of other formats below a folder; else nothing."""
    if place == Path():  # nobody said where
        return ""
    files = (Path(parent, name) for parent, _, names in walk(place) for name in names)
    others = sorted(path for path in files if path.suffix.lower() in OTHER_PICTURES)
    if not others:
        return ""
    return f", but {others[0].name}{f' and {len(others) - 1} more' if others[1:] else ''}, not a format that is read"


def picture_places(root: Path) -> list[str]:
    """Folders that hold pictures, three levels deep, by their paths below ``root``."""
    found = []
    for parent, folders, files in walk(root):
        place = Path(parent).relative_to(root)
        folders[:] = [] if len(place.parts) == 3 else folders
        if any(name.lower().endswith(PICTURES) and not name.startswith(".") for name in files):
            found.append("the folder itself" if place == Path() else f"{place.as_posix()}/")
    return found


def require_folder(path: Path, what: str) -> Path:
    """The path, or a NoDataError if it is no folder."""
    if not path.is_dir():
        raise NoDataError(f"{what} is missing", "check --data-path", path)
    return path
