"""``python -m segloss.rasterise``: outlines of every form become masks that ``--dataset folder`` reads."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from data_trees import folder_tree, listing, random_image, write_png
from PIL import Image

from segloss.datasets import NoDataError, build_dataset
from segloss.datasets.annotations import kind_of
from segloss.datasets.class_files import read_class_file
from segloss.errors import InputError
from segloss.rasterise.command import main
from segloss.rasterise.regions import _uncompressed

SIZE = (30, 40)
SQUARE = [[5.0, 5.0, 25.0, 5.0, 25.0, 20.0, 5.0, 20.0]]  # 20 x 15 pixels
SMALL = [[10.0, 8.0, 16.0, 8.0, 16.0, 14.0, 10.0, 14.0]]  # 6 x 6, inside


def outlines(*annotations: dict, categories=((1, "crack"), (2, "leaf")), images=("a.jpg",), size=SIZE) -> dict:
    """A COCO file; annotations of image 1 unless they say."""
    return {
        "info": {},
        "images": [
            {"id": place, "file_name": name, "height": size[0], "width": size[1]}
            for place, name in enumerate(images, 1)
        ],
        "annotations": [
            {"id": place, "image_id": 1, "category_id": 1, "iscrowd": 0, **entry}
            for place, entry in enumerate(annotations, 1)
        ],
        "categories": [{"id": number, "name": name, "supercategory": "things"} for number, name in categories],
    }


def coco_tree(root: Path, content: dict, name="annotations.json", folder="") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(content))
    for place, entry in enumerate(content["images"]):
        write_png(root / folder / entry["file_name"], random_image(place, SIZE))
    return root


def labelme_tree(root: Path, *shapes: dict, name="a") -> Path:
    write_png(root / f"{name}.jpg", random_image(0, SIZE))
    content = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": f"{name}.jpg", "imageData": None}
    (root / f"{name}.json").write_text(json.dumps({**content, "imageHeight": SIZE[0], "imageWidth": SIZE[1]}))
    return root


def cvat_tree(root: Path, *shapes: str, labels=("crack", "leaf"), attributes="") -> Path:
    write_png(root / "images/a.jpg", random_image(0, SIZE))
    names = "".join(f"<label><name>{name}</name><color>#ff0000</color></label>" for name in labels)
    text = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>{names}</labels></task></meta>
<image id="0" name="a.jpg" width="{SIZE[1]}" height="{SIZE[0]}" {attributes}>{"".join(shapes)}</image></annotations>"""
    (root / "annotations.xml").write_text(text)
    return root


def yolo_tree(root: Path, text: str, names="names: [crack, leaf]", split="train") -> Path:
    write_png(root / split / "images/a.jpg", random_image(0, SIZE))
    (root / split / "labels").mkdir(parents=True)
    (root / split / "labels/a.txt").write_text(text)
    (root / "data.yaml").write_text(f"train: ../train/images\nval: ../valid/images\nnc: 2\n{names}\n")
    return root


def drawn(source: Path, *flags: str, place="a") -> np.ndarray:
    """The mask of one image."""
    out = source.with_name(f"{source.name}-out")
    main([str(source), str(out), *flags])
    return cv2.imread(str(out / "masks" / f"{place}.png"), cv2.IMREAD_UNCHANGED)


def refused(source: Path, *flags: str) -> str:
    """The message; nothing was written."""
    out = source.with_name(f"{source.name}-out")
    before = {path.name for path in source.parent.iterdir()}
    with pytest.raises(InputError) as error:
        main([str(source), str(out), *flags])
    assert {path.name for path in source.parent.iterdir()} == before
    return str(error.value)


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


# ---- COCO


def test_pixels_equal_those_of_cocos_own_tools(tmp_path, capsys):
    """Polygons of several rings, of fractions, crossing themselves, reaching out; compressed and plain run lengths."""
    from pycocotools import mask as tools
    from pycocotools.coco import COCO

    rng = np.random.default_rng(0)
    compressed = tools.encode(np.asfortranarray(rng.random(SIZE) < 0.5, dtype=np.uint8))
    entries = [
        {"segmentation": [rng.uniform(-8, 45, 2 * n).tolist() for n in rng.integers(3, 8, 2)]} for _ in range(20)
    ]
    entries += [{"segmentation": {"size": SIZE, "counts": compressed["counts"].decode()}}]
    entries += [{"segmentation": {"size": SIZE, "counts": [100, 50, 1050]}}]
    for place, entry in enumerate(entries):
        source = coco_tree(tmp_path / str(place), outlines({**entry, "bbox": [0, 0, 1, 1]}))
        coco = COCO(str(source / "annotations.json"))
        assert (drawn(source) == coco.annToMask(coco.anns[1])).all(), place


def test_a_run_length_text_is_read_as_pycocotools_writes_it():
    from pycocotools import mask as tools

    rng = np.random.default_rng(1)
    for share in (0.0, 0.01, 0.5, 1.0):
        pixels = np.asfortranarray(rng.random((97, 61)) < share, dtype=np.uint8)
        counts = _uncompressed(tools.encode(pixels)["counts"].decode())
        filled = np.repeat(np.arange(len(counts)) % 2, counts).reshape(61, 97).T
        assert (filled == pixels).all()


def test_the_smaller_lies_on_top_or_the_later(tmp_path):
    content = outlines({"segmentation": SMALL, "category_id": 2}, {"segmentation": SQUARE})
    source = coco_tree(tmp_path / "s", content)
    assert (drawn(source) == box(5, 5, 25, 20) + box(10, 8, 16, 14)).all()
    (tmp_path / "s-out").rename(tmp_path / "first")
    assert (drawn(source, "--on-top", "later") == box(5, 5, 25, 20)).all()


def test_equal_ones_lie_in_the_order_of_the_file(tmp_path):
    content = outlines({"segmentation": SQUARE, "category_id": 2}, {"segmentation": SQUARE})
    assert (drawn(coco_tree(tmp_path / "s", content)) == box(5, 5, 25, 20)).all()


def test_a_crowd_is_ignored_where_nothing_else_lies(tmp_path):
    runs = {"size": SIZE, "counts": [0, SIZE[0] * SIZE[1]]}
    content = outlines({"segmentation": SQUARE}, {"segmentation": runs, "iscrowd": 1})
    expected = np.where(box(5, 5, 25, 20) == 1, 1, 255)
    assert (drawn(coco_tree(tmp_path / "s", content)) == expected).all()
    (tmp_path / "s-out").rename(tmp_path / "first")
    assert (drawn(tmp_path / "s", "--on-top", "later") == expected).all()


@pytest.mark.parametrize(
    ("entry", "told", "around"),
    [
        ({"segmentation": [[5, 5, 20, 20]]}, "its outline has 2 points, not three or more", (5, 5, 21, 21)),
        ({"segmentation": [[1, 1, 9, 1, 9]]}, "its outline is no list of x and y", None),
        ({"segmentation": [SQUARE[0], [1, 1, 2, 2]]}, "its outline has 2 points", (1, 1, 26, 21)),
        (
            {"segmentation": [[1, 1, 9, 1, 1e12, 9]]},
            "its outline has a point that is no number or far outside any image",
            None,
        ),
        ({"segmentation": [[1, 1, 9, 1, None, 9]]}, "is not understood (TypeError", None),
        ({"segmentation": [[1, 1, 9, 1, "x", 9]]}, "could not convert string to float: 'x'", None),
        (
            {"segmentation": {"size": [40, 30], "counts": [1200]}},
            "its run lengths are for [40, 30] (height, width)",
            None,
        ),
        (
            {"segmentation": {"size": SIZE, "counts": [5, 5]}, "bbox": [2, 3, 4.5, 5]},
            *("its run lengths do not fill 30 x 40 pixels", (2, 3, 7, 9)),
        ),
        ({"segmentation": {"size": SIZE, "counts": [1201, -1]}}, "its run lengths do not fill", None),
        ({"segmentation": {"size": SIZE, "counts": "0"}}, "its run lengths do not fill", None),
        ({"segmentation": {"size": SIZE, "counts": "oo"}}, "its run lengths are cut off", None),
        ({"segmentation": {"size": SIZE, "counts": "~~"}}, "its run lengths cannot be read", None),
        ({"segmentation": {"size": SIZE}}, "its run lengths cannot be read", None),
        ({"segmentation": [], "bbox": [1, 1, 5, 5]}, "has a box but no outline (--fill-boxes fills it)", (1, 1, 7, 7)),
        ({"segmentation": None}, "has no segmentation", None),
        ({"segmentation": SQUARE, "category_id": 9}, "is of category 9, which is not listed", (5, 5, 26, 21)),
        ({"segmentation": SQUARE, "category_id": [1]}, "is of category [1], which is not listed", (5, 5, 26, 21)),
        ({"segmentation": SQUARE, "image_id": 7}, "is of image_id 7, which is not listed", (0, 0, 0, 0)),
        ({"segmentation": SQUARE, "iscrowd": "no"}, "has iscrowd 'no', neither 0 nor 1", (5, 5, 26, 21)),
    ],
)
def test_an_annotation_that_cannot_be_used_is_named_and_nothing_is_written(tmp_path, capsys, entry, told, around):
    """Left out it is ignored where it lies, and was background: in the whole image if nothing tells where."""
    source = coco_tree(tmp_path / "s", outlines({"segmentation": SMALL}, entry))
    message = refused(source)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {source / 'annotations.json'}: annotation 2: {told}")
    assert message.startswith(f"{source}: 1 annotations or images cannot be used") and message.endswith("--skip-bad")
    lost = 255 * box(*(around or (0, 0, *SIZE[::-1])))
    assert (drawn(source, "--skip-bad") == np.where(box(10, 8, 16, 14), 1, lost)).all()
    lies = "the rectangle around it" if around else "all of the image that nothing else covers"
    left = f"left out ({lies} is ignored)" if "image_id" not in entry else "left out"
    assert f"warning: {left}: {line.removeprefix('error: ')}" in capsys.readouterr().out.splitlines()


