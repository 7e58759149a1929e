"""Mapillary Vistas and BDD100K as downloaded, and what else people bring: names, lists, WebP, class files."""

import json

import cv2
import numpy as np
import pytest
from data_trees import ade20k_tree, cityscapes_tree, folder_tree, random_image, random_mask, voc_tree, write_png
from PIL import Image

from segloss.datasets import TABLES, build_dataset
from segloss.datasets.bdd100k import BDD100K
from segloss.datasets.class_files import read_class_file
from segloss.datasets.images import image_size, read_image
from segloss.datasets.masks import read_mask
from segloss.datasets.tables import CITYSCAPES
from segloss.datasets.transforms import EvalTransform, train_transform
from segloss.datasets.vistas import VISTAS, read_config
from segloss.datasets.whole import has_end
from segloss.doctor import examine
from segloss.errors import InputError
from segloss.models import require_batch_statistics

SIZE = (12, 17)


def image_and_mask(image, mask, seed, ids):
    write_png(image, random_image(seed, SIZE))
    if mask is not None:
        write_png(mask, random_mask(seed, SIZE, ids))


# ---- Mapillary Vistas


def vistas_tree(root, labels="v1.2/labels", ids=range(66), test=True):
    for place, (split, name) in enumerate([("training", "a"), ("training", "b"), ("validation", "c")]):
        image_and_mask(root / split / f"images/{name}.jpg", root / split / labels / f"{name}.png", place, ids)
    if test:
        image_and_mask(root / "testing/images/d.jpg", None, 3, ids)
    return root


@pytest.mark.parametrize("labels", ["labels", "v1.2/labels"])
def test_vistas_has_65_classes_and_unlabeled_is_ignored(tmp_path, labels):
    splits = [build_dataset("vistas", vistas_tree(tmp_path, labels), split) for split in ("train", "val", "test")]
    assert [split.names for split in splits] == [["a", "b"], ["c"], ["d"]]
    assert [split.has_labels for split in splits] == [True, True, False]
    raw = random_mask(0, SIZE, range(66))
    np.testing.assert_array_equal(splits[0][0]["labels"].numpy(), np.where(raw == 65, 255, raw))
    assert len(VISTAS) == 65 and TABLES["vistas"] is VISTAS
    named = {0: "Bird", 13: "Road", 24: "Lane Marking - General", 50: "Traffic Sign (Front)", 64: "Ego Vehicle"}
    assert {place: VISTAS.names[place] for place in named} == named
    assert VISTAS.colors[13] == (128, 64, 128) and VISTAS.colors[55] == (0, 0, 142)


CONFIG = [
    {"name": "animal--bird", "readable": "Bird", "evaluate": True, "color": [165, 42, 42]},
    {"name": "void--ground", "readable": "Ground", "evaluate": False, "color": [0, 0, 1]},
    {"name": "construction--flat--road", "readable": "Road", "evaluate": True, "color": [128, 64, 128]},
    {"name": "void--unlabeled", "readable": "Unlabeled", "evaluate": False, "color": [0, 0, 0]},
]


def test_classes_of_vistas_2_are_those_that_its_config_counts(tmp_path):
    root = vistas_tree(tmp_path, "v2.0/labels", range(4))
    (root / "config_v2.0.json").write_text(json.dumps({"labels": CONFIG}))
    dataset = build_dataset("vistas-v2", root, "train")
    assert (dataset.classes.names, dataset.classes.ids) == (("Bird", "Road"), (0, 2))
    wanted = np.array([0, 255, 1, 255])[random_mask(0, SIZE, range(4))]
    np.testing.assert_array_equal(dataset[0]["labels"].numpy(), wanted)


def test_readable_names_that_are_not_unique_give_way_to_the_full_ones(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"labels": [{**row, "readable": "same"} for row in CONFIG]}))
    assert read_config(path).names == ("animal--bird", "construction--flat--road")


