"""Pictures beside the images of a data set that nothing reads: of other formats, or outside the splits' folders."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from segloss.datasets import SegmentationDataset
from segloss.datasets.finding import OTHER_PICTURES, PICTURES
from segloss.doctor.findings import Finding, more_files
from segloss.errors import InputError


def skipped_files(datasets: Sequence[SegmentationDataset]) -> Iterator[Finding]:
    """A warning for pictures of formats that are not read, and for images above the folders of the splits.

    Looked at are the folders that hold images of these splits, and those between them and the data folder.
    """
    # Those that are there: the images of hf lie in the cells of tables.
    folders = {image.parent for dataset in datasets for image, _ in dataset.pairs if Path(str(image.parent)).is_dir()}
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


def _pictures(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    names = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return sorted(path for path in names if path.is_file())