def test_every_one_of_them_is_a_line(tmp_path, capsys):
    refused(coco_tree(tmp_path / "s", outlines(*[{"segmentation": None}] * 30)))
    assert len(re.findall(r"^error: .* annotation \d+: ", capsys.readouterr().out, re.MULTILINE)) == 30


def test_boxes_are_filled_if_asked(tmp_path):
    content = outlines({"segmentation": [], "bbox": [5, 5, 20, 15]})
    assert (drawn(coco_tree(tmp_path / "s", content), "--fill-boxes") == box(5, 5, 25, 20)).all()


def test_what_covers_no_pixel_is_said(tmp_path, capsys):
    content = outlines({"segmentation": [[100, 100, 120, 100, 120, 120]]}, {"segmentation": SMALL})
    drawn(coco_tree(tmp_path / "s", content))
    assert "annotation 1: covers no pixel of a.jpg" in capsys.readouterr().out


def test_where_nothing_covers_a_pixel_it_is_refused(tmp_path):
    """All was background, with status 0."""
    shares = [[number / 40 for number in SQUARE[0]]]
    content = outlines({"segmentation": shares, "bbox": [0.1, 0.1, 0.5, 0.5]})
    said = "1 of 1 outlines lie in the first pixel: shares of the image?; write coordinates in pixels"
    assert said in refused(coco_tree(tmp_path / "s", content))
    beyond = outlines({"segmentation": [[100, 100, 120, 100, 120, 120]]})
    said = "no annotation covers a pixel; write coordinates in pixels of the image"
    assert said in refused(coco_tree(tmp_path / "b", beyond))


ROW_BY_ROW = {"size": SIZE, "counts": [5 * 40 + 5, *[20, 20] * 14, 20, 10 * 40 + 15]}
TURNED = [[y for pair in zip(ring[1::2], ring[::2], strict=True) for y in pair] for ring in SQUARE]


@pytest.mark.parametrize(
    ("outline", "said"),
    [
        (ROW_BY_ROW, "run lengths do not fit the bbox beside them: written row by row? COCO's are column by column"),
        (TURNED, "outlines do not fit the bbox beside them: x and y swapped"),
    ],
)
def test_outlines_elsewhere_than_their_boxes_are_told(tmp_path, capsys, outline, said):
    right = {"segmentation": SQUARE, "bbox": [5, 5, 20, 15]}
    if isinstance(outline, dict):
        counts = [5 * 30 + 5, *[15, 15] * 19, 15, 15 * 30 + 10]
        right = {"segmentation": {"size": SIZE, "counts": counts}, "bbox": [5, 5, 20, 15]}
    wrong = {"segmentation": outline, "bbox": [5, 5, 20, 15] if isinstance(outline, dict) else [20, 5, 5, 20]}
    assert f"annotations.json: 2 of 3 {said}" in refused(coco_tree(tmp_path / "most", outlines(right, wrong, wrong)))
    drawn(coco_tree(tmp_path / "few", outlines(right, wrong, right)))
    assert f"warning: {tmp_path / 'few/annotations.json'}: 1 of 3 {said}" in capsys.readouterr().out


@pytest.mark.parametrize("bbox", [[5, 5, 25, 20], [5, 5, 20, 15], [0, 0, 1, 1], [5, 5, 20], None, [7, 4, 20, 14]])
def test_boxes_that_fit_or_say_nothing_are_passed_over(tmp_path, capsys, bbox):
    content = outlines({"segmentation": SQUARE, "bbox": bbox})
    assert (drawn(coco_tree(tmp_path / "s", content)) == box(5, 5, 25, 20)).all()
    assert "bbox" not in capsys.readouterr().out


def test_outlines_beyond_the_image_fit_a_box_that_is_cut_off(tmp_path, capsys):
    beyond = [[20.0, 5.0, 90.0, 5.0, 90.0, 25.0, 20.0, 25.0]]
    drawn(coco_tree(tmp_path / "s", outlines({"segmentation": beyond, "bbox": [20, 5, 20, 20]})))
    assert "bbox" not in capsys.readouterr().out


def test_keypoints_beside_the_instances_are_passed_over(tmp_path, capsys):
    """As COCO 2017 is unpacked; alone they are read."""
    source = tmp_path / "coco"
    for split in ("train", "val"):
        content = outlines({"segmentation": SQUARE}, images=(f"{split}.jpg",))
        coco_tree(source, content, f"annotations/instances_{split}2017.json", f"{split}2017")
        person = {**content, "categories": [{"id": 1, "name": "crack", "keypoints": ["nose"]}]}
        coco_tree(source, person, f"annotations/person_keypoints_{split}2017.json", f"{split}2017")
    drawn(source)
    assert capsys.readouterr().out.count("2017.json: has keypoints, and other files the instances, passed over\n") == 2
    assert build_dataset("folder", tmp_path / "coco-out", "val").classes.names == ("background", "crack", "leaf")
    (source / "annotations/instances_train2017.json").unlink()
    (tmp_path / "coco-out").rename(tmp_path / "first")
    drawn(source)
    assert capsys.readouterr().out.count("2017.json: has keypoints, and other files the instances, passed over\n") == 1
    assert build_dataset("folder", tmp_path / "coco-out", "train").classes.names == ("background", "crack", "leaf")
    (source / "annotations/instances_val2017.json").unlink()
    (tmp_path / "coco-out").rename(tmp_path / "second")
    drawn(source)
    assert build_dataset("folder", tmp_path / "coco-out", "val").classes.names == ("background", "crack")


def test_classes_are_matched_by_name_over_the_files_of_the_splits(tmp_path):
    """Whose ids for one name may differ, and how its umlauts are written."""
    source, one, two = tmp_path / "coco", "Bl\u00e4tter", "Bla\u0308tter"
    for split, categories in (("train", ((1, "crack"), (2, one))), ("val", ((1, two), (5, "crack")))):
        content = outlines({"segmentation": SQUARE}, categories=categories, images=(f"{split}.jpg",))
        coco_tree(source, content, f"annotations/instances_{split}2017.json", f"{split}2017")
    (source / "annotations/captions_val2017.json").write_text(
        json.dumps({"info": {}, "images": [{"id": 1, "file_name": "val.jpg"}], "annotations": [{"caption": "x"}]})
    )
    drawn(source)
    train, val = (build_dataset("folder", tmp_path / "coco-out", split) for split in ("train", "val"))
    assert train.classes.names == ("background", "crack", one) and (train.names, val.names) == (["train"], ["val"])
    assert {*np.unique(train.read_labels(0))} == {0, 1} and {*np.unique(val.read_labels(0))} == {0, 2}


def test_an_image_without_annotation_is_background_or_ignored_and_said(tmp_path, capsys):
    content = outlines({"segmentation": SQUARE}, images=("a.jpg", "b.jpg"))
    source = coco_tree(tmp_path / "s", content)
    told = f"warning: 1 of 2 images have no annotation, the first: {source / 'b.jpg'}: all of each is "
    assert not drawn(source, place="b").any()
    assert f"{told}background; remove them if nobody looked at them\n" in capsys.readouterr().out
    (tmp_path / "s-out").rename(tmp_path / "first")
    assert (drawn(source, "--unlabelled", "ignore", place="b") == 255).all()
    assert f"{told}ignored\n" in capsys.readouterr().out
    assert build_dataset("folder", tmp_path / "s-out", "train").classes.names == ("crack", "leaf")


