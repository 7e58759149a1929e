"""The layouts and label maps that users bring: found, said, read, and trained on."""

import cv2
import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.labels import labels as CITY_LABELS
from data_trees import (
    CAMVID_COLORS,
    CAMVID_FRAMES,
    ade20k_tree,
    camvid_32_tree,
    camvid_tree,
    city_label_ids,
    cityscapes_tree,
    folder_tree,
    mmseg_tree,
    random_image,
    random_mask,
    voc_tree,
    write_png,
)

from segloss.datasets import MissingSplitError, build_dataset
from segloss.datasets.camvid import split_of
from segloss.datasets.class_files import read_class_file
from segloss.datasets.classes import ClassTable
from segloss.datasets.masks import lookup, map_mask
from segloss.datasets.tables import ADE20K, CAMVID_11, CAMVID_32, CITYSCAPES, VOC
from segloss.errors import InputError
from segloss.pixel_counts import count_dataset

MERGED = {  # the usual merge of the 32 classes, written out by hand
    "sky": "Sky", "building": "Building Archway Bridge Tunnel Wall", "pole": "Column_Pole TrafficCone",
    "road": "Road LaneMkgsDriv LaneMkgsNonDriv", "pavement": "Sidewalk ParkingBlock RoadShoulder",
    "tree": "Tree VegetationMisc", "sign_symbol": "SignSymbol Misc_Text TrafficLight", "fence": "Fence",
    "car": "Car SUVPickupTruck Truck_Bus Train OtherMoving", "pedestrian": "Pedestrian Child CartLuggagePram Animal",
    "bicyclist": "Bicyclist MotorcycleScooter",
}  # fmt: skip


def as_labels(dataset, colors_of_class) -> list[np.ndarray]:
    """Label maps of a data set of colour masks by a loop over its classes."""
    maps = []
    for _, path in dataset.pairs:
        rgb = cv2.imread(str(path))[..., ::-1]
        expected = np.full(rgb.shape[:2], 255, np.uint8)
        for c, colors in enumerate(colors_of_class):
            for color in colors:
                expected[(rgb == color).all(-1)] = c
        maps.append(expected)
    return maps


# ---- Cityscapes


def test_the_cityscapes_table_is_that_of_cityscapesscripts():
    trained = sorted((label for label in CITY_LABELS if 0 <= label.trainId < 19), key=lambda label: label.trainId)
    assert CITYSCAPES.names == tuple(label.name for label in trained)
    assert CITYSCAPES.ids == tuple(label.id for label in trained)
    assert CITYSCAPES.colors == tuple(label.color for label in trained)
    assert CITYSCAPES.categories == tuple(label.category for label in trained)
    stored = {label.id % 256: label.trainId for label in CITY_LABELS}  # -1 becomes 255 in an 8-bit PNG
    ids = np.array([sorted(stored)], np.uint8)
    expected = [stored[i] if 0 <= stored[i] < 19 else 255 for i in sorted(stored)]  # -1 and 255 are both ignored
    assert lookup(ids, CITYSCAPES)[0].tolist() == expected


@pytest.mark.parametrize("kinds", [("labelIds",), ("labelTrainIds",), ("labelTrainIds", "labelIds")], ids="+".join)
@pytest.mark.parametrize("split", ["train", "val"])
def test_cityscapes_masks_are_mapped_by_the_kind_in_their_name(tmp_path, kinds, split):
    dataset = build_dataset("cityscapes", cityscapes_tree(tmp_path, kinds), split)
    assert len(dataset) == 2
    table = {label.id % 256: label.trainId % 256 for label in CITY_LABELS}
    for place in range(2):
        expected = np.vectorize(table.get)(city_label_ids(place))
        np.testing.assert_array_equal(dataset[place]["labels"].numpy(), expected)
    read = "labelIds" if "labelIds" in kinds else "labelTrainIds"
    assert dataset.found.form == f"Cityscapes, gtFine/{split}, {read} masks"
    assert dataset.classes.ids == CITYSCAPES.ids  # predictions are saved in labelIds whatever was read
    assert dataset.names == sorted(dataset.names) and "leftImg8bit" not in dataset.names[0]


