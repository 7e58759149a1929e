"""Data sets on disk and made up: pairing, reading, refusing, fingerprints."""

import hashlib
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from data_trees import camvid_tree, folder_tree, random_image, random_mask, write_png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segloss.datasets import MissingSplitError, base, build_dataset
from segloss.datasets.base import SegmentationDataset
from segloss.datasets.classes import ClassTable
from segloss.datasets.images import image_size, read_header, read_image
from segloss.datasets.masks import map_mask, read_mask
from segloss.datasets.missing import unread_pictures
from segloss.datasets.pairing import Pairing
from segloss.datasets.splits import hash_split
from segloss.datasets.synthetic import SyntheticStreets
from segloss.datasets.tables import CAMVID_11
from segloss.errors import InputError, told


def names(dataset) -> list[str]:
    return [dataset.sample_name(index) for index in range(len(dataset))]


# ---- CamVid's form


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPG", ".jpeg"])
def test_camvid_pairs_images_and_masks_by_stem(tmp_path, suffix):
    camvid_tree(tmp_path, images=("b", "a", "ä b"), suffix=suffix)
    dataset = build_dataset("camvid", tmp_path, "val")
    assert names(dataset) == ["a", "b", "ä b"]
    for image, mask in dataset.pairs:
        assert (image.parent.name, mask.parent.name) == ("val", "valannot")
        assert image.stem == mask.stem
    assert dataset.has_labels
    assert dataset.classes == CAMVID_11


def test_images_are_rgb_as_in_the_file_and_void_is_255(tmp_path):
    camvid_tree(tmp_path, images=("a",))
    item = build_dataset("camvid", tmp_path, "train")[0]
    np.testing.assert_array_equal(
        item["image"].permute(1, 2, 0).numpy()[..., ::-1],  # OpenCV wrote it as BGR
        random_image(0, (12, 17)),
    )
    mask = random_mask(0, (12, 17), range(12)).astype(np.int64)
    np.testing.assert_array_equal(item["labels"].numpy(), np.where(mask == 11, 255, mask))


def test_hidden_and_other_files_are_no_images(tmp_path):
    camvid_tree(tmp_path)
    for name in ("._a.png", ".DS_Store", "notes.txt", "Thumbs.db"):
        (tmp_path / "train" / name).write_bytes(b"x")
    assert names(build_dataset("camvid", tmp_path, "train")) == ["a", "b"]


@pytest.mark.parametrize("prefix", ["/SegNet/CamVid/train/", "C:\\data\\train\\", "train/", ""])
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "byte-order mark"])
def test_a_list_file_chooses_by_name_whatever_its_prefix(tmp_path, prefix, start):
    camvid_tree(tmp_path, images=("c", "b", "a", "ü"))
    lines = [f"{prefix}{stem}.png {prefix.replace('train', 'trainannot')}{stem}.png" for stem in ("ü", "c", "a")]
    (tmp_path / "train.txt").write_bytes((start + "\n".join(lines) + "\n\n").encode())
    assert names(build_dataset("camvid", tmp_path, "train")) == ["a", "c", "ü"]
    assert names(build_dataset("camvid", tmp_path, "val")) == ["a", "b", "c", "ü"]


def test_a_list_file_that_names_a_missing_image_is_refused(tmp_path):
    camvid_tree(tmp_path)
    (tmp_path / "train.txt").write_text("train/a.png x\ntrain/gone.png x\ntrain/away.png x\n")
    with pytest.raises(InputError, match=r"train\.txt: lists gone \(2 in all\)"):
        build_dataset("camvid", tmp_path, "train")


def test_a_missing_split_is_a_missing_split_error(tmp_path):
    camvid_tree(tmp_path, splits=("train", "val"))
    with pytest.raises(MissingSplitError, match="test: split 'test' is missing"):
        build_dataset("camvid", tmp_path, "test")


def test_masks_may_be_missing_in_the_test_split_only(tmp_path):
    camvid_tree(tmp_path, masks=False)
    for split in ("train", "val"):
        with pytest.raises(InputError, match=f"{split}annot: masks of split '{split}' are missing"):
            build_dataset("camvid", tmp_path, split)
    dataset = build_dataset("camvid", tmp_path, "test")
    assert not dataset.has_labels
    assert "labels" not in dataset[0]
    with pytest.raises(InputError, match="split test has no masks; choose a split with labels"):
        dataset.read_labels(0)