def test_a_class_called_background_is_what_is_not_drawn(tmp_path):
    """And a hole in a thing, drawn as a smaller outline of it."""
    content = outlines(
        *({"segmentation": SQUARE, "category_id": 3}, {"segmentation": SMALL, "category_id": 2}),
        categories=((2, "_background_"), (3, "crack")),
    )
    assert (drawn(coco_tree(tmp_path / "s", content)) == box(5, 5, 25, 20) - box(10, 8, 16, 14)).all()
    assert read_class_file(tmp_path / "s-out/classes.yaml").names == ("_background_", "crack")


@pytest.mark.parametrize("name", ["void", "__ignore__", "Unlabeled"])
def test_a_class_called_void_is_ignored(tmp_path, name):
    content = outlines({"segmentation": SQUARE}, categories=((1, name), (2, "leaf")))
    assert (drawn(coco_tree(tmp_path / "s", content)) == 255 * box(5, 5, 25, 20).astype(int)).all()


def test_ids_leave_out_255_and_more_classes_than_fit_are_refused(tmp_path):
    from segloss.rasterise.drawing import legend_of

    names = [f"class {place}" for place in range(253)]
    assert legend_of(names, "background", None).classes.ids[-1] == 253
    source = coco_tree(
        tmp_path / "s", outlines({"segmentation": SQUARE}, categories=[*enumerate(names, 1), (999, "z")])
    )
    try:
        drawn(source)
    except InputError as error:
        assert "2 to 254 classes" in str(error)
    else:  # more are read by now: none of them is 255, and masks have 16 bits
        ids = read_class_file(tmp_path / "s-out/classes.yaml").ids
        assert len(ids) == 255 and 255 not in ids


def test_a_class_table_gives_the_ids(tmp_path):
    (tmp_path / "classes.yaml").write_text("background: 0\ncrack: 255\nignore: 9\n")
    content = outlines({"segmentation": SQUARE}, {"segmentation": SMALL, "iscrowd": 1}, categories=((1, "crack"),))
    mask = drawn(coco_tree(tmp_path / "s", content), "--class-table", str(tmp_path / "classes.yaml"))
    assert (mask == 255 * box(5, 5, 25, 20).astype(int)).all()
    assert read_class_file(tmp_path / "s-out/classes.yaml").ids == (0, 255)
    assert "is of class 'leaf', which the class table does not have" in refused(
        coco_tree(tmp_path / "t", outlines({"segmentation": SQUARE, "category_id": 2})),
        *("--class-table", str(tmp_path / "classes.yaml")),
    )


def test_a_class_table_without_background_wants_a_word(tmp_path):
    (tmp_path / "classes.txt").write_text("crack\nleaf\n")
    flags = ["--class-table", str(tmp_path / "classes.txt")]
    source = coco_tree(tmp_path / "s", outlines({"segmentation": SQUARE}))
    assert "give --unlabelled ignore" in refused(source, *flags)
    assert (drawn(source, *flags, "--unlabelled", "ignore") == np.where(box(5, 5, 25, 20), 0, 255)).all()


# ---- images


def test_links_lead_to_the_images_and_copies_are_their_bytes(tmp_path):
    source = coco_tree(tmp_path / "s", outlines({"segmentation": SQUARE}))
    before = listing(source)
    drawn(source)
    made = tmp_path / "s-out/images/a.jpg"
    assert made.is_symlink() and made.resolve() == (source / "a.jpg").resolve()
    main([str(source), str(tmp_path / "copied"), "--images", "copy"])
    made = tmp_path / "copied/images/a.jpg"
    assert not made.is_symlink() and made.read_bytes() == (source / "a.jpg").read_bytes()
    assert listing(source) == before


def test_images_are_found_by_the_end_of_their_path_whatever_its_prefix(tmp_path):
    content = outlines({"segmentation": SQUARE}, images=("C:\\data\\b\\a.jpg", "b.jpg"))
    source = tmp_path / "s"
    for place, name in enumerate(("a/a.jpg", "b/a.jpg", "b/b.jpg")):
        write_png(source / "pictures" / name, random_image(place, SIZE))
    (source / "labels.json").write_text(json.dumps(content))
    assert drawn(source).any()
    assert (tmp_path / "s-out/images/a.jpg").resolve() == (source / "pictures/b/a.jpg").resolve()


def test_an_image_that_may_be_several_files_or_is_none_is_named(tmp_path, capsys):
    content = outlines({"segmentation": SQUARE}, images=("a.jpg", "gone.jpg", "c.webm"))
    source = tmp_path / "s"
    for place, name in enumerate(("x/a.jpg", "y/a.jpg")):
        write_png(source / name, random_image(place, SIZE))
    (source / "labels.json").write_text(json.dumps(content))
    assert "3 annotations or images cannot be used" in refused(source)
    said = capsys.readouterr().out
    assert f"image 1: its image a.jpg may be {source / 'x/a.jpg'} or {source / 'y/a.jpg'}" in said
    assert "image 2: its image gone.jpg is not below" in said and "c.webm is not below" in said


def test_names_that_are_alike_keep_their_folders(tmp_path):
    content = outlines({"segmentation": SQUARE}, images=("x/a.jpg", "y/a.jpg"))
    assert drawn(coco_tree(tmp_path / "s", content), place="x__a").any()
    names = [build_dataset("folder", tmp_path / "s-out", split, val_share=0.5).names for split in ("train", "val")]
    assert sorted(names) == [["x__a"], ["y__a"]]


def test_images_elsewhere_and_a_file_as_source(tmp_path):
    write_png(tmp_path / "photos/a.jpg", random_image(0, SIZE))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.json").write_text(json.dumps(outlines({"segmentation": SQUARE})))
    assert "say --image-dir" in refused(tmp_path / "notes/a.json")
    main([str(tmp_path / "notes/a.json"), str(tmp_path / "out"), "--image-dir", str(tmp_path / "photos")])
    assert (tmp_path / "out/masks/a.png").is_file()


def test_an_image_of_another_size_than_its_annotations_is_named(tmp_path):
    source = coco_tree(tmp_path / "s", outlines({"segmentation": SQUARE}, size=(60, 80)))
    assert "a.jpg: is 40x30, its annotations in annotations.json are for 80x60 (width x height)" in refused(source)


def turned(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(path).save(path, exif=exif)


def test_what_a_turn_by_exif_means_is_said(tmp_path, capsys):
    """Annotations of the picture as shown are drawn so; of the picture as stored refused."""
    source = coco_tree(tmp_path / "shown", outlines({"segmentation": SQUARE}, size=SIZE[::-1]))
    turned(source / "a.jpg", 6)
    assert drawn(source).shape == SIZE[::-1]
    assert "a.jpg: is turned by its EXIF orientation; its annotations are read as drawn" in capsys.readouterr().out
    source = coco_tree(tmp_path / "stored", outlines({"segmentation": SQUARE}))
    turned(source / "a.jpg", 6)
    assert "they are for the picture before its EXIF turn; save it upright" in refused(source)


# ---- LabelMe


def labelme_shape(kind: str, points: list, label="crack", **more) -> dict:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def encoded(pixels: np.ndarray) -> str:
    return base64.b64encode(cv2.imencode(".png", pixels * 255)[1].tobytes()).decode()


LABELME = {
    "polygon": labelme_shape("polygon", [[5, 5], [25, 5], [25, 20], [5, 20]]),
    "rectangle": labelme_shape("rectangle", [[25, 20], [5, 5]]),
    "four corners": labelme_shape("rectangle", [[5, 5], [25, 5], [25, 20], [5, 20]]),
    "mask": labelme_shape("mask", [[5, 5], [24, 19]], mask=encoded(np.ones((15, 20), np.uint8))),
    "no type": {"label": "crack", "points": [[5, 5], [25, 5], [25, 20], [5, 20]]},
}


@pytest.mark.parametrize("kind", LABELME)
def test_labelme_shapes(tmp_path, kind):
    assert (drawn(labelme_tree(tmp_path / "s", LABELME[kind])) == box(5, 5, 25, 20)).all()


def test_a_labelme_circle(tmp_path):
    """Its middle, and a point of its line; pixels by the distance of their middles, half a pixel of doubt."""
    mask = drawn(labelme_tree(tmp_path / "s", labelme_shape("circle", [[20, 15], [20, 25]])))
    rows, columns = np.mgrid[:30, :40] + 0.5
    far = np.hypot(rows - 15, columns - 20)
    assert mask[far < 9.3].all() and not mask[far > 10.7].any()


def test_a_mask_with_a_hole_that_reaches_out_of_the_image(tmp_path):
    pixels = np.ones((15, 20), np.uint8)
    pixels[4:8, 4:8] = 0
    source = labelme_tree(tmp_path / "s", labelme_shape("mask", [[-2, 20], [17, 34]], mask=encoded(pixels)))
    expected = box(0, 20, 18, 30) - box(2, 24, 6, 28)
    assert (drawn(source) == expected).all()


@pytest.mark.parametrize("kind", ["point", "line", "linestrip", "points"])
def test_shapes_without_area_are_named(tmp_path, capsys, kind):
    refused(labelme_tree(tmp_path / "s", labelme_shape(kind, [[5, 5], [25, 5]])))
    assert f"a.json: shape 0: is a {kind}, which has no area" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (labelme_shape("polygon", [[1, 1], [5, 5]]), "shape 0: its outline has 2 points"),
        (labelme_shape("polygon", [[1, 1], [5, 5], [9]]), "shape 0: not enough values to unpack"),
        (labelme_shape("polygon", []), "shape 0: its outline has 0 points"),
        (labelme_shape("mask", [[1, 1], [2, 2]], mask="%%"), "shape 0: its mask cannot be read"),
        (labelme_shape("mask", [[1, 1], [2, 2]]), "shape 0: its mask cannot be read"),
        (labelme_shape("polygon", [[1, 1], [5, 5], [1, 5]], label=" "), "shape 0: has no label"),
        ({"points": [[1, 1], [5, 5], [1, 5]]}, "shape 0: is not understood (KeyError: 'label')"),
        ("crack", "shape 0: is not understood (TypeError"),
    ],
)
def test_a_labelme_shape_that_cannot_be_used_is_named(tmp_path, capsys, shape, told):
    refused(labelme_tree(tmp_path / "s", shape))
    assert f"a.json: {told}" in capsys.readouterr().out


