"""What every form of annotations is read into: pictures with items, each a class name and its region."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath

from segloss.datasets.finding import IMAGE_SUFFIXES, image_files
from segloss.datasets.folder import IMAGE_NAMES
from segloss.datasets.splits import splits_of
from segloss.errors import InputError
from segloss.files import composed
from segloss.rasterise.regions import Region, whole

NOT_UNDERSTOOD = (ValueError, KeyError, TypeError, AttributeError, IndexError)  # of entries of another form
Extent = Callable[[], Region | None]  # where an annotation lies at most; None, or one of these errors, where unknown


@dataclass(frozen=True)
class Item:
    """One annotation.

    Attributes:
        where: its place in its file, for messages.
        label: name of its class; empty: what cannot be used, and is ignored where it lies.
        region: its pixels.
        crowd: not told apart: ignored where nothing else lies.
        order: of CVAT's layers; the higher is later.
        extent: asked where the region cannot be drawn.
    """

    where: str
    label: str
    region: Region
    crowd: bool = False
    order: int = 0
    extent: Extent = lambda: None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", composed(self.label))


@dataclass
class Picture:
    """One image and what was drawn on it.

    Attributes:
        image: the file.
        split: ``train``, ``val``, ``test``, another name, or nothing.
        source: the file of the annotations.
        items: in the file's order.
        size: (H, W) that the annotations are for; None where they do not say.
    """

    image: Path
    split: str
    source: Path
    items: list[Item] = field(default_factory=list)
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Fault:
    """What cannot be used, and what becomes of its pixels where it is left out."""

    error: InputError
    pixels: str = ""


@dataclass
class Source:
    """All that was read.

    Attributes:
        classes: names in the order of the class file, of all files together.
        pictures: one per image and split.
        faults: what cannot be used, each with file, item and cure.
        notes: what should be known.
        covers: whether any annotation that was drawn covers a pixel.
    """

    classes: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    covers: bool = False

    @property
    def labels(self) -> set[str]:
        """The classes that occur."""
        return {item.label for picture in self.pictures for item in picture.items if item.label}

    def add_classes(self, names: Iterable[str]) -> None:
        self.classes += [name for name in dict.fromkeys(map(composed, names)) if name not in self.classes]

    def split_by_folders(self, root: Path) -> None:
        """Splits of pictures whose annotations name none: of their images' folders, where these name several."""
        found = [picture.split or folder_split(picture.image, root) for picture in self.pictures]
        if len({*found} - {""}) > 1:
            for picture, split in zip(self.pictures, found, strict=True):
                picture.split = split

    def items(self, path: Path, made: Iterable[tuple[str, Callable[[], Item], Extent]]) -> list[Item]:
        """The items that can be made; of the others a fault each, and what is ignored in their stead."""
        found = []
        for where, make, extent in made:
            try:
                item = replace(make(), extent=extent)
            except NOT_UNDERSTOOD as error:
                why = (
                    str(error) if type(error) is ValueError else f"is not understood ({type(error).__name__}: {error})"
                )
                item = self.left_out(path, where, why, extent)
            found.append(item)
        return found

    def left_out(self, path: Path, where: str, why: str, extent: Extent) -> Item:
        """A fault, and what is ignored in its stead: an object that is there is no background."""
        try:
            region = extent()
        except NOT_UNDERSTOOD:
            region = None
        lies = "the rectangle around it" if region else "all of the image that nothing else covers"
        self.fault(f"{path}: {where}", why, pixels=f"{lies} is ignored")
        return Item(where, "", region or whole, crowd=True)

    def fault(self, where: str | Path, what: str, cure: str = "mend or remove it", pixels: str = "") -> None:
        self.faults.append(Fault(InputError(what, cure, where), pixels))


class Images:
    """The images below a folder, found by whatever path their annotations give.

    The file whose last folders agree best is meant; of several that agree alike the one in the annotations' own folder,
    or in one of the same split.
    """

    def __init__(self, root: Path):
        self.root = root
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        for path in image_files(root):
            self.by_name[composed(path.name)].append(path)

    @property
    def all(self) -> list[Path]:
        return [path for paths in self.by_name.values() for path in paths]

    def find(self, text: str, beside: Path, split: str) -> Path:
        """ValueError where there is none, or several."""
        parts = PureWindowsPath(composed(text)).parts
        there = self.by_name.get(parts[-1] if parts else "", [])
        if not there:
            hint = "" if text.lower().endswith(IMAGE_SUFFIXES) else f", or none of {', '.join(IMAGE_SUFFIXES)}"
            raise ValueError(f"its image {text} is not below {self.root}{hint}")

        def agreement(path: Path) -> tuple[int, bool, bool]:
            own = [composed(part) for part in path.relative_to(self.root).parts]
            same = [one == other for one, other in zip(own[::-1], parts[::-1], strict=False)]
            tail = same.index(False) if False in same else len(same)
            return tail, path.parent == beside, bool(split) and folder_split(path, self.root) == split

        best = max(map(agreement, there))
        found = [path for path in there if agreement(path) == best]
        if len(found) > 1:
            raise ValueError(f"its image {text} may be {' or '.join(str(path) for path in found[:3])}")
        own_split = folder_split(found[0], self.root)
        if split and own_split and own_split != split:
            raise ValueError(f"its image {text} is not below {self.root}: {found[0]} is of {own_split}")
        return found[0]


def named_split(text: str) -> str:
    """The split that a name speaks of; nothing where it speaks of none or of several."""
    spoken = [] if text.lower() in IMAGE_NAMES else splits_of(text)
    return spoken[0] if len(spoken) == 1 else ""


def split_of(path: Path, root: Path) -> str:
    """The split that a file's name speaks of, else the nearest of its folders that does."""
    return named_split(path.stem) or folder_split(path, root)


def folder_split(path: Path, root: Path) -> str:
    """As :func:`split_of`, by the folders alone: an image may well be called ``test_1``."""
    folders = path.relative_to(root).parts[-2::-1] if path.is_relative_to(root) else ()
    return next((split for split in map(named_split, folders) if split), "")
