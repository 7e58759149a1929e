"""Folders of predicted masks against folders of labels: matched, read and counted like their plain definitions."""

import copy
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from data_trees import random_mask, write_png

from segloss.datasets.classes import ClassTable
from segloss.datasets.tables import ADE20K, CAMVID_11, CAMVID_32, CITYSCAPES, VOC
from segloss.errors import InputError
from segloss.evaluation import mask_source
from segloss.evaluation.mask_source import MaskSource
from segloss.evaluation.matching import class_table, match
from segloss.evaluation.predictions import PredictionWriter
from segloss.evaluation.results import Totals
from segloss.evaluation.store import ResultStore
from segloss.measures.boundary import boundary_of
from segloss.metrics import ConfusionMatrix, Scores

SIZE = (13, 17)
THREE = ClassTable(("wall", "floor", "lamp"))


def totals_of(source):
    return Totals.of(result for _, result in source.results())


def confusion_of(pairs, num_classes):
    """Of pairs (predicted, true) of class numbers, 255 where the truth is ignored."""
    confusion = ConfusionMatrix(num_classes)
    for predicted, true in pairs:
        confusion.update(torch.as_tensor(predicted), torch.as_tensor(true))
    return confusion


def require_counts(source, pairs, num_classes):
    totals, expected = totals_of(source), confusion_of(pairs, num_classes)
    np.testing.assert_array_equal(totals.matrix, expected.matrix.numpy())
    assert (totals.images, totals.ignored) == (expected.images, expected.ignored)
    assert expected.matrix.sum() > 0
    return totals


def index_folders(root, names=("b", "a", "c/d"), labels=(0, 1, 2, 255), predicted=(0, 1, 2, 3, 254, 255), size=SIZE):
    """``root/pred`` and ``root/true`` of random ids; the pairs by name."""
    pairs = {}
    for seed, name in enumerate(names):
        found, true = random_mask(2 * seed, size, predicted), random_mask(2 * seed + 1, size, labels)
        write_png(root / f"pred/{name}.png", found)
        write_png(root / f"true/{name}.png", true)
        pairs[name] = found, true
    return pairs


def source_of(root, classes=THREE, *, boundary=False, **options):
    counted = ["boundary"] if boundary else []
    return MaskSource("masks", root / "pred", root / "true", classes, workers=2, counted=counted, **options)


# Forms of masks.


@pytest.mark.parametrize("boundary", [False, True])
def test_index_masks_are_counted_like_the_confusion_matrix(tmp_path, boundary):
    pairs = index_folders(tmp_path)
    totals = require_counts(source_of(tmp_path, boundary=boundary), pairs.values(), 3)
    assert totals.names == ["a", "b", "c/d"]
    if boundary:
        np.testing.assert_array_equal(totals.counted["boundary"], sum(boundary_of(p, y, 3) for p, y in pairs.values()))


def test_images_of_different_sizes_are_counted_together(tmp_path):
    pairs = [*index_folders(tmp_path, ["a"]).values(), *index_folders(tmp_path, ["z"], size=(1, 40)).values()]
    require_counts(source_of(tmp_path), pairs, 3)


def test_palette_masks_are_read_by_index(tmp_path):
    from PIL import Image

    pairs = index_folders(tmp_path)
    palette = np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes()
    for name, maps in pairs.items():
        for folder, ids in zip(("pred", "true"), maps, strict=True):
            picture = Image.fromarray(ids, mode="P")
            picture.putpalette(palette)
            picture.save(tmp_path / folder / f"{name}.png")
    require_counts(source_of(tmp_path), pairs.values(), 3)


def test_colour_masks_are_read_by_the_class_file(tmp_path):
    colors = np.array([[10, 20, 30], [30, 20, 10], [0, 0, 200], [1, 1, 1], [0, 0, 0]], np.uint8)  # last: void
    rows = [f"{name},{r},{g},{b}" for name, (r, g, b) in zip(("wall", "floor", "lamp"), colors.tolist(), strict=False)]
    (tmp_path / "class_dict.csv").write_text("\n".join(["name,r,g,b", *rows, "void,0,0,0"]))
    pairs, numbers = [], np.array([0, 1, 2, 99, 255])  # 1,1,1 is no class: predicted only
    for seed, name in enumerate("ab"):
        found, true = random_mask(seed, SIZE, range(5)), random_mask(seed + 5, SIZE, (0, 1, 2, 4))
        for folder, ids in (("pred", found), ("true", true)):
            write_png(tmp_path / f"{folder}/{name}.png", colors[ids][..., ::-1])
        pairs.append((numbers[found], numbers[true]))
    classes = class_table(None, tmp_path / "true")
    assert classes.names == ("wall", "floor", "lamp")
    require_counts(source_of(tmp_path, classes), pairs, 3)
    require_counts(source_of(tmp_path, classes, boundary=True), pairs, 3)
    # Labels in colour, predictions as ids.
    for place, name in enumerate("ab"):
        write_png(tmp_path / f"pred/{name}.png", pairs[place][0].astype(np.uint8))
    require_counts(source_of(tmp_path, classes), pairs, 3)


@pytest.mark.parametrize("sixteen", ["pred", "true", "both"])
def test_16_bit_masks_are_counted_like_8_bit_ones(tmp_path, sixteen):
    pairs = index_folders(tmp_path)
    for name, maps in pairs.items():
        for folder, ids in zip(("pred", "true"), maps, strict=True):
            if sixteen in (folder, "both"):
                write_png(tmp_path / folder / f"{name}.png", ids.astype(np.uint16))
    require_counts(source_of(tmp_path), pairs.values(), 3)


def test_ids_beyond_8_bit_are_classes(tmp_path):
    classes = ClassTable(("x", "y", "z"), ids=(300, 7, 65535), ignore_ids=(0, 256))
    values, pairs = np.array([300, 7, 65535, 0, 256, 44, 254, 255], np.uint16), []  # 300 - 256 = 44 is no class
    numbers = np.array([0, 1, 2, 255, 255, 99, 99, 255])
    for seed, name in enumerate("ab"):
        found, true = random_mask(seed, SIZE, range(8)), random_mask(seed + 5, SIZE, (0, 1, 2, 3, 4, 7))
        write_png(tmp_path / f"pred/{name}.png", values[found])
        write_png(tmp_path / f"true/{name}.png", values[true])
        pairs.append((numbers[found], numbers[true]))
    require_counts(source_of(tmp_path, classes), pairs, 3)