def test_labelme_files_below_split_folders_and_one_that_is_cut_off(tmp_path, capsys):
    source = tmp_path / "s"
    labelme_tree(source / "train", labelme_shape("polygon", [[5, 5], [25, 5], [25, 20]], label="b"))
    labelme_tree(source / "valid", labelme_shape("polygon", [[5, 5], [25, 5], [25, 20]], label="a"), name="b")
    whole = (source / "valid/b.json").read_text()
    (source / "valid/b.json").write_text(whole[:-20])
    assert "1 annotations or images cannot be used" in refused(source)
    assert "b.json: cannot be read as JSON" in capsys.readouterr().out
    (source / "valid/b.json").write_text(whole)
    drawn(source)
    for split, name in (("train", "a"), ("val", "b")):
        dataset = build_dataset("folder", tmp_path / "s-out", split)
        assert dataset.names == [name] and dataset.classes.names == ("background", "a", "b")


def test_labelme_images_without_shapes_are_said(tmp_path, capsys):
    labelme_tree(tmp_path / "s")
    drawn(labelme_tree(tmp_path / "s", LABELME["polygon"], name="b"), place="b")
    assert "warning: 1 of 2 images have no annotation, the first: " in capsys.readouterr().out


def test_an_image_that_no_file_speaks_of_is_left_out_and_said(tmp_path, capsys):
    source = labelme_tree(tmp_path / "s", LABELME["polygon"])
    write_png(source / "b.jpg", random_image(1, SIZE))
    drawn(source)
    assert "b.jpg: is in no annotation file, left out (and 0 more images)" in capsys.readouterr().out
    assert not (tmp_path / "s-out/images/b.jpg").exists()


# ---- CVAT

POLYGON = '<polygon label="{}" points="5,5;25,5;25,20;5,20" z_order="{}"></polygon>'
CVAT = {
    "polygon": POLYGON.format("crack", 0),
    "box": '<box label="crack" xtl="5" ytl="5" xbr="25" ybr="20" z_order="0"></box>',
    "turned box": '<box label="crack" xtl="7.5" ytl="2.5" xbr="22.5" ybr="22.5" rotation="90" z_order="0"></box>',
    "mask": '<mask label="crack" rle="0, 300" left="5" top="5" width="20" height="15" z_order="0"></mask>',
}


@pytest.mark.parametrize("kind", CVAT)
def test_cvat_shapes(tmp_path, kind):
    assert (drawn(cvat_tree(tmp_path / "s", CVAT[kind])) == box(5, 5, 25, 20)).all()


def test_a_cvat_mask_is_read_row_by_row_and_keeps_its_hole(tmp_path):
    shape = '<mask label="crack" rle="1, 3, 3, 2, 1, 2" left="10" top="8" width="4" height="3" z_order="0"></mask>'
    expected = np.zeros(SIZE, np.uint8)
    expected[8:11, 10:14] = [[0, 1, 1, 1], [0, 0, 0, 1], [1, 0, 1, 1]]
    assert (drawn(cvat_tree(tmp_path / "s", shape)) == expected).all()


def test_a_turned_cvat_ellipse(tmp_path):
    shape = '<ellipse label="crack" cx="20" cy="15" rx="12" ry="4" rotation="{}"></ellipse>'
    flat = drawn(cvat_tree(tmp_path / "flat", shape.format(0)))
    upright = drawn(cvat_tree(tmp_path / "upright", shape.format(90)))
    assert abs(int(flat.sum()) - 48 * np.pi) < 8 and abs(int(upright.sum()) - 48 * np.pi) < 8
    assert flat[15, 9:31].all() and upright[4:26, 20].all() and not flat[4, 20]
    leaning = drawn(cvat_tree(tmp_path / "leaning", shape.format(45)))  # clockwise, y downwards: from left above
    assert leaning[9, 14] and leaning[21, 26] and not leaning[9, 26]


def test_cvat_layers_say_who_is_on_top(tmp_path):
    inner = '<polygon label="leaf" points="10,8;16,8;16,14;10,14" z_order="0"></polygon>'
    source = cvat_tree(tmp_path / "s", POLYGON.format("crack", 1), inner)
    assert (drawn(source, "--on-top", "later") == box(5, 5, 25, 20)).all()
    main([str(source), str(tmp_path / "smaller")])
    assert cv2.imread(str(tmp_path / "smaller/masks/a.png"), -1)[10, 12] == 2


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ('<polyline label="crack" points="5,5;25,5"></polyline>', "is a polyline, which has no area"),
        ('<polygon label="crack" points="5,5;25"></polygon>', "its outline is no list of x and y"),
        ('<polygon label="crack" points=""></polygon>', "could not convert string to float"),
        ('<polygon points="5,5;25,5;25,20"></polygon>', "has no label"),
        ('<box label="crack" xtl="5" ytl="5" xbr="25"></box>', "could not convert string to float"),
        ('<mask label="crack" rle="0, 5" left="5" top="5" width="20" height="15"></mask>', "run lengths do not fill"),
        ('<mask label="crack" left="5" top="5" width="20" height="15"></mask>', "invalid literal for int()"),
    ],
)
def test_a_cvat_shape_that_cannot_be_used_is_named(tmp_path, capsys, shape, told):
    refused(cvat_tree(tmp_path / "s", shape))
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("error: "))
    assert f"annotations.xml: image a.jpg, shape 0 ({shape[1:].split()[0]}): " in line and told in line


def test_cvat_subsets_are_splits_and_tags_have_no_pixels(tmp_path):
    source = cvat_tree(
        tmp_path / "s", POLYGON.format("leaf", 0), '<tag label="crack"></tag>', attributes='subset="Validation"'
    )
    assert (drawn(source, place="val/a") == 2 * box(5, 5, 25, 20)).all()


def test_a_video_and_broken_xml_are_refused(tmp_path):
    for name, text in (("video", "<annotations><track id='0'/></annotations>"), ("cut", "<annotations><meta>")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "annotations.xml").write_text(text)
    assert "is of a video (tracks); export it as CVAT for images 1.1" in refused(tmp_path / "video")
    assert "cannot be read as XML" in refused(tmp_path / "cut")


# ---- YOLO

SHARES = "0.125 0.16666667 0.625 0.16666667 0.625 0.66666667 0.125 0.66666667"


def test_yolo_outlines_are_shares_of_the_image(tmp_path):
    source = yolo_tree(tmp_path / "s", f"1 {SHARES}\n\n")
    assert (drawn(source, place="train/a") == 2 * box(5, 5, 25, 20)).all()
    assert build_dataset("folder", tmp_path / "s-out", "train").classes.names == ("background", "crack", "leaf")


def test_yolo_classes_may_be_written_as_floats(tmp_path):
    """It was said that there are no annotations."""
    source = yolo_tree(tmp_path / "s", f"1.0 {SHARES}\n1.0 {SHARES}\n")
    assert (drawn(source, place="train/a") == 2 * box(5, 5, 25, 20)).all()