DEEP = pytest.param("[" * 100_000, id="brackets")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"labels": [{"name": "a"}]}', '{"labels": []}', "[[[[", DEEP])
def test_a_config_of_vistas_that_says_nothing_is_refused(tmp_path, content):
    root = vistas_tree(tmp_path, "v2.0/labels", range(4))
    if content is not None:
        (root / "config_v2.0.json").write_text(content)
    with pytest.raises(InputError, match=r"config_v2\.0\.json: .*; put the file of the download there"):
        build_dataset("vistas-v2", root, "train")


def test_what_is_missing_of_vistas_is_named(tmp_path):
    root = vistas_tree(tmp_path, "v2.0/labels")
    with pytest.raises(InputError, match=r"v1\.2/labels: masks of split 'train' are missing"):
        build_dataset("vistas", root, "train")
    with pytest.raises(InputError, match="no split 'night'"):
        build_dataset("vistas", root, "night")
    with pytest.raises(InputError, match="split 'train' is missing"):
        build_dataset("vistas", root / "training", "train")


# ---- BDD100K


@pytest.mark.parametrize("above", ["", "bdd100k/"])
@pytest.mark.parametrize(
    ("images", "masks", "end"), [("images/10k", "labels/sem_seg/masks", ""), ("seg/images", "seg/labels", "_train_id")]
)
def test_bdd100k_is_read_as_now_and_as_once_downloaded(tmp_path, above, images, masks, end):
    for split, names in {"train": "ab", "val": "c", "test": "d"}.items():
        for place, name in enumerate(names):
            mask = None if split == "test" else tmp_path / above / masks / split / f"{name}{end}.png"
            image = tmp_path / above / images / split / f"{name}.jpg"
            image_and_mask(image, mask, place, (*range(19), 255))
    splits = [build_dataset("bdd100k", tmp_path, split) for split in ("train", "val", "test")]
    assert [split.names for split in splits] == [["a", "b"], ["c"], ["d"]]
    np.testing.assert_array_equal(splits[0][0]["labels"].numpy(), random_mask(0, SIZE, (*range(19), 255)))
    assert not splits[2].has_labels
    assert BDD100K.names == CITYSCAPES.names and BDD100K.ids == tuple(range(19))


def test_masks_of_bdd100k_that_were_not_unpacked_are_named(tmp_path):
    image_and_mask(tmp_path / "images/10k/train/a.jpg", None, 0, ())
    with pytest.raises(InputError, match=r"labels/sem_seg/masks/train: masks of split 'train' are missing; unpack"):
        build_dataset("bdd100k", tmp_path, "train")
    with pytest.raises(InputError, match="split 'val' is missing"):
        build_dataset("bdd100k", tmp_path, "val")


# ---- names of folders and files


FOLDERS = [
    *(("image", "label"), ("imgs", "masks"), ("Images", "Masks"), ("images", "Annotations"), ("img", "mask")),
    *(("images", "gt"), ("Image", "GT"), ("imgs", "annotations"), ("JPEGImages", "groundtruth")),
    ("JPEGImages", "SegmentationClassPNG"),
]


@pytest.mark.parametrize(("images", "masks"), FOLDERS)
@pytest.mark.parametrize("form", ["{kind}", "{kind}/{split}", "{split}/{kind}"])
def test_usual_names_of_folders(tmp_path, images, masks, form):
    (tmp_path / "classes.txt").write_text("a\nb\n")
    for split in ("train", "val"):
        for name in "xyz":
            name = f"{split}_{name}"
            image, mask = (tmp_path / form.format(kind=kind, split=split) for kind in (images, masks))
            image_and_mask(image / f"{name}.jpg", mask / f"{name}.png", 0, (0, 1))
    found = [build_dataset("folder", tmp_path, split) for split in ("train", "val")]
    assert sum(map(len, found)) == 6 and all(len(split) for split in found)


def test_what_labelme_exports_is_read_by_its_pictures_and_class_names(tmp_path):
    (tmp_path / "class_names.txt").write_text("_background_\ncrack\n")
    (tmp_path / "SegmentationClass").mkdir()
    for name in "abc":
        image_and_mask(tmp_path / f"JPEGImages/{name}.jpg", tmp_path / f"SegmentationClassPNG/{name}.png", 0, (0, 1))
        np.save(tmp_path / f"SegmentationClass/{name}.npy", np.full(SIZE, -1, np.int32))
    dataset = build_dataset("folder", tmp_path, "train")
    assert dataset.classes.names == ("_background_", "crack") and dataset[0]["labels"].unique().tolist() == [0, 1]
    assert "SegmentationClassPNG" in dataset.found.form and "class_names.txt" in dataset.found.form