def test_ids_in_another_order_and_the_ids_beyond_the_classes_are_sorted_out(tmp_path):
    """ADE20K: id 0 is ignored, class c has id c + 1."""
    pairs = index_folders(tmp_path, labels=range(151), predicted=range(160))
    expected = [(np.where(p == 0, 255, p - 1), np.where(y == 0, 255, y - 1).astype(int)) for p, y in pairs.values()]
    require_counts(source_of(tmp_path, ADE20K), [(np.where(p > 149, 200, p), y) for p, y in expected], 150)


# What PredictionWriter writes.

SIXTEEN_BIT = ClassTable(("x", "y", "z"), ids=(300, 7, 65535), colors=((1, 2, 3), (3, 2, 1), (0, 0, 9)))


@pytest.mark.parametrize("kind", ["ids", "color"])
@pytest.mark.parametrize("classes", [CITYSCAPES, VOC, ADE20K, CAMVID_11, SIXTEEN_BIT], ids=lambda table: table.names[0])
def test_written_predictions_are_read_back(tmp_path, classes, kind):
    """Ids that are not the class numbers, and colours of a table whose own masks are ids."""
    pairs, ids = [], np.array(classes.ids, np.uint16)
    write = PredictionWriter(tmp_path / "pred", classes, [kind], None)
    for seed, name in enumerate("ab"):
        found, true = (random_mask(2 * seed + k, SIZE, range(len(classes))) for k in range(2))
        write({"name": name}, torch.from_numpy(found))
        write_png(tmp_path / f"true/{name}.png", ids[true])
        pairs.append((found, true))
        if kind == "ids":
            written = cv2.imread(str(tmp_path / f"pred/{name}.png"), cv2.IMREAD_UNCHANGED)
            assert written.dtype == (np.uint16 if classes is SIXTEEN_BIT else np.uint8)
            np.testing.assert_array_equal(written, ids[found])
    require_counts(source_of(tmp_path, classes), pairs, len(classes))