def test_yolo_names_by_number_in_a_list_or_from_the_class_table(tmp_path):
    source = yolo_tree(tmp_path / "s", f"1 {SHARES}", "names: {1: leaf, 0: crack}")
    assert drawn(source, place="train/a").max() == 2
    nameless = yolo_tree(tmp_path / "t", f"1 {SHARES}", "")
    (nameless / "data.yaml").unlink(missing_ok=True)
    assert "no class names" in refused(nameless)


def test_yolo_without_names_wants_them(tmp_path):
    source = yolo_tree(tmp_path / "s", f"1 {SHARES}")
    (source / "data.yaml").unlink()
    assert "holds no class names; write classes.txt" in refused(source)
    (tmp_path / "table.yaml").write_text("classes: [background, leaf]")
    assert drawn(source, "--class-table", str(tmp_path / "table.yaml"), place="train/a").max() == 1
    (tmp_path / "s-out").rename(tmp_path / "first")
    (source / "classes.txt").write_text("crack\nleaf\n")
    assert drawn(source, place="train/a").max() == 2


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0 0.5 0.5 0.2 0.2", "is a box, not an outline (--fill-boxes fills it)"),
        ("7 " + SHARES, "is of class 7, but there are 2 names"),
        ("0 0.1 0.1 0.5 0.5 0.5", "its outline is no list of x and y"),
        ("0 10 10 300 10 300 200", "holds 300, which is no share of the image"),
        ("0 0.1 0.1 nan 0.5 0.5 0.5", "its outline has a point that is no number"),
        ("crack 0.1 0.1 0.2 0.5 0.5 0.5", "its class is crack, no whole number"),
        ("0.5 0.1 0.1 0.2 0.5 0.5 0.5", "its class is 0.5, no whole number"),
    ],
)
def test_a_yolo_line_that_cannot_be_used_is_named(tmp_path, capsys, line, told):
    refused(yolo_tree(tmp_path / "s", f"1 {SHARES}\n{line}\n"))
    assert f"a.txt: line 2: {told}" in capsys.readouterr().out


def test_yolo_boxes_filled_empty_images_and_lonely_text(tmp_path, capsys):
    source = yolo_tree(tmp_path / "s", "0 0.375 0.41666667 0.5 0.5")
    write_png(source / "train/images/b.jpg", random_image(1, SIZE))
    assert (drawn(source, "--fill-boxes", place="train/a") == box(5, 5, 25, 20)).all()
    assert f"warning: 1 of 2 images have no annotation, the first: {source}" in capsys.readouterr().out
    (source / "train/labels/c.txt").write_text(f"0 {SHARES}")
    (tmp_path / "s-out").rename(tmp_path / "first")
    assert "c.txt: has no image" in refused(source, "--fill-boxes")


@pytest.mark.parametrize("above", ["images/proj", "labels/images", "proj"])
def test_yolo_labels_beside_images_are_read_whatever_the_folders_above_are_called(tmp_path, above):
    source = tmp_path / above
    write_png(source / "train/a.jpg", random_image(0, SIZE))
    (source / "train/a.txt").write_text(f"0 {SHARES}")
    (source / "data.yaml").write_text("names: [crack]\n")
    assert {*np.unique(drawn(source, place="train/a"))} == {0, 1}


def test_yolo_splits_are_those_of_data_yaml(tmp_path):
    """Folders of other names, an absolute path of another machine, and lists of files."""
    source = tmp_path / "s"
    for place, name in enumerate(("one/images/a", "two/images/b", "three/images/c")):
        write_png(source / f"{name}.jpg", random_image(place, SIZE))
        label = source / f"{name.replace('images', 'labels')}.txt"
        label.parent.mkdir(parents=True)
        label.write_text(f"0 {SHARES}")
    (source / "list.txt").write_text("./three/images/c.jpg\n")
    (source / "data.yaml").write_text(
        "path: /content/data\ntrain: /content/data/one/images\nval: ../two/images\ntest: list.txt\nnames: [crack]\n"
    )
    main([str(source / "data.yaml"), str(tmp_path / "out")])
    for split, name in (("train", "a"), ("val", "b"), ("test", "c")):
        assert build_dataset("folder", tmp_path / "out", split).names == [name]


def test_yolo_with_a_split_that_is_not_there(tmp_path, capsys):
    """Images of the other splits alone were drawn without a word."""
    source = yolo_tree(tmp_path / "s", f"1 {SHARES}")
    drawn(source, place="train/a")
    assert "its val is ../valid/images, which is not there" in capsys.readouterr().out
    (tmp_path / "s-out").rename(tmp_path / "first")
    (source / "data.yaml").write_text("names: [crack, leaf]\ntrain: training/images\nval: train/images\n")
    assert "its train is training/images, which is not there" in refused(source)


def test_yolo_lists_with_the_slashes_of_windows(tmp_path):
    source = yolo_tree(tmp_path / "s", f"1 {SHARES}")
    (source / "train").rename(source / "all")
    (source / "splits").mkdir()
    (source / "splits/list.txt").write_text("all\\images\\a.jpg\n")
    (source / "data.yaml").write_text("names: [crack, leaf]\ntrain: D:\\splits\\list.txt\n")
    assert drawn(source, place="train/a").any()


def test_yolo_whose_splits_are_all_lost(tmp_path, capsys):
    """Its images were split by a hash without a word."""
    source = yolo_tree(tmp_path / "s", f"1 {SHARES}")
    (source / "data.yaml").write_text("names: [crack, leaf]\ntrain: gone/a.txt\nval: gone/b.txt\n")
    drawn(source, place="train/a")
    told = "its train is gone/a.txt, which is not there"
    assert f"warning: {source}: {told}: splits are those of folders" in capsys.readouterr().out
    (tmp_path / "s-out").rename(tmp_path / "first")
    (source / "train").rename(source / "all")
    assert f"{told}; add it, or take the line out of the YAML file" in refused(source)


def test_yolo_with_two_files_of_names_takes_the_one_that_is_given(tmp_path):
    source = yolo_tree(tmp_path / "s", f"1 {SHARES}", "names: [crack, leaf]")
    (source / "a.yaml").write_text("names: [leaf, crack]\ntrain: train/images\n")
    assert "data.yaml: says something else than a.yaml; give the one that is meant" in refused(source)
    main([str(source / "data.yaml"), str(tmp_path / "out")])
    assert build_dataset("folder", tmp_path / "out", "train").classes.names == ("background", "crack", "leaf")


def test_yolo_whose_data_yaml_cannot_be_read(tmp_path):
    source = yolo_tree(tmp_path / "s", f"1 {SHARES}", "names: [crack, leaf")
    assert "data.yaml: cannot be read as YAML: " in refused(source)


# ---- Roboflow


def test_roboflows_coco_export(tmp_path, capsys):
    """Its first category only holds the others; a file for each split lies beside the images."""
    source = tmp_path / "robo"
    for split in ("train", "valid", "test"):
        content = outlines({"segmentation": SQUARE}, categories=((1, "crack"),), images=(f"{split}_jpg.rf.0a1b.jpg",))
        content["categories"] = [
            {"id": 0, "name": "walls", "supercategory": "none"},
            {"id": 1, "name": "crack", "supercategory": "walls"},
        ]
        coco_tree(source / split, content, "_annotations.coco.json")
    (source / "README.roboflow.txt").write_text("1 2 3 walls\n")
    drawn(source)
    assert "category 'walls' holds others and has no annotation: it is no class" in capsys.readouterr().out
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        dataset = build_dataset("folder", tmp_path / "robo-out", split)
        assert dataset.names == [f"{folder}_jpg.rf.0a1b"] and dataset.classes.names == ("background", "crack")
        assert (dataset.read_labels(0) == box(5, 5, 25, 20)).all()


def test_roboflows_yolo_export_whose_paths_lead_out_of_it(tmp_path):
    source = yolo_tree(tmp_path / "s", f"0 {SHARES}")
    write_png(source / "valid/images/b.jpg", random_image(1, SIZE))
    (source / "valid/labels").mkdir()
    (source / "valid/labels/b.txt").write_text(f"0 {SHARES}")
    (source / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: ['crack']"
    )
    drawn(source, place="train/a")
    assert [build_dataset("folder", tmp_path / "s-out", split).names for split in ("train", "val")] == [["a"], ["b"]]


# ---- the command