@pytest.mark.parametrize("name", ["camvid", "folder"])
def test_a_missing_data_folder_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"nowhere: data folder.* is missing; check --data-path"):
        build_dataset(name, tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match=f"'{name}' needs --data-path"):
        build_dataset(name, None, "train")


def test_an_unknown_data_set_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(
        InputError, match=r"unknown dataset 'camvit'; choose one of bdd100k, camvid, cityscapes, .*synthetic"
    ):
        build_dataset("camvit", tmp_path, "train")


# ---- what does not pair or fit


def test_an_empty_split_is_refused(tmp_path):
    camvid_tree(tmp_path, images=())
    (tmp_path / "train").mkdir()
    (tmp_path / "trainannot").mkdir()
    with pytest.raises(InputError, match=r"train: holds no images .* check --data-path and --split"):
        build_dataset("camvid", tmp_path, "train")


def test_an_image_without_mask_is_named_with_the_mask_it_lacks(tmp_path):
    camvid_tree(tmp_path, images=("a", "b", "c"))
    (tmp_path / "trainannot/b.png").unlink()
    with pytest.raises(InputError, match=r"train/b\.png: image without mask; expected .*trainannot/b\.png"):
        build_dataset("camvid", tmp_path, "train")
    (tmp_path / "trainannot/c.png").unlink()
    with pytest.raises(InputError, match="image without mask and 1 more"):
        build_dataset("camvid", tmp_path, "train")


def test_a_mask_without_image_is_passed_over(tmp_path):
    camvid_tree(tmp_path, images=("a", "b"))
    (tmp_path / "train/b.png").unlink()
    assert names(build_dataset("camvid", tmp_path, "train")) == ["a"]


def test_two_files_of_one_stem_are_refused(tmp_path):
    camvid_tree(tmp_path)
    write_png(tmp_path / "train/a.jpg", random_image(0, (12, 17)))
    with pytest.raises(InputError, match=r"a\.png: same stem as a\.jpg; keep one of the two"):
        build_dataset("camvid", tmp_path, "train")


def test_image_and_mask_of_different_size_are_refused_with_both_sizes(tmp_path):
    camvid_tree(tmp_path, size=(12, 17))
    write_png(tmp_path / "trainannot/a.png", random_mask(0, (17, 12)))
    dataset = build_dataset("camvid", tmp_path, "train")
    for look in (lambda: dataset[0], dataset.check_files):
        with pytest.raises(InputError, match=r"trainannot/a\.png: mask is 12x17 but its image a\.png is 17x12 \(width"):
            look()


@pytest.mark.parametrize("broken", ["train/a.png", "trainannot/a.png"])
@pytest.mark.parametrize("content", ["text", "empty"])
def test_a_file_that_is_no_image_is_refused_by_name(tmp_path, broken, content):
    camvid_tree(tmp_path)
    (tmp_path / broken).write_bytes(b"this is text" if content == "text" else b"")
    dataset = build_dataset("camvid", tmp_path, "train")
    for look in (lambda: dataset[0], dataset.check_files):
        with pytest.raises(InputError, match=f"{broken}: is not a readable image; replace the file"):
            look()


@pytest.mark.parametrize("broken", ["train/a.png", "trainannot/a.png"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.98])
def test_a_truncated_file_is_refused_by_name(tmp_path, broken, kept):
    camvid_tree(tmp_path, size=(120, 170))
    content = (tmp_path / broken).read_bytes()
    (tmp_path / broken).write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InputError, match=f"{broken}: is (not a readable image|cut off); replace"):
        build_dataset("camvid", tmp_path, "train")[0]


def test_a_file_removed_meanwhile_is_refused_by_name(tmp_path):
    camvid_tree(tmp_path)
    dataset = build_dataset("camvid", tmp_path, "train")
    (tmp_path / "trainannot/a.png").unlink()
    with pytest.raises(InputError, match=r"trainannot/a\.png: cannot be read: No such file"):
        dataset[0]


def test_check_files_passes_what_can_be_read(tmp_path):
    for split in ("train", "val"):
        build_dataset("camvid", camvid_tree(tmp_path), split).check_files()
    build_dataset("synthetic", None, "train").check_files()


# ---- ids in masks


