"""Images and masks brought together by name."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from segloss.datasets.finding import list_images
from segloss.datasets.missing import no_images
from segloss.datasets.naming import Naming, learn_naming
from segloss.errors import InputError


@dataclass
class Pairing:
    """Images and masks brought together by name.

    Attributes:
        form: where and how they were found, in words.
        pairs: image file and mask file (or None) of each sample.
        names: of the samples, unique.
        lonely_images, lonely_masks: files without partner by name, left out of ``pairs``.
        mask_place: folder in which masks were looked for.
        labelled: classes that a list says single images label, by name of the sample; the others label all.
        lists: that list.
        naming: what the masks in that folder are called.
        other_masks: folders that hold masks of these images too, by their names, and are not read.
        doubts: what lies there and says something else than what was read.
        by_hash: whether train and val were parted by a hash of the names.
    """

    form: str
    pairs: list[tuple[Path, Path | None]]
    names: list[str]
    lonely_images: dict[str, Path] = field(default_factory=dict)
    lonely_masks: dict[str, Path] = field(default_factory=dict)
    mask_place: Path = Path()
    labelled: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lists: Path = Path()
    naming: Naming = field(default_factory=Naming)
    other_masks: list[Path] = field(default_factory=list)
    doubts: list[InputError] = field(default_factory=list)
    by_hash: bool = False

    def only(self, belongs: Callable[[str], bool]) -> "Pairing":
        """The files of one split, with partner or without."""
        chosen = [place for place, name in enumerate(self.names) if belongs(name)]
        return replace(
            self,
            pairs=[self.pairs[place] for place in chosen],
            names=[self.names[place] for place in chosen],
            lonely_images={name: path for name, path in self.lonely_images.items() if belongs(name)},
            lonely_masks={name: path for name, path in self.lonely_masks.items() if belongs(name)},
        )


def pair(
    images: dict[str, Path],
    masks: dict[str, Path] | None,
    form: str,
    place: Path,
    mask_place: Path,
    folder: dict[str, Path] | None = None,
) -> Pairing:
    """One pair per name that both have; ``masks`` None: a split without labels.

    Where no name is the same but masks are called like their image and one ending (``a_mask``, ``a_L``), that ending is
    taken off; where images and masks have words of their own (``sat_1``, ``mask_1``), these are.

    Args:
        images: those wanted.
        folder: all that lie there, from which endings and words are learnt; default: ``images``.

    Raises:
        InputError: there is no image, or several masks of one.
    """
    if not images:
        raise no_images(place)
    if masks is None:
        return Pairing(f"{form}, without masks", [(path, None) for path in images.values()], list(images))
    naming = learn_naming(images if folder is None else folder, masks)
    for name in images:
        naming.require_one(name, images, masks)
    of_image = {name: naming.key(name) for name in images}
    masks = {naming.mask_key(name): path for name, path in masks.items()}
    form += naming.said
    both = [name for name in images if of_image[name] in masks]
    wanted = {*of_image.values()}
    return Pairing(
        form,
        [(images[name], masks[of_image[name]]) for name in both],
        both,
        {name: path for name, path in images.items() if of_image[name] not in masks},
        {name: path for name, path in masks.items() if name not in wanted},
        mask_place,
        naming=naming,
    )


def paired_with(images: dict[str, Path], folder: Path) -> int:
    """How many images have a mask in a folder; 0 where it is none, or pairs with none in one way."""
    with suppress(InputError):
        if masks := list_images(folder):
            return len(pair(images, masks, "", folder, folder).pairs)
    return 0


def unique_by(files: Mapping[str, Path], key: Callable[[str], str]) -> dict[str, Path]:
    """The files under other keys; InputError for two of one key."""
    found: dict[str, Path] = {}
    for name, path in files.items():
        if key(name) in found:
            raise InputError(f"is of the same name, {key(name)}, as {found[key(name)]}", "keep one of the two", path)
        found[key(name)] = path
    return found
