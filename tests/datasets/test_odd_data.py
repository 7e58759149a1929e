"""Odd data that people bring: each of these was once read wrongly, refused wrongly or answered with a traceback."""

import io
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from data_trees import camvid_32_tree, camvid_tree, folder_tree, random_image, random_mask, write_png
from PIL import Image
from street_trees import TINY, street_tree

import eval_seg
import train_seg
from segloss.datasets import NoDataError, build_dataset
from segloss.datasets.class_files import read_class_file
from segloss.datasets.finding import list_images
from segloss.datasets.images import read_image
from segloss.datasets.masks import map_mask, palette_of, read_mask
from segloss.doctor.command import main
from segloss.doctor.examination import check_before, examine
from segloss.errors import InputError

SIZE = (48, 64)


def tree(root, names="abcdef", ids=(0, 1, 2), suffix=".png"):
    """Flat images/ and masks/ of distinct pixels and three classes."""
    for place, name in enumerate(names):
        write_png(root / f"images/{name}{suffix}", random_image(place, SIZE))
        write_png(root / f"masks/{name}.png", random_mask(place, SIZE, ids))
    (root / "classes.txt").write_text("wall\nfloor\nlamp\n")
    return root


def splits(root, check="all"):
    datasets = [build_dataset("folder", root, split, lonely=True) for split in ("train", "val")]
    return [f"{finding.severity} {finding}" for finding in examine(datasets, check)[0]]


# ---- class files


@pytest.mark.parametrize("name", ["class_dict.csv", "label_colors.txt"])
def test_the_id_of_a_class_is_its_row_though_a_row_above_it_is_void(tmp_path, name):
    rows = [("unlabeled", 0, 0, 0), ("road", 128, 64, 128), ("car", 0, 0, 142), ("rider", 255, 0, 0)]
    lines = ["name,r,g,b", *(",".join(map(str, row)) for row in rows)]
    if name.endswith("txt"):
        lines = ["# R G B name", *(f"{r} {g} {b}\t{label}" for label, r, g, b in rows)]
    (tmp_path / name).write_text("\n".join(lines))
    table = read_class_file(tmp_path / name)
    assert (table.names, table.ids) == (("road", "car", "rider"), (1, 2, 3))
    labels = map_mask(np.array([[0, 1, 2, 3, 255]], np.uint8), table, None)
    assert labels.tolist() == [[255, 0, 1, 2, 255]]
    rgb = np.array([[row[1:] for row in rows]], np.uint8)
    assert map_mask(rgb, table, None).tolist() == [[255, 0, 1, 2]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("class_dict.csv", "name,r,g,b\na,0,0\nb,1,1,1", "a row has no 'b'"),
        ("class_dict.csv", "label,r,g,b\na,0,0,0\n", "a row has no 'name'"),
        ("classes.yaml", "classes: [a, b]\nignore: [[1, 2]]", "a color is three numbers in 0..255"),
        ("classes.yaml", "classes: [a, b]\nignore: [[300, 0, 0]]", "a color is three numbers in 0..255"),
        ("classes.yaml", "- {name: a, color: [0.5, 0, 0]}\n- {name: b, color: [1, 1, 1]}", "a color is three numbers"),
        ("classes.txt", "0 road\n7 car\n", "line '0 road' begins with a number; write names only"),
    ],
)
def test_class_files_that_cannot_be_meant_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_class_file(tmp_path / name)


@pytest.mark.parametrize(("text", "ignored"), [("7", (7, 255)), ("", (255,)), ("[7, 9]", (7, 9, 255))])
def test_what_is_ignored_may_be_one_id_or_nothing(tmp_path, text, ignored):
    (tmp_path / "classes.yaml").write_text(f"classes: [a, b]\nignore: {text}\n")
    assert read_class_file(tmp_path / "classes.yaml").ignore_ids == ignored