def test_cityscapes_is_written_in_train_ids_too(tmp_path):
    pairs, write = [], PredictionWriter(tmp_path / "pred", CITYSCAPES, ["train_ids"], None)
    for seed, frame in enumerate(FRAMES):
        found, true = (random_mask(2 * seed + k, SIZE, range(19)) for k in range(2))
        write({"name": f"city/{frame}"}, torch.from_numpy(found))
        written = cv2.imread(str(tmp_path / f"pred/city/{frame}_labelTrainIds.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(written, found)
        write_png(tmp_path / f"true/{frame}_gtFine_labelIds.png", np.array(CITYSCAPES.ids, np.uint8)[true])
        pairs.append((found, true))
    require_counts(source_of(tmp_path, CITYSCAPES), pairs, 19)  # known by the files' names
    with pytest.raises(InputError, match="--save train_ids are those of Cityscapes, which this is not; save ids"):
        PredictionWriter(tmp_path, CAMVID_11, ["ids", "train_ids"], None)


@pytest.mark.parametrize("kind", ["ids", "color"])
def test_predictions_for_masks_in_colour_alone_are_read_back(tmp_path, kind):
    """CamVid's 31 classes: true masks are called NAME_L.png and hold colours, saved predictions NAME.png and ids."""
    pairs, write = [], PredictionWriter(tmp_path / "pred", CAMVID_32, [kind], None)
    for seed, name in enumerate(("0001TP_000010", "0001TP_000020")):
        found, true = (random_mask(2 * seed + k, SIZE, range(31)) for k in range(2))
        write({"name": name}, torch.from_numpy(found))
        write_png(tmp_path / f"true/{name}_L.png", np.array(CAMVID_32.colors, np.uint8)[true][..., ::-1])
        pairs.append((found, true))
    require_counts(source_of(tmp_path, CAMVID_32), pairs, 31)


def test_colours_that_do_not_tell_classes_apart_are_refused(tmp_path):
    index_folders(tmp_path)
    in_colour(tmp_path / "pred/a.png")
    same = ClassTable(THREE.names, colors=((1, 1, 1), (1, 1, 1), (2, 2, 2)))
    with pytest.raises(InputError, match="is a colour image, but the class table gives no colours"):
        totals_of(source_of(tmp_path, same))


# Cityscapes.


@pytest.fixture(scope="module")
def official():
    return pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")


FRAMES = ("frankfurt_000000_000294", "munster_000001_000019", "munster_000002_000019")
CASES = {
    "every id, ignored ones predicted too": (range(34), range(34)),
    "classes absent from both": ([7, 8, 11, 0, 3], [7, 8, 11]),
    "classes only predicted": ([7, 8, 0], [7, 8, 24, 33]),
    "classes never predicted": ([7, 8, 24, 33], [7, 8]),
    "only ignored ids predicted": ([7, 8, 26], [0, 3, 9]),
    "one class": ([7], [7]),
    "one class, another predicted": ([7], [8]),
    "only ignored labels": ([0, 1, 10], [7, 8]),
}


def to_train_ids(official):
    table = np.full(256, 255, np.uint8)
    for label in official.labels:
        if not label.ignoreInEval:
            table[label.id] = label.trainId
    return table


def city_folders(root, official, case, true_kind, found_kind):
    """Masks of labelIds, or of trainIds where the kind is labelTrainIds; the official confusion matrix of labelIds."""
    args = copy.copy(official.args)
    args.evalInstLevelScore = args.evalPixelAccuracy = False
    matrix, table = official.generateMatrix(args), to_train_ids(official)
    for seed, frame in enumerate(FRAMES):
        true, found = (random_mask(2 * seed + k, (23, 31), list(ids)) for k, ids in enumerate(case))
        same = (random_mask(seed, true.shape, (0, 1)) == 1) & np.isin(true, list(case[1]))
        found = np.where(same, true, found)
        files = [str(write_png(root / f"official/{frame}_{k}.png", ids)) for k, ids in enumerate((found, true))]
        official.evaluatePair(*files, matrix, {}, {}, args)
        city = root / "true" / frame.split("_")[0]
        ids = table[true] if true_kind == "labelTrainIds" else true
        write_png(city / f"{frame}_gtFine_{true_kind}.png", ids)
        write_png(city / f"{frame}_gtFine_color.png", np.zeros((*true.shape, 3), np.uint8))
        ending = f"_pred_{found_kind}" if found_kind.startswith("label") else "_leftImg8bit"
        train = found_kind in ("labelTrainIds", "trainIds without saying so")
        write_png(root / f"pred/{frame}{ending}.png", table[found] if train else found)
    return matrix, args


def require_official(source, official, matrix, args):
    scores = Scores.from_confusion(torch.from_numpy(totals_of(source).matrix))
    ids = [label.id for label in sorted(official.labels, key=lambda label: label.trainId) if not label.ignoreInEval]
    expected = {id_: official.getIouScoreForLabel(id_, matrix, args) for id_ in ids}
    assert [official.id2label[id_].name for id_ in ids] == list(source.classes.names)
    # Both divide int64 counts in float64; the mean sums 19 of them in another order.
    np.testing.assert_allclose(scores.iou, list(expected.values()), rtol=0, atol=1e-12, equal_nan=True)
    np.testing.assert_allclose(scores.miou, official.getScoreAverage(expected, args), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_cityscapes_scores_equal_the_official_ones(tmp_path, official, case):
    matrix, args = city_folders(tmp_path, official, case, "labelIds", "labelIds")
    require_official(source_of(tmp_path, class_table(None, tmp_path / "true")), official, matrix, args)


@pytest.mark.parametrize("boundary", [False, True])
@pytest.mark.parametrize("true_kind", ["labelIds", "labelTrainIds"])
@pytest.mark.parametrize(
    ("found_kind", "prediction_ids"),
    [
        ("labelIds", "auto"),
        ("labelTrainIds", "auto"),
        ("labelTrainIds", "trainIds"),
        ("any name", "auto"),
        ("any name", "labelIds"),
        ("trainIds without saying so", "trainIds"),
    ],
)
def test_label_ids_and_train_ids_give_the_same_official_scores(
    tmp_path, official, true_kind, found_kind, prediction_ids, boundary
):
    case = CASES["every id, ignored ones predicted too"]
    matrix, args = city_folders(tmp_path, official, case, true_kind, found_kind)
    source = source_of(tmp_path, CITYSCAPES, prediction_ids=prediction_ids, boundary=boundary)
    assert [result.name for _, result in source.results()] == sorted(FRAMES)
    require_official(source, official, matrix, args)


def test_label_ids_before_train_ids_where_both_are_there(tmp_path, official):
    case = CASES["every id, ignored ones predicted too"]
    city_folders(tmp_path, official, case, "labelTrainIds", "labelIds")
    matrix, args = city_folders(tmp_path, official, case, "labelIds", "labelIds")
    require_official(source_of(tmp_path, CITYSCAPES), official, matrix, args)


def test_a_table_of_ones_own_reads_train_ids_by_itself(tmp_path):
    """Files named after trainIds, but 3 classes: not to be read by the 19 of Cityscapes."""
    pairs = {}
    for seed, frame in enumerate(FRAMES):
        true, found = random_mask(seed, SIZE), random_mask(seed + 9, SIZE)
        write_png(tmp_path / f"true/{frame}_gtFine_labelTrainIds.png", true)
        write_png(tmp_path / f"pred/{frame}_labelTrainIds.png", found)
        pairs[frame] = found, true
    require_counts(source_of(tmp_path), pairs.values(), 3)
    write_png(tmp_path / f"true/{FRAMES[0]}_gtFine_labelTrainIds.png", np.full(SIZE, 5, np.uint8))
    with pytest.raises(InputError, match="holds id 5"):
        totals_of(source_of(tmp_path))
    with pytest.raises(InputError, match="--prediction-ids trainIds are those of Cityscapes"):
        source_of(tmp_path, prediction_ids="trainIds")


def test_a_frame_with_two_labels_is_refused(tmp_path):
    for name in ("gtFine", "gtCoarse"):
        write_png(tmp_path / f"true/{name}/{FRAMES[0]}_{name}_labelIds.png", random_mask(0, SIZE))
    write_png(tmp_path / f"pred/{FRAMES[0]}.png", random_mask(0, SIZE))
    with pytest.raises(InputError, match=f"a second label of {FRAMES[0]} beside .*gtCoarse.*; keep one of the two"):
        source_of(tmp_path, CITYSCAPES)


# Matching.


def test_masks_are_matched_by_name_whatever_their_suffix_and_folder(tmp_path):
    pairs = index_folders(tmp_path, names=('a\'s "b"', "x.y/é 1", "x.y/a"))
    moved = tmp_path / "pred/x.y/a.tif"
    write_png(moved, pairs["x.y/a"][0])
    moved.with_suffix(".png").unlink()
    found = match(tmp_path / "pred", tmp_path / "true")
    assert found[1:] == (None, [], "", []) and [triple.name for triple in found.triples] == sorted(pairs)
    totals = require_counts(source_of(tmp_path), pairs.values(), 3)
    assert totals.names == sorted(pairs)


def test_missing_predictions_are_listed_up_to_five(tmp_path):
    index_folders(tmp_path, names=[f"{place:02}" for place in range(12)])
    for place in range(5):
        (tmp_path / f"pred/{place:02}.png").unlink()
    with pytest.raises(
        InputError, match=rf"no prediction in {tmp_path}/pred for 5: 00, 01, 02, 03, 04; masks are matched by"
    ):
        source_of(tmp_path)
    for place in range(5, 9):
        (tmp_path / f"pred/{place:02}.png").unlink()
    with pytest.raises(InputError, match=r"for 9: 00, 01, 02, 03, 04 and 4 more; masks.*\(--skip-bad leaves such"):
        source_of(tmp_path)


def test_missing_and_extra_predictions_are_left_out_and_listed(tmp_path):
    pairs = index_folders(tmp_path, names=[f"{place:02}" for place in range(6)])
    (tmp_path / "pred/00.png").unlink()
    (tmp_path / "true/05.png").unlink()
    no_image(tmp_path / "pred/03.png")
    source = source_of(tmp_path, skip_bad=True)
    expected = ["00: no prediction in", "05: no label in"]
    assert [line[: len(start)] for line, start in zip(source.skipped, expected, strict=True)] == expected
    for _ in range(2):  # not twice
        require_counts(source, [pairs[name] for name in ("01", "02", "04")], 3)
        assert [line.split(":")[0] for line in source.describe().skipped] == ["00", "05", "03"]


@pytest.mark.parametrize("folders", [("pred",), ("true",), ("pred", "true")])
def test_files_without_partner_change_no_score_of_the_others(tmp_path, folders):
    pairs = index_folders(tmp_path, names="abc")
    for folder in folders:
        write_png(tmp_path / folder / f"only in {folder}.png", random_mask(9, SIZE))
    source = source_of(tmp_path, skip_bad=True)
    require_counts(source, pairs.values(), 3)
    assert len(source.skipped) == len(folders)


def test_folders_that_have_no_image_in_common_are_refused_though_bad_ones_are_left_out(tmp_path):
    index_folders(tmp_path, names="abc")
    for name, other in zip("abc", "xyz", strict=True):
        (tmp_path / f"pred/{name}.png").rename(tmp_path / f"pred/{other}{name}.png")
    with pytest.raises(
        InputError, match=r"for 3: a, b, c, and no label in .*true for 3: xa, yb, zc; masks .*partners$"
    ):
        source_of(tmp_path, skip_bad=True)


def test_predictions_without_label_are_listed_up_to_five(tmp_path):
    index_folders(tmp_path, names=[f"{place:02}" for place in range(12)])
    for place in range(7):
        (tmp_path / f"true/{place:02}.png").unlink()
    with pytest.raises(InputError, match=rf"no label in {tmp_path}/true for 7: 00, 01, 02, 03, 04 and 2 more; masks"):
        source_of(tmp_path)
    (tmp_path / "pred/11.png").unlink()
    both = "no prediction in .*/pred for 1: 11, and no label in .*/true for 7: 00, 01, 02, 03, 04 and 2 more; masks"
    with pytest.raises(InputError, match=both):
        source_of(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_predictions_of_another_size_are_listed_before_anything_is_scored(tmp_path, suffix):
    index_folders(tmp_path, names=[f"{place:02}" for place in range(12)])
    for place in range(7):
        (tmp_path / f"pred/{place:02}.png").unlink()
        write_png(tmp_path / f"pred/{place:02}{suffix}", random_mask(0, (5, 6 + place)))
    first = r"00 \(6x5, its label 17x13\), 01 \(7x5, its label 17x13\), .* and 2 more; export them at the label's size"
    with pytest.raises(InputError, match=rf"pred: 7 of 12 predictions are not of their label's size .*: {first}"):
        source_of(tmp_path)
    source = source_of(tmp_path, skip_bad=True)
    assert totals_of(source).images == 5 and len(source.skipped) == 7
    name = f"pred/03{suffix}: is 9x5 but its label 03.png is 17x13 (width x height); export the prediction"
    assert name in source.skipped[3]


def test_two_predictions_of_one_image_are_refused(tmp_path):
    index_folders(tmp_path)
    write_png(tmp_path / "pred/a.bmp", random_mask(0, SIZE))
    with pytest.raises(InputError, match=r"same stem as .*; keep one of the two"):
        source_of(tmp_path)
    write_png(tmp_path / f"city/true/{FRAMES[0]}_gtFine_labelIds.png", random_mask(0, SIZE))
    for name in ("one", "two"):
        write_png(tmp_path / f"city/pred/{FRAMES[0]}_{name}.png", random_mask(0, SIZE))
    with pytest.raises(InputError, match=rf"{FRAMES[0]}_two.png: a second prediction of {FRAMES[0]} beside .*_one.png"):
        source_of(tmp_path / "city", CITYSCAPES)


def test_colour_pictures_beside_predicted_cityscapes_masks_are_left_alone(tmp_path, official):
    matrix, args = city_folders(tmp_path, official, (range(34), range(34)), "labelIds", "labelIds")
    for frame in FRAMES:
        write_png(tmp_path / f"pred/{frame}_pred_color.png", np.zeros((*SIZE, 3), np.uint8))
    require_official(source_of(tmp_path, CITYSCAPES), official, matrix, args)


@pytest.mark.parametrize("flag", ["predictions", "labels"])
def test_a_folder_that_is_missing_or_empty_names_its_flag(tmp_path, flag):
    index_folders(tmp_path)
    shutil.rmtree(tmp_path / {"predictions": "pred", "labels": "true"}[flag])
    with pytest.raises(InputError, match=f"is no folder; check --{flag}"):
        source_of(tmp_path)
    (tmp_path / "true").mkdir(exist_ok=True)
    (tmp_path / "pred").mkdir(exist_ok=True)
    with pytest.raises(InputError, match=r"holds no masks; check --labels|pred: holds no masks: it is empty; save PNG"):
        source_of(tmp_path)


# Predictions that cannot be used.


def wrong_size(path):
    write_png(path, random_mask(0, (SIZE[0], SIZE[1] + 1)))


def turned(path):
    write_png(path, random_mask(0, SIZE[::-1]))


def jpeg(path):
    write_png(path.with_suffix(".jpg"), random_mask(0, SIZE))
    path.unlink()


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-20])


def no_image(path):
    path.write_bytes(b"no image")


def empty(path):
    path.write_bytes(b"")


def changed_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def in_colour(path):
    write_png(path, np.zeros((*SIZE, 3), np.uint8))


def floating(path):
    path.unlink()
    write_png(path.with_suffix(".tiff"), np.zeros(SIZE, np.float32))


HARM = {
    wrong_size: "a (18x13, its label 17x13)",
    turned: "a (13x17, its label 17x13)",
    jpeg: "a JPEG does not keep ids",
    cut_off: "is cut off",
    no_image: "is not a readable image",
    empty: "is not a readable image",
    changed_byte: "is damaged",
    in_colour: "holds colour 0,0,0 on 100.00% of its pixels, which the class table does not know",
    floating: "mask has pixels of kind F",
}


@pytest.mark.parametrize("boundary", [False, True])
@pytest.mark.parametrize(("harm", "message"), HARM.items(), ids=[harm.__name__ for harm in HARM])
def test_a_bad_prediction_is_refused_or_left_out_and_reported(tmp_path, harm, message, boundary):
    pairs = index_folders(tmp_path)
    harm(tmp_path / "pred/a.png")
    with pytest.raises(InputError, match=rf"pred.*{re.escape(message)}.*\(--skip-bad leaves such images out\)"):
        totals_of(source_of(tmp_path, boundary=boundary))
    source = source_of(tmp_path, skip_bad=True, boundary=boundary)
    require_counts(source, [pairs["b"], pairs["c/d"]], 3)
    (skipped,) = source.describe().skipped
    assert skipped.startswith("a: ") and (message in skipped or "its label a.png is 17x13" in skipped)
    totals_of(source)
    assert source.describe().skipped == (skipped,)  # not twice


def test_nothing_left_is_an_input_error(tmp_path):
    for name in index_folders(tmp_path):
        no_image(tmp_path / f"pred/{name}.png")
    source = source_of(tmp_path, skip_bad=True)
    with pytest.raises(InputError, match=r"none of the 3 predictions can be used; the first, a: .*is not a readable"):
        totals_of(source)
    assert len(source.skipped) == 3


@pytest.mark.parametrize("options", [{}, {"skip_bad": True}, {"skip_bad": True, "boundary": True}])
def test_a_label_that_cannot_be_used_is_an_error_even_where_bad_predictions_are_left_out(tmp_path, options):
    index_folders(tmp_path)
    write_png(tmp_path / "true/b.png", np.full(SIZE, 7, np.uint8))
    with pytest.raises(InputError, match=r"true/b\.png: holds id 7 on 100\.00% of its pixels"):
        totals_of(source_of(tmp_path, **options))
    cut_off(tmp_path / "true/b.png")
    with pytest.raises(InputError, match=r"true/b\.png: is cut off"):
        totals_of(source_of(tmp_path, **options))


CITY_IDS = np.array(CITYSCAPES.ids, np.uint8)
FROM_ONE = ClassTable(("x", "y", "z"), ids=(1, 2, 3), ignore_ids=(0,))


@pytest.mark.parametrize(
    ("classes", "predicted", "prediction_ids", "cause"),
    [
        (CITYSCAPES, range(19), "auto", "these look like trainIds; give --prediction-ids trainIds"),
        (CITYSCAPES, (0, 1, 255), "auto", "these look like trainIds; give --prediction-ids trainIds"),
        (CITYSCAPES, CITY_IDS, "trainIds", "these look like labelIds; give --prediction-ids labelIds"),
        (CITYSCAPES, (7, 8, 40), "auto", "ids that are no class: 40; check --class-table"),
        (FROM_ONE, range(3), "auto", "ids seem to begin one before the class table's 1"),
        (THREE, (1, 2, 3), "auto", "ids seem to begin one behind the class table's 0"),
        (THREE, (0, 60, 120), "auto", "ids that are no class: 60, 120; check --class-table"),
    ],
)
def test_ids_that_are_no_class_have_a_likely_cause(tmp_path, classes, predicted, prediction_ids, cause):
    for seed in range(50):
        write_png(tmp_path / f"pred/{seed}.png", random_mask(seed, SIZE, predicted))
        write_png(tmp_path / f"true/{seed}.png", random_mask(seed, SIZE, classes.ids))
    no_image(tmp_path / "pred/0.png")  # is passed over
    source = source_of(tmp_path, classes, prediction_ids=prediction_ids, skip_bad=True)
    (found,) = source.findings(totals_of(source))
    assert found.severity == "warning" and found.fault.cure.startswith(cause)
    assert "of the pixels are predicted as no class" in found.fault.what


# Going on, and memory.


def test_images_that_are_done_are_not_counted_again_and_keep_their_places(tmp_path):
    index_folders(tmp_path, names="abcde")
    source = source_of(tmp_path)
    whole = {place: result.name for place, result in source.results()}
    assert whole == dict(enumerate("abcde")) and len(source) == 5
    assert {place: result.name for place, result in source.results({"b", "e"})} == {0: "a", 2: "c", 3: "d"}


def test_results_on_disk_go_on_and_a_changed_file_begins_anew(tmp_path):
    pairs = index_folders(tmp_path, names="abc")
    source, store = source_of(tmp_path), tmp_path / "out/x.sqlite"
    with ResultStore(store, source.key()) as kept:
        kept.add_all(item for item in source.results() if item[0] != 1)
    with ResultStore(store, source_of(tmp_path).key()) as kept:
        assert kept.names() == {"a", "c"}
        kept.add_all(source.results(kept.names()))
        np.testing.assert_array_equal(Totals.of(kept).matrix, confusion_of(pairs.values(), 3).matrix.numpy())
    (tmp_path / "pred/a.png").write_bytes((tmp_path / "pred/b.png").read_bytes())
    with ResultStore(store, source_of(tmp_path).key()) as kept:
        assert kept.names() == set()


def test_the_key_changes_with_all_that_the_results_depend_on(tmp_path):
    index_folders(tmp_path, names="abc")
    keys = [source_of(tmp_path).key(), source_of(tmp_path, boundary=True).key(), source_of(tmp_path, CAMVID_11).key()]
    assert source_of(tmp_path).key() == keys[0]
    for folder in ("pred", "true"):
        (tmp_path / f"{folder}/c.png").rename(tmp_path / f"{folder}/d.png")  # the same files under other names
    keys.append(source_of(tmp_path).key())
    assert len({repr(key) for key in keys}) == 4


def test_few_results_wait_however_many_there_are(tmp_path, monkeypatch):
    """Two threads: at most 16 images each are handed out ahead of what was taken."""
    index_folders(tmp_path, names=[f"{place:03}" for place in range(300)], size=(2, 3))
    handed_out, most, lock = 0, 0, threading.Lock()

    class Counted(ThreadPoolExecutor):
        def submit(self, *args, **kwargs):
            nonlocal handed_out, most
            with lock:
                handed_out += 1
                most = max(most, handed_out)
            return super().submit(*args, **kwargs)

    source = source_of(tmp_path)
    monkeypatch.setattr(mask_source, "ThreadPoolExecutor", Counted)
    places = []
    for place, _ in source.results():
        with lock:
            handed_out -= 1
        places.append(place)
    assert places == list(range(300)) and 2 <= most <= 32, most


def test_leaving_early_ends_the_threads(tmp_path):
    index_folders(tmp_path, names=[f"{place:03}" for place in range(40)], size=(2, 3))
    before = threading.active_count()
    results = source_of(tmp_path).results()
    next(results)
    results.close()
    assert threading.active_count() == before


# What the ids mean.


def test_a_class_table_is_chosen_by_name_file_or_what_lies_at_the_labels(tmp_path, official):
    index_folders(tmp_path)
    labels = tmp_path / "true"
    assert class_table("camvid", labels) is CAMVID_11 and class_table("ade20k", labels) is ADE20K
    own = tmp_path / "own.yaml"
    own.write_text("- x\n- y\n")
    assert class_table(str(own), labels).names == ("x", "y")
    (tmp_path / "classes.txt").write_text("wall\nfloor\nlamp\n")
    assert class_table(None, labels).names == THREE.names
    (labels / "classes.txt").write_text("a\nb\n")
    assert class_table(None, labels).names == ("a", "b")  # the nearer one
    city_folders(tmp_path / "a/b/city", official, ([7], [7]), "labelTrainIds", "labelIds")
    assert class_table(None, tmp_path / "a/b/city/true") is CITYSCAPES


def test_a_class_table_that_is_not_there_names_the_choices(tmp_path):
    labels = tmp_path / "deep/er/true"
    write_png(labels / "a.png", random_mask(0, SIZE))
    message = (
        "unknown --class-table 'cityscape'; choose one of bdd100k, camvid, camvid-32, cityscapes, ade20k, voc, vistas, "
        "a class file"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        class_table("cityscape", labels)
    with pytest.raises(InputError, match="choose one of bdd100k, camvid"):
        class_table(str(tmp_path), labels)
    with pytest.raises(
        InputError,
        match=r"no class file says what the ids mean; give --class-table bdd100k, camvid, .*voc, vistas or a",
    ):
        class_table(None, labels)
    with pytest.raises(InputError, match="is no folder; check --labels"):
        class_table(None, tmp_path / "nowhere")
    (tmp_path / "bad.yaml").write_text("classes: 5")
    with pytest.raises(InputError, match=r"bad\.yaml"):
        class_table(str(tmp_path / "bad.yaml"), labels)


def test_a_picture_of_a_pair_holds_its_class_numbers(tmp_path):
    pairs = index_folders(tmp_path, predicted=(0, 1, 2))
    image, true, found = source_of(tmp_path).picture("c/d")
    assert image is None
    np.testing.assert_array_equal(true, pairs["c/d"][1])
    np.testing.assert_array_equal(found, pairs["c/d"][0])


def test_masks_on_disk_are_left_as_they_are(tmp_path):
    index_folders(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    totals_of(source_of(tmp_path, boundary=True))
    assert {path: path.read_bytes() for path in Path(tmp_path).rglob("*.png")} == before
    assert all(cv2.imdecode(np.frombuffer(data, np.uint8), -1) is not None for data in before.values())


# Names of either side's own.


def named(root, predicted, true):
    """``pred`` and ``true`` under these names; the triples of :func:`match` as (name, prediction, label)."""
    for folder, names in (("pred", predicted), ("true", true)):
        for name in names:
            write_png(root / folder / name, random_mask(0, SIZE))
    triples, _, skipped, _, over = match(root / "pred", root / "true")
    assert skipped == over == []
    sides = [(t.name, t.predicted.relative_to(root / "pred"), t.true.relative_to(root / "true")) for t in triples]
    return [(name, a.as_posix(), b.as_posix()) for name, a, b in sides]


FRAME_IDS = ["GOPR0475_frame_000041", "GOPR0475_frame_000047", "GP010476_frame_000054"]
BDD = ["7d06fefd-f7be05a6", "7d128593-0ccfea4c", "7d15b18b-1e0d6e3f"]


@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        ("{}_pred.png", "{}.png"),
        ("{}.png", "{}_L.png"),
        ("{}.jpg.png", "{}.png"),
        ("{}.png", "{}.tif"),
        ("pred_{}.png", "mask_{}.png"),
        ("pred_{}.png", "{}.png"),
        ("{}_leftImg8bit_pred.png", "{}_gt.png"),
        ("{}-prediction.png", "{}-label.png"),
        ("val/{}_pred.png", "val/{}.png"),
        ("model/val/{}_pred.png", "{}.png"),
        ("{}.png", "val/{}.png"),
        ("out/x/{}_pred.png", "val/{}_gt.png"),
    ],
)
@pytest.mark.parametrize("names", [["1", "2", "10"], FRAME_IDS, BDD])
def test_predictions_are_matched_but_for_what_all_of_a_side_have(tmp_path, names, predicted, true):
    found = named(tmp_path, [predicted.format(name) for name in names], [true.format(name) for name in names])
    pairs = {(a, b) for _, a, b in found}
    assert pairs == {(predicted.format(name), true.format(name)) for name in names}


def test_flat_predictions_are_matched_with_labels_in_folders(tmp_path):
    found = named(tmp_path, ["a_pred.png", "b_pred.png", "c_pred.png"], ["x/a.png", "x/b.png", "y/c.png"])
    assert found == [("a", "a_pred.png", "x/a.png"), ("b", "b_pred.png", "x/b.png"), ("c", "c_pred.png", "y/c.png")]


def test_one_name_in_two_folders_is_matched_below_the_folders_or_not_at_all(tmp_path):
    found = named(tmp_path / "with", ["m/x/1.png", "m/y/1.png"], ["x/1.png", "y/1.png"])
    assert found == [("x/1", "m/x/1.png", "x/1.png"), ("y/1", "m/y/1.png", "y/1.png")]
    with pytest.raises(InputError, match=r"y/1\.png: a second label of 1 beside .*x/1\.png; keep one of the two"):
        named(tmp_path / "flat", ["1.png", "2.png"], ["x/1.png", "y/1.png", "y/2.png"])


@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        ("{}_rgb_anon.png", "fog/val/GOPR0475/{}_gt_labelTrainIds.png"),
        ("fog/val/GOPR0475/{}_rgb_anon_pred.png", "fog/val/GOPR0475/{}_gt_labelTrainIds.png"),
        ("{}_gt_labelTrainIds.png", "fog/val/GOPR0475/{}_gt_labelTrainIds.png"),
    ],
)
def test_names_of_acdc_are_matched(tmp_path, predicted, true):
    for name in FRAME_IDS:  # what lies beside the labels
        write_png(tmp_path / "true" / true.format(name).replace("labelTrainIds", "labelColor"), random_mask(0, SIZE))
    found = named(tmp_path, [predicted.format(n) for n in FRAME_IDS], [true.format(n) for n in FRAME_IDS])
    assert {(a, b) for _, a, b in found} == {(predicted.format(name), true.format(name)) for name in FRAME_IDS}


