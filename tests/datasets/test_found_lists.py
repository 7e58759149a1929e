"""Images, masks and lists as people name them: paired by what all names say, read or refused, never guessed."""

import unicodedata
from pathlib import Path

import pytest
from data_trees import cityscapes_tree, random_image, random_mask, write_png

from segloss.datasets import MissingSplitError, build_dataset
from segloss.datasets.splits import splits_of
from segloss.doctor.skipped import skipped_files
from segloss.errors import InputError

SIZE = (8, 8)


def tree(root, images, masks, image_folder="images", mask_folder="masks"):
    for place, name in enumerate(images):
        write_png(root / image_folder / f"{name}.png", random_image(place, SIZE))
    for place, name in enumerate(masks):
        write_png(root / mask_folder / f"{name}.png", random_mask(place, SIZE, (0, 1)))
    (root / "classes.txt").write_text("wall\nfloor\n")
    return root


def paired(root, split):
    return {image.stem: mask and mask.stem for image, mask in build_dataset("folder", root, split).pairs}


# ---- words


@pytest.mark.parametrize(("image", "mask"), [("day1_00{}", "day2_00{}"), ("1_{}", "2_{}"), ("{}_t1", "{}_t2")])
def test_words_of_other_numbers_are_of_other_things(tmp_path, image, mask):
    tree(tmp_path, [image.format(n) for n in range(1, 6)], [mask.format(n) for n in range(1, 6)])
    with pytest.raises(InputError, match="image without mask and"):
        build_dataset("folder", tmp_path, "train")


@pytest.mark.parametrize(("image", "mask"), [("img2020_{}", "mask2020_{}"), ("S2_{}", "gt_{}"), ("{}_t1", "{}_t1_gt")])
def test_words_of_the_same_number_or_of_one_alone_are_taken_off(tmp_path, image, mask):
    names = "abcdef"
    tree(tmp_path, [image.format(n) for n in names], [mask.format(n) for n in names])
    found = {**paired(tmp_path, "train"), **paired(tmp_path, "val")}
    assert found == {image.format(n): mask.format(n) for n in names}


# ---- endings


@pytest.mark.parametrize("ending", ["_mask", "-gt", "_L", "_0_mask", "label"])
def test_an_ending_is_learnt_from_the_folder_and_cuts_no_number(tmp_path, ending):
    numbers = range(1, 61)
    tree(tmp_path, numbers, [f"{n}{ending}" for n in numbers])
    (tmp_path / "train.txt").write_text("\n".join(map(str, range(6, 61))))
    (tmp_path / "val.txt").write_text("1\n2\n3\n4\n5\n")
    assert paired(tmp_path, "val") == {str(n): f"{n}{ending}" for n in range(1, 6)}