def test_cityscapes_counts_agree_with_the_table(tmp_path):
    counts = count_dataset(build_dataset("cityscapes", cityscapes_tree(tmp_path), "train"))
    maps = [city_label_ids(place) for place in range(2)]
    assert counts.pixels == tuple(sum(int((m == i).sum()) for m in maps) for i in CITYSCAPES.ids)
    assert counts.image_count == 2


def test_the_test_split_of_cityscapes_has_no_labels_though_dummies_lie_there(tmp_path):
    dataset = build_dataset("cityscapes", cityscapes_tree(tmp_path), "test")
    assert len(dataset) == 1 and not dataset.has_labels
    assert "labels" not in dataset[0]


def test_coarse_labels_and_the_extra_images(tmp_path):
    root = cityscapes_tree(tmp_path, coarse=True)
    coarse = build_dataset("cityscapes-coarse", root, "train")
    assert len(coarse) == 3
    assert all("gtCoarse" in str(mask) for _, mask in coarse.pairs)
    assert "gtCoarse/train" in coarse.found.form and "gtCoarse/train_extra" in coarse.found.form
    assert all("gtFine" in str(mask) for _, mask in build_dataset("cityscapes-coarse", root, "val").pairs)
    assert [image.parent.name for image, _ in build_dataset("cityscapes", root, "train_extra").pairs] == ["augsburg"]


def test_cityscapes_is_found_by_its_environment_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("CITYSCAPES_DATASET", str(cityscapes_tree(tmp_path)))
    assert len(build_dataset("cityscapes", None, "train")) == 2
    monkeypatch.delenv("CITYSCAPES_DATASET")
    with pytest.raises(InputError, match=r"'cityscapes' needs --data-path \(or \$CITYSCAPES_DATASET\)"):
        build_dataset("cityscapes", None, "train")


