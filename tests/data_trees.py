"""Small data sets on disk, for tests of reading, pairing and counting."""

from pathlib import Path

import cv2
import numpy as np


def write_png(path: Path, pixels: np.ndarray) -> Path:
    """Through Python's own file functions, so that any name works on any system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(path.suffix, pixels)[1]
    path.write_bytes(encoded.tobytes())
    return path


def random_image(seed: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def random_mask(seed: int, size: tuple[int, int], ids=(0, 1, 2, 255)) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array(ids, dtype=np.uint8), size)


def camvid_tree(
    root: Path, images=("b", "a"), splits=("train", "val", "test"), size=(12, 17), suffix=".png", masks=True
) -> Path:
    """CamVid's form, random pixels: SPLIT/NAME and SPLITannot/NAME.png with ids 0..11."""
    for split in splits:
        for place, name in enumerate(images):
            write_png(root / split / f"{name}{suffix}", random_image(place, size))
            if masks:
                write_png(root / f"{split}annot" / f"{name}.png", random_mask(place, size, range(12)))
    return root


def folder_tree(
    root: Path,
    images=("b", "a", "c", "d"),
    splits=(),
    size=(12, 17),
    masks="masks",
    ids=(0, 1, 2, 255),
    classes="- wall\n- floor\n- lamp\n",
) -> Path:
    """The folder form: images/[SPLIT/]NAME.jpg, MASKS/[SPLIT/]NAME.png, classes.yaml."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.yaml").write_text(classes, encoding="utf-8")
    for split in splits or ("",):
        for place, name in enumerate(images):
            write_png(root / "images" / split / f"{name}.jpg", random_image(place, size))
            write_png(root / masks / split / f"{name}.png", random_mask(place, size, ids))
    return root


def listing(root: Path) -> list[tuple[str, int, int]]:
    """Every file below a folder with its size and time of change."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