def test_names_with_brackets_are_printed_as_they_are(tmp_path, capsys):
    tree(tmp_path / "[b]data")
    (tmp_path / "[b]data/classes.txt").write_text("[/x]\nroad [dead]\n:smile:\n")
    main(["--dataset", "folder", "--data-path", str(tmp_path / "[b]data"), "--output", str(tmp_path / "[b]out.html")])
    assert f"page: {tmp_path}/[b]out.html" in capsys.readouterr().out
    from segloss.frequency import main as frequency

    frequency(["--dataset", "folder", "--data-path", str(tmp_path / "[b]data"), "--recipes"])
    printed = capsys.readouterr().out
    assert printed.count("[/x]") == 3 and printed.count("road [dead]") == 3 and ":smile:" in printed


# ---- masks


@pytest.mark.parametrize("suffix", [".bmp", ".tif"])
@pytest.mark.parametrize("mode", ["1", "P", "L"])
def test_masks_that_are_no_png_keep_their_ids(tmp_path, suffix, mode):
    ids = random_mask(0, SIZE, (0, 1) if mode == "1" else (0, 1, 7))
    picture = Image.fromarray(ids * 255).convert("1") if mode == "1" else Image.fromarray(ids, mode=mode)
    if mode == "P":
        picture.putpalette([5, 5, 5, 90, 90, 90, 200, 10, 10] + [0] * 759)
    picture.save(tmp_path / f"mask{suffix}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"mask{suffix}"), ids)


@pytest.mark.parametrize("bits", [1, 8])
@pytest.mark.parametrize("colors", [(0, 255), (255, 0), (0, 1), (0, 128)])
def test_a_bmp_of_two_colours_keeps_its_ids(tmp_path, bits, colors):
    """Of 8 bits whose palette is black and white Pillow reads the bytes as bits."""
    ids = random_mask(0, (9, 13), (0, 1))
    picture = Image.fromarray(ids, mode="P")
    picture.putpalette(np.repeat(colors, 3).tolist())
    picture.save(tmp_path / "mask.bmp")
    if bits == 1:
        content = (tmp_path / "mask.bmp").read_bytes()
        start = int.from_bytes(content[10:14], "little")
        rows = np.packbits(np.pad(ids[::-1], ((0, 0), (0, 32 - 13))), axis=1).tobytes()
        (tmp_path / "mask.bmp").write_bytes(content[:28] + b"\1\0" + content[30:start] + rows)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.bmp"), ids)


def test_a_bmp_keeps_bytes_beyond_its_palette(tmp_path):
    """As of 255 for void, in a palette of black and white."""
    ids = random_mask(0, (9, 13), (0, 1, 2, 255))
    picture = Image.fromarray(ids, mode="P")
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.save(tmp_path / "mask.bmp")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.bmp"), ids)


def test_ids_of_64_bits_and_bools_are_told_how_to_be_saved(tmp_path):
    tifffile.imwrite(tmp_path / "mask.tif", random_mask(0, SIZE).astype(np.int64))
    with pytest.raises(InputError, match="mask has pixels of 64 bits; save class ids as 8- or 16-bit"):
        read_mask(tmp_path / "mask.tif")
    np.save(tmp_path / "mask.npy", random_mask(0, SIZE) > 0)
    with pytest.raises(InputError, match=r"is an array of bool .*; save it as numbers, by \.astype\(np\.uint8\)"):
        read_mask(tmp_path / "mask.npy")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".npy"])
def test_palettes_are_known_of_every_format_that_has_some(tmp_path, suffix):
    """Those of TIFF and BMP were passed over, so that palettes that differ from file to file were not refused."""
    path, colors = tmp_path / f"mask{suffix}", [[10, 20, 30], [200, 0, 0], [0, 0, 250]]
    if suffix == ".npy":
        np.save(path, random_mask(0, SIZE))
        assert palette_of(path) is None
        return
    picture = Image.fromarray(random_mask(0, SIZE), mode="P")
    picture.putpalette(np.ravel(colors).tolist())
    picture.save(path)
    found = palette_of(path)
    assert found is not None and found[:3].tolist() == colors
    Image.fromarray(random_mask(0, SIZE)).save(path)
    assert palette_of(path) is None


@pytest.mark.parametrize("name", ["mask.png", "mask.tif", "mask.bmp"])
def test_a_jpeg_is_refused_whatever_its_name(tmp_path, name):
    Image.fromarray(random_mask(0, SIZE)).save(tmp_path / "mask.jpg")
    (tmp_path / "mask.jpg").rename(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}: a JPEG does not keep ids"):
        read_mask(tmp_path / name)