def test_what_was_written_is_read_without_a_finding(tmp_path, capsys):
    from segloss.doctor.command import main as doctor

    source = tmp_path / "s"
    for place, split in enumerate(("train", "val")):
        content = outlines(
            *({"segmentation": SQUARE}, {"segmentation": SMALL, "category_id": 2}), images=(f"{'ab'[place]}.jpg",)
        )
        coco_tree(source, content, f"{split}.json")
        write_png(source / f"{'ab'[place]}.jpg", random_image(place, SIZE))
    drawn(source, place="train/a")
    said = capsys.readouterr().out.splitlines()
    out = tmp_path / "s-out"
    assert said[-1] == f"next: python -m segloss.doctor --dataset folder --data-path {out}"
    assert said[0] == "COCO JSON: 4 annotations; images: train 1, val 1"
    doctor(["--dataset", "folder", "--data-path", str(out)])
    assert "error" not in capsys.readouterr().out
    table = yaml.safe_load((out / "classes.yaml").read_text())
    assert table["ignore"] == [255] and table["classes"][1] == {"name": "crack", "id": 1}


def test_an_image_in_two_files_or_half_of_them_in_splits_is_refused(tmp_path):
    source = coco_tree(tmp_path / "twice", outlines({"segmentation": SQUARE}), "instances.json")
    coco_tree(source, outlines({"segmentation": SQUARE}), "keypoints.json")
    assert "instances.json too; give one of the files as SOURCE" in refused(source)
    source = coco_tree(tmp_path / "both", outlines({"segmentation": SQUARE}, images=("a.jpg", "a.jpg")))
    assert "a.jpg twice; list it once, with the annotations of both" in refused(source)
    source = coco_tree(tmp_path / "half", outlines({"segmentation": SQUARE}), "train.json")
    coco_tree(source, outlines({"segmentation": SQUARE}, images=("b.jpg",)), "more.json")
    assert "is of no split" in refused(source)


def test_several_kinds_want_a_word_and_none_is_said(tmp_path):
    source = coco_tree(tmp_path / "s", outlines({"segmentation": SQUARE}))
    labelme_tree(source, LABELME["polygon"], name="b")
    assert "holds COCO JSON and LabelMe JSON; say which with --format" in refused(source)
    assert (drawn(source, "--format", "coco") == box(5, 5, 25, 20)).all()
    write_png(tmp_path / "none/a.jpg", random_image(0, SIZE))
    assert "holds no annotations" in refused(tmp_path / "none")
    (tmp_path / "none/via.json").write_text('{"_via_settings": {}}')
    assert "via.json: is of no form that is read; export COCO JSON (or LabelMe JSON, " in refused(tmp_path / "none")
    (tmp_path / "none/a.csv").write_text("a")
    assert "a.csv: holds no annotations; say which" in refused(tmp_path / "none/a.csv")
    assert "is not there; check SOURCE" in refused(tmp_path / "nowhere")


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path):
    source = coco_tree(tmp_path / "s", outlines({"segmentation": SQUARE}))
    (tmp_path / "s-out").mkdir()
    assert (drawn(source) > 0).any()  # an empty one is
    before = listing(tmp_path / "s-out")
    assert "is there already; choose another OUT" in refused(source)
    assert listing(tmp_path / "s-out") == before