def test_masks_may_be_called_by_the_files_of_images_of_several_endings(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.png", "x/d.JPG"):
        write_png(tmp_path / "images" / name, random_image(0, SIZE))
    tree(tmp_path, "", ["a.jpg", "b.jpg", "c.png", "x/d.JPG"])
    found = {**paired(tmp_path, "train"), **paired(tmp_path, "val")}
    assert found == {"a": "a.jpg", "b": "b.jpg", "c": "c.png", "d": "d.JPG"}
    (tmp_path / "masks/x/d.JPG.png").unlink()
    with pytest.raises(InputError, match=r"image without mask; expected .*masks/x/d\.JPG\.png, add"):
        [build_dataset("folder", tmp_path, split) for split in ("train", "val")]


@pytest.mark.parametrize("before", ["", "img_", "a7_"])
def test_unlabelled_images_take_no_mask_of_a_longer_number(tmp_path, before):
    tree(tmp_path, [f"{before}{n}" for n in range(1, 40)], [f"{before}{n}" for n in range(4, 40)])
    (tmp_path / "train.txt").write_text("\n".join(f"{before}{n}" for n in range(6, 40)))
    (tmp_path / "val.txt").write_text(f"{before}4\n{before}5\n")
    (tmp_path / "test.txt").write_text("\n".join(f"{before}{n}" for n in (1, 2, 3)))
    assert {*paired(tmp_path, "test").values()} == {None}


def test_unlabelled_images_beside_masks_of_few_others_have_none(tmp_path):
    tree(tmp_path, range(1, 40), [f"{n}_gt" for n in range(4, 12)])
    (tmp_path / "train.txt").write_text("\n".join(map(str, range(4, 10))))
    (tmp_path / "val.txt").write_text("10\n11\n")
    (tmp_path / "test.txt").write_text("1\n2\n3\n")
    assert {*paired(tmp_path, "test").values()} == {None}
    assert paired(tmp_path, "val") == {"10": "10_gt", "11": "11_gt"}


@pytest.mark.parametrize(
    ("image", "mask"),
    [("{}", "{}"), ("{}", "{}_mask"), ("sat_{}", "mask_{}"), ("A/{}", "A/{}_L"), ("A/s_{}", "A/g_{}")],
)
def test_the_mask_that_is_expected_is_one_that_pairs(tmp_path, image, mask):
    tree(tmp_path, [image.format(letter) for letter in "abcd"], [mask.format(letter) for letter in "abc"])
    (tmp_path / "train.txt").write_text("\n".join(image.format(letter) for letter in "abcd"))
    with pytest.raises(InputError, match="image without mask; expected ") as error:
        build_dataset("folder", tmp_path, "train")
    wanted = Path(str(error.value).split("expected ")[1].split(", add the mask")[0])
    write_png(wanted, random_mask(9, SIZE, (0, 1)))
    assert len(build_dataset("folder", tmp_path, "train")) == 4


@pytest.mark.parametrize(
    "ends", [("_instanceIds", "_labelIds"), ("_1", "_2"), ("_anna", "_ben", "_mean"), ("_color", "_mask")]
)
def test_several_masks_of_an_image_are_named(tmp_path, ends):
    tree(tmp_path, "abcd", [f"{name}{end}" for name in "abcd" for end in ends])
    with pytest.raises(InputError, match=rf"[a-d]\.png: has several masks: [a-d]{ends[0]}\.png, [a-d]{ends[1]}\.png"):
        build_dataset("folder", tmp_path, "train")


def test_a_mask_of_a_missing_image_is_no_second_mask(tmp_path):
    tree(tmp_path, ["car", "b", "c"], ["car_mask", "carpet_mask", "b_mask", "c_mask"])
    names = paired(tmp_path, "train") | paired(tmp_path, "val")
    assert names == {name: f"{name}_mask" for name in ("car", "b", "c")}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("sat_{}", "mask_{}"),
        ("{}_sat", "{}_mask"),
        ("img{}", "lbl{}"),
        ("image-{}-x", "label-{}-x"),
        ("x_{}_rgb", "{}"),
    ],
)
def test_words_of_images_and_of_masks_are_taken_off(tmp_path, image, mask):
    numbers = [1, 2, 10, 11, 20]
    tree(tmp_path, [image.format(n) for n in numbers], [mask.format(n) for n in numbers])
    names = paired(tmp_path, "train") | paired(tmp_path, "val")
    assert names == {image.format(n): mask.format(n) for n in numbers}


@pytest.mark.parametrize(
    "names",
    [
        *(("image", "label"), ("imgs", "masks"), ("Images", "Masks"), ("images", "gt"), ("img", "mask")),
        *(("IMAGES", "MASKS"), ("Imgs", "GroundTruth"), ("jpegimages", "ground_truth")),
    ],
)
def test_other_usual_folders(tmp_path, names):
    tree(tmp_path, "abcd", "abcd", *names)
    assert len(paired(tmp_path, "train")) + len(paired(tmp_path, "val")) == 4


@pytest.mark.parametrize(
    ("images", "masks", "other"),
    [
        ("{}/images", "{}/masks", "{}/labels"),
        ("images/{}", "masks/{}", "ground_truth/{}"),
        ("images", "masks", "masks_old"),
        ("images", "mask", "mask_old"),
    ],
)
def test_another_folder_of_masks_is_told_of(tmp_path, images, masks, other):
    for split in ("train", "val"):
        tree(tmp_path, "abcd", "abcd", images.format(split), masks.format(split))
        for folder in (other, "SegmentationObject", "previews"):
            tree(tmp_path, "", "abcd", mask_folder=folder.format(split))
    datasets = [build_dataset("folder", tmp_path, split) for split in ("train", "val")]
    word = other.replace("{}", "").strip("/")
    assert all(f"; {word}/ holds masks of these images too, not read; " in each.found.form for each in datasets)
    (finding,) = skipped_files(datasets)
    assert (finding.severity, "masks of these images too, passed over" in str(finding)) == ("warning", True)