def test_a_stray_id_is_refused_with_file_value_share_and_cure(tmp_path):
    folder_tree(tmp_path, images=("a", "b"), splits=("train",))
    mask = np.zeros((12, 17), np.uint8)
    mask[0, :4] = (7, 7, 7, 9)
    write_png(tmp_path / "masks/train/a.png", mask)
    with pytest.raises(InputError) as refusal:
        build_dataset("folder", tmp_path, "train")[0]
    message = str(refusal.value)
    for part in ("masks/train/a.png", "id 7, 9", "1.96%", "ids 0-2", "ignored 255", "add the id as a class"):
        assert part in message


def test_many_stray_ids_are_cut_short(tmp_path):
    folder_tree(tmp_path, images=("a",), splits=("train",))
    write_png(tmp_path / "masks/train/a.png", np.arange(204, dtype=np.uint8).reshape(12, 17))
    with pytest.raises(InputError, match=r"holds id 3, 4, 5, 6, 7, 8, 9, 10, \.\.\. on"):
        build_dataset("folder", tmp_path, "train")[0]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_masks_give_their_indices(tmp_path, bits):
    mask = random_mask(0, (9, 13), (0, 1) if bits == 1 else (0, 1, 2))
    picture = Image.fromarray(mask, "P")
    picture.putpalette([0, 0, 0, 255, 255, 255, 0, 0, 128])
    for name, options in (("plain.png", {}), ("transparent.png", {"transparency": 0})):
        picture.save(tmp_path / name, bits=bits, **options)
        np.testing.assert_array_equal(read_mask(tmp_path / name), mask)


