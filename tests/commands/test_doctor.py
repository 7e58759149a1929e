"""The data doctor: every fault, planted in a copy of a healthy tree, is found, named and comes with its cure."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from data_trees import camvid_32_tree, cityscapes_tree, random_image, write_png
from PIL import Image

from segloss.datasets import build_dataset
from segloss.doctor.command import main
from segloss.doctor.examination import check_before, examine
from segloss.errors import InputError
from segloss.pixel_counts import PixelCounts, count_dataset, require_two_classes
from segloss.report.painting import overlay
from segloss.report.terminal import print_class_counts
from train_seg import train

ROOT = Path(__file__).resolve().parents[2]
SIZE = (48, 64)
SPLITS = {"train": "abcdef", "val": "gh", "test": "ij"}


def mask_of(seed: int, ids=(0, 1, 2, 255)) -> np.ndarray:
    """Blocks of 8x8 pixels, so that edges are where a filter would leave traces."""
    blocks = np.random.default_rng(seed).permutation(np.resize(np.array(ids, np.uint8), SIZE[0] * SIZE[1] // 64))
    return np.kron(blocks.reshape(SIZE[0] // 8, SIZE[1] // 8), np.ones((8, 8), np.uint8))


def healthy(root: Path, ids=(0, 1, 2, 255), classes="- wall\n- floor\n- lamp\n") -> Path:
    for split, names in SPLITS.items():
        for name in names:
            write_png(root / f"images/{split}/{name}.png", random_image(ord(name), SIZE))
            write_png(root / f"masks/{split}/{name}.png", mask_of(ord(name), ids))
    (root / "classes.yaml").write_text(classes)
    return root


@pytest.fixture
def tree(tmp_path) -> Path:
    return healthy(tmp_path / "data")


def examined(root: Path, capsys, *flags: str) -> tuple[int, list[str], str]:
    """Exit status, the lines of errors and warnings, and all that was printed."""
    try:
        main(["--dataset", "folder", "--data-path", str(root), *flags])
        status = 0
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr().out
    return status, [line for line in printed.splitlines() if line.startswith(("error", "warning"))], printed


def cut(path: Path, share: float = 0.6) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(bytes(content))


def repaint(root: Path, change) -> None:
    """Every mask of train, changed."""
    for path in (root / "masks/train").iterdir():
        changed = change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        write_png(path, changed if changed.dtype == np.uint16 else changed.astype(np.uint8))


def smooth(mask: np.ndarray) -> np.ndarray:
    scaled = np.array([10, 100, 200], np.uint8)[np.minimum(mask, 2)]
    return cv2.resize(cv2.resize(scaled, (60, 44), interpolation=cv2.INTER_LINEAR), SIZE[::-1])


def smoothed(root: Path) -> None:
    for path in (root / "masks").glob("*/*.png"):
        write_png(path, smooth(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))


def black_and_white(root: Path) -> None:
    for path in (root / "masks").glob("*/*.png"):
        write_png(path, mask_of(1, (0, 255)))


def some_black_and_white(root: Path) -> None:
    classes("- background\n- crack\n")(root)
    for path in (root / "masks").glob("*/*.png"):
        write_png(path, mask_of(1, (0, 255) if path.stem in "bd" else (0, 1)))


def in_colour(mask: np.ndarray) -> np.ndarray:
    return np.stack([mask * 20, mask * 7, mask * 3], -1)


COLORS = {"wall": (10, 20, 30), "floor": (0, 0, 255), "lamp": (200, 0, 0)}
COLORED = "".join(f"- {{name: {name}, color: {list(color)}}}\n" for name, color in COLORS.items())
ELEVEN = "".join(f"- class {c}\n" for c in range(11))


def turned_grey(mask: np.ndarray) -> np.ndarray:
    """As a program saves a colour mask that is asked for one channel."""
    colors = np.array([*COLORS.values(), (0, 0, 0)], np.uint8)
    return np.array(Image.fromarray(colors[np.minimum(mask, 3)]).convert("L"))


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    path = root / "images/train/a.png"
    Image.open(path).save(path.with_suffix(".jpg"), exif=exif)
    path.unlink()


def as_jpeg(root: Path) -> None:
    path = root / "masks/train/a.png"
    write_png(path.with_suffix(".jpg"), cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    path.unlink()


def move(root: Path, old: str, new: str) -> None:
    shutil.copy(root / old, root / new)


def classes(text: str):
    return lambda root: (root / "classes.yaml").write_text(text)


GREYS = "- {name: wall, id: 10}\n- {name: floor, id: 100}\n- {name: lamp, id: 200}\n"
FAULTS = {  # what is done to the tree; severity, split, file or value in the line, cure
    "image without mask": (
        lambda root: (root / "masks/train/b.png").unlink(),
        ("error", "train", "images/train/b.png: image without mask", "add the mask or remove the image"),
    ),
    "mask without image": (
        lambda root: (root / "images/val/g.png").unlink(),
        ("warning", "val", "masks/val/g.png: mask without image", "add the image or remove the mask"),
    ),
    "image cut off": (
        lambda root: cut(root / "images/test/j.png"),
        ("error", "test", "images/test/j.png: is cut off", "replace the file"),
    ),
    "mask cut off": (
        lambda root: cut(root / "masks/val/g.png"),
        ("error", "val", "masks/val/g.png: is cut off", "replace the file"),
    ),
    "mask damaged": (
        lambda root: flip(root / "masks/train/c.png"),
        ("error", "train", "masks/train/c.png: is damaged", "replace the file"),
    ),
    "no image at all": (
        lambda root: (root / "images/train/d.png").write_text("not found"),
        ("error", "train", "images/train/d.png: is not a readable image", "replace the file"),
    ),
    "size mismatch": (
        lambda root: write_png(root / "masks/train/a.png", mask_of(0)[:-8]),
        ("error", "train", "masks/train/a.png: mask is 64x40 but its image a.png is 64x48", "export the mask"),
    ),
    "stray id": (
        lambda root: write_png(root / "masks/train/e.png", mask_of(0, (0, 1, 9))),
        ("error", "train", "masks/train/e.png: holds id 9 on 33.33% of its pixels", "add the id as a class"),
    ),
    "ids from 1": (
        lambda root: repaint(root, lambda mask: np.where(mask < 3, mask + 1, mask)),
        ("error", "train", "holds id 3", "ids seem to begin at 1"),
    ),
    "smooth resize": (
        lambda root: (classes(GREYS)(root), smoothed(root)),
        ("error", "train", "masks/train/a.png: holds id", "resize masks by nearest neighbour"),
    ),
    "0 and 255": (
        lambda root: (classes("- background\n- crack\n")(root), black_and_white(root)),
        (
            "error",
            "train",
            "masks/train/a.png: only background in the 6 masks examined, which hold 0 and 255 alone",
            "id: 255 in the class file",
        ),
    ),
    "0 and 255 among 0 and 1": (
        some_black_and_white,
        (
            "error",
            "train",
            "b.png: holds 0 and 255 alone (and 1 more files), while other masks hold 0 and 1",
            "save 255 as the second",
        ),
    ),
    "one class": (
        lambda root: repaint(root, lambda mask: mask * 0 + 1),
        ({"all": "error", "sample": "warning"}, "train", "only floor in the 6 masks examined", "check the ids"),
    ),
    "absent class": (
        lambda root: [write_png(root / f"masks/val/{name}.png", mask_of(0, (0, 1))) for name in "gh"],
        ("warning", "val", "no pixel of lamp", "check the class file"),
    ),
    "colours without a table": (
        lambda root: repaint(root, in_colour),
        ("error", "train", "a.png: is a colour image, but the class table gives no colours", "give each class"),
    ),
    "colours turned to grey": (
        lambda root: (classes(COLORED)(root), repaint(root, turned_grey)),
        ("error", "train", "a.png: holds id 18, 29, 60 on", "the class colours turned to grey: export the palette"),
    ),
    "grey in three channels": (
        lambda root: repaint(root, lambda mask: cv2.merge([mask] * 3)),
        ("error", "train", "a.png: is a grey image of equal channels", "save class ids as single-channel PNG"),
    ),
    "0 and 128": (
        lambda root: (classes("- a\n- b\n")(root), repaint(root, lambda mask: np.where(mask == 0, 0, 128))),
        ("error", "train", "a.png: holds id 128", "give each class the id that it has in the masks"),
    ),
    "0 and 65535": (
        lambda root: (classes("- a\n- b\n")(root), repaint(root, lambda m: np.where(m == 0, 0, 65535).astype("u2"))),
        ("error", "train", "a.png: holds id 65535", "give each class the id that it has in the masks"),
    ),
    "CamVid's void against 11 classes": (
        lambda root: (classes(ELEVEN)(root), repaint(root, lambda mask: np.where(mask == 255, 11, mask))),
        (
            *("error", "train", "a.png: holds id 11 on"),
            "where 0 is no data, ids begin at 1, so give each class its id in the class file and write ignore: [0]; "
            "else write it under ignore in the class file if it is void",
        ),
    ),
    "CamVid's void as a class": (
        lambda root: (classes(ELEVEN + "- Void\n")(root), repaint(root, lambda m: np.where(m == 255, 11, m))),
        ("warning", "train", "class 'Void' is trained and scored like any other", "put its id under ignore"),
    ),
    "jpeg mask": (
        as_jpeg,
        ("error", "train", "masks/train/a.jpg: a JPEG does not keep ids", "export the mask as PNG"),
    ),
    "void is a class": (
        classes("- wall\n- floor\n- void\n"),
        ("warning", "train", "class 'void' is trained and scored like any other", "put its id under ignore"),
    ),
    "void is a class, behind one called unknown": (
        classes("- wall\n- unknown\n- void\n"),
        ("warning", "train", "class 'void' is trained and scored like any other", "put its id under ignore"),
    ),
    "unknown is a class": (
        classes("- wall\n- floor\n- unknown\n"),
        ("warning", "train", "class 'unknown' is trained and scored like any other", "or call it void in class_dict"),
    ),
    "mostly ignored": (
        lambda root: repaint(root, lambda mask: np.where(np.indices(mask.shape)[0] < 44, 255, mask)),
        ("warning", "train", "of the pixels are ignored", "check the ids under ignore"),
    ),
    "turned by EXIF": (turned, ("warning", "train", "images/train/a.jpg: is turned by its EXIF", "save it upright")),
    "same image in two splits": (
        lambda root: move(root, "images/train/c.png", "images/val/g.png"),
        ("error", "val", "images/val/g.png: the same image as", "keep each image in one split"),
    ),
    "same image twice": (
        lambda root: move(root, "images/train/c.png", "images/train/b.png"),
        ("warning", "train", "the same image as", "remove one"),
    ),
    "empty split": (
        lambda root: [path.unlink() for path in (root / "images/val").iterdir()],
        ("error", "val", "images/val: holds no images", "check --data-path"),
    ),
    "missing split": (
        lambda root: shutil.rmtree(root / "images/val"),
        ("error", "val", "images/val: split 'val' is missing", "check --data-path"),
    ),
}  # fmt: skip
ONLY_ALL = ("absent class",)  # what a sample cannot tell


def test_a_healthy_tree_has_no_finding(tree, capsys):
    for check in ("all", "sample"):
        status, findings, printed = examined(tree, capsys, "--check", check)
        assert (status, findings) == (0, [])
        assert "nothing found" in printed and "3 of 3" in printed


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("check", ["all", "sample"])
def test_a_planted_fault_is_found_with_file_and_cure(tree, capsys, fault, check):
    plant, (severity, split, what, cure) = FAULTS[fault]
    severity = severity[check] if isinstance(severity, dict) else severity
    plant(tree)
    status, findings, _ = examined(tree, capsys, "--check", check)
    if check == "sample" and fault in ONLY_ALL:
        assert (status, findings) == (0, [])
        return
    hits = [line for line in findings if what in line and f" {split}: " in line]
    assert len(hits) == 1, findings
    assert hits[0].startswith(f"{severity:<7} {split}: ") and cure in hits[0]
    assert status == (1 if severity == "error" else 0)


@pytest.mark.parametrize("check", ["all", "sample"])
def test_blank_images_may_be_in_several_splits(tree, capsys, check):
    for path in (tree / "images/train/c.png", tree / "images/val/g.png"):
        write_png(path, np.zeros_like(cv2.imread(str(path))))
    status, findings, _ = examined(tree, capsys, "--check", check)
    assert status == 0 and ["is of one colour" in line for line in findings] == [True, True]


def test_the_same_pixels_in_another_file_are_found_when_all_is_decoded(tree, capsys):
    pixels = cv2.imread(str(tree / "images/train/c.png"))
    (tree / "images/test/i.png").unlink()
    write_png(tree / "images/test/i.bmp", pixels)
    assert examined(tree, capsys, "--check", "sample")[0] == 0
    status, findings, _ = examined(tree, capsys, "--check", "all")
    assert status == 1 and "images/test/i.bmp: the same image as" in findings[0]


def test_faults_of_one_kind_are_one_line_with_their_number(tree, capsys):
    repaint(tree, lambda mask: np.where(mask == 2, 77, mask))
    _, findings, _ = examined(tree, capsys)
    assert len([line for line in findings if "holds id 77" in line]) == 1
    assert "(and 5 more files)" in findings[0]


def test_stray_ids_alone_are_the_finding_where_a_class_is_lost_by_them(tree, capsys):
    for value in (77, 255):
        repaint(tree, lambda mask, kept=value: np.where(mask == kept, kept, 77))
        lines = [line for line in examined(tree, capsys)[1] if " train: " in line]
        assert len(lines) == 1 and "holds id 77" in lines[0]


@pytest.mark.parametrize("names", [("background", "crack"), ("no", "a: b"), ("Straße", '"x"')])
@pytest.mark.parametrize("told_by", ["doctor", "counts", "table"])
def test_the_cure_of_0_and_255_is_a_class_file_that_works_as_it_is_written(tree, capsys, names, told_by):
    (tree / "classes.yaml").write_text(json.dumps(names))
    black_and_white(tree)
    dataset = build_dataset("folder", tree, "train")
    if told_by == "doctor":
        text = examined(tree, capsys)[2]
    elif told_by == "counts":
        with pytest.raises(InputError) as error:
            require_two_classes(count_dataset(dataset))
        text = str(error.value)
    else:
        print_class_counts(count_dataset(dataset), None, "counted")
        text = capsys.readouterr().out
    (tree / "classes.yaml").write_text(re.search(r"classes\.yaml: (\{.*?\});", text)[1])
    assert build_dataset("folder", tree, "train").classes.names == names
    assert not [line for line in examined(tree, capsys)[1] if line.startswith("error") and "same image" not in line]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "crack: 255\nwall: 0",
            "{wall: 0, crack: 255}",
            "classes: {wall: 0, crack: 255}",
            "names: {0: wall, 255: crack}",
        ),
        *("0: wall\n255: crack", "classes:\n- {name: wall, id: 0}\n- {name: crack, id: 255}"),
    ],
)
def test_class_files_name_ids_in_every_form_of_a_mapping(tree, text):
    (tree / "classes.yaml").write_text(text)
    black_and_white(tree)
    counts = count_dataset(build_dataset("folder", tree, "train"))
    assert {*counts.class_names} == {"wall", "crack"} and min(counts.pixels) > 0 and counts.ignored_pixels == 0


def test_a_mask_without_the_second_class_but_with_ignored_pixels_is_right(tree, capsys):
    classes("- background\n- crack\n")(tree)
    for path in (tree / "masks").glob("*/*.png"):
        write_png(path, mask_of(ord(path.stem), (0, 255) if path.stem == "b" else (0, 1, 255)))
    assert examined(tree, capsys)[:2] == (0, [])


# ---- label maps of Cityscapes and CamVid


def rename(root: Path, old: str, new: str) -> None:
    for path in list(root.rglob(f"*{old}.png")):
        path.rename(path.with_name(path.name.replace(old, new)))


@pytest.mark.parametrize(
    ("written", "named", "what", "cure"),
    [
        ("labelIds", "labelTrainIds", "holds id 19, 20", "these look like Cityscapes labelIds"),
        (
            "labelTrainIds",
            "labelIds",
            "no id above 18 in the 2 masks examined: these are trainIds",
            "_labelTrainIds.png",
        ),
    ],
)
def test_label_ids_and_train_ids_under_each_others_name(tmp_path, capsys, written, named, what, cure):
    root = cityscapes_tree(tmp_path, (written,))
    rename(root, f"gtFine_{written}", f"gtFine_{named}")
    with pytest.raises(SystemExit):
        main(["--dataset", "cityscapes", "--data-path", str(root)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error")]
    assert what in lines[0] and cure in lines[0]


def test_cityscapes_label_ids_in_a_folder_of_19_classes(tree, capsys):
    classes("".join(f"- class {c}\n" for c in range(19)))(tree)
    repaint(tree, lambda mask: np.where(mask < 3, mask + 24, mask))
    _, findings, _ = examined(tree, capsys)
    assert any("these look like Cityscapes labelIds, not trainIds" in line for line in findings)


@pytest.mark.parametrize("how", ["smoothed", "one colour"])
def test_colours_off_the_palette(tmp_path, capsys, how):
    root = camvid_32_tree(tmp_path, "kaggle", size=(96, 128))
    path = next((root / "train_labels").iterdir())
    mask = cv2.imread(str(path))
    if how == "smoothed":
        mask = cv2.GaussianBlur(mask, (5, 5), 2)
    else:
        mask[0, :5] = (9, 8, 7)
    write_png(path, mask)
    with pytest.raises(SystemExit):
        main(["--dataset", "camvid", "--data-path", str(root)])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("error"))
    assert path.name in line and "holds colour" in line
    assert ("resize by nearest neighbour" if how == "smoothed" else "colour 7,8,9 on 0.04% of its pixels") in line


def test_a_palette_of_another_order_is_an_error(tree, capsys):
    classes(COLORED)(tree)
    path = tree / "masks/train/a.png"
    for order, found in (("wall floor lamp", 0), ("floor wall lamp", 1)):
        mask = Image.fromarray(mask_of(0, (0, 1, 2)), mode="P")
        mask.putpalette([value for name in order.split() for value in COLORS[name]])
        mask.save(path)
        status, findings, _ = examined(tree, capsys)
        assert status == found and len(findings) == found
    assert "its palette shows other classes than its indices; give each class its id" in findings[0]


def test_a_palette_of_another_order_is_told_beside_a_colour_of_no_class(tree, capsys):
    """One such colour switched the check off."""
    classes(COLORED)(tree)
    mask = Image.fromarray(mask_of(0, (0, 1, 2, 255)), mode="P")
    mask.putpalette([*COLORS["floor"], *COLORS["wall"], *COLORS["lamp"], *(9,) * (3 * 253)])
    mask.save(tree / "masks/train/a.png")
    status, findings, _ = examined(tree, capsys)
    assert status == 0 and len(findings) == 1
    assert findings[0].startswith("warning") and "a.png: its palette shows other classes than its" in findings[0]


@pytest.mark.parametrize("fault", ["one split", "two splits", "ignored", "none"])
def test_palettes_that_differ_from_mask_to_mask_are_told(tree, capsys, fault):
    """As of a program that orders the palette of each picture by what is most in it."""
    colors = [(10, 20, 30), (0, 0, 255), (200, 0, 0), *((k, k, k) for k in range(3, 256))]
    other = [colors[1], colors[0], *colors[2:]] if fault.endswith("splits") or fault.startswith("one") else colors
    other = [*colors[:255], (224, 224, 192)] if fault == "ignored" else other
    odd = {"one split": "train/b.png", "two splits": "val/g.png", "ignored": "train/b.png"}.get(fault)
    for path in (tree / "masks").glob("*/*.png"):
        mask = Image.fromarray(mask_of(ord(path.stem)), mode="P")
        mask.putpalette(np.ravel(other if f"{path.parent.name}/{path.name}" == odd else colors).tolist())
        mask.save(path)
    status, findings, _ = examined(tree, capsys)
    said = [line for line in findings if "palettes of masks differ: index 0 is " in line]
    assert status == 0 and len(said) == len(findings) == fault.endswith(("split", "splits"))
    if said:
        assert "10,20,30 in " in said[0] and odd in said[0] and "; indices are what is read; save ids by" in said[0]


def test_large_masks_are_examined_as_others_are(tmp_path, capsys, monkeypatch):
    """Their palettes, nodata values and classes that are not labelled were passed over."""
    root = healthy(tmp_path / "data", classes=COLORED)
    mask = Image.fromarray(mask_of(0, (0, 1, 2)), mode="P")
    mask.putpalette([value for name in ("floor", "wall", "lamp") for value in COLORS[name]])
    mask.save(root / "masks/train/a.png")
    (root / "masks/train/b.png").unlink()
    tifffile.imwrite(root / "masks/train/b.tif", mask_of(1, (0, 1, 2)), extratags=[(42113, "s", 0, "0", True)])
    (root / "labelled_classes.csv").write_text("images,classes\nc,wall\n[!c],wall;floor;lamp\n")
    found = []
    for large in (2**26, 64):
        monkeypatch.setattr("segloss.datasets.base.LARGE", large)
        monkeypatch.setattr("segloss.doctor.pairs.LARGE", 64 * 64)
        found.append(sorted(examined(root, capsys)[1]))
    assert found[0] == found[1]
    for said in ("its palette shows other", "names 0 as its nodata value", "holds floor, lamp, for which"):
        assert any(said in line for line in found[1]), said


# ---- one drive in two splits


def drive(root: Path, similar: bool, name: str = "drive7_{:05d}") -> Path:
    """Frames of a drive, every third in val; each like the one before it, or all unlike."""
    big = cv2.GaussianBlur(random_image(0, (48, 400)), (0, 0), 9)
    for frame in range(30):
        split = "val" if frame % 3 == 0 else "train"
        image = big[:, 8 * frame : 8 * frame + 64] if similar else random_image(frame, SIZE)
        spread = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX) if similar else image
        write_png(root / f"images/{split}/{name.format(frame * 30)}.png", spread)
        write_png(root / f"masks/{split}/{name.format(frame * 30)}.png", mask_of(frame))
    (root / "classes.txt").write_text("wall\nfloor\nlamp\n")
    return root


@pytest.mark.parametrize(
    ("check", "name"), [("all", "drive7_{:05d}"), ("sample", "drive7_{:05d}"), ("sample", "drive7_{}_cam2")]
)
def test_neighbouring_frames_in_two_splits_are_warned_of(tmp_path, capsys, check, name):
    status, findings, _ = examined(drive(tmp_path, similar=True, name=name), capsys, "--check", check)
    assert status == 0 and len(findings) == 1
    assert "a neighbouring frame of drive7_" in findings[0] and "10 of 10 images have one" in findings[0]
    assert "split by sequence" in findings[0]


def test_numbered_images_that_do_not_look_alike_are_no_drive(tmp_path, capsys):
    assert examined(drive(tmp_path, similar=False), capsys)[:2] == (0, [])


def test_copies_of_a_picture_in_two_splits_are_warned_of(tree, capsys):
    for split, old in (("train", "a"), ("train", "b"), ("val", "g"), ("test", "i")):
        for kind in ("images", "masks"):
            path = tree / f"{kind}/{split}/{old}.png"
            path.rename(
                path.with_name(f"IMG_{'b' if old == 'b' else 'a'}_jpg.rf.00112233445566778899aabbccddee{old}{old}.png")
            )
    status, findings, _ = examined(tree, capsys)
    assert status == 0 and len(findings) == 3
    assert all("a copy of the picture of IMG_a_jpg.rf." in line and "pictures in both: 1" in line for line in findings)


# ---- where it is called


def test_the_page_shows_findings_splits_and_overlays_and_escapes_names(tree, tmp_path, capsys):
    classes("- <script>alert(1)</script>\n- floor\n- lamp\n")(tree)
    write_png(tree / "masks/train/e.png", mask_of(0, (0, 1, 9)))
    page = tmp_path / "out/doctor.html"
    status, _, printed = examined(tree, capsys, "--output", str(page), "--overlays", "2")
    text = page.read_text()
    assert status == 1 and f"page: {page}" in printed
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert text.count("data:image/jpeg;base64,") == 6
    assert "holds id 9" in text and "http://" not in text and "https://" not in text


@pytest.mark.parametrize("name", ["background", "BG", "_background_"])
def test_background_is_not_painted_and_the_legend_says_what_the_pictures_show(tmp_path, capsys, name):
    page = tmp_path / "doctor.html"
    for ids, hatched in (((0, 1), False), ((0, 1, 255), True)):
        tree = healthy(tmp_path / str(hatched), ids, f"- {name}\n- crack\n")
        examined(tree, capsys, "--output", str(page), "--overlays", "1")
        text = page.read_text()
        assert f'<li class="quiet">not painted: {name}</li>' in text and text.count("<li><span") == 1
        assert ("hatched: ignored" in text) == hatched
    examined(tree, capsys, "--output", str(page), "--overlays", "0")
    assert "Labels over images" not in page.read_text()


def test_the_class_that_is_left_keeps_the_image():
    image, labels = np.full((1, 3, 3), 200, np.uint8), np.array([[0, 1, 255]])
    painted = overlay(image, labels, ((9, 9, 9), (0, 0, 0)), clear=0)
    assert painted[0, 0].tolist() == [200] * 3 and painted[0, 1].tolist() == [89] * 3
    assert (overlay(image, labels, ((9, 9, 9), (0, 0, 0)))[0, 0] < 100).all()


def test_a_class_without_pixels_is_not_learnt_in_train_and_not_scored_elsewhere(tmp_path, capsys):
    tree = healthy(tmp_path, (0, 1), "- wall\n- floor\n- lamp\n")
    _, lines, _ = examined(tree, capsys)
    assert ["not learnt" in line for line in lines] == [True, False, False]
    assert ["not scored" in line for line in lines] == [False, True, True]


@pytest.mark.parametrize(
    ("pixels", "shares"),
    [
        ((999_998, 2), ("100.00", "0.0002")),
        ((50, 50), ("50.00", "50.00")),
        ((99_995, 5), ("100.00", "0.005")),
        ((9_999, 1, 0), ("99.99", "0.01", "0.00")),
    ],
)
def test_the_share_of_a_rare_class_is_not_rounded_to_nothing(pixels, shares, capsys):
    names = ("wall", "floor", "lamp")[: len(pixels)]
    images = tuple(int(count > 0) for count in pixels)
    counts = PixelCounts(names, pixels, images, tuple(sum(pixels) * n for n in images), ignored_pixels=0, image_count=1)
    print_class_counts(counts, None, "made")
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith(names)]
    assert tuple(row[2] for row in rows) == shares


def test_training_begins_with_a_sample_and_refuses_what_would_be_wrong(tree, tmp_path):
    shutil.copy(tree / "images/train/c.png", tree / "images/val/g.png")
    flags = ["--dataset", "folder", "--data-path", str(tree), "--encoder", "tu-mobilenetv3_small_050", "--epochs", "1"]
    flags += ["--crop-size", "32", "32", "--workers", "0", "--accelerator", "cpu"]
    with pytest.raises(InputError, match=r"val: .*images/val/g\.png: the same image as .*; keep each image in one"):
        train([*flags, "--output-dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
    train([*flags, "--output-dir", str(tmp_path / "run"), "--check", "off"])
    assert (tmp_path / "run/val_metrics.json").exists()


def test_warnings_are_said_and_training_goes_on(tree):
    from segloss.datasets import build_dataset

    (tree / "images/val/g.png").unlink()
    datasets = [build_dataset("folder", tree, split) for split in SPLITS]
    said = []
    check_before(datasets, "sample", said.append)
    assert len(said) == 1 and said[0].startswith("warning: val: ") and "mask without image" in said[0]
    check_before(datasets, "off", said.append)
    assert len(said) == 1
    assert examine(datasets, "sample")[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "synthetic"], "synthetic: made-up data has no files to examine; choose another --dataset"),
        (["--dataset", "folder", "--data-path", "nowhere"], "nowhere: data folder is missing"),
        (["--check", "some"], "choose one of all, sample"),
        (["--dataset", "synthetic", "--overlays", "-1"], "--overlays must be 0 or more"),
    ],
)
def test_bad_flags_are_one_line_and_status_2(flags, message):
    done = subprocess.run([sys.executable, "-m", "segloss.doctor", *flags], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr


@pytest.mark.parametrize(
    ("first", "other", "said"),
    [
        ("classes.txt: wall|floor|lamp", "class_dict.csv: name,r,g,b|wall,0,0,0|lamp,0,9,0|floor,9,0,0", "1 is lamp"),
        ("classes.yaml: [wall, floor, lamp]", "classes.txt: floor|lamp", "0 is floor"),
        ("classes.yaml: [wall, floor, lamp]", "labels.txt: __ignore__|wall|lamp|floor", "1 is lamp"),
        ("class_dict.csv: name,r,g,b|wall,0,0,0|floor,9,0,0", "labelmap.txt: floor:0,0,0::|wall:9,0,0::", "is floor"),
        ("classes.yaml: [wall, floor, lamp]", "classes.txt: Wall|FLOOR|lamp|door", ""),  # which says no other thing
        ("classes.yaml: [wall, floor, lamp]", "labels.txt: 3 images|by me, 2 of them in 2023", ""),  # no class file
        (
            'classes.json: {"classes": [{"name": "wall", "id": 7, "color": [0,0,0]}, {"name": "x", "color": [9,9,9]}]}',
            "class_dict.csv: name,r,g,b|wall,0,0,0|x,9,9,9",
            "",  # of colour masks
        ),
        ("class_dict.csv: name,r,g,b|sky,1,2,3|road,4,5,6", "labels.txt: road|sky", ""),  # colours say what is what
        ("class_dict.csv: name,r,g,b|sky,1,2,3|road,4,5,6", "labels.txt: sky|car", "1 is car"),
    ],
)
def test_class_files_that_say_other_things_are_told_of(tree, first, other, said):
    (tree / "classes.yaml").unlink()
    for name, text in (entry.split(": ", 1) for entry in (first, other)):
        (tree / name).write_text(text.replace("|", "\n"))
    dataset = build_dataset("folder", tree, "train")
    found = [str(doubt) for doubt in dataset.found.doubts]
    assert len(found) == bool(said) and all(said in doubt and other.split(":")[0] in doubt for doubt in found)
    findings = [str(finding) for finding in examine([dataset], "sample")[0] if "is not read" in str(finding)]
    assert len(findings) == bool(said)


@pytest.mark.parametrize(
    ("ids", "cure"),
    [
        (range(13), "ids 1 to 12 without a gap may number single things (instances): save the class of each thing"),
        ([0, 1, *range(1000, 1012)], "1000 times the class plus the number of a thing (instances): save id // 1000"),
        ([0, *range(2001, 2005)], "save id // 1000"),
        ([0, *range(256, 266), *range(512, 520)], "save id // 256"),
        ([0, *range(1, 255)], "so many ids come from a smooth resize"),
        ([0, 1, 2, 9, 17, 22, 35, 41, 58, 77, 90], "so many ids come from a smooth resize"),
        ([0, 1, 2, 3], "one past the last class"),
        ([0, 1, 2, 4000, 9000], "correct the mask, or add the id"),
    ],
)
def test_masks_of_numbered_things_are_told_from_other_strange_ids(tmp_path, ids, cure):
    root = healthy(tmp_path / "data", ids=(0, 1, 2))
    for path in (root / "masks").rglob("*.png"):
        mask = np.zeros(SIZE, np.uint16 if max(ids) > 255 else np.uint8)
        mask.ravel()[: 4 * len(ids)] = np.repeat(list(ids), 4)
        write_png(path, mask)
    findings = examine([build_dataset("folder", root, "train")])[0]
    assert any(cure in str(finding) for finding in findings)
