"""Small made-up data for the tutorials: python docs/tutorials/made_up.py cracks|camvid|masks FOLDER

cracks: photographs of a road, masks of its cracks (0 and 255), new photographs; camvid: streets in CamVid's form;
masks: true masks of streets and those of two networks.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from segloss.datasets.street_scenes import FENCE, PAVEMENT, POLE, ROAD, SIGN_SYMBOL, VOID, render_street

SIZE = (96, 128)  # rows and columns of the photographs
STREET = (90, 120)


def write(path: Path, pixels: np.ndarray) -> None:
    """One picture, RGB or one channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def road_with_cracks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A photograph (H, W, 3) and where its cracks are (H, W), 0 and 255; stains and joints are no cracks."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 9, SIZE) + cv2.GaussianBlur(rng.normal(0, 60, SIZE).astype(np.float32), None, 6)
    road = (rng.uniform(105, 140) + grain).astype(np.float32)
    for _ in range(rng.integers(1, 4)):  # stains, soft and dark
        stain = np.zeros(SIZE, np.float32)
        cv2.circle(stain, (int(rng.integers(128)), int(rng.integers(96))), int(rng.integers(5, 14)), 1, -1)
        road -= 35 * cv2.GaussianBlur(stain, None, 3)
    mask = np.zeros(SIZE, np.uint8)
    for _ in range(rng.integers(1, 3)):  # a crack walks across
        steps = np.cumsum(rng.normal(0, 3, 18))
        walk = np.stack([np.linspace(0, 127, 18), rng.uniform(20, 76) + steps], 1)
        points = np.rint(walk if rng.random() < 0.6 else walk[:, ::-1] * (96 / 128)).astype(np.int32)
        cv2.polylines(mask, [points], False, 255, int(rng.integers(2, 4)))
    road -= 48 * cv2.GaussianBlur((mask > 0).astype(np.float32), None, 0.6)
    tint = np.array([1.02, 1.0, 0.96])
    return np.clip(road[..., None] * tint, 0, 255).astype(np.uint8), mask


def cracks(folder: Path) -> None:
    """48 photographs with masks, and 6 new ones without."""
    for number in range(54):
        photograph, mask = road_with_cracks(number)
        if number < 48:
            write(folder / f"images/road_{number:02d}.jpg", photograph)
            write(folder / f"masks/road_{number:02d}.png", mask)
        else:
            write(folder.with_name(f"{folder.name}-new") / f"road_{number:02d}.jpg", photograph)


def camvid(folder: Path) -> None:
    """Made-up streets in the form of the SegNet tutorial: 48, 12 and 12 images, void is 11."""
    for split, count in (("train", 48), ("val", 12), ("test", 12)):
        for number in range(count):
            image, labels = render_street(7, split, number, *STREET)
            write(folder / split / f"{number:04d}.png", image)
            write(folder / f"{split}annot/{number:04d}.png", np.where(labels == VOID, 11, labels).astype(np.uint8))


def masks(folder: Path) -> None:
    """True masks of 24 streets, and two networks' masks of them: one knows no poles, the other draws them too wide."""
    for number in range(24):
        labels = render_street(8, "test", number, *STREET)[1]
        smooth = cv2.medianBlur(labels, 3)
        plain = np.where(np.isin(smooth, (POLE, SIGN_SYMBOL)), cv2.medianBlur(labels, 9), smooth)
        wide = np.where(cv2.dilate((labels == POLE).astype(np.uint8), np.ones((3, 3))) > 0, POLE, smooth)
        wide[np.isin(wide, (PAVEMENT, FENCE)) & (np.indices(wide.shape)[1] % 9 == 0)] = ROAD
        write(folder / f"true/{number:02d}.png", labels)
        for name, predicted in (("plain", plain), ("wide", wide)):
            write(folder / f"{name}/{number:02d}.png", np.where(predicted == VOID, ROAD, predicted).astype(np.uint8))
    names = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
    (folder / "true/classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("cracks", "camvid", "masks"):
        sys.exit(__doc__.splitlines()[0])
    {"cracks": cracks, "camvid": camvid, "masks": masks}[sys.argv[1]](Path(sys.argv[2]))