@pytest.mark.parametrize(("masks", "other"), [("mask", "manual1"), ("mask", "1st_manual")])
def test_a_field_of_view_is_not_taken_for_the_labels(tmp_path, masks, other):
    tree(tmp_path, ["01_dr", "02_dr"], ["01_dr_mask", "02_dr_mask"], mask_folder=masks)
    build_dataset("folder", tmp_path, "train")
    tree(tmp_path, "", ["01_dr", "02_dr"], mask_folder=other)
    with pytest.raises(InputError, match=f"mask/ and {other}/ both hold masks of the images; call the one that is"):
        build_dataset("folder", tmp_path, "train")
    for name, before in (("gt", other), ("trimap", "gt")):  # of cut-out pictures mask/ is what is meant
        (tmp_path / before).rename(tmp_path / name)
        assert f"; {name}/ holds masks of these images too" in build_dataset("folder", tmp_path, "train").found.form


# ---- lists


@pytest.mark.parametrize("between", [" ", "\t", ",", ", ", "|", " | ", ";"])
@pytest.mark.parametrize("kind", ["camvid", "folder"])
def test_the_second_column_of_a_list_is_the_mask(tmp_path, kind, between):
    folders = ("train", "trainannot") if kind == "camvid" else ("images", "masks")
    tree(tmp_path, [1, 10, 2], ["1_L", "10_L", "2_other"], *folders)
    (tmp_path / "train.txt").write_text(f"1.png{between}1_L.png\n10.png{between}10_L.png\n2.png{between}2_other.png\n")
    found = {image.stem: mask.stem for image, mask in build_dataset(kind, tmp_path, "train").pairs}
    assert found == {"1": "1_L", "10": "10_L", "2": "2_other"}


@pytest.mark.parametrize("line", ["{} {}", "{}.png,{}", "images/{}.png\t{}"])
def test_a_number_behind_a_name_may_be_a_count_and_is_no_mask(tmp_path, line):
    """The mask of image 2 was that of image 1."""
    tree(tmp_path, [1, 2, 3, 4], [1, 2, 3, 4])
    (tmp_path / "train.txt").write_text(f"{line.format(1, 1)}\n{line.format(2, 1)}\n")
    said = r"train\.txt: lists .*2.*1: image and mask are both called 2, so 1 may be a count or a label; write one"
    with pytest.raises(InputError, match=said):
        build_dataset("folder", tmp_path, "train")


@pytest.mark.parametrize(
    ("line", "masks", "mask"),
    [("{} {}.bmp", "1234", "1"), ("{} masks/{}.png", "1234", "1"), ("{1} {1}", "1234", "1"), ("b {1}", "1", "1")],
)
def test_numbers_that_can_only_be_masks_are(tmp_path, line, masks, mask):
    tree(tmp_path, "1234b", masks)
    if line.endswith(".bmp"):
        (tmp_path / "masks/1.png").rename(tmp_path / "masks/1.bmp")
    (tmp_path / "train.txt").write_text(line.format(2, 1))
    assert [*paired(tmp_path, "train").values()] == [mask]


def test_a_mask_that_camvids_list_names_and_nobody_has_is_said(tmp_path):
    tree(tmp_path, [1, 10], ["1_L", "10_L"], "train", "trainannot")
    (tmp_path / "train.txt").write_text("train/1.png trainannot/1_M.png\n")
    with pytest.raises(InputError, match=r"train\.txt: lists the mask 1_M \(1 in all\)"):
        build_dataset("camvid", tmp_path, "train")


@pytest.mark.parametrize("line", ["{} {}", "{}.png {}.png", "{},{}", "images/{}.png images/{}.png"])
def test_two_names_on_a_line_are_no_image_and_the_mask_of_another(tmp_path, line):
    tree(tmp_path, "abcdef", "abcdef")
    (tmp_path / "train.txt").write_text("\n".join(line.format(*pair) for pair in ("ab", "cd")))
    (tmp_path / "val.txt").write_text("ef")
    with pytest.raises(InputError, match=r"train.txt: lists .*a.*b.*: two images, or .*; write one name a line"):
        build_dataset("folder", tmp_path, "train")
    (tmp_path / "train.txt").write_text("a a\nb a\nc d")
    assert paired(tmp_path, "train") == {"a": "a", "b": "a", "c": "d"}