@pytest.mark.parametrize("true", ["val/{}.png", "val/{}_train_id.png"])
def test_names_of_bdd100k_are_matched(tmp_path, true):
    found = named(tmp_path, [f"{name}.jpg.png" for name in BDD], [true.format(name) for name in BDD])
    assert {(a, b) for _, a, b in found} == {(f"{name}.jpg.png", true.format(name)) for name in BDD}


def test_two_predictions_of_one_label_by_their_endings_are_refused_by_name(tmp_path):
    two = ["a_pred.png", "b_pred.png", "c_pred.png", "a_prob.png"]
    with pytest.raises(
        InputError, match=r"/pred: holds several predictions of a: a_pred\.png, a_prob\.png; keep the cl"
    ):
        named(tmp_path / "1", two, ["a.png", "b.png", "c.png"])
    with pytest.raises(
        InputError, match=r"/true: holds several labels of a: a_pred\.png, a_prob\.png; keep labels alone"
    ):
        named(tmp_path / "2", ["a.png", "b.png", "c.png"], two)


def test_a_missing_and_an_extra_one_are_named_by_what_both_sides_share(tmp_path):
    for name in ("a", "b", "c", "e"):
        write_png(tmp_path / f"pred/{name}_pred.png", random_mask(0, SIZE))
    for name in ("a", "b", "c", "d"):
        write_png(tmp_path / f"true/x/{name}.png", random_mask(0, SIZE))
    with pytest.raises(
        InputError, match=r"no prediction in .*/pred for 1: d, and no label in .*/true for 1: e; .*skip-bad"
    ):
        match(tmp_path / "pred", tmp_path / "true")
    found = match(tmp_path / "pred", tmp_path / "true", skip_bad=True)
    assert [triple.name for triple in found.triples] == ["a", "b", "c"]
    assert [line.split(":")[0] for line in found.unmatched] == ["d", "e"]