def test_what_is_missing_of_cityscapes_is_named(tmp_path):
    root = cityscapes_tree(tmp_path)
    with pytest.raises(MissingSplitError, match="no split 'minival'"):
        build_dataset("cityscapes", root, "minival")
    mask = next((root / "gtFine/train").rglob("*_labelIds.png"))
    mask.unlink()
    wanted = mask.name.replace(".", r"\.")
    with pytest.raises(InputError, match=rf"leftImg8bit\.png: image without mask; expected .*gtFine/train/{wanted},"):
        build_dataset("cityscapes", root, "train")
    for path in (root / "gtFine/val").rglob("*_labelIds.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"gtFine/val: holds no \*_labelIds\.png or \*_labelTrainIds\.png"):
        build_dataset("cityscapes", root, "val")
    (root / "gtFine").rename(root / "gtCoarse")
    for name in ("cityscapes", "cityscapes-coarse"):
        with pytest.raises(InputError, match=r"gtFine/val: masks of split 'val' are missing; unpack gtFine there"):
            build_dataset(name, root, "val")
    (root / "gtCoarse").rename(root / "away")
    with pytest.raises(InputError, match=r"gtFine/train: masks of split 'train' are missing"):
        build_dataset("cityscapes", root, "train")


# ---- CamVid


@pytest.mark.parametrize("form", ["original", "kaggle"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("classes", [11, 32])
def test_camvids_colour_masks_give_11_or_32_classes(tmp_path, form, split, classes):
    dataset = build_dataset("camvid", camvid_32_tree(tmp_path, form), split, classes=classes)
    assert tuple(dataset.names) == tuple(sorted(CAMVID_FRAMES[split]))
    if classes == 11:
        assert dataset.classes.names == tuple(MERGED) == CAMVID_11.names
        colors = [[CAMVID_COLORS[name] for name in MERGED[kind].split()] for kind in dataset.classes.names]
    else:
        assert len(dataset.classes) == 31 and "Void" not in dataset.classes.names
        colors = [[CAMVID_COLORS[name]] for name in dataset.classes.names]
    for place, expected in enumerate(as_labels(dataset, colors)):
        np.testing.assert_array_equal(dataset[place]["labels"].numpy(), expected)
        assert (expected == 255).sum() == expected.size // 32  # Void alone
    assert ("Kaggle form" if form == "kaggle" else "original form") in dataset.found.form
    assert ("merged into 11" in dataset.found.form) == (classes == 11)
    assert "masks named NAME_L" in dataset.found.form


def test_all_32_colours_of_camvid_are_known():
    colors = np.array([list(CAMVID_COLORS.values())], np.uint8)
    names = [CAMVID_32.names[c] if c < 255 else "Void" for c in lookup(colors, CAMVID_32)[0]]
    assert names == list(CAMVID_COLORS)
    merged = {name: kind for kind, names in MERGED.items() for name in names.split()}
    kinds = [CAMVID_11.names[c] if c < 255 else None for c in lookup(colors, CAMVID_11)[0]]
    assert kinds == [merged.get(name) for name in CAMVID_COLORS]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("0001TP_008520", "train"), ("0001TP_008550", "test"), ("0006R0_f00930", "train"), ("Seq05VD_f05100", "test"),
        ("0016E5_07957", "train"), ("0016E5_07959", "val"), ("0016E5_08159", "val"), ("0016E5_08161", "train"),
        ("0001TP_²1", "train"),
    ],
)  # fmt: skip
def test_the_original_form_is_split_by_name(name, split):
    assert split_of(name) == split


def test_classes_that_camvid_or_others_do_not_have_are_refused(tmp_path):
    camvid_tree(tmp_path)
    with pytest.raises(InputError, match="--classes 32 needs colour masks"):
        build_dataset("camvid", tmp_path, "train", classes=32)
    with pytest.raises(InputError, match="--classes 12: CamVid has 11 or 32"):
        build_dataset("camvid", tmp_path, "train", classes=12)
    with pytest.raises(
        InputError, match="--classes 32: only camvid has a choice, voc has the classes of its table; leave it out"
    ):
        build_dataset("voc", tmp_path, "train", classes=32)


# ---- folder and its presets


def test_pascal_voc_is_read_by_its_lists_with_its_table(tmp_path):
    voc_tree(tmp_path)
    train, val = (build_dataset("voc", tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (2, 1)
    np.testing.assert_array_equal(train[0]["labels"].numpy(), random_mask(0, (48, 64), (*range(21), 255)))
    assert train.classes == VOC and len(VOC) == 21 and VOC.names[15] == "person"
    assert train.found.form == (
        "names from ImageSets/Segmentation/train.txt, JPEGImages/ and SegmentationClass/; 21 classes from the built-in "
        "table"
    )
    with pytest.raises(MissingSplitError, match="no split 'test'"):
        build_dataset("voc", tmp_path, "test")


def test_ade20k_ignores_other_and_has_150_classes(tmp_path):
    dataset = build_dataset("ade20k", ade20k_tree(tmp_path), "train")
    np.testing.assert_array_equal(
        dataset[0]["labels"].numpy(), (random_mask(0, (40, 50), range(151)).astype(int) - 1) % 256
    )
    assert len(ADE20K) == 150 and ADE20K.names[0] == "wall" and ADE20K.names[149] == "flag"
    assert build_dataset("ade20k", tmp_path, "val").names == ["ADE_val_1"]


@pytest.mark.parametrize("images", ["images", "img_dir"])
@pytest.mark.parametrize("masks", ["masks", "ann_dir"])
def test_mmsegmentations_folders(tmp_path, images, masks):
    folder_tree(tmp_path, splits=("train", "val"))
    for old, new in (("images", images), ("masks", masks)):
        (tmp_path / old).rename(tmp_path / f"_{new}")
        (tmp_path / f"_{new}").rename(tmp_path / new)
    dataset = build_dataset("folder", tmp_path, "train")
    assert len(dataset) == 4
    assert dataset.found.form == f"{images}/train and {masks}/train; 3 classes from classes.yaml"


@pytest.mark.parametrize("prefix", ["", "/data/somebody/", "C:\\data\\"])
def test_list_files_of_two_columns_are_rebased(tmp_path, prefix):
    folder_tree(tmp_path)
    lines = [f"{prefix}images/{name}.jpg {prefix}masks/{name}.png" for name in "cb"]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    (tmp_path / "val.txt").write_text("images/a.jpg masks/a.png\n")
    dataset = build_dataset("folder", tmp_path, "train")
    assert dataset.names == ["c", "b"]
    assert dataset.pairs[0] == (tmp_path / "images/c.jpg", tmp_path / "masks/c.png")
    assert build_dataset("folder", tmp_path, "val").names == ["a"]
    (tmp_path / "val.txt").write_text(f"{prefix}images/z.jpg masks/a.png\n")
    with pytest.raises(InputError, match=r"val\.txt: lists .*images.z\.jpg .*no image and mask below"):
        build_dataset("folder", tmp_path, "val")


def test_list_files_of_names(tmp_path):
    folder_tree(tmp_path)
    (tmp_path / "train.txt").write_text("b.jpg\nd\n\n")
    (tmp_path / "val.txt").write_text("a\n")
    assert build_dataset("folder", tmp_path, "train").names == ["b", "d"]
    assert build_dataset("folder", tmp_path, "val").names == ["a"]
    with pytest.raises(MissingSplitError, match=r"test\.txt: is missing"):
        build_dataset("folder", tmp_path, "test")
    (tmp_path / "val.txt").write_text("z\n")
    with pytest.raises(InputError, match=r"val\.txt: lists z \(1 in all\), which is no image of"):
        build_dataset("folder", tmp_path, "val")
    (tmp_path / "val.txt").write_text("\n")
    with pytest.raises(InputError, match=r"val\.txt: lists nothing"):
        build_dataset("folder", tmp_path, "val")


@pytest.mark.parametrize("labelled", [True, False])
def test_a_listed_test_split_has_the_masks_that_there_are(tmp_path, labelled):
    folder_tree(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    for split, names in (("train", "a\nb\n"), ("val", "c\n"), ("test", "d\n")):
        (tmp_path / f"{split}.txt").write_text(names)
    if not labelled:
        (tmp_path / "masks/d_mask.png").unlink()
    dataset = build_dataset("folder", tmp_path, "test")
    assert (dataset.names, dataset.has_labels) == (["d"], labelled)


def test_masks_that_all_end_alike_pair_and_say_so(tmp_path):
    folder_tree(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    dataset = build_dataset("folder", tmp_path, "train")
    assert "masks named NAME_mask" in dataset.found.form
    assert all(mask.name == f"{image.stem}_mask.png" for image, mask in dataset.pairs)


def test_images_in_sub_folders_keep_their_path_in_their_name(tmp_path):
    for place, name in enumerate(("one/a", "two/a", "b")):
        write_png(tmp_path / f"images/train/{name}.jpg", random_image(place, (12, 17)))
        write_png(tmp_path / f"masks/train/{name}.png", random_mask(place, (12, 17)))
    (tmp_path / "classes.txt").write_text("x\ny\nz")
    assert build_dataset("folder", tmp_path, "train").names == ["b", "one/a", "two/a"]


def test_colours_of_a_class_file_read_colour_masks(tmp_path):
    colors = {"wall": (10, 20, 30), "floor": (0, 0, 255), "lamp": (200, 0, 0)}
    classes = "".join(f"- {{name: {name}, color: {list(color)}}}\n" for name, color in colors.items())
    folder_tree(tmp_path, classes="classes:\n" + classes + "ignore: [255, [0, 0, 0]]\n")
    ids = random_mask(0, (12, 17), (0, 1, 2, 3))
    rgb = np.array([*colors.values(), (0, 0, 0)], np.uint8)[ids]
    for name in "abcd":
        write_png(tmp_path / f"masks/{name}.png", rgb[..., ::-1])
    dataset = build_dataset("folder", tmp_path, "train")
    np.testing.assert_array_equal(dataset[0]["labels"].numpy(), np.where(ids == 3, 255, ids))
    assert count_dataset(dataset).ignored_pixels == len(dataset) * int((ids == 3).sum())
    rgb[-1, -1] = (1, 2, 3)
    write_png(tmp_path / "masks/b.png", rgb[..., ::-1])
    with pytest.raises(
        InputError, match=r"b\.png: holds colour 1,2,3 on 0\.49% of its pixels, .*; correct the mask, or add"
    ):
        count_dataset(build_dataset("folder", tmp_path, "train"))


@pytest.mark.parametrize("name", ["class_dict.csv", "label_colors.txt"])
def test_class_files_of_camvid_and_kaggle(tmp_path, name):
    camvid_32_tree(tmp_path, "kaggle" if name.endswith("csv") else "original")
    table = read_class_file(tmp_path / name)
    assert table.names == CAMVID_32.names
    assert table.colors == CAMVID_32.colors
    assert set(table.mask_colors) == set(CAMVID_32.mask_colors)


def test_the_last_value_of_16_bits_is_a_class_like_any_other():
    table = ClassTable(("a", "b"), ids=(0, 65535))
    assert map_mask(np.array([[65535, 0]], np.uint16), table, None).tolist() == [[1, 0]]


def test_a_jpeg_mask_is_refused(tmp_path):
    folder_tree(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        write_png(path.with_suffix(".jpg"), random_mask(0, (12, 17)))
        path.unlink()
    with pytest.raises(InputError, match=r"\.jpg: a JPEG does not keep ids or colours; export the mask as PNG"):
        build_dataset("folder", tmp_path, "train")[0]


# ---- the whole way


def ready(kind: str, root):
    """A tree and the flags that name it."""
    trees = {
        "cityscapes": lambda: (cityscapes_tree(root, size=(96, 128)), ["--dataset", "cityscapes"]),
        "camvid-32": lambda: (camvid_32_tree(root, size=(96, 128)), ["--dataset", "camvid", "--classes", "32"]),
        "camvid-11": lambda: (camvid_32_tree(root, "kaggle", size=(96, 128)), ["--dataset", "camvid"]),
        "voc": lambda: (voc_tree(root, size=(96, 128)), ["--dataset", "voc"]),
        "coarse": lambda: (cityscapes_tree(root, coarse=True, size=(96, 128)), ["--dataset", "cityscapes-coarse"]),
        "ade20k": lambda: (ade20k_tree(root, size=(96, 128)), ["--dataset", "ade20k"]),
        "mmseg": lambda: (mmseg_tree(root, size=(96, 128)), ["--dataset", "folder"]),
    }
    tree, flags = trees[kind]()
    return [*flags, "--data-path", str(tree)]


PREDICTIONS = {"cityscapes": 2, "coarse": 2, "camvid-32": 2, "camvid-11": 2, "voc": 1, "ade20k": 1, "mmseg": 1}


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_every_form_trains_and_is_evaluated(kind, tmp_path, monkeypatch, capsys):
    from eval_seg import evaluate
    from train_seg import train

    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    data = ready(kind, tmp_path / "data")
    run = tmp_path / "run"
    model = ["--arch", "unet", "--encoder", "tu-mobilenetv3_small_050", "--accelerator", "cpu", "--workers", "0"]
    crop = ["--crop-size", "64", "64", "--batch-size", "2", "--epochs", "1"]
    train([*data, *model, *crop, "--output-dir", str(run)])
    said = capsys.readouterr().out
    assert "form " in said
    evaluate(["--checkpoint", str(run), "--split", "val", "--save-predictions", "--accelerator", "cpu"])
    pictures = sorted((run / "eval-val/predictions").rglob("*.png"))
    assert len(pictures) == PREDICTIONS[kind]
    ids = {"cityscapes": CITYSCAPES.ids, "coarse": CITYSCAPES.ids, "ade20k": ADE20K.ids}.get(kind)
    if ids:
        assert set(np.unique(cv2.imread(str(pictures[0]), cv2.IMREAD_UNCHANGED))) <= set(ids)
    assert (run / "val_metrics.json").stat().st_size and torch.load(run / "checkpoints/best.ckpt", weights_only=True)