def test_nothing_stays_where_it_is_interrupted(tmp_path, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    source = coco_tree(tmp_path / "s", outlines({"segmentation": SQUARE}))
    monkeypatch.setattr("segloss.rasterise.command.draw", stopped)
    with pytest.raises(KeyboardInterrupt):
        drawn(source)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_words_without_their_flags_may_stand_anywhere_and_more_are_refused(tmp_path):
    source = coco_tree(tmp_path / "s", outlines({"segmentation": SQUARE}))
    main([str(source), "--on-top", "later", str(tmp_path / "one")])
    main(["--out", str(tmp_path / "two"), str(source)])
    assert (tmp_path / "one/classes.yaml").is_file() and (tmp_path / "two/classes.yaml").is_file()
    with pytest.raises(InputError, match="unrecognized arguments: three"):
        main([str(source), str(tmp_path / "x"), "three"])
    with pytest.raises(InputError, match="--out must be given"):
        main([str(source)])


def test_without_pycocotools_there_is_one_line(tmp_path):
    source = coco_tree(tmp_path / "s", outlines({"segmentation": SQUARE}))
    code = (
        "import sys; sys.modules['pycocotools'] = None\n"
        "from segloss.errors import exit_on_input_error\nfrom segloss.rasterise.command import main\n"
        f"exit_on_input_error(lambda: main([{str(source)!r}, {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        'error: pycocotools is missing; pip install "segloss-imbalanced[rasterise]"\n',
    )


# ---- what --dataset folder says


TREES = {
    "coco": lambda root: coco_tree(root, outlines({"segmentation": SQUARE}), "annotations/instances.json", "images"),
    "labelme": lambda root: labelme_tree(root, LABELME["polygon"]),
    "cvat": lambda root: cvat_tree(root, CVAT["polygon"]),
    "yolo": lambda root: yolo_tree(root, f"0 {SHARES}"),
}


@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("kind", TREES)
def test_a_folder_of_outlines_is_told_the_command(tmp_path, kind, classes):
    """It said that an image has no mask, or that the class file is missing."""
    root = TREES[kind](tmp_path / "s")
    if classes:
        (root / "classes.yaml").write_text("[background, crack]")
    with pytest.raises(NoDataError, match="outlines instead of masks; draw them: ") as error:
        build_dataset("folder", root, "train")
    words = str(error.value).split("segloss.rasterise ")[1].split()
    main([words[0], str(tmp_path / "out")])
    assert (tmp_path / "out/classes.yaml").is_file()


def test_yolo_images_without_a_folder_of_labels_are_left_out_where_only_labels_are_given(tmp_path):
    write_png(tmp_path / "set/images/train/a.jpg", random_image(0, SIZE))
    write_png(tmp_path / "set/images/test/b.jpg", random_image(1, SIZE))
    (tmp_path / "set/labels/train").mkdir(parents=True)
    (tmp_path / "set/labels/train/a.txt").write_text(f"0 {SHARES}")
    (tmp_path / "set/labels/classes.txt").write_text("crack\n")
    main([str(tmp_path / "set/labels"), str(tmp_path / "out"), "--image-dir", str(tmp_path / "set/images")])
    assert [path.name for path in (tmp_path / "out/masks").rglob("*.png")] == ["a.png"]


def test_yolo_text_beside_images_in_mirrored_folders_is_told_too(tmp_path):
    write_png(tmp_path / "images/train/a.jpg", random_image(0, SIZE))
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text(f"0 {SHARES}")
    (tmp_path / "classes.txt").write_text("wall\ncrack")
    with pytest.raises(NoDataError, match="holds YOLO-seg txt"):
        build_dataset("folder", tmp_path, "train")


def test_masks_with_outlines_beside_them_are_read_as_before(tmp_path):
    root = folder_tree(tmp_path, splits=("train",))
    (root / "images/train/a.json").write_text((labelme_tree(tmp_path / "x", LABELME["polygon"]) / "a.json").read_text())
    assert len(build_dataset("folder", root, "train")) == 4
    with pytest.raises(InputError, match="split 'val' is missing"):
        build_dataset("folder", root, "val")


@pytest.mark.parametrize("value", ["0", 0, False, None])
def test_what_says_that_it_is_no_crowd_is_drawn(tmp_path, value):
    """The text "0" was taken for a crowd, and ignored."""
    assert drawn(coco_tree(tmp_path / "s", outlines({"segmentation": SQUARE, "iscrowd": value}))).max() == 1


@pytest.mark.parametrize(
    ("key", "change", "told"),
    [
        ("categories", {}, "gives two categories one id; number the categories"),
        ("images", {"file_name": "b.png"}, "gives an image no id, or two images one; number the images"),
    ],
)
def test_ids_given_twice_are_refused(tmp_path, key, change, told):
    content = outlines({"segmentation": SQUARE})
    content[key] = [*content[key], {**content[key][0], **change}]
    assert told in refused(coco_tree(tmp_path / "s", content))


def test_ids_written_as_floats_are_their_numbers(tmp_path):
    content = outlines({"segmentation": SQUARE, "image_id": 1.0, "category_id": 2.0})
    assert (drawn(coco_tree(tmp_path / "s", content)) == 2 * box(5, 5, 25, 20)).all()
    content["images"][0]["id"] = content["categories"][1]["id"] = 2.0
    content["annotations"][0]["image_id"] = 2
    assert (drawn(coco_tree(tmp_path / "t", content)) == 2 * box(5, 5, 25, 20)).all()


def test_coco_panoptic_is_one_refusal(tmp_path, capsys):
    entry = {"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 3, "category_id": 1, "bbox": [0, 0, 5, 5]}]}
    content = outlines() | {"annotations": [entry] * 3}
    assert "annotations.json: is COCO panoptic; its PNGs are the masks" in refused(coco_tree(tmp_path / "s", content))
    assert capsys.readouterr().out == ""


def test_a_class_without_a_name_is_refused(tmp_path, capsys):
    content = outlines({"segmentation": SQUARE})
    content["categories"][0]["name"] = None
    assert "a category has no id and name" in refused(coco_tree(tmp_path / "s", content))
    refused(labelme_tree(tmp_path / "t", {**LABELME["polygon"], "label": None}))
    assert "a.json: shape 0: has no label" in capsys.readouterr().out


def test_nothing_to_draw_is_said(tmp_path):
    content = outlines({"segmentation": SQUARE}) | {"annotations": []}
    assert "holds no annotation that can be drawn" in refused(coco_tree(tmp_path / "s", content))
    assert "holds no annotation that can be drawn" in refused(labelme_tree(tmp_path / "t"))


def test_yolo_with_another_number_of_names_is_warned_of(tmp_path, capsys):
    drawn(yolo_tree(tmp_path / "s", f"0 {SHARES}", "names: [crack]"), place="train/a")
    assert "data.yaml: nc is 2, but there are 1 names" in capsys.readouterr().out


def test_coco_is_known_by_its_lists_whatever_its_first_key(tmp_path):
    source = coco_tree(tmp_path / "s", outlines({"segmentation": SQUARE}))
    path = next(source.rglob("*.json"))
    path.write_text(json.dumps({"contributor": "me", "dataset": "mine"} | json.loads(path.read_text())))
    assert kind_of(path) == "coco"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"classes": ["a"]}'),
        ("a.json", '{"categories": {"file_name": []}}'),
        ("a.json", '[{"file_name": "x"}]'),
        ("a.xml", "<annotation><folder>VOC</folder></annotation>"),
        ("a.txt", "a.jpg a.png"),
        ("a.txt", "1 2 3 4 5 6 7"),
        ("a.txt", ""),
        ("a.json", ""),
    ],
)
def test_other_files_are_no_outlines(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert kind_of(tmp_path / name) is None


def test_outlines_are_not_drawn_on_the_image_of_the_same_name_in_another_split(tmp_path):
    content = outlines({"segmentation": SMALL})
    content["images"][0]["file_name"] = "000001.png"
    coco_tree(tmp_path / "s", content, "annotations/instances_train.json", "val")
    message = refused(tmp_path / "s")
    assert "its image 000001.png is not below" in message and "val/000001.png is of val" in message


@pytest.mark.parametrize("kind", ["coco", "labelme"])
def test_folders_of_images_are_splits_where_no_file_names_one(tmp_path, kind):
    """They were lost, and the images of both split by a hash."""
    source = tmp_path / "s"
    for split in ("train", "val"):
        write_png(source / f"images/{split}/a_{split}.png", random_image(0, SIZE))
        content = {"shapes": [LABELME["polygon"]], "imagePath": f"..\\images\\{split}\\a_{split}.png"}
        (source / "notes").mkdir(exist_ok=True)
        if kind == "labelme":
            (source / f"notes/{split[0]}.json").write_text(json.dumps(content))
    if kind == "coco":
        content = outlines({"segmentation": SQUARE}, images=("train/a_train.png", "val/a_val.png"))
        (source / "instances.json").write_text(json.dumps(content))
    assert drawn(source, place="train/a_train").any()
    assert build_dataset("folder", tmp_path / "s-out", "val").names == ["a_val"]


def test_one_folder_of_images_is_no_split(tmp_path):
    content = outlines({"segmentation": SQUARE}, images=("train/a.jpg",))
    assert drawn(coco_tree(tmp_path / "s", content, folder="images")).any()


@pytest.mark.parametrize("key", ["split", "subset"])
def test_an_image_of_coco_may_name_its_split(tmp_path, key):
    content = outlines({"segmentation": SQUARE}, images=("a.jpg", "b.jpg"))
    for image, split in zip(content["images"], ("TRAIN", "valid"), strict=True):
        image[key] = split
    assert drawn(coco_tree(tmp_path / "s", content), place="train/a").any()
    assert (tmp_path / "s-out/masks/val/b.png").is_file()


@pytest.mark.parametrize(
    ("tree", "shape", "around"),
    [
        (labelme_tree, labelme_shape("linestrip", [[3, 20], [9, 24]]), (3, 20, 10, 25)),
        (labelme_tree, labelme_shape("mask", [[3, 20], [9, 24]]), (3, 20, 10, 25)),
        (labelme_tree, labelme_shape("circle", [[3, 20], [9, 24]], label=""), (0, 0, *SIZE[::-1])),
        (cvat_tree, '<polyline label="crack" points="3,20;9,24"></polyline>', (3, 20, 10, 25)),
        (cvat_tree, '<mask label="crack" rle="0, 5" left="3" top="20" width="7" height="5"></mask>', (3, 20, 10, 25)),
        (cvat_tree, '<cuboid label="crack"></cuboid>', (0, 0, *SIZE[::-1])),
        (yolo_tree, "0 0.075 0.66666667 0.2375 0.81666667", None),
    ],
)
def test_what_other_forms_leave_out_is_ignored_where_it_lies(tmp_path, tree, shape, around):
    good = {labelme_tree: LABELME["polygon"], cvat_tree: CVAT["polygon"], yolo_tree: f"0 {SHARES}\n"}[tree]
    source = tree(tmp_path / "s", good + shape) if tree is yolo_tree else tree(tmp_path / "s", good, shape)
    mask = drawn(source, "--skip-bad", place="train/a" if tree is yolo_tree else "a")
    lost = box(*(around or (0, 7, 8, 30)))
    assert (mask == np.where(box(5, 5, 25, 20), 1, 255 * lost)).all()


def test_a_class_that_the_table_lacks_is_background_if_left_out(tmp_path):
    (tmp_path / "table.yaml").write_text("[background, crack]")
    content = outlines({"segmentation": SMALL}, {"segmentation": SQUARE, "category_id": 2})
    flags = ["--class-table", str(tmp_path / "table.yaml"), "--skip-bad"]
    assert (drawn(coco_tree(tmp_path / "s", content), *flags) == box(10, 8, 16, 14)).all()


RUNS = {"size": SIZE, "counts": [0, 600, 600]}  # the left half


def test_most_of_a_class_as_crowds_may_be_brush_masks(tmp_path, capsys):
    """CVAT's COCO export calls every one of them a crowd; they became 255 without a word."""
    brush = {"segmentation": RUNS, "iscrowd": 1, "category_id": 2}
    source = coco_tree(tmp_path / "s", outlines({"segmentation": SQUARE}, brush))
    told = "1 of 1 annotations of 'leaf' are crowds"
    assert f"annotations.json: {told}, as all run lengths are: brush masks?; draw them with --crowds" in refused(source)
    left = np.repeat(np.arange(40) < 20, 30).reshape(40, 30).T
    assert (drawn(source, "--crowds", "draw") == np.where(box(5, 5, 25, 20), 1, 2 * left)).all()
    said = capsys.readouterr().out
    assert "are crowds" not in said and "; 255 ignored; " in said
    (tmp_path / "s-out").rename(tmp_path / "first")
    assert (drawn(source, "--crowds", "ignore") == np.where(box(5, 5, 25, 20), 1, 255 * left)).all()
    assert "1 of 1 annotations of 'leaf' are crowds or say ignore, and are ignored" in capsys.readouterr().out


@pytest.mark.parametrize(
    "others",
    [
        [{"segmentation": {"size": SIZE, "counts": [600, 600]}, "category_id": 2}],  # a run length that is no crowd
        [{"segmentation": SMALL, "iscrowd": 1}, *[{"segmentation": SQUARE}] * 2],  # half of a class
    ],
)
def test_other_crowds_are_ignored_and_said(tmp_path, capsys, others):
    content = outlines({"segmentation": RUNS, "iscrowd": 1}, *others)
    assert 255 in drawn(coco_tree(tmp_path / "s", content))
    assert re.search(r"warning: .*: \d of \d annotations of 'crack' are crowds", capsys.readouterr().out)


def test_what_says_ignore_is_ignored_as_a_crowd_is(tmp_path, capsys):
    content = outlines({"segmentation": SQUARE, "ignore": 1}, {"segmentation": SMALL, "ignore": 0.0})
    mask = drawn(coco_tree(tmp_path / "s", content), "--crowds", "draw")
    assert (mask == np.where(box(10, 8, 16, 14), 1, 255 * box(5, 5, 25, 20).astype(int))).all()
    assert "1 of 2 annotations of 'crack' are crowds or say ignore" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rings", "is_told"),
    [(SMALL + SQUARE, True), (SQUARE + SQUARE, False), ([SQUARE[0], [20, 15, 35, 15, 35, 25]], False)],
)
def test_an_outline_within_another_is_filled_and_said(tmp_path, capsys, rings, is_told):
    assert drawn(coco_tree(tmp_path / "s", outlines({"segmentation": rings})))[5:20, 5:25].all()
    told = "1 annotations have an outline within another, the first: annotation 1: these are filled"
    assert (told in capsys.readouterr().out) == is_told