def test_lists_as_programs_write_them_are_read(tmp_path):
    """pandas numbers the rows; quotes; names of images in sub-folders; umlauts of a Mac's disk."""
    nfd = unicodedata.normalize("NFD", "ö")
    for folder, names in (("images", ["x/a", "x/b", "y/c", f"y/{nfd}"]), ("masks", ["x/a", "x/b", "y/c", f"y/{nfd}"])):
        tree(tmp_path, names if folder == "images" else "", names if folder == "masks" else "")
    for text in (
        ",image,mask\n4,images/x/a.png,masks/x/a.png\n7,images/y/c.png,masks/y/c.png",
        "0,a.png\n1,c.png",
        "Unnamed: 0,image\n5,a\n2,c",
    ):
        (tmp_path / "train.csv").write_text(text)
        assert [*paired(tmp_path, "train")] == ["a", "c"]
    (tmp_path / "train.csv").unlink()
    for text in ("a\nc\nö", "'a'\n\"c\"\nö.png", "images/x/a.png\nimages/y/c.png\nimages/y/ö.png"):
        (tmp_path / "train.txt").write_text(text)
        assert len(paired(tmp_path, "train")) == 3
    write_png(tmp_path / "images/y/a.png", random_image(0, SIZE))
    (tmp_path / "train.txt").write_text("a\nc")
    with pytest.raises(InputError, match=r"lists a \(1 in all\), which is no image"):
        build_dataset("folder", tmp_path, "train")


@pytest.mark.parametrize("lines", ["a 1 1 1\nb 2 1 3", "id,rle_mask\na,1 5 7 8\nb,"])
def test_names_with_numbers_behind_them_are_told_of(tmp_path, lines):
    tree(tmp_path, "abcd", "abcd")
    (tmp_path / ("train.csv" if "," in lines else "train.txt")).write_text(lines)
    with pytest.raises(InputError, match="; write one name a line, or move it away if it is no list"):
        build_dataset("folder", tmp_path, "train")


def test_a_list_that_lies_elsewhere_is_named(tmp_path):
    tree(tmp_path, "abcd", "abcd")
    (tmp_path / "train.txt").write_text("a\nb")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/val.txt").write_text("c\nd")
    with pytest.raises(MissingSplitError, match=r"put the lists side by side: .*splits/val\.txt lies elsewhere"):
        build_dataset("folder", tmp_path, "val")


def test_a_list_of_mask_and_image_is_refused(tmp_path):
    tree(tmp_path, "abc", "abc")
    (tmp_path / "train.txt").write_text("masks/a.png images/a.png\n")
    with pytest.raises(InputError, match=r"lists masks/a\.png images/a\.png, whose first file is a mask"):
        build_dataset("folder", tmp_path, "train")


LISTS = [
    *("train_list.txt", "ImageSets/train.txt", "list/train.lst", "split/train.txt", "lists/training.txt", "train.csv"),
    *("train_ids.txt", "meta/lists/trainImages.txt", "list_train.txt", "partition/train-files.tsv", "TrainSet.txt"),
    *("train", "meta/split/a/train.txt", "ImageSets/train_ids"),
]


def split_tree(root, train, lines=str):
    tree(root, "abcdefgh", "abcdefgh")
    for split, names in (("train", "abc"), ("val", "de"), ("test", "fgh")):
        path = root / train.replace("train", split, 1).replace("Train", split.title())
        if "training" in train:
            path = root / train.replace(
                "training", {"train": "training", "val": "validation", "test": "testing"}[split]
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines(name) for name in names))
    return root


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("form", ["{}", "images/{}.png", "images/{0}.png masks/{0}.png"])
def test_lists_of_other_names_and_places_are_read(tmp_path, name, form):
    form = form.replace(" ", ",") if name.endswith("csv") else form
    split_tree(tmp_path, name, form.format)
    assert [[*paired(tmp_path, split)] for split in ("train", "val", "test")] == [[*"abc"], [*"de"], [*"fgh"]]