@pytest.mark.parametrize(("image", "mask"), [("sat_{}", "mask_{}"), ("{}_sat", "{}_mask"), ("{}", "{}_mask_L")])
@pytest.mark.parametrize("between", ["|", " | ", ";", "\t"])
def test_prefixes_and_lists_of_pairs_with_bars(tmp_path, image, mask, between):
    folder_tree(tmp_path, images=[image.format(n) for n in (1, 10, 2)], ids=(0, 1))
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_name(mask.format(image_number(path.stem)) + ".png"))
    plain = build_dataset("folder", tmp_path, "train").pairs + build_dataset("folder", tmp_path, "val").pairs
    assert {(i.stem, m.stem) for i, m in plain} == {(image.format(n), mask.format(n)) for n in (1, 10, 2)}
    lines = (f"images/{image.format(n)}.jpg{between}masks/{mask.format(n)}.png" for n in (1, 10))
    (tmp_path / "train.txt").write_text("\n".join(lines))
    listed = build_dataset("folder", tmp_path, "train").pairs
    assert [(i.stem, m.stem) for i, m in listed] == [(image.format(n), mask.format(n)) for n in (1, 10)]


def image_number(name):
    return int("".join(letter for letter in name if letter.isdigit()))


@pytest.mark.parametrize(
    "text",
    [
        "name;r;g;b\nroad;128;64;128\nsky;70;130;180\nvoid;0;0;0\n",
        "class,red,green,blue\nroad,128,64,128\nsky,70,130,180\nvoid,0,0,0\n",
        "Name; Red; Green; Blue\nroad; 128; 64; 128\nsky; 70; 130; 180\nVoid; 0; 0; 0\n",
        "\ufeffclass_name\tR\tG\tB\r\nroad\t128\t64\t128\r\nsky\t70\t130\t180\r\nvoid\t0\t0\t0\r\n",
    ],
)
def test_class_dict_files_of_other_hands(tmp_path, text):
    path = tmp_path / "class_dict.csv"
    path.write_text(text, encoding="utf-8", newline="")
    table = read_class_file(path)
    assert table.names == ("road", "sky") and table.colors == ((128, 64, 128), (70, 130, 180))
    assert dict(table.mask_colors)[(0, 0, 0)] == 255


# ---- text files whose lines end in numbers


@pytest.mark.parametrize(
    ("text", "names", "said"),
    [
        ("crack 1\nbackground 0\n", ("crack", "background"), True),
        ("Highway 1\nRoute 66\n", ("Highway", "Route"), True),
        ("zone 1\nzone 2\n", ("zone 1", "zone 2"), False),
        ("crack\nbackground\n", ("crack", "background"), False),
        ("0 0 0 crack\n1 1 1 background\n", ("crack", "background"), False),
    ],
)
def test_numbers_read_as_ids_are_said_to_be(tmp_path, text, names, said):
    folder_tree(tmp_path, ids=(0, 1))
    (tmp_path / "classes.yaml").unlink()
    (tmp_path / "classes.txt").write_text(text)
    dataset = build_dataset("folder", tmp_path, "train")
    assert dataset.classes.names == names
    assert (", a name and its id a line" in dataset.found.form) == said


@pytest.mark.parametrize("first", ["Label", "index", "name"])
def test_a_first_line_that_is_read_as_a_header_is_said_to_be(tmp_path, first):
    folder_tree(tmp_path, ids=(0, 1, 2))
    (tmp_path / "classes.yaml").unlink()
    (tmp_path / "classes.txt").write_text(f"{first}\nBarcode\nBox")
    dataset = build_dataset("folder", tmp_path, "train")
    assert f"; 2 classes from classes.txt, without its first line '{first}' (a header)" in dataset.found.form
    both = f"it is one past the last class.*; the first line of the class file, '{first}', is read as a header: if it"
    with pytest.raises(InputError, match=both):
        dataset.read_labels(0)
    (tmp_path / "classes.txt").write_text(f"- {first}\n- Barcode\n- Box")
    dataset = build_dataset("folder", tmp_path, "train")
    assert (dataset.classes.names, "header" in dataset.found.form) == ((first, "Barcode", "Box"), False)