def test_crowds_of_a_class_called_ignore_are_no_brush_masks(tmp_path):
    content = outlines({"segmentation": RUNS, "iscrowd": 1}, categories=((1, "ignore"), (2, "leaf")))
    assert (drawn(coco_tree(tmp_path / "s", content))[:, :20] == 255).all()


# ---- what does not fit the image


def moved(ring: list[float], by: float = 0.0, scale: float = 1.0) -> list[float]:
    return [scale * number + by for number in ring]


@pytest.mark.parametrize("form", ["coco", "coco with boxes", "labelme", "labelme, a shape a file", "cvat"])
def test_outlines_for_a_larger_size_of_the_image_are_refused(tmp_path, form):
    rings = [moved(SQUARE[0], by, 2) for by in (0, 2, 4, 6, 8)]  # of 60 x 80, the last corner at 58, 48
    points = [[*zip(ring[::2], ring[1::2], strict=True)] for ring in rings]
    if form.startswith("coco"):
        boxes = [{"bbox": [ring[0], ring[1], 40, 30]} if "box" in form else {} for ring in rings]
        rows = [{"segmentation": [ring], **of_ring} for ring, of_ring in zip(rings, boxes, strict=True)]
        source = coco_tree(tmp_path / "s", outlines(*rows))
    elif form == "cvat":
        texts = [";".join(f"{x},{y}" for x, y in of_ring) for of_ring in points]
        source = cvat_tree(tmp_path / "s", *(f'<polygon label="crack" points="{text}"/>' for text in texts))
    else:
        shapes = [{"label": "crack", "points": of_ring, "shape_type": "polygon"} for of_ring in points]
        files = [[shape] for shape in shapes] if "file" in form else [shapes]
        for name, of_file in zip("abcde", files, strict=False):
            source = labelme_tree(tmp_path / "s", *of_file, name=name)
    found = r"outlines reach well beyond the image, the first: .*40x30: of another size of it\?; resize the outlines"
    assert re.search(found, refused(source))


@pytest.mark.parametrize(
    ("rings", "noted"),
    [
        ([moved(SQUARE[0], 22)] * 1 + SQUARE * 4, "1 of 5 outlines reach well beyond the image and are cut off"),
        ([moved(SQUARE[0], -12), *[moved(SQUARE[0], 22)] * 4], "5 of 5 outlines"),  # of a piece of a large image
        ([moved(SQUARE[0], 22)] * 3, "3 of 3 outlines"),  # so few
        ([moved(SQUARE[0], 12)] * 5, None),  # not well beyond
    ],
)
def test_some_outlines_that_reach_beyond_the_image_are_cut_off_and_told_of(tmp_path, capsys, rings, noted):
    drawn(coco_tree(tmp_path / "s", outlines(*({"segmentation": [ring]} for ring in rings))))
    said = capsys.readouterr().out
    assert (noted in said) if noted else ("beyond" not in said)


def test_with_skip_bad_only_files_that_fit_their_images_are_drawn(tmp_path, capsys):
    rows = [{"segmentation": [moved(SQUARE[0], 0, 2)]}] * 5
    coco_tree(tmp_path / "s", outlines(*rows, images=("b.jpg",)), "b.json")
    source = coco_tree(tmp_path / "s", outlines({"segmentation": SQUARE}), "a.json")
    assert drawn(source, "--skip-bad").any()
    assert "warning: left out: " in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "s-out/masks").iterdir()] == ["a.png"]


def test_a_labelme_file_beside_its_own_image_that_names_another_is_refused(tmp_path):
    shape = {"label": "crack", "points": [[5, 5], [25, 5], [25, 20]], "shape_type": "polygon"}
    for name in "ab":
        source = labelme_tree(tmp_path / "s", shape, name=name)
    content = json.loads((source / "a.json").read_text())
    (source / "a.json").write_text(json.dumps({**content, "imagePath": "b.jpg"}))
    assert "a.json: lies beside a.jpg, and its imagePath is b.jpg; mend imagePath if it is of" in refused(source)
    (source / "a.jpg").rename(source / "c.jpg")  # beside which no file of its name lies
    (source / "b.json").unlink()
    drawn(source, place="b")


@pytest.mark.parametrize("ending", [".jpg", ".JPG", ".jpeg"])
def test_a_labelme_file_may_name_its_image_by_another_path(tmp_path, ending):
    shape = {"label": "crack", "points": [[5, 5], [25, 5], [25, 20]], "shape_type": "polygon"}
    source = labelme_tree(tmp_path / "s", shape)
    (source / "a.jpg").rename(source / f"a{ending}")
    content = json.loads((source / "a.json").read_text())
    (source / "a.json").write_text(json.dumps({**content, "imagePath": f"..\\\\photos\\\\a{ending}"}))
    assert drawn(source).any()


def test_yolos_boxes_with_keypoints_are_no_outlines(tmp_path):
    text = "0 0.5 0.5 0.4 0.4 0.35 0.35 0.65 0.35 0.65 0.65 0.35 0.65\n"
    source = yolo_tree(tmp_path / "s", text, "names: [crack, leaf]\nkpt_shape: [4, 2]")
    assert "data.yaml: has kpt_shape: its labels are boxes and keypoints, which are no outlines" in refused(source)


# ---- boxes saved as outlines

UPRIGHT, SLANTED = SQUARE[0], [5.0, 5.0, 25.0, 6.0, 24.0, 20.0, 4.0, 19.5]
TURNED = [15.0, 5.0, 25.0, 15.0, 18.0, 22.0, 8.0, 12.0]


@pytest.mark.parametrize(
    ("rings", "told"),
    [
        ([UPRIGHT] * 8, 8),
        ([TURNED] * 8, 8),
        ([UPRIGHT] * 8 + [SLANTED] * 20, 8),
        ([TURNED] * 8 + [SLANTED] * 20, 0),  # as houses are from above
        ([UPRIGHT] * 7, 0),
        ([SLANTED] * 20, 0),
    ],
)
@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_boxes_that_are_saved_as_outlines_are_told(tmp_path, capsys, rings, told, kind):
    if kind == "coco":
        source = coco_tree(tmp_path / "s", outlines(*({"segmentation": [ring]} for ring in rings)))
    else:
        shares = [[n / SIZE[1 - place % 2] for place, n in enumerate(ring)] for ring in rings]
        source = yolo_tree(tmp_path / "s", "\n".join(f"0 {' '.join(f'{n:.6f}' for n in ring)}" for ring in shares))
    main([str(source), str(tmp_path / "out")])
    found = [line for line in capsys.readouterr().out.splitlines() if "are rectangles" in line]
    assert len(found) == bool(told)
    assert not told or f"warning: {told} of {len(rings)} outlines are rectangles" in found[0]


def test_boxes_that_are_asked_for_are_not_told(tmp_path, capsys):
    entries = [{"segmentation": [], "bbox": [5, 5, 20, 15]}] * 9
    main([str(coco_tree(tmp_path / "s", outlines(*entries))), str(tmp_path / "out"), "--fill-boxes"])
    assert "are rectangles" not in capsys.readouterr().out


def test_categories_of_one_name_are_one_class_and_said(tmp_path, capsys):
    categories = ((1, "other"), (2, "leaf"), (5, "other"))
    entries = [{"segmentation": SQUARE, "category_id": 1}, {"segmentation": SMALL, "category_id": 5}]
    mask = drawn(coco_tree(tmp_path / "s", outlines(*entries, categories=categories)))
    assert set(np.unique(mask)) == {0, 1}
    assert "categories 1 and 5 are called 'other': they are one class" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("groups", "labels", "told"),
    [
        ((1, 1), ("crack", "crack"), 1),
        ((1, 2), ("crack", "crack"), 0),
        ((None, None), ("crack", "crack"), 0),
        ((1, 1), ("crack", "background"), 0),
    ],
)
def test_a_labelme_outline_within_another_of_its_group_is_filled_and_said(tmp_path, capsys, groups, labels, told):
    rings = [np.reshape(ring, (-1, 2)).tolist() for ring in (SQUARE[0], SMALL[0])]
    shapes = [
        {"label": label, "points": points, "group_id": group, "shape_type": "polygon"}
        for label, points, group in zip(labels, rings, groups, strict=True)
    ]
    mask = drawn(labelme_tree(tmp_path / "s", *shapes))
    said = capsys.readouterr().out.count("1 groups have an outline within another")
    assert (said, mask[10, 12]) == (told, labels[1] == "crack")
