"""``python -m segloss.rasterise``: annotations found, read, drawn, and written as a folder of images and masks."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from segloss.config import RasteriseConfig
from segloss.datasets.annotations import KINDS, annotation_files
from segloss.datasets.class_files import read_class_file
from segloss.datasets.classes import ClassTable
from segloss.datasets.finding import image_files
from segloss.datasets.list_pairs import unique_names
from segloss.errors import InputError
from segloss.files import write_bytes, write_text
from segloss.flags import parse_config
from segloss.progress import Progress
from segloss.rasterise.coco import read_coco
from segloss.rasterise.cvat import read_cvat
from segloss.rasterise.drawing import Legend, draw, legend_of, refuse_beyond, tell_rectangles
from segloss.rasterise.labelme import read_labelme
from segloss.rasterise.regions import require_tools
from segloss.rasterise.sources import Images, Picture, Source
from segloss.rasterise.yolo import read_yolo

OTHER_FORMS = (".json", ".xml")  # of annotations, understood or not


def main(argv: list[str] | None = None) -> None:
    """``python -m segloss.rasterise SOURCE OUT``; status 2 and no folder where something cannot be used."""
    from segloss.report.terminal import console, progress_bar

    config = parse_config(RasteriseConfig, "python -m segloss.rasterise", argv)
    say = partial(console.print, soft_wrap=True)
    for line in rasterise(config, say, progress_bar("drawing")):
        say(line)


def rasterise(config: RasteriseConfig, say: Callable[[str], None], progress: Progress | None = None) -> list[str]:
    """Write ``config.out``; what was done, in lines.

    Args:
        say: what should be known, and each annotation that cannot be used, a line each.
        progress: wraps the iteration over the images.

    Raises:
        InputError: something cannot be used and ``skip_bad`` is not given; then there is no folder.
    """
    require_tools()
    out = Path(config.out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError("is there already", "choose another OUT", out)
    table = None if config.class_table is None else read_class_file(Path(config.class_table))
    kind, source, root = read_source(config, table)
    for name, count in Counter(name.lower() for name in source.classes).items():
        if count > 1:
            source.notes.append(f"{config.source}: class {name!r} is written in capitals and not: several classes")
    if not source.labels:
        _report(source, config, say)
        raise InputError("holds no annotation that can be drawn", "check SOURCE and --format", config.source)
    if empty := [picture.image for picture in source.pictures if not picture.items]:
        what = f"{len(empty)} of {len(source.pictures)} images have no annotation, the first: {empty[0]}"
        background = "background; remove them if nobody looked at them"
        source.notes.append(f"{what}: all of each is {background if config.unlabelled == 'background' else 'ignored'}")
    refuse_beyond(source)
    if kind in ("coco", "yolo") and not config.fill_boxes:  # other forms say what is a box
        tell_rectangles(source)
    legend = legend_of(source.classes, config.unlabelled, table)
    places = _places(source, root)
    with _whole(out) as folder:
        written: Counter[str] = Counter()
        pairs: Iterable[tuple[Picture, str]] = zip(source.pictures, places, strict=True)
        for picture, place in progress(pairs, len(places)) if progress else pairs:
            mask = draw(picture, legend, config.on_top, source)
            if mask is not None:
                _write(folder, place, picture.image, mask, config.images)
                written[picture.split or "no split"] += 1
        if written and not source.covers and not source.faults:
            cure = f"write coordinates in {'shares' if kind == 'yolo' else 'pixels'} of the image"
            raise InputError("no annotation covers a pixel", cure, config.source)
        _report(source, config, say)
        if not written:
            raise InputError("holds no image with annotations", "check SOURCE and --image-dir", config.source)
        write_text(folder / "classes.yaml", class_file(legend, f"made of {KINDS[kind]}, {config.on_top} on top"))
    splits = ", ".join(f"{split} {count}" for split, count in written.items())
    items = [item for picture in source.pictures for item in picture.items if item.label]
    ignored = f"{'' if config.crowds == 'draw' else 'crowds and '}{legend.ignored} ignored"
    return [
        f"{KINDS[kind]}: {len(items):,} annotations; images: {splits}",
        f"{len(legend.classes)} classes; {config.on_top} on top; {ignored}; folder: {out}",
        f"next: python -m segloss.doctor --dataset folder --data-path {out}",
    ]


def _report(source: Source, config: RasteriseConfig, say: Callable[[str], None]) -> None:
    """A line for each note and each fault; InputError if there is a fault that is not to be passed over."""
    for note in source.notes:
        say(f"warning: {note}")
    for fault in source.faults:
        left = f"left out ({fault.pixels})" if fault.pixels else "left out"
        say(f"warning: {left}: {fault.error}" if config.skip_bad else f"error: {fault.error}")
    if source.faults and not config.skip_bad:
        what = f"{len(source.faults)} annotations or images cannot be used, the first: {source.faults[0].error}"
        raise InputError(what, "or leave all of them out with --skip-bad", config.source)


def read_source(config: RasteriseConfig, table: ClassTable | None) -> tuple[str, Source, Path]:
    """Kind and content of SOURCE, and the folder of its images.

    Raises:
        InputError: there is none, none of its files is of annotations, or they are of several kinds or splits.
    """
    place = Path(config.source)
    if not place.exists():
        raise InputError("is not there", "check SOURCE", place)
    root = place if place.is_dir() else place.parent
    is_yaml = place.suffix.lower() in (".yaml", ".yml")
    found = [*annotation_files(root if is_yaml else place)]
    kinds = [*dict.fromkeys(kind for kind, _ in found)]
    if config.format == "auto" and len(kinds) != 1:
        looked_at = image_files(root, OTHER_FORMS) if place.is_dir() or is_yaml else iter([place])
        other = None if kinds else next((path for path in looked_at if path.suffix.lower() in OTHER_FORMS), None)
        if other is not None:
            forms = ", ".join([*KINDS.values()][1:])
            raise InputError("is of no form that is read", f"export {KINDS['coco']} (or {forms})", other)
        several = f"holds {' and '.join(KINDS[kind] for kind in kinds)}" if kinds else "holds no annotations"
        cure = f"say which with --format ({', '.join(KINDS)}), or give the file or folder of one"
        raise InputError(several, cure, place)
    kind = kinds[0] if config.format == "auto" else config.format
    files = [path for own, path in found if own == kind]
    images = Images(Path(config.image_dir) if config.image_dir else root)
    if kind == "coco":
        source = read_coco(files, root, images, fill_boxes=config.fill_boxes, crowds=config.crowds)
    elif kind == "labelme":
        source = read_labelme(files, root, images)
    elif kind == "cvat":
        source = read_cvat(files, root, images)
    else:
        names = () if table is None else table.names
        told = place if is_yaml else None
        source = read_yolo(files, root, images, fill_boxes=config.fill_boxes, names=names, config_file=told)
    source.split_by_folders(images.root)
    _check_pictures(source, place)
    seen = {picture.image for picture in source.pictures}
    rest = [path for path in images.all if path not in seen]
    if rest and source.pictures:
        source.notes.append(f"{rest[0]}: is in no annotation file, left out (and {len(rest) - 1} more images)")
    return kind, source, images.root


def _check_pictures(source: Source, place: Path) -> None:
    """InputError for an image in two files of one split, and for some images with a split and some without."""
    seen: dict[tuple[Path, str], Picture] = {}
    for picture in source.pictures:
        other = seen.setdefault((picture.image, picture.split), picture)
        if other is not picture:
            where, cure = f"in {other.source} too", "give one of the files as SOURCE, or move it away"
            if other.source == picture.source:
                where, cure = "twice", "list it once, with the annotations of both"
            raise InputError(f"lists {picture.image} {where}", cure, picture.source)
    without = next((picture for picture in source.pictures if not picture.split), None)
    split = next((picture for picture in source.pictures if picture.split), None)
    if without and split:
        what = f"{without.image} is of no split, {split.image} of {split.split}"
        raise InputError(what, "put train, val or test into the name of its file or folder, or take it out", place)


def _places(source: Source, root: Path) -> list[str]:
    """Split and name of each picture's files: the image's stem, or where two are alike its path below ``root``."""
    places = [""] * len(source.pictures)
    for split in {picture.split for picture in source.pictures}:
        own = [place for place, picture in enumerate(source.pictures) if picture.split == split]
        names = unique_names(root, [source.pictures[place].image for place in own])
        flat = [name.replace("/", "__") for name in names]  # folders would be taken for splits
        for place, name in zip(own, flat if len({*flat}) == len(flat) else names, strict=True):
            places[place] = f"{split}/{name}" if split else name
    return places


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that becomes it at the end, or goes."""
    temporary = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if out.is_dir():  # an empty one
            out.rmdir()
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, place: str, image: Path, mask: np.ndarray, how: str) -> None:
    import cv2

    write_bytes(folder / "masks" / f"{place}.png", cv2.imencode(".png", mask)[1].tobytes())
    target = folder / "images" / f"{place}{image.suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if how == "copy":
        shutil.copyfile(image, target)
        return
    try:
        target.symlink_to(image.resolve())
    except OSError as error:
        raise InputError(f"cannot be linked: {error.strerror}", "give --images copy", image) from error


def class_file(legend: Legend, comment: str) -> str:
    """The table as a classes.yaml."""
    table = legend.classes
    rows = [{"name": name, "id": number} for name, number in zip(table.names, table.ids, strict=True)]
    content = {"classes": rows, "ignore": sorted({legend.ignored, *table.ignore_ids})}
    return f"# {comment}\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}"