def test_files_of_other_names_are_not_matched_by_chance(tmp_path):
    with pytest.raises(InputError, match=r"no prediction in .* for 3: a, b, c.* take out their partners$"):
        named(tmp_path, ["x/a1.png", "x/b2.png", "y/c3.png"], ["a.png", "b.png", "c.png"])


# What is taken off names is told, and never a split.


@pytest.mark.parametrize(
    ("predicted", "true", "form"),
    [
        ("{}.png", "{}.png", ""),
        ("left_{}.png", "right_{}.png", "predictions named left_NAME, labels named right_NAME"),
        ("{}.jpg.png", "{}_L.png", "predictions named NAME.jpg, labels named NAME_L"),
        ("{}_pred.png", "{}.png", "predictions named NAME_pred"),
        ("{}.png", "{}_gt.png", "labels named NAME_gt"),
        ("{}.png", "front/{}.png", "folders that all files of a side lie in left out"),
        ("m/{}_pred.png", "x{}/{}.png", "predictions named NAME_pred, folders left out"),
    ],
)
def test_what_is_taken_off_the_names_is_told(tmp_path, predicted, true, form):
    """The left camera's labels were scored against the right one's predictions without a word."""
    for name in ("000", "001", "002"):
        write_png(tmp_path / "pred" / predicted.format(name), random_mask(0, SIZE))
        write_png(tmp_path / "true" / true.format(name, name), random_mask(0, SIZE))
    assert match(tmp_path / "pred", tmp_path / "true").form == form


