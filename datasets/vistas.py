"""Mapillary Vistas: {training,validation,testing}/images/*.jpg with labels/ or v1.2/labels/ (66 ids), v2.0/labels/.

Source: Neuhold et al., "The Mapillary Vistas Dataset for Semantic Understanding of Street Scenes", ICCV 2017.
"""

import json
from functools import partial
from pathlib import Path

from segloss.datasets.base import Format, SegmentationDataset, Transform
from segloss.datasets.classes import ClassTable
from segloss.datasets.finding import list_images
from segloss.datasets.missing import MissingSplitError, NoDataError, no_masks, no_split, require_folder
from segloss.datasets.pairing import pair
from segloss.errors import InputError
from segloss.losses.labels import IGNORE_INDEX

FOLDERS = {"train": "training", "val": "validation", "test": "testing"}
CONFIG = "config_v2.0.json"

# Colour and name of each id, from 0; 65 is not evaluated. Source: config.json of the download, version 1.2.
_V12 = """
165 42 42 Bird / 0 192 0 Ground Animal / 196 196 196 Curb / 190 153 153 Fence / 180 165 180 Guard Rail
90 120 150 Barrier / 102 102 156 Wall / 128 64 255 Bike Lane / 140 140 200 Crosswalk - Plain / 170 170 170 Curb Cut
250 170 160 Parking / 96 96 96 Pedestrian Area / 230 150 140 Rail Track / 128 64 128 Road / 110 110 110 Service Lane
244 35 232 Sidewalk / 150 100 100 Bridge / 70 70 70 Building / 150 120 90 Tunnel / 220 20 60 Person
255 0 0 Bicyclist / 255 0 100 Motorcyclist / 255 0 200 Other Rider / 200 128 128 Lane Marking - Crosswalk
255 255 255 Lane Marking - General / 64 170 64 Mountain / 230 160 50 Sand / 70 130 180 Sky / 190 255 255 Snow
152 251 152 Terrain / 107 142 35 Vegetation / 0 170 30 Water / 255 255 128 Banner / 250 0 30 Bench
100 140 180 Bike Rack / 220 220 220 Billboard / 220 128 128 Catch Basin / 222 40 40 CCTV Camera
100 170 30 Fire Hydrant / 40 40 40 Junction Box / 33 33 33 Mailbox / 100 128 160 Manhole / 142 0 0 Phone Booth
70 100 150 Pothole / 210 170 100 Street Light / 153 153 153 Pole / 128 128 128 Traffic Sign Frame
0 0 80 Utility Pole / 250 170 30 Traffic Light / 192 192 192 Traffic Sign (Back) / 220 220 0 Traffic Sign (Front)
140 140 20 Trash Can / 119 11 32 Bicycle / 150 0 255 Boat / 0 60 100 Bus / 0 0 142 Car / 0 0 90 Caravan
0 0 230 Motorcycle / 0 80 100 On Rails / 128 64 64 Other Vehicle / 0 0 110 Trailer / 0 0 70 Truck
0 0 192 Wheeled Slow / 32 32 32 Car Mount / 120 10 10 Ego Vehicle
"""
_ROWS = [row.split(maxsplit=3) for line in _V12.strip().splitlines() for row in line.split(" / ")]
VISTAS = ClassTable(
    names=tuple(row[3] for row in _ROWS),
    colors=tuple((int(r), int(g), int(b)) for r, g, b, _ in _ROWS),
    ignore_ids=(len(_ROWS), IGNORE_INDEX),  # Unlabeled
)


def vistas(root: Path, split: str, transform: Transform | None = None, *, version: str = "v1.2") -> SegmentationDataset:
    """One split of Mapillary Vistas below ``root``; 18000 / 2000 / 5000 images, those of test without labels.

    Args:
        root: holds training/, validation/ and testing/.
        split: ``"train"``, ``"val"`` or ``"test"``.
        transform: as in :class:`SegmentationDataset`.
        version: of the labels, ``"v1.2"``: 65 classes; ``"v2.0"``: those that config_v2.0.json of the download counts.

    Raises:
        InputError: a folder or that file is missing, or the split is empty.
    """
    require_folder(root, "data folder of Mapillary Vistas")
    if split not in FOLDERS:
        raise MissingSplitError(f"no split {split!r}", f"Mapillary Vistas has {', '.join(FOLDERS)}", root)
    place, v2 = root / FOLDERS[split], version == "v2.0"
    classes = read_config(root / CONFIG) if v2 else VISTAS
    if not (place / "images").is_dir():
        raise no_split(split, place / "images")
    masks = place / version / "labels"
    if not masks.is_dir() and not v2:
        masks = place / "labels"  # as version 1.2 came by itself
    if not masks.is_dir() and split != "test":
        raise no_masks(split, place / version / "labels")
    form = f"Mapillary Vistas, {place.name}/images and {masks.relative_to(root).as_posix()}"
    listed = None if split == "test" else list_images(masks)
    found = pair(list_images(place / "images"), listed, form, place / "images", masks)
    return SegmentationDataset("vistas-v2" if v2 else "vistas", split, found, classes, transform)


def read_config(path: Path) -> ClassTable:
    """The classes of a config.json of Vistas: those that are evaluated, under their place in its list as id.

    Raises:
        NoDataError: it is missing or says something else.
    """
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        counted = [(place, label) for place, label in enumerate(labels) if label["evaluate"]]
        readable = tuple(str(label["readable"]) for _, label in counted)
        names = readable if len({*readable}) == len(readable) else tuple(str(label["name"]) for _, label in counted)
        return ClassTable(
            names=names,
            ids=tuple(place for place, _ in counted),
            colors=tuple((int(r), int(g), int(b)) for r, g, b in (label["color"] for _, label in counted)),
            ignore_ids=tuple(place for place, label in enumerate(labels) if not label["evaluate"]),
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        what = str(error) if isinstance(error, InputError) else f"cannot be read as the classes of Vistas ({error!r})"
        raise NoDataError(what, "put the file of the download there", path) from error


FORMATS = (
    Format(
        "vistas", "Mapillary Vistas, labels 1.2", vistas, tables={"vistas": VISTAS}, splits=("train", "val", "test")
    ),
    Format("vistas-v2", "with labels 2.0", partial(vistas, version="v2.0"), splits=("train", "val", "test")),
)
