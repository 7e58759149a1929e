"""Small trees of made-up streets on disk, for tests that train."""

from pathlib import Path

import cv2

from segloss.datasets.street_scenes import render_street

SIZE = (64, 96)


def write_scene(image_path: Path, mask_path: Path, split: str, index: int, void: int = 255) -> None:
    image, labels = render_street(3, split, index, *SIZE)
    labels[labels == 255] = void
    for path, pixels in ((image_path, image[..., ::-1]), (mask_path, labels)):
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), pixels)


def street_tree(root: Path, train: int = 10, val: int = 3, test: int = 3) -> Path:
    """A tree in CamVid's form: void is id 11 in the files."""
    for split, count in (("train", train), ("val", val), ("test", test)):
        for index in range(count):
            name = f"{split}_{index}.png"
            write_scene(root / split / name, root / f"{split}annot" / name, split, index, void=11)
    return root


# The smallest run that is still a run: two seconds an epoch.
TINY = [
    *("--arch", "unet", "--encoder", "resnet18", "--precision", "32-true", "--workers", "0"),
    *("--crop-size", "64", "64", "--batch-size", "4", "--epochs", "2", "--loss", "outlying_mse"),
]