@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        ("test_{}.png", "val_{}.png"),
        ("{}-testing.png", "{}_val_gt.png"),
        ("test/{}.png", "val/{}.png"),
        ("test/{}_pred.png", "val/x{}/{}.png"),
    ],
)
def test_predictions_of_another_split_than_their_labels_are_refused(tmp_path, predicted, true):
    """They were scored, as their names are the same but for the split's."""
    for name in ("000", "001", "002"):
        write_png(tmp_path / "pred" / predicted.format(name), random_mask(0, SIZE))
        write_png(tmp_path / "true" / true.format(name, name), random_mask(0, SIZE))
    message = r"pred/.*: is of test by its name, .*true/.*\.png of val; give folders of one split, or rename the files"
    with pytest.raises(InputError, match=message):
        match(tmp_path / "pred", tmp_path / "true")


@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        ("test/{}.png", "{}_train_id.png"),
        ("{}_val.png", "{}_gt_labelTrainIds.png"),
        ("latest/{}.png", "val/{}.png"),
        ("eval/{}_pred.png", "test/{}.png"),
        ("val_{}_pred.png", "val_{}_train.png"),
    ],
)
def test_train_ids_and_other_words_are_no_splits(tmp_path, predicted, true):
    names = ["000", "001", "002"]
    found = named(tmp_path, [predicted.format(name) for name in names], [true.format(name) for name in names])
    assert len(found) == 3