# ---- WebP


def webp(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_webp_images_are_read_and_train(tmp_path):
    folder_tree(tmp_path, ids=(0, 1))
    for path in sorted((tmp_path / "images").glob("*.jpg")):
        webp(path.with_suffix(".WEBP" if path.stem == "a" else ".webp"), random_image(1, SIZE), lossless=True)
        path.unlink()
    dataset = build_dataset("folder", tmp_path, "train")
    assert dataset[0]["image"].shape == (3, *SIZE)
    np.testing.assert_array_equal(dataset.read_image(0), random_image(1, SIZE))
    dataset.check_files()


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_has_three_bands_and_a_fourth_only_if_it_says_nothing(tmp_path, lossless):
    full = np.dstack([random_image(0, SIZE), np.full(SIZE, 255, np.uint8)])
    found = read_image(webp(tmp_path / "a.webp", full, lossless=lossless, exact=True, quality=95))
    assert found.shape == (*SIZE, 3) and found.dtype == np.uint8
    if lossless:
        np.testing.assert_array_equal(found, full[..., :3])
    full[0, 0, 3] = 7
    with pytest.raises(InputError, match="has 4 bands"):
        read_image(webp(tmp_path / "b.webp", full, lossless=lossless, exact=True))


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_webp_that_is_cut_off_is_refused(tmp_path, lossless, share):
    path = webp(tmp_path / "a.webp", random_image(0, (40, 60)), lossless=lossless)
    assert has_end(path) and image_size(path) == (40, 60)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert not has_end(path)
    with pytest.raises(InputError, match=r"a\.webp: is cut off"):
        read_image(path)


def test_an_animation_is_refused(tmp_path):
    frames = [Image.fromarray(random_image(seed, SIZE)) for seed in range(2)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="is an animation, of which one picture is read"):
        read_image(tmp_path / "a.webp")


def test_of_webp_masks_those_with_loss_are_refused_and_colours_without_are_kept(tmp_path):
    colors = np.array([[0, 0, 0], [128, 64, 128], [70, 130, 180]], np.uint8)[random_mask(0, SIZE, range(3))]
    np.testing.assert_array_equal(read_mask(webp(tmp_path / "a.webp", colors, lossless=True)), colors)
    with pytest.raises(InputError, match="a WebP with loss does not keep ids or colours"):
        read_mask(webp(tmp_path / "b.webp", colors, quality=100))


# ---- files that are passed over


def findings_of(root, kind="folder", splits=("train", "val")):
    return [str(finding) for finding in examine([build_dataset(kind, root, split) for split in splits])[0]]


def test_pictures_that_are_not_read_are_named(tmp_path):
    root = folder_tree(tmp_path, splits=("train", "val"), ids=(0, 1, 2))
    for name in ("x.heic", "y.GIF", ".hidden.gif", "notes.txt"):
        (root / "images/train" / name).write_bytes(b"?")
    said = [line for line in findings_of(root) if "passed over" in line]
    assert len(said) == 1
    assert "x.heic: is a picture of a format that is not read, passed over (and 1 more files)" in said[0]


def test_images_outside_the_folders_of_the_splits_are_named(tmp_path):
    root = folder_tree(tmp_path, splits=("train", "val"), ids=(0, 1, 2))
    write_png(root / "images/loose.jpg", random_image(7, SIZE))
    write_png(root / "logo.png", random_image(8, SIZE))  # beside the data, as many have one
    said = [line for line in findings_of(root) if "passed over" in line]
    assert len(said) == 1 and "loose.jpg: is an image outside the folders of the splits" in said[0]


def test_loose_frames_of_a_city_are_named(tmp_path):
    root = cityscapes_tree(tmp_path)
    write_png(root / "leftImg8bit/x_000000_000001_leftImg8bit.png", random_image(3, (48, 64)))
    assert any("outside the folders" in line for line in findings_of(root, "cityscapes"))


@pytest.mark.parametrize("make", [lambda root: voc_tree(root), lambda root: folder_tree(root, ids=(0, 1, 2))])
def test_nothing_is_said_where_nothing_is_passed_over(tmp_path, make):
    make(tmp_path)
    kind = "voc" if (tmp_path / "JPEGImages").is_dir() else "folder"
    assert not [line for line in findings_of(tmp_path, kind) if "passed over" in line]


def test_an_empty_folder_names_the_pictures_that_it_holds(tmp_path):
    folder_tree(tmp_path, splits=("val",))
    (tmp_path / "images/train").mkdir()
    (tmp_path / "masks/train").mkdir()
    for name in ("a.heic", "b.heic"):
        (tmp_path / "images/train" / name).write_bytes(b"?")
    with pytest.raises(
        InputError, match=r"holds no images \(.*\), but a\.heic and 1 more, not a format that is read; save"
    ):
        build_dataset("folder", tmp_path, "train")


def test_masks_of_a_format_that_is_not_read_are_named(tmp_path):
    folder_tree(tmp_path, splits=("train",), ids=(0, 1))
    for path in (tmp_path / "masks/train").iterdir():
        path.rename(path.with_suffix(".gif"))
    with pytest.raises(InputError, match=r"image without mask and 3 more, but a\.gif and 3 more, not a format that is"):
        build_dataset("folder", tmp_path, "train")


# ---- ADE20K, sizes, batches


def test_ade20k_reduced_to_0_to_149_is_hinted_at(tmp_path):
    root = ade20k_tree(tmp_path)
    assert not any("reduced" in line for line in findings_of(root, "ade20k"))
    for path in (root / "annotations").rglob("*.png"):
        write_png(path, cv2.imread(str(path), cv2.IMREAD_UNCHANGED) - np.uint8(1))
    said = [line for line in findings_of(root, "ade20k") if "reduced to 0..149" in line]
    assert len(said) == 2 and "every class one off" in said[0]


def test_ade20k_with_some_void_of_its_own_is_not(tmp_path):
    root = ade20k_tree(tmp_path)
    for path in (root / "annotations").rglob("*.png"):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mask[0] = 255
        write_png(path, mask)
    assert not any("reduced" in line for line in findings_of(root, "ade20k"))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (9, 9)])
