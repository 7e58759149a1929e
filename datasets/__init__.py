"""Data sets: pairs of images and label maps, from files or made up. Installed as ``segloss.datasets``."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer release

if __name__ == "datasets":  # found by its folder's name, from the root of a checkout
    from .namesake import load_hugging_face

    load_hugging_face()
else:
    from segloss.datasets.base import Format, SegmentationDataset, Transform
    from segloss.datasets.classes import ClassTable
    from segloss.datasets.formats import DATASET_HELP, DATASETS, FORMATS, OPTIONS_HELP, TABLES, build_dataset
    from segloss.datasets.missing import MissingSplitError, NoDataError

    __all__ = [
        "DATASETS",
        "DATASET_HELP",
        "FORMATS",
        "OPTIONS_HELP",
        "TABLES",
        "ClassTable",
        "Format",
        "MissingSplitError",
        "NoDataError",
        "SegmentationDataset",
        "Transform",
        "build_dataset",
    ]