def grey_png(mask: np.ndarray, bits: int) -> bytes:
    """A grey PNG of few bits a pixel, written by hand: neither OpenCV nor Pillow writes all of them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b""
    for row in mask:
        digits = "".join(f"{value:0{bits}b}" for value in row)
        digits += "0" * (-len(digits) % 8)
        rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    header = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], bits, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_masks_of_few_bits_keep_their_ids(tmp_path, bits):
    """OpenCV stretches them to 0..255: id 1 of a 1-bit mask would be 255, the ignored label."""
    mask = random_mask(1, (9, 13), range(min(2**bits, 200)))
    (tmp_path / "mask.png").write_bytes(grey_png(mask, bits))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask)


def test_a_black_and_white_mask_saved_by_pillow_is_0_and_1(tmp_path):
    mask = random_mask(2, (9, 13), (0, 1))
    Image.fromarray(mask * 255).convert("1").save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask)


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_masks_are_refused_where_the_table_gives_no_colours(tmp_path, channels):
    path = write_png(tmp_path / "mask.png", np.zeros((5, 6, channels), np.uint8))
    with pytest.raises(InputError, match=r"mask\.png: is a colour image, but .* gives no colours; give each class"):
        map_mask(read_mask(path), ClassTable(("a", "b")), path)


def test_16_bit_masks_keep_their_ids(tmp_path):
    ids = np.array([[0, 300, 65535], [255, 7, 300]], np.uint16)
    path = write_png(tmp_path / "mask.png", ids)
    table = ClassTable(("a", "b", "c"), ids=(7, 300, 65535), ignore_ids=(0,))
    np.testing.assert_array_equal(map_mask(read_mask(path), table, path), [[255, 1, 2], [255, 0, 1]])
    with pytest.raises(InputError, match=r"holds id 300 on 33\.33% of its pixels"):
        map_mask(read_mask(path), ClassTable(("a", "b"), ids=(7, 65535), ignore_ids=(0,)), path)


# ---- the folder form


@pytest.mark.parametrize("masks", ["masks", "labels", "annotations"])
def test_folder_finds_its_masks_with_and_without_split_folders(tmp_path, masks):
    folder_tree(tmp_path / "split", splits=("train", "val", "minival"), masks=masks)
    for split in ("train", "val", "minival"):
        dataset = build_dataset("folder", tmp_path / "split", split)
        assert names(dataset) == ["a", "b", "c", "d"]
        assert all(mask.parent == tmp_path / "split" / masks / split for _, mask in dataset.pairs)
    folder_tree(tmp_path / "flat", masks=masks)
    both = [build_dataset("folder", tmp_path / "flat", split) for split in ("train", "val")]
    assert sorted(names(both[0]) + names(both[1])) == ["a", "b", "c", "d"]
    assert both[0].classes.names == ("wall", "floor", "lamp")


@pytest.mark.parametrize("name", ["classes.yaml", "classes.yml", "classes.json", "classes.txt"])
def test_folder_takes_each_kind_of_class_file(tmp_path, name):
    folder_tree(tmp_path, splits=("train",))
    (tmp_path / "classes.yaml").unlink()
    (tmp_path / name).write_text('["x", "y", "z"]' if name != "classes.txt" else "x\ny\nz\n")
    assert build_dataset("folder", tmp_path, "train").classes == ClassTable(names=("x", "y", "z"))


def test_folder_without_class_file_images_or_masks_is_refused(tmp_path):
    folder_tree(tmp_path)
    for part, message in (
        ("masks", r"masks: folder of masks is missing \(or labels, annotations,"),
        ("images", r"images: folder of images is missing; pictures lie in away/, masks/: rename"),
        ("classes.yaml", r"classes\.yaml: class file is missing; write the class names there"),
    ):
        (tmp_path / part).rename(tmp_path / "away")
        with pytest.raises(InputError, match=message):
            build_dataset("folder", tmp_path, "train")
        (tmp_path / "away").rename(tmp_path / part)
    assert len(build_dataset("folder", tmp_path, "train")) > 0  # all is well again


@pytest.mark.parametrize(
    ("names", "lie"),
    [
        (("training/image_2/a", "training/semantic/a"), "training/image_2/, training/semantic/"),
        (("train/a_sat", "train/a_mask"), "train/"),
        (("a", "a_mask"), "the folder itself"),
    ],
)
def test_pictures_that_lie_elsewhere_are_named(tmp_path, names, lie):
    for name in names:
        write_png(tmp_path / f"{name}.png", random_mask(0, (12, 17)))
    (tmp_path / "classes.txt").write_text("wall\nfloor\n")
    with pytest.raises(InputError, match=f"images: folder of images is missing; pictures lie in {lie}: rename or link"):
        build_dataset("folder", tmp_path, "train")


def test_folder_with_split_folders_lacking_one_says_so(tmp_path):
    folder_tree(tmp_path, splits=("train",))
    with pytest.raises(MissingSplitError, match="images/val: split 'val' is missing"):
        build_dataset("folder", tmp_path, "val")
    for split in ("val", "test"):
        write_png(tmp_path / f"images/{split}/a.jpg", random_image(0, (12, 17)))
    with pytest.raises(InputError, match="masks/val: masks of split 'val' are missing"):
        build_dataset("folder", tmp_path, "val")
    assert not build_dataset("folder", tmp_path, "test").has_labels


def test_folder_without_split_folders_has_train_and_val_only(tmp_path):
    folder_tree(tmp_path)
    with pytest.raises(MissingSplitError, match="has no folder 'test'; without split folders there are train and val"):
        build_dataset("folder", tmp_path, "test")


@given(st.sets(st.text("abcdefgh0123", min_size=1, max_size=6), min_size=2, max_size=60), st.floats(0.02, 0.98))
@settings(deadline=None, max_examples=60)
def test_the_hash_split_is_disjoint_and_complete_and_neither_side_is_empty(names, share):
    split = hash_split(sorted(names), share)
    assert split["train"] and split["val"]
    assert sorted(split["train"] + split["val"]) == list(range(len(names)))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_hash_split_gives_about_the_share_and_moves_no_image_when_more_come(share):
    names = [f"frame_{i:04d}" for i in range(1000)]
    few, more = hash_split(names[:500], share), hash_split(names, share)
    # Four standard deviations of a binomial of 500.
    assert abs(len(few["val"]) / 500 - share) < 4 * (share * (1 - share) / 500) ** 0.5
    for split in ("train", "val"):
        assert set(few[split]) < set(more[split])


@pytest.mark.parametrize(
    ("copy", "kept"),
    [
        ("_hflip", True),
        ("_rot90", True),
        ("-aug3", True),
        ("_Flip_LR", True),
        ("_bright_noise", True),
        (" - Copy", True),
        ("_2", False),
        ("_left", False),
        ("crop", False),
        ("_augsburg", False),
    ],
)
def test_augmented_copies_stay_with_their_picture_in_the_hash_split(copy, kept):
    names = [f"scene{k:03d}{end}" for k in range(200) for end in ("", copy)]
    val = {names[place] for place in hash_split(names, 0.2)["val"]}
    assert all((name in val) == (name + copy in val) for name in names[::2]) == kept


def test_copies_of_a_picture_stay_together_in_the_hash_split():
    """Of 10 pictures in three copies each, 4 of the 5 in val were in train too."""
    copies = [f"IMG_{i}_jpg.rf.{hashlib.md5(f'{i} {k}'.encode()).hexdigest()}" for i in range(10) for k in range(3)]
    for names in (copies, copies[:6]):
        split = hash_split(names, 0.2)
        pictures = [{names[place][:7] for place in split[part]} for part in ("train", "val")]
        assert all(pictures) and not pictures[0] & pictures[1]
    split = hash_split(copies[:3], 0.2)  # of one picture alone
    assert split["train"] and split["val"]


@pytest.mark.parametrize("form", ["frame_{:04d}", "scan.rf.{}", "scan.rf.{:032d}", "a.rf.{}.rf"])
def test_other_names_are_split_as_ever(form):
    names = [form.format(i) for i in range(200)]
    by_hash = sorted(range(200), key=lambda place: hashlib.sha256(names[place].encode()).digest()[:8])
    below = sum(int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64 < 0.2 for name in names)
    assert hash_split(names, 0.2) == {"train": sorted(by_hash[below:]), "val": sorted(by_hash[:below])}


@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_images_still_give_both_splits(tmp_path, count):
    folder_tree(tmp_path, images=("a", "b", "c")[:count])
    sizes = [len(build_dataset("folder", tmp_path, split, val_share=0.01)) for split in ("train", "val")]
    assert sizes == [count - 1, 1]


def test_one_image_is_too_few_to_split(tmp_path):
    folder_tree(tmp_path, images=("a",))
    with pytest.raises(InputError, match=r"a\.jpg: is the only image; a training and a validation image are needed"):
        build_dataset("folder", tmp_path, "train")


@pytest.mark.parametrize("splits", [("train", "val"), ()])
def test_a_share_for_val_that_is_not_read_is_said(tmp_path, splits):
    root, told = folder_tree(tmp_path, splits=splits), "--val-share 0.7 is not read: the splits are given"
    assert build_dataset("folder", root, "val", val_share=0.7).found.form.endswith(told) == bool(splits)
    assert "--val-share" not in build_dataset("folder", root, "val").found.form


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_outside_0_to_1_is_refused(tmp_path, share):
    folder_tree(tmp_path)
    with pytest.raises(InputError, match="--val-share must be between 0 and 1, got"):
        build_dataset("folder", tmp_path, "train", val_share=share)


# ---- items


def test_an_item_is_uint8_image_int64_labels_name_and_size(tmp_path):
    folder_tree(tmp_path, images=("Straße 1", "été", "画像"), splits=("train",), size=(12, 17))
    dataset = build_dataset("folder", tmp_path, "train")
    assert sorted(names(dataset)) == sorted(["Straße 1", "été", "画像"])
    for index in range(3):
        item = dataset[index]
        assert set(item) == {"image", "labels", "name", "size"}
        assert item["image"].dtype == torch.uint8 and item["image"].shape == (3, 12, 17)
        assert item["labels"].dtype == torch.int64 and item["labels"].shape == (12, 17)
        assert item["image"].is_contiguous()
        assert item["name"] == dataset.sample_name(index)
        assert item["size"] == (12, 17) and all(type(side) is int for side in item["size"])


def test_the_transform_sees_epoch_and_index_and_size_stays_that_of_the_file(tmp_path):
    seen = []

    def halve(image, labels, key):
        seen.append(key)
        return image[::2, ::2], labels

    dataset = build_dataset("folder", folder_tree(tmp_path, splits=("train",)), "train", halve)
    for key in (2, (5, 1)):
        item = dataset[key]
        assert item["image"].shape == (3, 6, 9)
        assert item["labels"].shape == item["size"] == (12, 17)
    assert seen == [(0, 2), (5, 1)]


def test_grey_images_become_three_equal_channels(tmp_path):
    grey = random_image(0, (12, 17))[..., 0]
    path = write_png(tmp_path / "grey.png", grey)
    dataset = SegmentationDataset("some", "test", Pairing("", [(path, None)], ["a"]), CAMVID_11)
    np.testing.assert_array_equal(dataset[0]["image"].numpy(), np.stack([grey] * 3))


# ---- fingerprints


def later(path: Path) -> None:
    """A file written again within the clock's resolution would look untouched."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))