@pytest.mark.parametrize("scale", [0.1, 0.001])
def test_images_smaller_than_a_pixel_become_one(size, scale):
    image, labels = random_image(0, size), random_mask(0, size, (0, 1))
    found, of = train_transform((32, 40), 0, image_scale=scale, scale_range=(0.5, 2))(image, labels, (0, 0))
    assert found.shape == (32, 40, 3) and of.shape == (32, 40)
    assert 1 <= (of != 255).sum() <= max(1, size[1] // 4)
    assert min(EvalTransform(scale)(image, labels, (0, 0))[0].shape[:2]) == 1


class Normalised:
    """A network whose last norm sees one value per channel."""

    def __new__(cls):
        from torch import nn

        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))


@pytest.mark.parametrize(
    ("batch_size", "images", "devices", "few", "cure"),
    [
        (1, 9, 1, "--batch-size 1", "take --batch-size 2 or more, or --frozen-batch-norm all"),
        (1, 1, 1, "--batch-size 1", "add images and --batch-size 2 or more, or --frozen-batch-norm all"),
        (8, 1, 1, "one training image", "add images, or --frozen-batch-norm all"),
        (8, 1, 2, "one training image a device", "add images or take fewer --devices, or --frozen-batch-norm all"),
    ],
)
def test_a_batch_of_one_value_per_channel_is_one_line(batch_size, images, devices, few, cure):
    with pytest.raises(InputError) as error:
        require_batch_statistics(Normalised(), batch_size, (32, 32), images, devices=devices)
    assert str(error.value) == f"{few} leaves a batch norm of the network one value per channel; {cure}"
    require_batch_statistics(Normalised(), 2, (32, 32), 2)
    require_batch_statistics(Normalised(), 2, (32, 32))
