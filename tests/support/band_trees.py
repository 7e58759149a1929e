"""Small data sets of other bands than 8-bit RGB: what a class is shows in them, so that a network can learn it."""

from pathlib import Path

import numpy as np
import tifffile

NODATA = 65535


def write_geotiff(path: Path, pixels: np.ndarray, nodata: float | str | None = None, **options) -> Path:
    """As GDAL writes one: (H, W, N), bands of no stated meaning, tiled or in strips, the nodata value in tag 42113."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = [] if nodata is None else [(42113, "s", 0, str(nodata), True)]
    plain = {"photometric": "minisblack", "planarconfig": "contig", "extratags": tags, **options}
    if 1 in (pixels.shape[0], pixels.shape[-1]):
        pixels, plain["planarconfig"] = pixels.squeeze(), None
    tifffile.imwrite(path, pixels, **plain)
    return path


def scene(seed: int, size=(64, 96), count=4, dtype="uint16") -> tuple[np.ndarray, np.ndarray]:
    """Bands (H, W, N) of fields that are bright in one band each, and the labels, 0 or 1, (H, W)."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 2, (size[0] // 16, size[1] // 16)), np.ones((16, 16), int)).astype(np.uint8)
    level = 50 if dtype == "uint8" else 800
    pixels = rng.normal(level, level / 10, (*size, count))
    pixels[..., -1] += 2.0 * level * labels
    return pixels.astype(dtype), labels


def band_tree(root: Path, counts=(("train", 6), ("val", 2), ("test", 2)), *, nodata=None, size=(64, 96), **of_scene):
    """images/SPLIT/NAME.tif and masks/SPLIT/NAME.png; where ``nodata`` is given the first ten columns hold nothing."""
    import cv2

    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.yaml").write_text("- field\n- water\n", encoding="utf-8")
    for split, count in counts:
        for place in range(count):
            pixels, labels = scene(1000 * len(split) + place, size, **of_scene)
            if nodata is not None:
                pixels[:, :10] = nodata
            write_geotiff(root / f"images/{split}/{place}.tif", pixels, nodata)
            path = root / f"masks/{split}/{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), labels)
    return root