def test_the_fingerprint_changes_with_masks_and_classes_and_not_with_images(tmp_path):
    folder_tree(tmp_path, splits=("train", "val"))

    def fingerprint(split="train") -> str:
        return build_dataset("folder", tmp_path, split).fingerprint()

    seen = [fingerprint(), fingerprint("val")]
    later(write_png(tmp_path / "images/train/a.jpg", random_image(9, (12, 17))))
    assert fingerprint() == seen[0]

    later(write_png(tmp_path / "masks/train/a.png", random_mask(9, (12, 17))))
    seen.append(fingerprint())
    path = tmp_path / "masks/train/a.png"
    path.write_bytes(path.read_bytes())  # of the same length, as another mask may well be
    later(path)
    seen.append(fingerprint())
    write_png(tmp_path / "images/train/new.jpg", random_image(9, (12, 17)))
    write_png(tmp_path / "masks/train/new.png", random_mask(9, (12, 17)))
    seen.append(fingerprint())
    for part in ("images/train/b.jpg", "masks/train/b.png"):
        (tmp_path / part).unlink()
    seen.append(fingerprint())
    (tmp_path / "classes.yaml").write_text("- wall\n- floor\n- lamp\n- door\n")
    seen.append(fingerprint())
    assert len(set(seen)) == len(seen)
    assert fingerprint() == seen[-1]


