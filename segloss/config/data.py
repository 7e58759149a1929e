"""Options of data: a data set and its splits, or folders of masks."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segloss.config.ranges import AT_LEAST_ONE, BETWEEN, CLASSES_HELP, VAL_SHARE_HELP
from segloss.datasets import DATASET_HELP, DATASETS, FORMATS, OPTIONS_HELP, TABLES, SegmentationDataset, build_dataset
from segloss.datasets.base import Transform
from segloss.datasets.folds import fold_split, read_fold
from segloss.datasets.formats import data_place
from segloss.datasets.labelled import label_part
from segloss.datasets.missing import MissingSplitError, require_folder
from segloss.datasets.splits import VAL_SHARE
from segloss.datasets.tables import LABEL_ENDINGS
from segloss.errors import InputError, unknown_name
from segloss.flags import Options, option

FOLD_HELP = "train on all folds but the K-th of N of train and val together, validate on that; sequences stay whole"
FOLD_EXPECTED = "K/N, the K-th of N folds, such as 2/5"
CHANNELS_HELP = "bands of the images; default: found in their headers, gray of 8 bits as RGB"
SPLITS = ("train", "val", "test")


def is_fold(text: str | None) -> bool:
    try:
        return text is None or bool(read_fold(text))
    except ValueError:
        return False


def split_name(name: str) -> str:
    """The three common splits regardless of case; a folder may have others, which are called as they are."""
    return name.lower() if name.lower() in SPLITS else name


def require_splits(dataset: str | None, names: Iterable[str]) -> None:
    """InputError for a split that the data set cannot have."""
    for name in names:
        known = (FORMATS[dataset].splits if dataset else ()) or (name,)
        if name not in known:
            raise unknown_name("--split", name, known)


@dataclass(frozen=True)
class DataOptions(Options):
    """Data set, and where it lies: --dataset camvid --data-path data/CamVid"""

    dataset: str = option("camvid", DATASET_HELP, names=DATASETS)
    data_path: str | None = option(
        None, "folder of the data set; hf: a file or a name on the hub too", metavar="DIR", path=True
    )
    classes: int | None = option(None, CLASSES_HELP)
    val_share: float = option(VAL_SHARE, VAL_SHARE_HELP, *BETWEEN)
    image_column: str = option("image", OPTIONS_HELP["image_column"])
    label_column: str = option("label", OPTIONS_HELP["label_column"])
    subset: str | None = option(None, OPTIONS_HELP["subset"])
    class_file: str | None = option(None, OPTIONS_HELP["class_file"], metavar="FILE", path=True)
    streaming: bool = option(False, OPTIONS_HELP["streaming"])
    channels: int | None = option(None, CHANNELS_HELP, *AT_LEAST_ONE)
    fold: str | None = option(None, FOLD_HELP, expected=FOLD_EXPECTED, fits=is_fold, metavar="K/N")

    def require_place(self) -> None:
        """NoDataError where nothing says in which folder the data lie, or there is none."""
        place = data_place(self.dataset, self.data_path)
        if isinstance(place, Path):
            require_folder(place, "data folder")

    def open(self, split: str, transform: Transform | None = None, *, lonely: bool = False) -> SegmentationDataset:
        """A split, as :func:`segloss.datasets.build_dataset`; with ``fold`` train and val are those of the fold."""

        def build(part: str) -> SegmentationDataset:
            options = {name: getattr(self, name) for name in OPTIONS_HELP}
            return build_dataset(self.dataset, self.data_path, part, transform, **options, lonely=lonely)

        if self.fold is None or split not in ("train", "val"):
            return build(split)
        if FORMATS[self.dataset].finer_val:
            what = f"train of {self.dataset} is labelled worse than val, and a fold would be scored on both"
            raise InputError(what, "leave it out, or fold the set with the better labels", f"--fold {self.fold}")
        parts = [build("train")]
        with suppress(MissingSplitError):
            parts.append(build("val"))
        made = fold_split(parts, split, self.fold)
        if made.root is not None:
            label_part(made, made.root)
        return made


MASKS, RUNS, SCORED, SEEN = "--predictions", "--checkpoint", "--checkpoint or --predictions", "--checkpoint or --images"
LABELS_MISSING = "--labels is missing: the folder of true masks that --predictions are scored against"
PREDICTIONS_HELP = "folders of predicted masks or probability maps"


@dataclass(frozen=True)
class PairOptions(Options):
    """What masks hold: --predictions masks/A --labels masks/true --class-table cityscapes --label-ids trainIds"""

    labels: str | None = option(None, "of --predictions: folder of the true masks", metavar="DIR", of=MASKS, path=True)
    class_table: str | None = option(
        None,
        f"of --predictions: {', '.join(TABLES)} or a class file; default: the one at the labels",
        metavar="NAME|FILE",
        of=MASKS,
        path=True,
    )
    label_ids: str = option(
        "auto",
        "of --labels: the class table's own, or class numbers from 0; auto: as files are named",
        names=("auto", *LABEL_ENDINGS),
        of=MASKS,
    )
    prediction_ids: str = option("auto", "the same of --predictions", names=("auto", *LABEL_ENDINGS), of=MASKS)
