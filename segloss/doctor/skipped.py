"""Pictures of a data set that nothing reads: of other formats, outside the splits' folders, or in another of masks."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from segloss.datasets import SegmentationDataset
from segloss.datasets.cells import Cell
from segloss.datasets.finding import OTHER_PICTURES, PICTURES
from segloss.doctor.findings import Finding, more_files
from segloss.errors import InputError


def skipped_files(datasets: Sequence[SegmentationDataset]) -> Iterator[Finding]:
    """A warning for pictures of formats that are not read, for images above the folders of the splits, and for a folder
    of masks or a class file beside the one that is read.

    Looked at are the folders that hold images of these splits, and those between them and the data folder.
    """
    images = (image for dataset in datasets for image, _ in dataset.pairs)
    folders = {image.parent for image in images if not isinstance(image, Cell) and image.parent.is_dir()}
    other = [path for folder in sorted(folders) for path in _pictures(folder, OTHER_PICTURES)]
    if other:
        what = f"is a picture of a format that is not read, passed over{more_files(other)}"
        yield Finding("warning", "all splits", InputError(what, "save it as PNG or JPEG", other[0]))
    root = datasets[0].root if datasets else None
    above = {parent for folder in folders for parent in folder.parents if root in parent.parents} - folders
    loose = [path for folder in sorted(above) for path in _pictures(folder, PICTURES)]
    if loose:
        what = f"is an image outside the folders of the splits, passed over{more_files(loose)}"
        yield Finding("warning", "all splits", InputError(what, "move it into one of them, or away", loose[0]))

    found = next((dataset.found for dataset in datasets if dataset.found.other_masks), None)
    if found is not None:
        other = found.other_masks
        what = f"holds masks of these images too, passed over for {found.mask_place}{more_files(other)}"
        cure = "call the folder that is meant masks, and move the other away"
        yield Finding("warning", "all splits", InputError(what, cure, other[0]))

    doubts = {str(doubt): doubt for dataset in datasets for doubt in dataset.found.doubts}
    yield from (Finding("warning", "all splits", doubt) for doubt in doubts.values())


def _pictures(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    names = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return sorted(path for path in names if path.is_file())