def test_jpeg_inside_a_tiff_is_refused(tmp_path):
    Image.fromarray(random_mask(0, SIZE)).save(tmp_path / "mask.tif", compression="jpeg")
    with pytest.raises(InputError, match=r"mask\.tif: a JPEG does not keep ids"):
        read_mask(tmp_path / "mask.tif")


# ---- names and lists


def listed(root, lines, encoding="utf-8"):
    (root / "train.txt").write_bytes("\n".join(lines).encode(encoding))
    (root / "val.txt").write_text("images/a.png masks/a.png")
    return build_dataset("folder", root, "train")


def test_names_with_dots_are_not_cut(tmp_path):
    tree(tmp_path, ("f0", "f0.5", "f1.5", "a"))
    dataset = listed(tmp_path, ["f0.5", "f1.5.png"])
    assert [image.name for image, _ in dataset.pairs] == ["f0.5.png", "f1.5.png"]


@pytest.mark.parametrize("between", ["\t", " ", ", ", ","])
def test_names_with_spaces_in_lists_of_pairs(tmp_path, between):
    tree(tmp_path, ("Straße am Fluss", "b c", "a"))
    dataset = listed(tmp_path, [f"images/{n}.png{between}masks/{n}.png" for n in ("Straße am Fluss", "b c")])
    assert [mask.name for _, mask in dataset.pairs] == ["Straße am Fluss.png", "b c.png"]