def test_what_was_counted_by_another_reader_is_void(tmp_path, monkeypatch):
    folder_tree(tmp_path, splits=("train",))
    dataset = build_dataset("folder", tmp_path, "train")
    before = dataset.fingerprint(), dataset.images_state()
    monkeypatch.setattr(base, "READER", base.READER + 1)
    assert not {*before} & {dataset.fingerprint(), dataset.images_state()}


def test_the_fingerprint_does_not_depend_on_where_the_data_lies(tmp_path):
    folder_tree(tmp_path / "here", splits=("train",))
    before = build_dataset("folder", tmp_path / "here", "train").fingerprint()
    (tmp_path / "here").rename(tmp_path / "there")
    assert build_dataset("folder", tmp_path / "there", "train").fingerprint() == before


# ---- made-up streets


def test_synthetic_splits_have_their_lengths_and_share_no_scene():
    splits = [build_dataset("synthetic", None, split) for split in ("train", "val", "test")]
    assert [len(dataset) for dataset in splits] == [240, 40, 60]
    first = [dataset[0]["image"] for dataset in splits]
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])


def test_synthetic_items_are_like_those_of_files_and_always_the_same():
    one, other = (SyntheticStreets("val", size=(64, 96), length=3) for _ in range(2))
    assert len(one) == 3 and one.has_labels
    assert names(one) == ["val_0000", "val_0001", "val_0002"]
    for index in range(3):
        item = one[index]
        assert item["image"].dtype == torch.uint8 and item["image"].shape == (3, 64, 96)
        assert item["labels"].dtype == torch.int64 and item["labels"].shape == item["size"] == (64, 96)
        assert set(item["labels"].unique().tolist()) <= {*range(11), 255}
        assert torch.equal(item["image"], other[index]["image"]) and torch.equal(item["labels"], other[index]["labels"])
    assert one.fingerprint() == other.fingerprint()


def test_synthetic_fingerprints_differ_by_split_size_and_length():
    kinds = [("val",), ("train",), ("val", None, (64, 96)), ("val", None, (180, 240), 3)]
    assert len({SyntheticStreets(*kind).fingerprint() for kind in kinds}) == len(kinds)


def test_an_unknown_synthetic_split_is_answered_with_the_known_ones():
    with pytest.raises(MissingSplitError, match="no split 'vall'; choose one of train, val, test"):
        build_dataset("synthetic", None, "vall")


# ---- EXIF