@pytest.mark.parametrize("name", ["{}.txt", "{}_list.txt", "lists/{}.csv"])
@pytest.mark.parametrize("form", ["{}", "{}.png", "{0}.png,{0}.png", "# made by hand\n{}\n# {}\n#images/{}.png"])
def test_names_that_begin_as_comments_do_are_names(tmp_path, name, form):
    """They were left out without a word."""
    splits = {"train": ("0", "#1", "2", "#3", "4"), "val": ("#5", "#6", "7")}
    tree(tmp_path, sum(splits.values(), ()), sum(splits.values(), ()))
    for split, names in splits.items():
        path = tmp_path / name.format(split)
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(form.replace("{0}", "{}").format(*[image] * form.count("{")) for image in names))
    for split, names in splits.items():
        assert {*paired(tmp_path, split)} == {*names}


@pytest.mark.parametrize("name", ["valid.txt", "validation.lst", "val_list.txt", "dev.csv"])
@pytest.mark.parametrize("place", ["", "splits/"])
def test_lists_beside_train_txt_may_have_other_names(tmp_path, place, name):
    tree(tmp_path, "abcdefgh", "abcdefgh")
    for path, names in (("train.txt", "abc"), (name, "de"), ("test_ids.txt", "fgh"), ("trainval.txt", "abcde")):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / path).write_text("\n".join(names))
    assert [[*paired(tmp_path, split)] for split in ("train", "val", "test")] == [[*"abc"], [*"de"], [*"fgh"]]


def test_two_lists_of_one_split_beside_train_txt_are_refused(tmp_path):
    tree(tmp_path, "abcdefgh", "abcdefgh")
    for path, names in (("train.txt", "abc"), ("valid.txt", "de"), ("val_list.txt", "fgh")):
        (tmp_path / path).write_text("\n".join(names))
    with pytest.raises(InputError, match=r"valid\.txt: lists images of val, and .*val_list\.txt too"):
        build_dataset("folder", tmp_path, "val")
    with pytest.raises(MissingSplitError, match=r"test\.txt: is missing"):
        build_dataset("folder", tmp_path, "test")


@pytest.mark.parametrize("header", ["image,mask", "filename;label", '"image","mask"'])
def test_the_header_of_a_csv_is_no_image(tmp_path, header):
    tree(tmp_path, "abcd", "abcd")
    between = ";" if ";" in header else ","
    for split, names in (("train", "abc"), ("val", "d")):
        rows = [header, *(f"images/{name}.png{between}masks/{name}.png" for name in names)]
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    assert [*paired(tmp_path, "train")] == [*"abc"]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"trainval.txt": "a\nb\nc", "test.txt": "d\ne"}, "trainval.txt"),
        ({"test.txt": "d\ne"}, "test.txt"),
        ({"lists/test_files.lst": "d\ne"}, "test_files.lst"),
        ({"split.csv": "image,split\na,train\nb,train\nc,val\nd,test\ne,test"}, "split.csv"),
        ({"folds.json": '{"train": ["a", "b"], "test": ["d.png", "e.png"]}'}, "folds.json"),
        ({"train.json": '["images/a.png", "images/b.png"]'}, "train.json"),
        ({"fold0/train.txt": "a\nb", "fold1/train.txt": "c\nd"}, "train.txt"),
        ({"train_list.txt": "a b extra\nc d extra", "val_list.txt": "d"}, "train_list.txt"),
        ({"train.xlsx": "PK"}, "train.xlsx: may list the images of a split"),
        ({"meta/splits.mat": "MATLAB"}, "splits.mat"),
        ({"Train_IDs.npy": ""}, "Train_IDs.npy"),
        ({"trainval": "a\nb\nc", "test": "d"}, "trainval"),
        ({"splits/1.txt": "a\nb\nc", "splits/2.txt": "d\ne"}, "1.txt: lists a part of the images, and its name"),
        ({"ImageSets/night.txt": "a.png\nb.png"}, "night.txt: lists a part"),
        ({"split.yaml": "train: [a, b, c]"}, "split.yaml"),
        ({"data.csv": "name,is_train\na,1\nb,1\nc,1\nd,0\ne,0"}, "data.csv: lists images of several splits"),
        ({"meta.csv": "image;Fold\na.png;0\nb.png;1\nc.png;2\nd.png;0\ne.png;1"}, "meta.csv: lists images of several"),
        ({"holdout.txt": "d\ne"}, "holdout.txt: is a list, but there is none of train"),
        ({"tst.csv": "d\ne"}, "tst.csv: is a list, but there is none of train"),
        ({"partition.pkl": ""}, "partition.pkl: may list"),
        ({"fold_0.lst": "a\nb"}, "fold_0.lst: lists a part"),
    ],
)
def test_a_list_that_is_not_read_is_refused_by_name(tmp_path, files, named):
    tree(tmp_path, "abcde", "abcde")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=named.replace(".", r"\.")):
        build_dataset("folder", tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("train_ids.txt", "x1\nx2\n", r"train_ids\.txt: is called a list, but most of its lines are no images .*as x1"),
        ("val_list.csv", "a\nx1\nx2\nx3", r"val_list\.csv: is called a list"),
        ("validation.lst", "", r"validation\.lst: is called a list, .*; it is empty"),
        ("Train_Files.txt", "other/a1.png\nother/a2.png", r"Train_Files\.txt: is called a list"),
        ("split.csv", "name,split\nx1,train\nx2,val\nx3,val", r"split\.csv: is called a list"),
    ],
)
def test_a_list_of_other_images_is_refused(tmp_path, name, text, said):
    """It was passed over, and the images split by a hash."""
    tree(tmp_path, "abcde", "abcde")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        build_dataset("folder", tmp_path, "train")