@pytest.mark.parametrize("form", ["{}", "{}.png", "images/{}.png", "/old/data/images/{}.png", "C:\\x\\images\\{}.png"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_names_and_paths_of_single_images(tmp_path, form, encoding):
    tree(tmp_path, ("Straße 1", "b", "a"))
    dataset = listed(tmp_path, ["# of today", form.format("Straße 1"), "", form.format("b")], encoding)
    assert sorted(dataset.names) == ["Straße 1", "b"]


def test_images_of_one_name_in_several_folders_keep_apart(tmp_path):
    for place, folder in enumerate("AB"):
        write_png(tmp_path / f"{folder}/rgb/0006.png", random_image(place, SIZE))
        write_png(tmp_path / f"{folder}/gt/0006.png", random_mask(place, SIZE, (0, 1)))
    (tmp_path / "classes.txt").write_text("x\ny\n")
    lines = [f"{folder}/rgb/0006.png {folder}/gt/0006.png" for folder in "AB"]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    assert build_dataset("folder", tmp_path, "train").names == ["A/rgb/0006", "B/rgb/0006"]


def test_one_missing_mask_of_many_with_an_ending_is_named_alone(tmp_path):
    tree(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_name(f"{path.stem}_gt.png"))
    (tmp_path / "masks/b_gt.png").unlink()
    found = [line for line in splits(tmp_path) if "without" in line]
    assert len(found) == 1 and f"{tmp_path}/images/b.png: image without mask in {tmp_path}/masks;" in found[0]


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_lonely_file_is_charged_to_the_split_that_its_name_belongs_to(tmp_path, part):
    tree(tmp_path / "data", [f"n{k}" for k in range(30)])
    where = {s: build_dataset("folder", tmp_path / "data", s).names for s in ("train", "val")}
    for split, names in where.items():
        root = shutil.copytree(tmp_path / "data", tmp_path / split)
        (root / part / f"{names[1]}.png").unlink()
        found = [line for line in splits(root) if "without" in line]
        assert len(found) == 1 and f" {split}: " in found[0] and f"/{names[1]}.png" in found[0]


def test_camvids_lonely_frames_are_charged_to_their_own_split(tmp_path):
    root = camvid_32_tree(tmp_path)
    (root / "LabeledApproved_full/0016E5_07959_L.png").unlink()
    (root / "701_StillsRaw_full/Seq05VD_f00000.png").unlink()
    assert len(build_dataset("camvid", root, "train")) == 2
    with pytest.raises(InputError, match=r"0016E5_07959\.png: image without mask"):
        build_dataset("camvid", root, "val")
    assert list(build_dataset("camvid", root, "test").found.lonely_masks) == ["Seq05VD_f00000"]


def test_a_link_to_a_folder_above_does_not_multiply_the_images(tmp_path):
    tree(tmp_path)
    (tmp_path / "images/all").symlink_to(tmp_path / "images")
    assert list(list_images(tmp_path / "images")) == list("abcdef")


def test_composed_and_decomposed_umlauts_are_one_name(tmp_path):
    tree(tmp_path, ("a", "b"))
    write_png(tmp_path / "images/u\u0308ber.png", random_image(5, SIZE))
    write_png(tmp_path / "masks/\u00fcber.png", random_mask(5, SIZE, (0, 1)))
    names = [build_dataset("folder", tmp_path, split).names for split in ("train", "val")]
    assert "\u00fcber" in names[0] + names[1]


def test_split_folders_above_images_and_masks(tmp_path):
    for split, names in {"train": "abc", "valid": "d", "test": "e"}.items():
        tree(tmp_path / split, names)
    (tmp_path / "classes.txt").write_text("wall\nfloor\nlamp\n")
    for split, names in {"train": "abc", "val": "d", "test": "e"}.items():
        assert build_dataset("folder", tmp_path, split).names == list(names)
    shutil.rmtree(tmp_path / "test/masks")
    assert not build_dataset("folder", tmp_path, "test").has_labels


def test_an_empty_folder_of_test_masks_is_an_unlabelled_split(tmp_path):
    folder_tree(tmp_path, splits=("train", "val", "test"))
    for path in (tmp_path / "masks/test").iterdir():
        path.unlink()
    assert not build_dataset("folder", tmp_path, "test").has_labels


@pytest.mark.parametrize("names", [("Train", "Val"), ("TRAINING", "Validation")])
@pytest.mark.parametrize("inside", [False, True])
def test_split_folders_may_be_in_capitals(tmp_path, names, inside):
    for split, files in zip(names, ("abc", "d"), strict=True):
        tree(tmp_path / "data" if inside else tmp_path / split, files)
        for kind in ("images", "masks") if inside else ():
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / "data" / kind).rename(tmp_path / kind / split)
    (tmp_path / "classes.txt").write_text("wall\nfloor\nlamp\n")
    for split, files in {"train": "abc", "val": "d"}.items():
        assert build_dataset("folder", tmp_path, split).names == list(files)


def test_folders_that_are_no_known_split_are_not_split_anew(tmp_path):
    for fold, files in {"fold1": "abc", "fold2": "de"}.items():
        for place, name in enumerate(files):
            write_png(tmp_path / f"images/{fold}/{name}.png", random_image(place, SIZE))
            write_png(tmp_path / f"masks/{fold}/{name}.png", random_mask(place, SIZE, (0, 1)))
    (tmp_path / "classes.txt").write_text("x\ny\n")
    with pytest.raises(
        InputError, match=r"images: has the folders fold1, fold2, none of which is train or val; rename"
    ):
        build_dataset("folder", tmp_path, "train")
    (tmp_path / "train.txt").write_text("fold1/a\nfold1/b\nfold1/c\n")
    (tmp_path / "val.txt").write_text("fold2/d\n")
    assert build_dataset("folder", tmp_path, "train").names == ["fold1/a", "fold1/b", "fold1/c"]


@pytest.mark.parametrize("above", [False, True])
def test_an_empty_folder_does_not_win_over_a_filled_one(tmp_path, above):
    tree(tmp_path, "abcd")
    (tmp_path / "masks").rename(tmp_path / "SegmentationClass")
    (tmp_path / "labels").mkdir()
    if above:
        (tmp_path / "images").rename(tmp_path / "JPEGImages")
        (tmp_path / "images").mkdir()
    form = build_dataset("folder", tmp_path, "train").found.form
    assert form.startswith(f"{'JPEGImages' if above else 'images'}/ and SegmentationClass/")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["b", "c", "zzz"], r"train\.txt: lists zzz \(1 in all\), which is no image"),
        (["b", "zzz", "yyy yyy"], r"train\.txt: lists zzz \(2 in all\), which is no image"),
        (
            ["images/b.png masks/b.png", "c"],
            r"train\.txt: lists c, an image, and images/b\.png .*, image and mask; write",
        ),
        (["b", "c", "b.png"], r"images/b\.png: listed twice in .*train\.txt; remove one of the lines"),
        (["images/b.png masks/b.png"] * 2, r"images/b\.png: listed twice in .*train\.txt; remove one of the lines"),
        (["images/b.png masks/b.png", "images/b.png masks/c.png"], r"images/b\.png: listed twice in .*train\.txt"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        listed(tree(tmp_path), lines)


def test_images_of_one_stem_in_a_list_of_pairs_have_names_of_their_own(tmp_path):
    tree(tmp_path)
    for place, end in enumerate(("png", "jpg")):
        write_png(tmp_path / f"rgb/b.{end}", random_image(place, SIZE))
    names = listed(tmp_path, [f"rgb/b.{end} masks/b.png" for end in ("png", "jpg")]).names
    assert names == ["rgb/b.png", "rgb/b.jpg"]


def test_a_list_does_not_lead_out_of_the_data_folder(tmp_path):
    tree(tmp_path / "data")
    for place, folder in enumerate(("out", "data")):
        for kind in "xm":
            write_png(tmp_path / f"{folder}/{kind}.png", random_image(place, SIZE))
    dataset = listed(tmp_path / "data", ["x.png m.png"])
    assert dataset.names == ["x"]
    with pytest.raises(InputError, match=r"train\.txt: lists \.\./out/y\.png .* \(1 in all\)"):
        listed(tmp_path / "data", ["../out/y.png ../out/m.png"])
    (tmp_path / "data/x.png").unlink()
    with pytest.raises(InputError, match=r"train\.txt: lists \.\./out/x\.png"):
        listed(tmp_path / "data", ["../out/x.png ../out/m.png"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("between", [" ", "\t"])
def test_camvids_lists_may_hold_spaces_and_be_of_windows(tmp_path, encoding, between):
    names = ["b c", "Straße 1", "f0.5", "f0"]
    camvid_tree(tmp_path, images=names)
    lines = [f"/CamVid/train/{name}.png{between}/CamVid/trainannot/{name}.png" for name in names[:3]]
    (tmp_path / "train.txt").write_bytes("\n".join(lines).encode(encoding))
    assert sorted(build_dataset("camvid", tmp_path, "train").names) == sorted(names[:3])
    (tmp_path / "train.txt").write_text("\n")
    with pytest.raises(InputError, match=r"train\.txt: lists nothing"):
        build_dataset("camvid", tmp_path, "train")


# ---- the doctor


def test_a_class_that_is_in_few_images_is_no_error(tmp_path):
    names = [f"n{k:02d}" for k in range(60)]
    tree(tmp_path, names, ids=(0,))
    train = build_dataset("folder", tmp_path, "train")
    for place in (3, 30):  # neither is in the sample
        write_png(train.pairs[place][1], random_mask(1, SIZE, (0, 1)))
    for check in ("sample", "all"):
        assert not [line for line in splits(tmp_path, check) if line.startswith("error")]
    assert any("or look at all with --check all" in line for line in splits(tmp_path, "sample"))


def test_images_that_differ_in_the_middle_alone_are_not_the_same(tmp_path):
    tree(tmp_path)
    for place, name in enumerate("abcdef"):
        image = np.zeros((500, 300, 3), np.uint8)
        image[200:300] = place + 2
        (tmp_path / f"images/{name}.png").unlink()
        write_png(tmp_path / f"images/{name}.bmp", image)
        write_png(tmp_path / f"masks/{name}.png", random_mask(place, (500, 300), (0, 1, 2)))
    assert splits(tmp_path, "sample") == splits(tmp_path, "all") == []


def test_stray_values_of_several_kinds_are_each_said(tmp_path):
    tree(tmp_path, "abcdefgh")
    for name, value in (("a", 99), ("b", 7)):
        mask = random_mask(0, SIZE, (0, 1))
        mask[:2] = value
        write_png(tmp_path / f"masks/{name}.png", mask)
    found = " ".join(splits(tmp_path))
    assert "holds id 99" in found and "holds id 7" in found


def test_no_overlays_and_a_dead_link(tmp_path, capsys):
    tree(tmp_path)
    (tmp_path / "images/a.png").unlink()
    (tmp_path / "images/a.png").symlink_to(tmp_path / "gone.png")
    flags = ["--dataset", "folder", "--data-path", str(tmp_path), "--overlays", "0"]
    with pytest.raises(SystemExit):
        main([*flags, "--output", str(tmp_path / "page.html")])
    assert "a.png: cannot be read: No such file or directory; restore the file" in capsys.readouterr().out
    assert "data:image" not in (tmp_path / "page.html").read_text()


def test_deep_images_are_warned_of(tmp_path):
    tree(tmp_path)
    write_png(tmp_path / "images/a.png", random_image(0, SIZE).astype(np.uint16) * 4)
    assert any("a.png: has 16 bits, of which the upper 8 are read" in line for line in splits(tmp_path))


def test_faults_in_every_split_are_findings_and_no_refusal(tmp_path, capsys):
    tree(tmp_path)
    write_png(tmp_path / "images/a.jpg", random_image(9, SIZE))
    flags = ["--dataset", "folder", "--data-path", str(tmp_path), "--output", str(tmp_path / "page.html")]
    with pytest.raises(SystemExit) as stop:
        main(flags)
    assert stop.value.code == 1
    printed = capsys.readouterr().out
    assert printed.count("a.png: same stem as a.jpg; keep one of the two") == 2 and "2 errors" in printed
    assert "same stem as a.jpg" in (tmp_path / "page.html").read_text()
    (tmp_path / "classes.txt").write_text("0 wall\n")
    with pytest.raises(NoDataError, match=r"classes\.txt: line '0 wall' begins with a number"):
        main(flags)


def test_files_that_cannot_be_read_are_findings_with_the_reason(tmp_path, monkeypatch):
    tree(tmp_path)
    train = build_dataset("folder", tmp_path, "train")
    gone, shut = train.pairs[0][0], train.pairs[1][0]
    gone.unlink()
    gone.symlink_to(tmp_path / "nothing.png")
    with pytest.raises(InputError, match=rf"{gone.name}: cannot be read: No such file or directory; restore the file"):
        check_before([train], "sample")
    with pytest.raises(InputError, match=rf"{gone.name}: cannot be read: No such file or directory; restore the file"):
        train.check_files()
    write_png(gone, random_image(9, SIZE))
    shutil.copy(gone, train.pairs[2][0])  # of one length, so that both ends are looked at
    shutil.copy(gone, shut)

    def refuse(path, *arguments, **options):
        if Path(path) == shut:
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, *arguments, **options)

    whole = io.open
    monkeypatch.setattr(io, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    for check in ("sample", "all"):
        found = splits(tmp_path, check)
        assert any(f"{shut.name}: cannot be read: Permission denied; restore the file" in line for line in found)


def test_a_smooth_resize_is_one_line_and_many_values_are_counted(tmp_path):
    names = [f"n{k:02d}" for k in range(20)]
    tree(tmp_path, names)
    total = len(build_dataset("folder", tmp_path, "train"))
    for place, name in enumerate(names):
        mask = cv2.resize(np.kron(random_mask(place, (6, 8), (0, 150, 250)), np.ones((6, 6), np.uint8)), SIZE[::-1])
        write_png(tmp_path / f"masks/{name}.png", np.where(random_mask(place, SIZE, range(2)), 0, mask))
    found = [line for line in splits(tmp_path) if " train: " in line]
    assert len(found) == 1 and f"(and {total - 1} more files); so many ids come from a smooth resize" in found[0]
    for place, name in enumerate(names):
        write_png(tmp_path / f"masks/{name}.png", random_mask(place, SIZE, (0, 1, 50 + place)))
    found = [line for line in splits(tmp_path) if " train: " in line]
    assert len(found) == 6 and f"(and {total - 6} more files); correct the mask" in found[5]


# ---- JPEG


def jpeg(seed: int, size=SIZE) -> bytes:
    return cv2.imencode(".jpg", random_image(seed, size))[1].tobytes()


@pytest.mark.parametrize("progressive", [False, True])
def test_what_follows_the_end_of_a_jpeg_is_no_fault(tmp_path, progressive):
    tree(tmp_path, suffix=".jpg")
    path = tmp_path / "images/a.jpg"
    Image.fromarray(random_image(0, SIZE)).save(path, progressive=progressive)
    picture = read_image(path)
    path.write_bytes(path.read_bytes() + b"ftypmp42" + bytes(5000))
    np.testing.assert_array_equal(read_image(path), picture)
    assert splits(tmp_path) == []
    for split in ("train", "val"):
        build_dataset("folder", tmp_path, split).check_files()


def test_the_end_of_a_thumbnail_is_not_that_of_the_picture(tmp_path):
    whole, thumbnail = jpeg(0), jpeg(1, (12, 16))
    header = b"\xff\xff\xe2" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[:2] + header + whole[2:])
    read_image(path)
    path.write_bytes((whole[:2] + header + whole[2:])[: len(header) + 700])
    with pytest.raises(InputError, match=r"a\.jpg: is cut off"):
        read_image(path)


# ---- counts, resuming, comparing


def test_masks_of_equal_size_and_time_of_writing_are_not_taken_for_others(tmp_path):
    for name, ids in (("one", (0, 1)), ("two", (1, 2))):
        for split in ("train",):
            write_png(tmp_path / f"{name}/images/{split}/a.png", random_image(0, SIZE))
            path = write_png(tmp_path / f"{name}/masks/{split}/a.bmp", random_mask(0, SIZE, ids))
            os.utime(path, ns=(1, 1))
        (tmp_path / name / "classes.txt").write_text("wall\nfloor\nlamp\n")
    one, two = (build_dataset("folder", tmp_path / name, "train").fingerprint() for name in ("one", "two"))
    assert one != two


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A finished epoch on made-up streets, with a pipeline of the user's."""
    root = tmp_path_factory.mktemp("begun")
    data = street_tree(root / "data")
    (root / "own.yaml").write_text("- HorizontalFlip\n")
    flags = ["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(root / "run"), *TINY]
    flags += ["--augmentations", str(root / "own.yaml"), "--epochs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGLOSS_CACHE", str(root / "cache"))
        patch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
        train_seg.train(flags)
    return root


def resumed(root, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
    run = tmp_path / "run"
    shutil.copytree(root / "run", run)
    return lambda *more: train_seg.train(["--resume", "--output-dir", str(run), "--epochs", "2", *more])


def test_a_run_does_not_go_on_with_other_masks(begun, tmp_path, monkeypatch):
    go_on = resumed(begun, tmp_path, monkeypatch)
    data = shutil.copytree(begun / "data", tmp_path / "data")
    path = next((data / "trainannot").iterdir())
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    mask[:9] = 3
    write_png(path, mask)
    with pytest.raises(InputError, match="began on other masks"):
        go_on("--data-path", str(data))


def test_a_run_goes_on_with_its_own_copy_of_the_pipeline_and_refuses_another(begun, tmp_path, monkeypatch):
    go_on = resumed(begun, tmp_path, monkeypatch)
    own = (begun / "own.yaml").read_text()
    try:
        (begun / "own.yaml").write_text("- VerticalFlip\n")
        with pytest.raises(InputError, match=r"own\.yaml: has changed since the run began; restore it from"):
            go_on()
        (begun / "own.yaml").unlink()
        go_on()
    finally:
        (begun / "own.yaml").write_text(own)
    assert (tmp_path / "run/augmentations.yaml").read_text() == own
    assert len((tmp_path / "run/history.csv").read_text().splitlines()) == 3


def test_runs_of_other_classes_are_refused_before_anything_is_scored(begun, tmp_path):
    other = tmp_path / "other"
    tree(other / "data", "abcdef")
    flags = ["--dataset", "folder", "--data-path", str(other / "data"), "--output-dir", str(other / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
        train_seg.train([*flags, *TINY, "--epochs", "1", "--crop-size", "32", "32"])
    with pytest.raises(InputError, match="has other classes than"):
        eval_seg.evaluate(
            [
                "--checkpoint",
                str(begun / "run"),
                str(other / "run"),
                "--split",
                "val",
                "--output-dir",
                str(tmp_path / "o"),
            ]
        )
    assert not (tmp_path / "o").exists()
    assert json.loads((other / "run/val_metrics.json").read_text())["images"] > 0