def test_check_files_sees_images_as_they_are_read_turned_by_exif(tmp_path):
    """A camera's upright picture is stored lying down with a mark; OpenCV turns it on reading."""
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(random_image(0, (12, 17))).save(tmp_path / "images/a.jpg", exif=exif)
    mask = write_png(tmp_path / "a.png", np.zeros((17, 12), np.uint8))
    dataset = SegmentationDataset("some", "train", Pairing("", [(tmp_path / "images/a.jpg", mask)], ["a"]), CAMVID_11)
    dataset.check_files()
    assert dataset[0]["size"] == (17, 12)
    assert cv2.imread(str(tmp_path / "images/a.jpg")).shape == (17, 12, 3)


@pytest.mark.parametrize("turn", [0, 9, "xmp"])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_what_is_no_orientation_of_exif_turns_nothing(tmp_path, name, turn):
    """OpenCV turns by the EXIF block and its values 2 to 8 alone."""
    xmp = b'<x:xmpmeta tiff:Orientation="6"/>'
    given: dict = {"tiffinfo": {700: xmp}} if name == "a.tif" else {"xmp": xmp}
    if turn != "xmp":
        given = {"exif": Image.Exif()}
        given["exif"][0x0112] = turn
    Image.fromarray(random_image(0, (12, 17))).save(tmp_path / name, **given)
    assert (read_header(tmp_path / name).turn, image_size(tmp_path / name)) == (1, (12, 17))
    assert read_image(tmp_path / name).shape == (12, 17, 3)
    if name != "a.jpg":
        assert read_mask(tmp_path / name).shape == (12, 17, 3)


@pytest.mark.parametrize("block", [b"\0" * 40, b"garbage garbage", b"II*\0"])
def test_a_damaged_block_of_exif_turns_nothing(tmp_path, block):
    Image.fromarray(random_image(0, (12, 17))).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + block)
    assert (read_header(tmp_path / "a.jpg").turn, image_size(tmp_path / "a.jpg")) == (1, (12, 17))
    assert read_image(tmp_path / "a.jpg").shape == (12, 17, 3)


def test_the_header_of_a_png_is_read_without_decoding_it(tmp_path, monkeypatch):
    from PIL import PngImagePlugin

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(random_image(0, (12, 17))).save(tmp_path / "plain.png")
    Image.fromarray(random_image(0, (12, 17))).save(tmp_path / "turned.png", exif=exif)
    assert image_size(tmp_path / "turned.png") == (17, 12)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("decoded"))
    assert image_size(tmp_path / "plain.png") == (12, 17)


def test_deep_tiffs_are_known_and_those_that_cannot_be_read_say_why(tmp_path):
    deep = np.random.default_rng(0).integers(0, 2**16, (12, 17, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "rgb16.tif"), deep)
    cv2.imwrite(str(tmp_path / "rgb8.tif"), (deep >> 8).astype(np.uint8))
    cv2.imwrite(str(tmp_path / "float.tif"), deep[..., 0].astype(np.float32))
    assert [read_header(tmp_path / name).dtype for name in ("rgb16.tif", "rgb8.tif")] == ["uint16", "uint8"]
    with pytest.raises(InputError, match=r"float\.tif: has pixels of more than 8 bits.*save it as 8-bit RGB"):
        read_image(tmp_path / "float.tif")


@pytest.mark.parametrize("closed", ["images/train/b", "masks/train/b", "images/train", "images", "lists/b"])
def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path, monkeypatch, closed):
    images = ("a/x", "a/y", "b/x", "b/y")
    folder_tree(tmp_path, images, () if closed == "lists/b" else ("train", "val"))
    (tmp_path / closed).mkdir(parents=True, exist_ok=True)
    scandir = os.scandir

    def refusing(path="."):
        if Path(path) == tmp_path / closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises((InputError, PermissionError)) as caught:  # of either kind one line is told
        build_dataset("folder", tmp_path, "train")
    line, status = told(caught.value)
    assert str(tmp_path / closed) in line and "Permission denied" in line and status == 2
    with pytest.raises(InputError, match=r"this folder cannot be read: Permission denied; mend its rights"):
        unread_pictures(tmp_path)


def test_folders_that_hold_no_data_may_stay_closed(tmp_path, monkeypatch):
    folder_tree(tmp_path, splits=("train", "val"))
    closed = [tmp_path / name for name in ("lost+found", ".Trash-0", "images/train/.cache")]
    for folder in closed:
        folder.mkdir()
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": [][0] if Path(path) in closed else scandir(path))
    assert len(build_dataset("folder", tmp_path, "train")) == 4 and not unread_pictures(tmp_path)