def test_a_list_of_test_images_that_are_elsewhere_is_no_obstacle(tmp_path):
    tree(tmp_path, "abcde", "abcde")
    (tmp_path / "test.csv").write_text("x1\nx2\n")
    assert len(paired(tmp_path, "train")) + len(paired(tmp_path, "val")) == 5
    with pytest.raises(InputError, match=r"test\.csv: is called a list"):
        build_dataset("folder", tmp_path, "test")


def test_a_mask_of_two_images_is_told(tmp_path):
    tree(tmp_path, "abcd", "abd")
    (tmp_path / "train.txt").write_text("a.png a.png\nb.png b.png\nc.png b.png\n")
    (tmp_path / "val.txt").write_text("d.png d.png\n")
    form = build_dataset("folder", tmp_path, "train").found.form
    assert "images and masks, 1 of them on the mask of another image" in form
    assert "another image" not in build_dataset("folder", tmp_path, "val").found.form


@pytest.mark.parametrize("mask", ["{}", "{}_gt", "gt_{}"])
@pytest.mark.parametrize("off", [0, 1])
def test_masks_of_the_names_of_other_images_are_told(tmp_path, mask, off):
    names = "abcdef"
    tree(tmp_path, [f"im{n}" for n in names], [mask.format(f"im{n}") for n in [*names, "x"]])
    others = dict(zip(names, names[off:-1] + names[:off] + names[-1], strict=False))
    lines = [f"images/im{n}.png,masks/{mask.format(f'im{others[n]}')}.png" for n in names[:5]]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    (tmp_path / "val.csv").write_text(f"images/imf.png,masks/{mask.format('imx')}.png\n")  # of no other image
    found = [build_dataset("folder", tmp_path, split).found for split in ("train", "val")]
    told = [f"{doubt}" for pairing in found for doubt in pairing.doubts]
    assert len(told) == off
    if off:
        named = [mask.format(name) for name in ("imb", "ima")]
        assert f"train.csv: gives ima.png the mask {named[0]}.png, though {named[1]}.png is there" in told[0]
        assert "(and 4 more lines so); pair by names" in told[0]


def test_a_list_that_chooses_among_the_masks_of_an_image_is_not_told(tmp_path):
    names = "abcd"
    tree(tmp_path, names, [f"{n}_{kind}" for n in names for kind in ("seg", "edge")])
    (tmp_path / "train.txt").write_text("".join(f"images/{n}.png masks/{n}_edge.png\n" for n in names[:3]))
    (tmp_path / "val.txt").write_text("images/d.png masks/d_seg.png\n")
    assert not build_dataset("folder", tmp_path, "train").found.doubts