# Files that are passed over.


@pytest.mark.parametrize(
    ("plain", "ending", "kind"),
    [
        ("{}.png", "{}_labelIds.png", "labelIds"),
        ("{}_gtFine.png", "{}_gtFine_labelTrainIds.png", "labelTrainIds"),
    ],
)
def test_files_without_the_ending_that_others_have_are_told(tmp_path, plain, ending, kind):
    """Both sides lost them, so that the others alone were scored."""
    for folder in ("pred", "true"):
        for name in FRAMES[:2]:
            write_png(tmp_path / folder / ending.format(name), random_mask(0, SIZE))
            write_png(tmp_path / folder / ending.format(name).replace(kind, "color"), random_mask(0, SIZE))
        write_png(tmp_path / folder / plain.format(FRAMES[2]), random_mask(0, SIZE))
    found = match(tmp_path / "pred", tmp_path / "true")
    assert [triple.name for triple in found.triples] == [*FRAMES[:2]]
    last = Path(plain.format(FRAMES[2])).stem
    of_true, of_predicted = map(str, found.passed_over)
    said = f"are not named *_{kind} as others are, and passed over: {last}; name all masks alike"
    assert of_true == f"{tmp_path / 'true'}: 1 of 5 files {said}"
    assert of_predicted.startswith(f"{tmp_path / 'pred'}: 1 of 5 files are not named *_labelIds or *_labelTrainIds as")


