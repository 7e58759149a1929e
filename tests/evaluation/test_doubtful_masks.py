"""What fools a score of masks in silence: each case planted, and refused or warned of by what was counted."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_trees import random_mask, write_png
from PIL import Image

import eval_seg
from segloss.datasets.classes import ClassTable
from segloss.datasets.tables import ADE20K, CITYSCAPES, VOC
from segloss.doctor.command import main as doctor
from segloss.errors import InputError
from segloss.evaluation import mask_source
from segloss.evaluation.doubts import other_groups, same_counts
from segloss.evaluation.mask_source import MaskSource
from segloss.evaluation.results import ImageResult, Totals
from segloss.evaluation.score import measure
from segloss.evaluation.written import Written
from segloss.schema import Group, Groups

SIZE = (40, 50)
TWO, THREE = ClassTable(("wall", "crack")), ClassTable(("wall", "floor", "lamp"))
CITY = np.array(CITYSCAPES.ids, np.uint8)


def blobs(seed: int, classes: int) -> np.ndarray:
    """Class numbers in blocks of 5 x 5, so that all occur."""
    numbers = np.random.default_rng(seed).permutation(np.resize(np.arange(classes, dtype=np.uint8), 80))
    return np.kron(numbers.reshape(8, 10), np.ones((5, 5), np.uint8))


def crack(seed: int, share: float = 0.05) -> np.ndarray:
    """0, and 1 on a share of the pixels."""
    return (np.random.default_rng(seed).random(SIZE) < share).astype(np.uint8)


def noisy(labels: np.ndarray, classes: int, wrong: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(7)
    return np.where(rng.random(labels.shape) < wrong, rng.integers(0, classes, labels.shape), labels).astype(np.uint8)


def opened(root: Path, classes: ClassTable, **options) -> MaskSource:
    return MaskSource("p", root / "pred", root / "true", classes, workers=1, **options)


def source(root: Path, true, predicted, classes: ClassTable, **options) -> MaskSource:
    """Masks written to ``root``, one image for each pair."""
    for place, (label, found) in enumerate(zip(true, predicted, strict=True)):
        write_png(root / f"true/{place}.png", label)
        write_png(root / f"pred/{place}.png", found)
    return opened(root, classes, **options)


def findings(of: MaskSource) -> list[str]:
    """``severity: line`` each."""
    return [f"{found.severity}: {found}" for found in of.findings(measure(of))]


COUNTED = pytest.mark.parametrize("counted", [(), ("boundary",)], ids=["plain", "with a measure"])


# 0/255.


@COUNTED
def test_labels_of_0_and_255_alone_are_refused(tmp_path, counted):
    """mIoU 100 over one class."""
    true = [crack(k) for k in range(3)]
    (found,) = findings(source(tmp_path, [255 * y for y in true], true, TWO, counted=counted))
    assert found.startswith("error: p: labels hold 0 and 255 alone, and 255 is ignored: wall is all that is scored; ")
    assert "give the second class id: 255 in the class file, or save masks as 0 and 1 (--check off if" in found


def test_labels_of_0_and_255_of_three_classes_are_refused(tmp_path):
    true = [255 * crack(1), np.zeros(SIZE, np.uint8)]
    (found,) = findings(source(tmp_path, true, [crack(1), crack(2)], THREE))
    assert found.startswith("error: p: labels hold 0 and 255 alone")


@COUNTED
def test_one_label_of_0_and_255_among_labels_of_0_and_1_is_refused(tmp_path, counted):
    true = [crack(k) for k in range(4)]
    (found,) = findings(source(tmp_path, [*true[:3], 255 * true[3]], true, TWO, counted=counted))
    assert found.startswith("error: p: 1 labels hold 0 and 255 alone, the first 3, others 0 and 1; save 255 as the sec")


def test_a_second_class_whose_id_is_255_is_scored(tmp_path):
    true = [255 * crack(k) for k in range(2)]
    assert findings(source(tmp_path, true, true, ClassTable(("wall", "crack"), ids=(0, 255)))) == []


def test_255_that_all_labels_have_beside_both_classes_is_void(tmp_path):
    true = [np.where(crack(9 + k) > 0, 255, crack(k)).astype(np.uint8) for k in range(2)]
    assert findings(source(tmp_path, true, [crack(0), crack(1)], TWO)) == []


def test_a_class_whose_id_is_ignored_is_warned_of_by_where_it_is_predicted(tmp_path):
    classes = ClassTable(THREE.names, ids=(0, 1, 3), ignore_ids=(2,))
    true = [blobs(k, 3) for k in range(2)]
    (found,) = findings(source(tmp_path, true, [np.array([0, 1, 3], np.uint8)[y] for y in true], classes))
    assert found == (
        "warning: p: lamp is in no label, but 100.0% of the ignored pixels are predicted as it; ignored is 2; "
        "is that its id? check the class file"
    )


def test_labels_of_one_class_are_warned_of(tmp_path):
    true = [np.zeros(SIZE, np.uint8)] * 2
    (found,) = findings(source(tmp_path, true, [crack(0), crack(1)], TWO))
    assert found.startswith("warning: p: every valid label is wall; check the ids of the masks against the class table")


# Predictions under an id that is no class, though the class is rare.


@COUNTED
@pytest.mark.parametrize("value", [255, 76, 128, 2], ids=["0/255", "grey", "another grey", "one too many"])
def test_a_rare_class_written_under_another_id_is_warned_of(tmp_path, value, counted):
    """Below 1 % of the pixels nothing was said."""
    true = [crack(k, 0.008) for k in range(3)]
    predicted = [np.where(noisy(y, 2, 0.002) > 0, value, 0).astype(np.uint8) for y in true]
    (found,) = findings(source(tmp_path, true, predicted, TWO, counted=counted))
    assert found.startswith("warning: p: ") and "% of the pixels of crack (0." in found
    assert f"are written as {value}, 0.0% by its own id 1; " in found


@COUNTED
@pytest.mark.parametrize("hit", [0.01, 0.06], ids=["few pixels", "low recall"])
def test_a_class_that_is_found_now_and_then_under_another_id_is_warned_of(tmp_path, counted, hit):
    """With fewer than 10 pixels, or less than a quarter of the class, its IoU was 0 without a word."""
    true = [crack(k, 0.1) for k in range(3)]
    predicted = [(255 * y * crack(k + 9, hit)).astype(np.uint8) for k, y in enumerate(true)]
    assert all(0 < np.count_nonzero(found) < 20 for found in predicted)
    (found,) = findings(source(tmp_path, true, predicted, TWO, counted=counted))
    assert "% of the pixels of crack (9.73% of all) are written as 255, 0.0% by its own id 1; save each" in found


def test_a_class_that_is_never_found_beside_predictions_of_void_has_no_cause(tmp_path):
    true = [crack(k, 0.1) for k in range(3)]
    predicted = [(255 * crack(k + 9, 0.003)).astype(np.uint8) for k in range(3)]
    assert not any("are written as" in line for line in findings(source(tmp_path, true, predicted, TWO)))


@COUNTED
@pytest.mark.parametrize("clipped", [False, True], ids=["wrapped round", "cut to 255"])
def test_ids_above_255_in_8_bit_predictions_are_warned_of(tmp_path, counted, clipped):
    """1000 became 232, which is a class or none."""
    classes = ClassTable(("wall", "floor", "lamp"), ids=(0, 44, 300), ignore_ids=(255,))
    of = np.array(classes.ids, np.uint16)
    true = [of[blobs(k, 3)] for k in range(2)]
    predicted = [np.minimum(y, 255).astype(np.uint8) if clipped else y.astype(np.uint8) for y in true]
    (found,) = findings(source(tmp_path, true, predicted, classes, counted=counted))
    assert found == (
        "warning: p: no prediction holds an id above 255, and 100.0% of the pixels of such ids are predicted as what "
        "8 bits hold of them; save them as 16-bit PNG"
    )
    assert findings(source(tmp_path / "16", true, true, classes, counted=counted)) == []
    weak = [np.where(y > 255, 0, y).astype(np.uint8) for y in true]
    assert not any("8 bits" in line for line in findings(source(tmp_path / "weak", true, weak, classes)))


def test_only_some_files_written_as_0_and_255_are_seen(tmp_path):
    true = [crack(k, 0.008) for k in range(4)]
    (found,) = findings(source(tmp_path, true, [true[0], *(255 * y for y in true[1:])], TWO))
    assert "are written as 255" in found and "by its own id 1; save each class under its own id" in found


def test_colours_turned_to_grey_are_called_so(tmp_path):
    """The class colours of Pascal VOC as a grey picture."""
    true = [np.where(crack(k, 0.004) > 0, 15, 12 * crack(k + 9, 0.004)).astype(np.uint8) for k in range(4)]
    grey = cv2.cvtColor(np.array([VOC.colors], np.uint8), cv2.COLOR_RGB2GRAY)[0]
    (found,) = findings(source(tmp_path, true, [grey[y] for y in true], VOC))
    assert "are written as" in found and "its values are the class colours turned to grey: export the palette" in found


def test_a_few_pixels_of_no_class_that_fall_anywhere_have_no_cause(tmp_path):
    true = [crack(k, 0.2) for k in range(3)]
    predicted = [np.where(crack(k + 20, 0.008) > 0, 255, y).astype(np.uint8) for k, y in enumerate(true)]
    assert findings(source(tmp_path, true, predicted, TWO)) == []


# Two systems of ids.


@COUNTED
@pytest.mark.parametrize("name", ["{}", "{}_gt", "{}_train_id"])
def test_labels_in_train_ids_under_another_name_are_refused(tmp_path, name, counted):
    true = [blobs(k, 19) for k in range(2)]
    for place, y in enumerate(true):
        write_png(tmp_path / f"true/{name.format(place)}.png", y)
        write_png(tmp_path / f"pred/{name.format(place)}.png", CITY[y])
    found = findings(opened(tmp_path, CITYSCAPES, counted=counted))
    assert found[0].startswith("error: p: no label holds an id above 18: trainIds, read as labelIds; give --label-ids")
    assert findings(opened(tmp_path, CITYSCAPES, label_ids="trainIds", counted=counted)) == []
    matrix = measure(opened(tmp_path, CITYSCAPES, label_ids="trainIds")).matrix
    assert np.trace(matrix) == matrix.sum() == 2 * SIZE[0] * SIZE[1]
    told = opened(tmp_path, CITYSCAPES, label_ids="labelIds")  # whoever says so is believed
    assert not any("trainIds, read" in line for line in findings(told))


def test_label_ids_given_win_over_the_name_of_the_file(tmp_path):
    y = CITY[blobs(0, 19)]
    write_png(tmp_path / "true/a_000000_000001_gtFine_labelTrainIds.png", y)
    write_png(tmp_path / "pred/a_000000_000001_pred.png", y)
    of = opened(tmp_path, CITYSCAPES, label_ids="labelIds")
    assert findings(of) == [] and measure(of).matrix.sum() == y.size
    with pytest.raises(InputError, match="holds id"):
        measure(opened(tmp_path, CITYSCAPES))


def test_ade20k_has_two_systems_too(tmp_path):
    """1..150 with 0 ignored, and 0..149 as mmsegmentation reduces them."""
    reduced = [blobs(k, 60) for k in range(2)]
    of = source(tmp_path, reduced, [y + 1 for y in reduced], ADE20K, label_ids="trainIds")
    assert np.trace(measure(of).matrix) == 2 * reduced[0].size
    both = source(tmp_path / "both", reduced, reduced, ADE20K, label_ids="trainIds", prediction_ids="trainIds")
    assert np.trace(measure(both).matrix) == 2 * reduced[0].size


def test_ade20k_reduced_to_0_to_149_is_warned_of(tmp_path):
    """Every class was one off; the doctor alone said so, of a data set."""
    reduced = [np.where(crack(k + 5) > 0, 255, blobs(k, 60)).astype(np.uint8) for k in range(2)]
    of = source(tmp_path, reduced, reduced, ADE20K)
    said = "warning: p: labels hold 255 and no 150: these look like ids reduced to 0..149, every class one off; give"
    assert any(line.startswith(said) for line in findings(of))
    told = opened(tmp_path, ADE20K, label_ids="trainIds", prediction_ids="trainIds")
    assert findings(told) == []
    asked = opened(tmp_path, ADE20K, label_ids="labelIds")
    assert not any("0..149" in line for line in findings(asked))


@pytest.mark.parametrize("name", ["void", "Unlabeled", "ignore", "ignore_label", "No-Data", "unknown", "don't care"])
def test_a_class_called_void_is_warned_of(tmp_path, name):
    """It was scored like any other; the doctor alone said so, of a data set."""
    true = [blobs(k, 3) for k in range(2)]
    (found,) = findings(source(tmp_path, true, true, ClassTable(("wall", "floor", name))))
    said = f"warning: p: class {name!r} is scored like any other; put its id under ignore in the class file"
    assert found.startswith(said) and ("or call it void" in found) == (name[0] in "Nud")
    written = [np.array([0, 1, 3], np.uint8)[y] for y in true]
    classes = ClassTable(("wall", name, "lamp"), ids=(0, 1, 3), ignore_ids=(2,))
    assert findings(source(tmp_path / "ignored", true, written, classes))[1:] == [found]


def test_a_table_whose_ids_are_class_numbers_has_one_system(tmp_path):
    with pytest.raises(InputError, match="--label-ids trainIds are those of Cityscapes, and of tables"):
        source(tmp_path, [crack(0)], [crack(0)], TWO, label_ids="trainIds")


@pytest.mark.parametrize("ids", [[7, 8, 11, 12, 13, 17], [0, 1, 7]])
def test_label_ids_of_few_classes_are_no_train_ids(tmp_path, ids):
    """All are classes of labelIds; or too few to tell."""
    true = [np.array(ids, np.uint8)[blobs(k, len(ids))] for k in range(2)]
    assert not any("trainIds" in line for line in findings(source(tmp_path, true, true, CITYSCAPES)))


# Another order of colours or ids.


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ([1, 0, 2, 3, 4], ["a and b"]),
        ([0, 3, 4, 1, 2], ["b and d", "c and e"]),
        ([2, 1, 4, 3, 0], ["a and c and e"]),
    ],
)
def test_classes_in_another_order_are_named(tmp_path, order, said):
    true = [blobs(k, 5) for k in range(3)]
    predicted = [np.array(order, np.uint8)[noisy(y, 5, 0.2)] for y in true]
    found = findings(source(tmp_path, true, predicted, ClassTable(tuple("abcde"))))
    assert [line.split(" are predicted for one another: ")[0] for line in found] == [f"warning: p: {w}" for w in said]
    first, second = said[0].split(" and ")[:2]
    assert f"of {first} as {second}" in found[0] and "in another order; check --class-table" in found[0]


def test_colours_in_another_order_are_seen(tmp_path):
    colors = ((10, 20, 30), (200, 0, 0), (0, 0, 200))
    classes, painted = ClassTable(THREE.names, colors=colors), np.array([colors[0], colors[2], colors[1]], np.uint8)
    true = [blobs(k, 3) for k in range(2)]
    (found,) = findings(source(tmp_path, true, [painted[y][..., ::-1] for y in true], classes))
    assert found.startswith("warning: p: floor and lamp are predicted for one another: 100.0% of floor as lamp, 100.0%")


def test_a_swap_of_two_rare_classes_is_seen(tmp_path):
    true = [np.where(crack(k, 0.01) > 0, 1, 2 * crack(k + 9, 0.01)).astype(np.uint8) for k in range(3)]
    (found,) = findings(source(tmp_path, true, [np.array([0, 2, 1], np.uint8)[y] for y in true], THREE))
    assert "floor and lamp are predicted for one another" in found


@pytest.mark.parametrize("weak", ["one class", "chance", "half of two"])
def test_a_weak_model_is_not_taken_for_another_order(tmp_path, weak):
    true = [blobs(k, 2) for k in range(3)]
    predicted = {
        "one class": [np.ones_like(y) for y in true],
        "chance": [random_mask(k, SIZE, (0, 1)) for k in range(3)],
        "half of two": [np.where(crack(k, 0.5) > 0, y, 1 - y).astype(np.uint8) for k, y in enumerate(true)],
    }[weak]
    found = findings(source(tmp_path, true, predicted, TWO))
    assert found == [
        "warning: p: every pixel is predicted as crack; look at a prediction: is it what the network said?"
    ] * (weak == "one class")


def test_a_class_predicted_as_one_that_no_label_holds_is_warned_of(tmp_path):
    """No ring shows another order where the last class is in no label."""
    true = [blobs(k, 3) for k in range(2)]
    classes = ClassTable((*THREE.names, "door"))
    (found,) = findings(source(tmp_path, true, [np.array([0, 2, 3], np.uint8)[y] for y in true], classes))
    assert "predicted as a class that is in no label: 100.0% of lamp as door; the ids or colours" in found


def test_a_turned_mask_of_a_rare_class_is_warned_of(tmp_path):
    """No ring shows it where the network misses most of the rare class."""
    true = [crack(k, 0.02) for k in range(3)]
    missed = [np.where(crack(k + 9, 0.5) > 0, y, 0).astype(np.uint8) for k, y in enumerate(true)]
    (found,) = findings(source(tmp_path, true, [1 - y for y in missed], TWO))
    assert "100.0% of wall, the commonest class, is predicted as crack; the ids or colours" in found


def test_one_picture_for_all_images_is_warned_of(tmp_path):
    true = [np.where(crack(k, 0.05 + 0.01 * k) > 0, 1, 0).astype(np.uint8) for k in range(6)]
    (found,) = findings(source(tmp_path, true, true[:1] * 6, TWO))
    assert "all 6 predictions hold the same number of pixels of each class; are they one picture?" in found


def test_one_image_under_many_names_is_warned_of(tmp_path):
    true = [np.where(crack(0, 0.05) > 0, 1, 0).astype(np.uint8)] * 6
    missed = np.where(crack(1, 0.4) > 0, 1, true[0]).astype(np.uint8)
    (found,) = findings(source(tmp_path, true, [missed] * 6, TWO))
    assert "all 6 predictions and labels hold the same number of pixels of each class; are they one picture?" in found


def test_a_rare_class_written_in_a_colour_of_none_is_warned_of(tmp_path):
    classes = ClassTable(TWO.names, colors=((0, 0, 0), (200, 0, 0)))
    true = [crack(k, 0.005) for k in range(3)]
    white = [np.repeat(255 * y[..., None], 3, 2) for y in true]
    (found,) = findings(source(tmp_path, true, white, classes))
    assert "of all) are written as 255,255,255, 0.0% by its own colour" in found


# Palettes, and files given twice.

COLORS = ((10, 20, 30), (200, 0, 0), (0, 0, 200))


def write_palette(path: Path, ids: np.ndarray, colors) -> None:
    picture = Image.fromarray(ids, mode="P")
    picture.putpalette([part for color in colors for part in color])
    picture.save(path)


@pytest.mark.parametrize("folder", ["pred", "true"])
@pytest.mark.parametrize("colored", [True, False])
def test_palettes_that_differ_from_file_to_file_are_seen(tmp_path, folder, colored):
    """As of a program that orders the palette of each picture by what is most in it."""
    mask_colors = tuple(zip(COLORS, range(3), strict=True)) if colored else ()
    true = [blobs(k, 3) for k in range(4)]
    of = source(tmp_path, true, [noisy(y, 3) for y in true], ClassTable(THREE.names, mask_colors=mask_colors))
    for k, order in enumerate([[0, 1, 2], [0, 1, 2], [0, 1, 2], [1, 0, 2]]):
        write_palette(tmp_path / folder / f"{k}.png", np.array(order, np.uint8)[true[k]], [COLORS[c] for c in order])
    found = findings(of)
    side = "predictions" if folder == "pred" else "labels"
    said = (
        f"{'error' if colored else 'warning'}: p: palettes of {side} differ: index 0 is 10,20,30 in one file, 200,0,0"
    )
    assert any(line.startswith(said) for line in found)


def test_one_palette_is_no_fault_and_that_of_other_classes_is_told(tmp_path):
    true, classes = (
        [blobs(k, 3) for k in range(2)],
        ClassTable(THREE.names, mask_colors=tuple(zip(COLORS, range(3), strict=True))),
    )
    of = source(tmp_path, true, true, classes)
    for colors, said in ((COLORS, []), (COLORS[::-1], ["palettes of predictions show other classes than their"])):
        for k, ids in enumerate(true):
            write_palette(tmp_path / f"pred/{k}.png", noisy(ids, 3), colors)
        found = findings(of)
        assert len(found) == len(said) and all(text in line for text, line in zip(said, found, strict=True))


def test_labels_given_as_predictions_are_told(tmp_path):
    source(tmp_path, [blobs(k, 3) for k in range(2)], [blobs(k, 3) for k in range(2)], THREE)
    of = MaskSource("p", tmp_path / "true", tmp_path / "true", THREE, workers=1)
    (found,) = findings(of)
    assert found.startswith("warning: p: 2 of 2 predictions are the label's own file")


def test_one_folder_given_as_two_is_told(tmp_path):
    true = [blobs(k, 3) for k in range(2)]
    totals = measure(source(tmp_path, true, [noisy(y, 3) for y in true], THREE))
    other = measure(source(tmp_path, true, [noisy(y, 3, 0.2) for y in true], THREE))
    (found,) = same_counts({"a": totals, "b": other, "c": totals})
    assert str(found).startswith("c: has the counts of a in each image: the same predictions twice?")
    perfect = measure(source(tmp_path, true, true, THREE))
    assert not [*same_counts({"a": perfect, "b": perfect})]


def test_thirds_of_other_classes_are_told_of():
    def groups(*names):
        return Groups("training", *(Group((name,), 0.5) for name in names))

    found = {"a": groups("road", "car", "pole"), "b": groups("road", "pole", "car"), "c": groups("road", "car", "pole")}
    (told,) = other_groups(found)
    assert str(told).startswith("b: has other classes in head, middle and tail than a") and told.severity == "warning"
    assert not [*other_groups({"a": found["a"]})]


# Labels without a valid pixel.


def test_labels_without_any_valid_pixel_are_refused(tmp_path):
    true = [np.full(SIZE, 255, np.uint8)] * 3
    (found,) = findings(source(tmp_path, true, [crack(k) for k in range(3)], TWO))
    assert found.startswith("error: p: no label has a valid pixel: all 6,000 pixels are ignored (3 images); check the")


def test_some_labels_without_a_valid_pixel_are_warned_of(tmp_path):
    true = [blobs(k, 3) for k in range(4)]
    blank = np.full(SIZE, 255, np.uint8)
    (found,) = findings(source(tmp_path, [true[0], blank, true[2], blank], true, THREE))
    assert found == "warning: p: 2 of 4 labels have no valid pixel, the first 1; they add nothing to any score"


# Both sides, all files, once, whatever their number.


def test_the_last_of_many_files_is_looked_at(tmp_path):
    true = [crack(k) for k in range(60)]
    of = source(tmp_path, [*true[:59], 255 * true[59]], true, TWO)
    assert "1 labels hold 0 and 255 alone, the first 59" in findings(of)[0]


def test_no_file_is_decoded_a_second_time(tmp_path, monkeypatch):
    reads: list[Path] = []
    read = mask_source.read_mask
    monkeypatch.setattr(mask_source, "read_mask", lambda path: reads.append(path) or read(path))
    true = [crack(k, 0.2) for k in range(6)]
    of = source(tmp_path, true, [255 * y for y in true], TWO)
    assert len(findings(of)) == 1 and len(reads) == len({*reads}) == 12


def test_what_is_held_does_not_grow_with_the_images(tmp_path):
    ((_, result),) = source(tmp_path, [crack(0)], [255 * crack(0)], TWO).results()
    written = Written()
    for place in range(500):
        written.add(str(place), result.noted)
    numbers = len(written.labels) + len(written.unknown) + len(written.ignored) + len(written.others)
    assert numbers == 5 and written.labels[1] == 500 * int(crack(0).sum())


def test_what_was_noted_survives_the_store(tmp_path):
    of = source(tmp_path, [crack(0)], [255 * crack(0)], TWO)
    ((_, result),) = of.results()
    again = ImageResult.from_bytes(result.name, result.to_bytes())
    said = [[str(f) for f in of.findings(totals)] for totals in (Totals.of([result]), Totals.of([again]))]
    kept = tmp_path / "kept.sqlite"
    said += [[str(f) for f in of.findings(measure(of, kept))] for _ in range(2)]
    assert said[0] and said == said[:1] * 4


@COUNTED
@pytest.mark.parametrize("sixteen", [False, True])
def test_the_same_is_noted_however_it_is_counted(tmp_path, counted, sixteen):
    """From one histogram of both files, or from the maps."""
    true, predicted = random_mask(0, SIZE, (0, 1, 2, 255)), random_mask(1, SIZE, (0, 1, 2, 9, 77, 255))
    kind = np.uint16 if sixteen else np.uint8
    of = source(tmp_path, [true.astype(kind)], [predicted.astype(kind)], THREE, counted=counted)
    written = measure(of).written
    assert written.labels == {value: int((true == value).sum()) for value in (0, 1, 2, 255)}
    pairs = {(c, value): int(((true == c) & (predicted == value)).sum()) for c in range(3) for value in (9, 77, 255)}
    assert written.unknown == pairs
    assert written.ignored == {c: int(((true == 255) & (predicted == c)).sum()) for c in range(3)}


# Files changed in place.


@pytest.mark.parametrize("folder", ["pred", "true"])
def test_a_file_changed_under_its_size_and_time_is_counted_again(tmp_path, folder):
    of = source(tmp_path, [crack(0)], [crack(0)], TWO)
    path = tmp_path / folder / "0.png"
    before, status, content = of.key(), path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert of.key() != before


# From the command line.


@pytest.fixture
def black_and_white(tmp_path) -> Path:
    true = [crack(k) for k in range(3)]
    source(tmp_path, [255 * y for y in true], true, TWO)
    (tmp_path / "classes.txt").write_text("wall\ncrack\n")
    return tmp_path


def flags(root: Path, *predictions: str) -> list[str]:
    return ["--predictions", *(str(root / name) for name in predictions), "--labels", str(root / "true")]


def test_an_evaluation_that_is_refused_writes_no_scores(black_and_white):
    out = black_and_white / "o"
    with pytest.raises(InputError, match="pred: labels hold 0 and 255 alone"):
        eval_seg.evaluate([*flags(black_and_white, "pred"), "--output-dir", str(out)])
    assert not (out / "metrics.json").exists() and not (out / "report.html").exists()


def test_check_off_says_it_and_goes_on(black_and_white, capsys):
    out = black_and_white / "o"
    eval_seg.evaluate([*flags(black_and_white, "pred"), "--output-dir", str(out), "--check", "off"])
    assert json.loads((out / "metrics.json").read_text())["runs"]["pred"]["classes_averaged"] == 1
    assert "warning: pred: labels hold 0 and 255 alone" in capsys.readouterr().out


def test_the_doctor_looks_at_predictions_and_labels(black_and_white, capsys):
    write_png(black_and_white / "worse/0.png", crack(5))
    (black_and_white / "worse/1.png").write_bytes(b"no image")
    page = black_and_white / "doctor.html"
    with pytest.raises(SystemExit) as stop:
        doctor([*flags(black_and_white, "pred"), "--output", str(page)])
    assert stop.value.code == 1
    printed = capsys.readouterr().out
    assert "error   pred: labels hold 0 and 255 alone" in printed and "1 errors, 0 warnings" in printed
    assert "Every mask of 1 folders of predictions read, and its label." in page.read_text()
    with pytest.raises(SystemExit):
        doctor(flags(black_and_white, "pred", "worse"))
    printed = capsys.readouterr().out
    assert "error   worse: 2: no prediction in" in printed and "(and 1 more files); --skip-bad leaves" in printed


def test_the_doctor_finds_nothing_in_good_masks(tmp_path, capsys):
    true = [blobs(k, 3) for k in range(2)]
    source(tmp_path, true, [noisy(y, 3) for y in true], THREE)
    (tmp_path / "classes.txt").write_text("wall\nfloor\nlamp\n")
    doctor(flags(tmp_path, "pred"))
    printed = capsys.readouterr().out
    assert "nothing found" in printed and "3 of 3" in printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--predictions a", "--labels is missing"),
        ("--labels a", "--labels does nothing without --predictions"),
        ("--label-ids trainIds", "--label-ids does nothing without --predictions"),
        ("--predictions a --labels b --data-path c", "--data-path does nothing with --predictions"),
        ("--predictions a --labels b --check sample", "--check does nothing with --predictions"),
    ],
)
def test_the_doctor_is_asked_for_one_or_the_other(argv, message):
    with pytest.raises(InputError, match=message):
        doctor(argv.split())
