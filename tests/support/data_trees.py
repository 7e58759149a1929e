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


CITY_FRAMES = {
    "train": ("aachen_000000_000019", "bochum_000000_000313"),
    "val": ("frankfurt_000000_000294", "munster_000001_000019"),
    "test": ("berlin_000000_000019",),
    "train_extra": ("augsburg_000000_000000",),
}


def city_label_ids(seed: int, size=(48, 64)) -> np.ndarray:
    """Blocks of every labelId, -1 (stored as 255) included."""
    ids = np.array([*range(34), 255], np.uint8)
    rows = np.random.default_rng(seed).permutation(np.resize(ids, 48 * 64 // 64))
    return np.repeat(np.repeat(rows.reshape(6, 8), size[0] // 6, axis=0), size[1] // 8, axis=1)


def cityscapes_tree(root: Path, kinds=("labelIds",), coarse=False, size=(48, 64)) -> Path:
    """leftImg8bit/ and gtFine/ (gtCoarse/) as the downloads unpack, with the other files that lie there."""
    to_train = np.full(256, 255, np.uint8)
    to_train[[7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]] = np.arange(19)
    for split, frames in CITY_FRAMES.items():
        if split == "train_extra" and not coarse:
            continue
        for place, frame in enumerate(frames):
            city = frame.split("_")[0]
            image = random_image(sum(frame.encode()), size)
            write_png(root / f"leftImg8bit/{split}/{city}/{frame}_leftImg8bit.png", image)
            labels = city_label_ids(place, size)
            for name in (["gtFine"] if split != "train_extra" else []) + (["gtCoarse"] if coarse else []):
                stem = root / name / split / city / f"{frame}_{name}"
                for kind in kinds:
                    ids = to_train[labels] if kind == "labelTrainIds" else labels
                    write_png(stem.with_name(f"{stem.name}_{kind}.png"), ids)
                write_png(stem.with_name(f"{stem.name}_color.png"), random_image(place, size))
                write_png(stem.with_name(f"{stem.name}_instanceIds.png"), labels.astype(np.uint16) * 1000)
    return root


# Of the original CamVid: two frames of each split by name.
CAMVID_FRAMES = {
    "train": ("0001TP_006690", "0016E5_08190"),
    "val": ("0016E5_07959", "0016E5_08159"),
    "test": ("0001TP_008550", "Seq05VD_f00000"),
}
CAMVID_COLORS = {  # label_colors.txt of the data set
    "Animal": (64, 128, 64), "Archway": (192, 0, 128), "Bicyclist": (0, 128, 192), "Bridge": (0, 128, 64),
    "Building": (128, 0, 0), "Car": (64, 0, 128), "CartLuggagePram": (64, 0, 192), "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128), "Fence": (64, 64, 128), "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64), "Misc_Text": (128, 128, 64), "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64), "ParkingBlock": (64, 192, 128), "Pedestrian": (64, 64, 0), "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192), "Sidewalk": (0, 0, 192), "SignSymbol": (192, 128, 128), "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192), "TrafficCone": (0, 0, 64), "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128), "Tree": (128, 128, 0), "Truck_Bus": (192, 128, 192), "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0), "Void": (0, 0, 0), "Wall": (64, 192, 0),
}  # fmt: skip


def camvid_color_mask(seed: int, size=(48, 64)) -> np.ndarray:
    """RGB, blocks of all 32 colours."""
    colors = np.array(list(CAMVID_COLORS.values()), np.uint8)
    order = np.random.default_rng(seed).permutation(len(colors)).reshape(4, 8)
    return np.repeat(np.repeat(colors[order], size[0] // 4, axis=0), size[1] // 8, axis=1)


def camvid_32_tree(root: Path, form="original", size=(48, 64)) -> Path:
    """The original form or Kaggle's; masks NAME_L.png in colour."""
    seed = 0
    for split, frames in CAMVID_FRAMES.items():
        folders = {"original": ("701_StillsRaw_full", "LabeledApproved_full"), "kaggle": (split, f"{split}_labels")}
        images, masks = folders[form]
        for name in frames:
            write_png(root / images / f"{name}.png", random_image(seed, size))
            write_png(root / masks / f"{name}_L.png", camvid_color_mask(seed, size)[..., ::-1])
            seed += 1
    if form == "original":
        lines = [f"{r} {g} {b}\t{name}" for name, (r, g, b) in CAMVID_COLORS.items()]
        (root / "label_colors.txt").write_text("\n".join(lines))
    else:
        lines = ["name,r,g,b", *(f"{name},{r},{g},{b}" for name, (r, g, b) in CAMVID_COLORS.items())]
        (root / "class_dict.csv").write_text("\n".join(lines))
    return root


def voc_tree(root: Path, size=(48, 64)) -> Path:
    """VOCdevkit/VOC2012: palette masks, list files."""
    from PIL import Image

    for place, (split, name) in enumerate((("train", "2007_000032"), ("train", "2007_000039"), ("val", "2007_000033"))):
        write_png(root / f"JPEGImages/{name}.jpg", random_image(place, size))
        mask = Image.fromarray(random_mask(place, size, (*range(21), 255)), mode="P")
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
        (root / "SegmentationClass").mkdir(parents=True, exist_ok=True)
        mask.save(root / f"SegmentationClass/{name}.png")
        lists = root / "ImageSets/Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        with (lists / f"{split}.txt").open("a") as file:
            file.write(f"{name}\n")
    return root


def ade20k_tree(root: Path, size=(40, 50)) -> Path:
    """images/ and annotations/, two of training and one of validation; 0 is other."""
    for place, name in enumerate(("training/ADE_train_1", "training/ADE_train_2", "validation/ADE_val_1")):
        write_png(root / f"images/{name}.jpg", random_image(place, size))
        write_png(root / f"annotations/{name}.png", random_mask(place, size, range(151)))
    return root


def mmseg_tree(root: Path, size=(48, 64)) -> Path:
    """img_dir/SPLIT and ann_dir/SPLIT."""
    for split, names in {"train": "ab", "val": "c"}.items():
        folder_tree(root, names, (split,), size, masks="ann_dir")
    for place, path in enumerate(sorted((root / "images").rglob("*.jpg"))):
        write_png(path, random_image(10 + place, size))
    (root / "images").rename(root / "img_dir")
    return root