@pytest.mark.parametrize(
    "name",
    [
        *("README.txt", "notes.csv", "train_log.txt", "latest.txt", "contest.json", "interval.txt"),
        *("LICENSE", "trainer", "train_stats.npy", "embeddings.parquet", "best.pkl"),
    ],
)
def test_files_that_list_no_split_are_no_obstacle(tmp_path, name):
    tree(tmp_path, "abcde", "abcde")
    (tmp_path / name).write_text("made by hand\nepoch 1 loss 0.3\n")
    assert len(paired(tmp_path, "train")) + len(paired(tmp_path, "val")) == 5


@pytest.mark.parametrize("word", ["oval", "removal", "festival", "interval", "strain", "latest", "valve", "valley"])
def test_ordinary_words_are_no_splits(tmp_path, word):
    """Interval was read as val, strain as train, latest as test."""
    tree(tmp_path, "abcde", "abcde")
    (tmp_path / f"{word}.txt").write_text("a\nb\n")
    assert len(paired(tmp_path, "train")) + len(paired(tmp_path, "val")) == 5


@pytest.mark.parametrize(
    ("stem", "splits"),
    [
        *(("voc2012train", "train"), ("camvidval", "val"), ("coco_minival", "val"), ("imagestest", "test")),
        *(("trainaug", "train"), ("valset", "val"), ("testA", "test")),
    ],
)
def test_glued_words_speak_of_splits(stem, splits):
    assert splits_of(stem) == [splits]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tags.json", '{"a.png": ["train", "car"], "b.png": ["car"]}'),
        ("present.csv", "image,car,train\na.png,1,0\nb.png,0,1\nc.png,1,1\nd.png,1,0\ne.png,0,1\n"),
    ],
)
def test_a_class_called_train_is_no_split(tmp_path, name, text):
    tree(tmp_path, "abcde", "abcde")
    (tmp_path / name).write_text(text)
    assert len(paired(tmp_path, "train")) + len(paired(tmp_path, "val")) == 5


def test_a_run_in_the_data_folder_lists_nothing(tmp_path):
    """The metrics of a run name images of val: it could not be resumed."""
    tree(tmp_path, "abcde", "abcde")
    (tmp_path / "run/eval-val").mkdir(parents=True)
    for name in ("config.yaml", "used.yaml", "val_metrics.json", "eval-val/val.csv"):
        (tmp_path / "run" / name).write_text(
            '{"images": ["a", "b"], "split": "val"}' if "json" in name else "a,1\nb,2\n"
        )
    assert len(paired(tmp_path, "train")) + len(paired(tmp_path, "val")) == 5


def test_a_list_that_is_a_dead_link_is_named(tmp_path):
    """It was passed over, and the images split by a hash."""
    tree(tmp_path, "abcde", "abcde")
    (tmp_path / "train.txt").symlink_to(tmp_path / "gone/train.txt")
    with pytest.raises(InputError, match=r"train\.txt: is a link to a file that is not there"):
        build_dataset("folder", tmp_path, "train")


@pytest.mark.parametrize("twins", [("train", "Train"), ("val", "valid")])
def test_two_folders_of_one_split_are_named(tmp_path, twins):
    for place, split in enumerate(("train", "val", *twins)):
        tree(tmp_path, [f"{split}{place}"], [f"{split}{place}"], f"images/{split}", f"masks/{split}")
    first, second = sorted(twins) if twins[0] == "train" else twins
    with pytest.raises(InputError, match=f"has the folders {first} and {second}, both of {twins[0]}; join them"):
        build_dataset("folder", tmp_path, twins[0])


@pytest.mark.parametrize("name", ["lists/all.txt", "everything.txt", "part_1.txt"])
def test_a_list_of_all_images_parts_nothing(tmp_path, name):
    tree(tmp_path, "abcde", "abcde")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("\n".join("abcde"))
    assert len(paired(tmp_path, "train")) + len(paired(tmp_path, "val")) == 5


def test_a_table_beside_lists_that_are_read_is_no_obstacle(tmp_path):
    split_tree(tmp_path, "train_list.txt")
    (tmp_path / "train.xlsx").write_text("the same once more")
    assert [*paired(tmp_path, "train")] == [*"abc"]