def test_other_pictures_beside_label_ids_are_not_missed(tmp_path):
    """Frames that are not named as those of Cityscapes: the image and the colours beside each mask."""
    for name in ("night_01", "night_02"):
        for ending in ("gt_labelIds", "gt_labelColor", "rgb_anon"):
            write_png(tmp_path / f"true/{name}_{ending}.png", random_mask(0, SIZE))
        write_png(tmp_path / f"pred/{name}.png", random_mask(0, SIZE))
    assert match(tmp_path / "pred", tmp_path / "true").passed_over == []
    write_png(tmp_path / "true/night_03_gt.png", random_mask(0, SIZE))
    (found,) = match(tmp_path / "pred", tmp_path / "true").passed_over
    assert "1 of 7 files are not named *_labelIds as others are, and passed over: night_03_gt;" in str(found)


@pytest.mark.parametrize("ending", ["gif", "heic", "jfif"])
def test_masks_of_formats_that_are_not_read_are_told(tmp_path, ending):
    """They were passed over on both sides."""
    pairs = index_folders(tmp_path)
    for folder in ("pred", "true"):
        (tmp_path / folder / f"z.{ending}").write_bytes(b"x")
        np.save(tmp_path / folder / "y.npy", random_mask(0, SIZE))
        np.save(tmp_path / folder / "a.npy", random_mask(0, SIZE))  # made of a.png
    source = source_of(tmp_path)
    require_counts(source, pairs.values(), 3)
    lines = [str(found) for found in source.findings(totals_of(source))]
    for folder in ("pred", "true"):
        place = f"masks: {tmp_path / folder}"
        assert f"{place}: holds 3 masks, but z.{ending}, not a format that is read; save them as PNG" in lines
        said = "holds pictures, beside which 1 arrays are passed over: y.npy; save all masks as PNG"
        assert f"{place}: {said}" in lines


# Images that label a part of the classes.


def part_labelled(root, rows, *, in_color=False):
    """Two images of each city, of which those of A label wall and floor alone, though the lamp is predicted."""
    for place, name in enumerate(("A/1", "A/2", "B/1", "B/2")):
        city, number = name.split("/")
        true = random_mask(place, SIZE, (0, 1) if city == "A" else (0, 1, 2))
        predicted = np.where(random_mask(place + 9, SIZE, range(5)) == 0, 2, true).astype(np.uint8)
        write_png(root / f"masks/{city}/mask_{city}{number}.png", true)
        write_png(root / f"pred/pred_{city}{number}.png", predicted)
    (root / "labelled_classes.csv").write_text(rows)
    return MaskSource("p", root / "pred", root / "masks", THREE, workers=2)


@pytest.mark.parametrize("pattern", ["A/*", "images/A/*", "mask_A*", "pred_A*", "A1,wall;floor\nA2"])
def test_rows_fit_the_paths_of_labels_as_well_as_what_both_sides_share(tmp_path, pattern):
    """Folders and words are left out of the name that both share, so that no row fitted and nothing said so."""
    source = part_labelled(tmp_path, f"{pattern},wall;floor\n")
    assert source.labelled.masks.tolist() == [[True, True, False]] * 2 + [[True] * 3] * 2
    assert source.form.endswith("folders left out, 2 of 4 images label a part of the classes (labelled_classes.csv)")
    assert source.passed_over == []


def test_classes_that_an_image_does_not_label_are_no_unknown_ids(tmp_path):
    """Their ids were warned of as ids that are no class."""
    source = part_labelled(tmp_path, "A/*,wall;floor\n")
    totals = totals_of(source)
    assert totals.matrix[:, 3].sum() == sum(totals.written.unlabelled.values()) > 0.01 * totals.matrix.sum()
    assert not totals.written.unknown and source.findings(totals) == []


def test_rows_that_fit_no_image_are_warned_of(tmp_path):
    source = part_labelled(tmp_path, "C/*,wall;floor\nD/*,lamp\n")
    (found,) = source.findings(totals_of(source))
    assert "labelled_classes.csv: 2 of 2 rows fit no image here: C/*, D/*; write them as the images are" in str(found)
    assert part_labelled(tmp_path, "C/*,wall;floor\nA/*,wall;floor\n").passed_over == []  # C is of another split
    (tmp_path / "labelled_classes.csv").rename(tmp_path / "masks/labelled_classes.csv")
    (found,) = MaskSource("p", tmp_path / "pred", tmp_path / "masks", THREE).passed_over
    assert "1 of 2 rows fit no image here: C/*;" in str(found)