# ---- paths


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    "line", ["../outside/x.png ../outside/m.png", "../../outside/x.png m.png", "..\\outside\\x.png m.png"]
)
def test_a_path_out_of_the_root_is_not_the_file_of_that_name_inside(tmp_path, there, line):
    root = tree(tmp_path / "a/data", "ab", "ab")
    for place in (root, *([tmp_path / "a/outside", tmp_path / "outside"] if there else [])):
        for name in "xm":
            write_png(place / f"{name}.png", random_image(0, SIZE))
    (root / "train.txt").write_text(line)
    with pytest.raises(InputError, match=r"train\.txt: lists \.\."):
        build_dataset("folder", root, "train")


def test_a_path_out_of_the_root_and_in_again_is_read(tmp_path):
    root = tree(tmp_path / "data", "ab", "ab")
    (root / "splits").mkdir()
    (root / "splits/train.txt").write_text("../images/a.png ../masks/a.png\n../../data/images/b.png ../masks/b.png")
    assert paired(root, "train") == {"a": "a", "b": "b"}


# ---- names that meet


def test_several_images_of_a_cityscapes_frame_are_named(tmp_path):
    root = cityscapes_tree(tmp_path)
    path = next((root / "leftImg8bit/train").rglob("*.png"))
    for beta in ("0.01", "0.02"):
        path.with_name(f"{path.stem}_foggy_beta_{beta}.png").write_bytes(path.read_bytes())
    path.unlink()
    with pytest.raises(InputError, match=r"foggy_beta_0\.02\.png: is of the same name, .*keep one of the two"):
        build_dataset("cityscapes", root, "train")


def test_frames_of_one_name_in_two_cities_are_two(tmp_path):
    root = cityscapes_tree(tmp_path)
    for path in [*(root / "leftImg8bit/train/aachen").iterdir(), *(root / "gtFine/train/aachen").iterdir()]:
        other = path.parent.parent / "bremen" / path.name
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(path.read_bytes())
    dataset = build_dataset("cityscapes", root, "train")
    assert len(dataset) == 3 and all(image.parent.name == mask.parent.name for image, mask in dataset.pairs)


# ---- lines


@pytest.mark.parametrize(
    ("images", "masks", "lines"),
    [
        (["img_1", "img_2"], ["mask_1", "mask_2"], "img_1 mask_1\nimg_2 mask_2\n"),
        (["video", "gt_2"], ["video", "gt_2"], "video\ngt_2\n"),
        (["img_1", "img_2"], ["mask_1", "mask_2"], "image_path mask_path\nimg_1 mask_1\nimg_2 mask_2\n"),
        (["a", "b"], ["a", "b"], "FileName\na\nb\n"),
    ],
)
def test_a_first_line_is_a_header_only_where_it_is_words_of_headers_alone(tmp_path, images, masks, lines):
    tree(tmp_path, images, masks)
    (tmp_path / "train.txt").write_text(lines)
    assert paired(tmp_path, "train") == dict(zip(images, masks, strict=True))


def test_a_first_line_of_an_image_that_is_missing_is_no_header(tmp_path):
    tree(tmp_path, ["image_2", "image_3"], ["image_2", "image_3"])
    (tmp_path / "train.txt").write_text("image_1\nimage_2\nimage_3\n")
    with pytest.raises(InputError, match="lists image_1"):
        build_dataset("folder", tmp_path, "train")


def test_another_file_of_the_same_stem_is_not_taken_for_the_one_that_is_listed(tmp_path):
    tree(tmp_path, "ab", "ab")
    (tmp_path / "images/a.gif").write_bytes(b"GIF89a")
    (tmp_path / "train.txt").write_text("images/a.gif\nimages/b.png\n")
    with pytest.raises(InputError, match=r"lists images/a\.gif"):
        build_dataset("folder", tmp_path, "train")


def test_two_lists_of_a_split_that_say_other_things_are_refused(tmp_path):
    tree(tmp_path, "abcd", "abcd")
    (tmp_path / "splits").mkdir()
    for split, names in (("train", "ab"), ("val", "cd")):
        (tmp_path / f"{split}.txt").write_text("\n".join(names))
        (tmp_path / f"splits/{split}.txt").write_text("\n".join(names[::-1]) + "\n")
    assert paired(tmp_path, "train") == {"a": "a", "b": "b"}
    (tmp_path / "splits/train.txt").write_text("a\nc\n")
    with pytest.raises(InputError, match=r"splits/train\.txt: lists images of train, and .*train\.txt others"):
        build_dataset("folder", tmp_path, "train")
