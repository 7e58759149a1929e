"""The confusion matrix against a plain loop, and the scores against the official Cityscapes evaluation."""

import copy
import json
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segloss.metrics import ConfusionMatrix, Scores


def random_maps(shape, num_classes, *, seed=0, predicted=None):
    """Predictions and labels; a tenth of the labels is ignored, predictions come from ``predicted``."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_classes, size=shape)
    predictions = np.where(generator.random(shape) < 0.6, labels, generator.choice(predicted or num_classes, shape))
    labels[generator.random(shape) < 0.1] = 255
    return torch.from_numpy(predictions), torch.from_numpy(labels)


def confusion_of(*pairs, num_classes=4, ignore_index=255):
    confusion = ConfusionMatrix(num_classes, ignore_index)
    for predictions, labels in pairs:
        confusion.update(torch.as_tensor(predictions), torch.as_tensor(labels))
    return confusion


def same_counts(a, b):
    return torch.equal(a.matrix, b.matrix) and (a.ignored, a.images) == (b.ignored, b.images)


# The matrix.


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 5),
    st.lists(st.tuples(st.integers(-2, 7), st.sampled_from([0, 1, 2, 3, 4, 255])), min_size=1, max_size=60),
)
def test_matrix_follows_the_plain_loop(num_classes, pairs):
    pairs = [(p, y) for p, y in pairs if y < num_classes or y == 255]
    predictions = torch.tensor([p for p, _ in pairs], dtype=torch.int64)
    labels = torch.tensor([y for _, y in pairs], dtype=torch.int64)
    expected = np.zeros((num_classes, num_classes + 1), dtype=np.int64)
    ignored = 0
    for p, y in pairs:
        if y == 255:
            ignored += 1
        else:
            expected[y, p if 0 <= p < num_classes else num_classes] += 1
    confusion = confusion_of((predictions, labels), num_classes=num_classes)
    np.testing.assert_array_equal(confusion.matrix, expected)
    assert confusion.matrix.dtype == torch.int64
    assert confusion.ignored == ignored


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_every_integer_dtype_gives_the_same_matrix(dtype):
    predictions, labels = random_maps((3, 7, 13), 4)
    actual = confusion_of((predictions.to(dtype), labels.to(dtype)))
    assert same_counts(actual, confusion_of((predictions, labels)))


def test_memory_layout_does_not_matter():
    predictions, labels = random_maps((3, 14, 26), 4)
    strided = confusion_of((predictions[:, ::2].mT, labels[:, ::2].mT))
    assert same_counts(strided, confusion_of((predictions[:, ::2].contiguous(), labels[:, ::2].contiguous())))


def test_merging_equals_having_seen_both():
    first, second = random_maps((2, 9, 7), 4), random_maps((3, 5, 5), 4, seed=1)
    merged = confusion_of(first).merge(confusion_of(second))
    assert same_counts(merged, confusion_of(first, second))
    assert merged.images == 5


def test_merging_leaves_the_other_unchanged_and_returns_itself():
    a, b = confusion_of(random_maps((9, 7), 4)), confusion_of(random_maps((9, 7), 4, seed=1))
    before = copy.deepcopy(b)
    assert a.merge(b) is a
    assert same_counts(b, before)


def test_merging_other_classes_is_refused():
    with pytest.raises(ValueError, match="cannot merge 3 classes into 4"):
        ConfusionMatrix(4).merge(ConfusionMatrix(3))


def test_merging_into_itself_is_refused():
    """``total = parts[0]`` and a loop over all parts counted the first one twice."""
    parts = [confusion_of(random_maps((9, 7), 4, seed=seed)) for seed in range(3)]
    with pytest.raises(
        ValueError, match=r"into itself: all would count twice; begin the sum with .*ConfusionMatrix\(4\)"
    ):
        for part in parts:
            parts[0].merge(part)
    assert same_counts(parts[0], confusion_of(random_maps((9, 7), 4)))


@pytest.mark.parametrize("other", [0, 3])
def test_merging_what_ignores_a_class_is_refused_unless_both_do(other):
    maps = torch.tensor([0, 1, 3]), torch.tensor([0, 1, 3])
    for ours in (255, None, -100, 1):
        with pytest.raises(ValueError, match=f"what ignores {other} into what ignores {ours}; count both"):
            confusion_of(maps, ignore_index=ours).merge(confusion_of(maps, ignore_index=other))
    assert confusion_of(maps, ignore_index=other).merge(confusion_of(maps, ignore_index=other)).matrix.sum() == 4


@pytest.mark.parametrize("other", [None, -1, -100])
def test_data_sets_that_ignore_different_labels_are_merged(other):
    assert confusion_of(([0, 1], [0, 1])).merge(confusion_of(([0, 1], [0, 1]), ignore_index=other)).matrix.sum() == 4


@pytest.mark.parametrize("late", ["update", "sync", "merge", "merged"])
def test_counts_of_all_ranks_are_not_gone_on_with(late):
    """An epoch more was added to those before; in one process without a word, in several by a second sync alone."""
    confusion, one = confusion_of(([0, 1], [0, 1])).sync(), confusion_of(([0, 1], [0, 1]))
    then = {
        "update": lambda: confusion.update(torch.tensor([0]), torch.tensor([1])),
        "sync": confusion.sync,
        "merge": lambda: confusion.merge(one),
        "merged": lambda: one.merge(confusion),
    }[late]
    with pytest.raises(ValueError, match=r"counts of all ranks (already; sync once|with those of one; merge first)"):
        then()
    assert confusion.matrix.sum() == one.matrix.sum() == 2
    assert confusion.merge(confusion_of(([0, 1], [0, 1])).sync()).matrix.sum() == 4


def test_order_and_batching_of_images_do_not_matter():
    predictions, labels = random_maps((5, 9, 7), 4)
    whole = confusion_of((predictions, labels))
    single = confusion_of(*[(predictions[i], labels[i]) for i in (3, 0, 4, 1, 2)])
    assert same_counts(single, whole)


def test_a_batch_counts_its_images_and_a_map_counts_one():
    confusion = ConfusionMatrix(4)
    for shape, total in (((3, 5, 6), 3), ((5, 6), 4), ((30,), 5), ((1, 5, 6), 6)):
        confusion.update(*random_maps(shape, 4))
        assert confusion.images == total


def test_updates_leave_predictions_and_labels_unchanged():
    predictions, labels = random_maps((3, 7, 13), 4, predicted=[0, 3, 200])
    before = predictions.clone(), labels.clone()
    confusion_of((predictions, labels))
    assert torch.equal(predictions, before[0])
    assert torch.equal(labels, before[1])


@pytest.mark.parametrize("unknown", [255, -1, 200, 4, -(2**40)])
def test_an_unknown_prediction_is_a_miss_and_nobodys_false_positive(unknown):
    confusion = confusion_of(([0, 1, unknown, unknown], [0, 1, 1, 255]))
    scores = confusion.compute()
    assert confusion.matrix[1].tolist() == [0, 1, 0, 0, 1]
    assert scores.iou[:2].tolist() == [1.0, 0.5]
    assert scores.precision[:2].tolist() == [1.0, 1.0]
    assert scores.recall[:2].tolist() == [1.0, 0.5]
    assert scores.classes_averaged == 2
    assert scores.pixel_accuracy == pytest.approx(2 / 3, rel=1e-15)


def test_the_label_behind_the_last_class_is_not_counted_as_the_last_class():
    """``np.histogram`` closes its last bin, so there void 11 becomes bicyclist 10 in CamVid."""
    labels = torch.tensor([[0, 10, 11, 11]])
    assert np.histogram(labels, bins=np.arange(12))[0][10] == 3
    with pytest.raises(ValueError, match=r"labels hold 11, outside \[0, 11\) and not 255"):
        confusion_of((labels, labels), num_classes=11)
    confusion = confusion_of((labels, labels), num_classes=11, ignore_index=11)
    assert confusion.matrix[10].sum() == 1
    assert confusion.ignored == 2


@pytest.mark.parametrize("stray", [-1, 4, 200, 256])
def test_a_label_that_is_no_class_is_refused_and_nothing_is_counted(stray):
    confusion = ConfusionMatrix(4)
    with pytest.raises(ValueError, match=rf"labels hold {stray}, outside \[0, 4\) and not 255"):
        confusion.update(torch.zeros(1, 3, dtype=torch.long), torch.tensor([[0, stray, 255]]))
    assert same_counts(confusion, ConfusionMatrix(4))


@pytest.mark.parametrize(("dtype", "stray", "ignore_index"), [(torch.int8, -1, 255), (torch.uint8, 156, -100)])
def test_an_ignore_index_that_the_label_dtype_cannot_hold_matches_no_label(dtype, stray, ignore_index):
    labels = torch.tensor([0, stray]).to(dtype)
    with pytest.raises(ValueError, match=f"labels hold {stray}"):
        confusion_of((labels, labels), ignore_index=ignore_index)


def test_inputs_that_do_not_fit_are_refused():
    labels = torch.zeros(2, 3, 4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"\(2, 6, 8\) and labels \(2, 3, 4\) must have the same shape; resize"):
        confusion_of((torch.zeros(2, 6, 8, dtype=torch.long), labels))
    with pytest.raises(ValueError, match=r"\(2, 1, 3, 4\) and labels \(2, 3, 4\)"):
        confusion_of((labels.unsqueeze(1), labels))
    with pytest.raises(ValueError, match=r"must be integers, got .*float32 and .*int64"):
        confusion_of((labels.float(), labels))
    with pytest.raises(ValueError, match=r"must be integers, got .*int64 and .*float32"):
        confusion_of((labels, labels.float()))
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        ConfusionMatrix(1)


# What its ids are told to be.


FAR = torch.arange(64).view(8, 8) % 5 == 0  # of the second class


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_masks_of_0_and_255_are_told_as_those(dtype):
    """All was background: 100 % for a network that finds nothing of the other class."""
    mask = (255 * FAR).to(dtype)
    confusion = confusion_of((mask, mask), num_classes=2, ignore_index="auto")
    with pytest.warns(UserWarning, match="labels hold class 0 alone and 13 pixels of 255, .* count labels // 255"):
        assert confusion.compute().miou == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confusion.compute()  # it was told
        confusion_of((mask // 255, mask // 255), num_classes=2, ignore_index="auto").compute()
        confusion_of((mask // 255, mask), num_classes=2, ignore_index=255).compute()  # as it was asked for
        confusion_of((mask // 255, mask), num_classes=3, ignore_index="auto").compute()


@pytest.mark.parametrize(("predicted", "classes"), [(255 * FAR, 2), (FAR + 1, 2), (3 * FAR, 3), (-1 * FAR, 2)])
def test_predictions_that_are_no_class_are_told(predicted, classes):
    confusion = confusion_of((predicted.long(), FAR.long()), num_classes=classes, ignore_index="auto")
    with pytest.warns(UserWarning, match=rf"\d % of the pixels are predicted as no class of 0 to {classes - 1}, and"):
        confusion.compute()
    few = confusion_of((torch.where(torch.arange(200) == 7, 255, 0), torch.zeros(200, dtype=torch.long)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few.compute()


# The scores.


@pytest.mark.parametrize(
    ("predictions", "labels", "cure"),
    [
        ((2, 3, 4, 5), (2, 4, 5), r"give class ids: criterion.decide\(logits\), or predictions.argmax\(1\)"),
        ((2, 1, 4, 5), (2, 4, 5), "squeeze dim 1 of the predictions"),
        ((2, 4, 5), (2, 1, 4, 5), "squeeze dim 1 of the labels"),
        ((2, 4, 5), (2, 3, 4, 5), r"give class ids: labels.argmax\(1\) of one-hot labels"),
        ((2, 2, 3), (2, 4, 5), "resize the logits to the label's size before deciding"),
    ],
)
def test_shapes_that_differ_are_told_with_what_to_do(predictions, labels, cure):
    """Scores in the place of predictions were told to be resized."""
    with pytest.raises(ValueError, match=f"must have the same shape; {cure}$"):
        ConfusionMatrix(3).update(torch.zeros(predictions, dtype=torch.long), torch.zeros(labels, dtype=torch.long))


def test_scores_follow_their_formulas():
    matrix = torch.tensor([[50, 3, 2, 1], [4, 20, 0, 0], [0, 6, 10, 4]])  # the last column: no class
    scores = Scores.from_confusion(matrix)
    iou = [50 / (56 + 54 - 50), 20 / (24 + 29 - 20), 10 / (20 + 12 - 10)]
    # float64 quotients: one rounding, 1e-16.
    np.testing.assert_allclose(scores.iou, iou, rtol=1e-15)
    np.testing.assert_allclose(scores.recall, [50 / 56, 20 / 24, 10 / 20], rtol=1e-15)
    np.testing.assert_allclose(scores.precision, [50 / 54, 20 / 29, 10 / 12], rtol=1e-15)
    assert scores.pixels.tolist() == [56, 24, 20]
    assert scores.miou == pytest.approx(sum(iou) / 3, rel=1e-15)
    assert scores.mean_accuracy == pytest.approx((50 / 56 + 20 / 24 + 10 / 20) / 3, rel=1e-15)
    assert scores.pixel_accuracy == 0.8
    assert scores.classes_averaged == 3
    assert scores.iou.dtype == torch.float64


MATRIX = [[50, 3, 2], [4, 20, 0], [1, 6, 10]]


@pytest.mark.parametrize(
    "as_given",
    [
        lambda matrix: matrix,
        np.array,
        lambda matrix: np.array(matrix, np.uint8),
        lambda matrix: np.array(matrix, np.float32)[:, ::-1][:, ::-1],
        lambda matrix: torch.tensor(matrix).half(),
    ],
)
def test_scores_of_a_matrix_of_any_kind(as_given):
    expected, scores = Scores.from_confusion(torch.tensor(MATRIX)), Scores.from_confusion(as_given(MATRIX))
    assert torch.equal(scores.iou, expected.iou) and torch.equal(scores.pixels, expected.pixels)


def test_float32_counts_are_added_up_beyond_its_digits():
    cell = 2.0**24
    scores = Scores.from_confusion(torch.tensor([[cell, 1.0, 1.0, 1.0], [0.0] * 4, [0.0] * 4, [0.0] * 4]))
    assert scores.iou[0] == cell / (cell + 3) and scores.pixels[0] == 2**24 + 3


@pytest.mark.parametrize("over", ["true", "pred", "all"])
def test_a_matrix_that_was_normalised_is_refused(over):
    """As sklearn's ``normalize`` makes it: IoU of classes that are all as frequent, which nobody asked for."""
    matrix = torch.tensor(MATRIX, dtype=torch.float64)
    total = {"true": matrix.sum(1, keepdim=True), "pred": matrix.sum(0), "all": matrix.sum()}[over]
    for shares in (matrix / total, (matrix / total).float()):
        with pytest.raises(ValueError, match=r"counts must be of pixels, got shares .*; do not normalise them"):
            Scores.from_confusion(shares)
    mean = Scores.from_confusion(matrix / 3)  # of three folds
    np.testing.assert_allclose(mean.iou, Scores.from_confusion(matrix).iou, rtol=1e-15)


@pytest.mark.parametrize("given", [object(), None, "ids.png", [[0, 1], [1]]])
def test_what_is_neither_a_tensor_nor_an_array_is_refused_by_its_kind(given):
    with pytest.raises(TypeError, match=f"array of numbers is needed, got {type(given).__name__}"):
        ConfusionMatrix(2).update(given, given)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.ones(3, 3, 3), r"got \(3, 3, 3\); add up those of several images: confusion.sum\(0\)"),
        (torch.ones(3, 2, 2), r"got \(3, 2, 2\); add up"),
        (torch.ones(3, 2), r"\(C, C\) or \(C, C \+ 1\), got \(3, 2\)"),
        (torch.ones(3, 1), r"got \(3, 1\)"),
        (torch.ones(4), r"got \(4,\)"),
        ([[3, -1, 0], [1, 5, 2], [1, 1, 4]], "must hold counts of pixels, got -1"),
    ],
)
def test_what_is_no_confusion_matrix_is_refused(matrix, message):
    """Those of images, (N, C, C), gave a diagonal across images, and one column the IoU of nothing."""
    with pytest.raises(ValueError, match=message):
        Scores.from_confusion(matrix)


def test_true_and_false_positives_are_no_true_and_predicted_pixels():
    """The order of smp's ``get_stats``: an IoU of 5, or of infinity, was taken into the mean."""
    matrix = torch.tensor(MATRIX)
    tp, fp, fn = matrix.diagonal(), matrix.sum(0) - matrix.diagonal(), matrix.sum(1) - matrix.diagonal()
    with pytest.raises(ValueError, match=r"class 0 has 50 right pixels of 5 true and 5 .*give tp, tp \+ fn, tp \+ fp"):
        Scores.from_counts(tp, fp, fn)
    for as_given in (torch.clone, torch.Tensor.numpy, torch.Tensor.tolist, lambda count: count[None].repeat(2, 1)):
        scores = Scores.from_counts(as_given(tp), as_given(tp + fn), as_given(tp + fp))
        assert torch.equal(scores.iou, Scores.from_confusion(matrix).iou)
    with pytest.raises(ValueError, match=r"must have one shape, .*got \[\(3,\), \(3,\), \(2,\)\]"):
        Scores.from_counts(tp, tp + fn, (tp + fp)[:2])
    with pytest.raises(ValueError, match="protocol must be one of"):
        Scores.from_counts(tp, tp + fn, tp + fp, tp)


def test_a_class_absent_from_truth_and_prediction_is_outside_the_mean():
    scores = confusion_of(([0, 0, 1, 1], [0, 0, 1, 0])).compute()
    assert math.isnan(scores.iou[2])
    assert math.isnan(scores.iou[3])
    assert scores.classes_averaged == 2
    assert scores.miou == pytest.approx((2 / 3 + 1 / 2) / 2, rel=1e-15)


def test_a_class_that_is_only_predicted_has_iou_zero_and_counts():
    scores = confusion_of(([0, 0, 1, 2], [0, 0, 1, 0])).compute()
    assert scores.iou[2] == 0
    assert scores.precision[2] == 0
    assert math.isnan(scores.recall[2])
    assert scores.classes_averaged == 3
    assert scores.miou == pytest.approx((2 / 3 + 1 + 0) / 3, rel=1e-15)
    assert scores.mean_accuracy == pytest.approx((2 / 3 + 1) / 2, rel=1e-15)  # recall: classes in the truth only


def test_a_class_that_is_never_predicted_has_iou_zero_and_no_precision():
    scores = confusion_of(([0, 0], [0, 1])).compute()
    assert scores.iou[1] == scores.recall[1] == 0
    assert math.isnan(scores.precision[1])


def test_predictions_on_ignored_pixels_do_not_count():
    scores = confusion_of(([0, 1, 3], [0, 1, 255])).compute()
    assert scores.classes_averaged == 2
    assert scores.miou == scores.pixel_accuracy == 1


def test_nothing_seen_gives_nan_and_averages_no_class():
    for confusion in (ConfusionMatrix(4), confusion_of(([1, 2], [255, 255]))):
        scores = confusion.compute()
        assert scores.classes_averaged == 0
        assert all(math.isnan(x) for x in (scores.miou, scores.mean_accuracy, scores.pixel_accuracy))


def test_scores_pool_the_whole_data_set_and_are_not_means_over_images():
    images = ([0, 0, 0, 0], [0, 0, 0, 1]), ([1, 0, 0, 0], [1, 1, 1, 1])
    pooled = confusion_of(*images, num_classes=2).compute().miou
    assert pooled == pytest.approx((3 / 7 + 1 / 5) / 2, rel=1e-15)
    mean_of_images = sum(confusion_of(image, num_classes=2).compute().miou for image in images) / 2
    assert abs(pooled - mean_of_images) > 0.05


def test_counts_beyond_int32_are_exact():
    cell = 2**31 + 7
    confusion = ConfusionMatrix(2)
    confusion.matrix[:] = torch.tensor([[cell, 1, 0], [0, cell, 0]])
    confusion.update(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    confusion.merge(copy.deepcopy(confusion))
    assert confusion.matrix.tolist() == [[2 * cell + 2, 2, 0], [2, 2 * cell + 2, 0]]
    scores = confusion.compute()
    assert scores.pixels.tolist() == [2 * cell + 4, 2 * cell + 4]
    expected = (2 * cell + 2) / (2 * cell + 6)
    assert scores.iou.tolist() == [expected, expected]
    assert scores.pixel_accuracy == (4 * cell + 4) / (4 * cell + 8)


def test_renaming_classes_renames_their_scores():
    predictions, labels = random_maps((3, 7, 13), 4)
    order = torch.tensor([2, 0, 3, 1])
    renamed = torch.where(labels == 255, 255, order[labels.clamp(max=3)])
    scores, other = confusion_of((predictions, labels)).compute(), confusion_of((order[predictions], renamed)).compute()
    assert torch.equal(other.iou[order], scores.iou)
    assert other.miou == pytest.approx(scores.miou, rel=1e-15)  # order of summation


def test_to_dict_is_json_with_null_for_nan():
    scores = confusion_of(([0, 0, 1, 2], [0, 1, 1, 0])).compute()
    names = ["road", "car", "pole", "bus"]
    text = json.dumps(scores.to_dict(names), allow_nan=False)
    read = json.loads(text)
    assert [entry["name"] for entry in read["classes"]] == names
    road = {"name": "road", "iou": 1 / 3, "recall": 0.5, "precision": 0.5, "f1": 0.5, "pixels": 2}
    assert read["classes"][0] == road
    pole = {"name": "pole", "iou": 0.0, "recall": None, "precision": 0.0, "f1": 0.0, "pixels": 0}
    bus = {"name": "bus", "iou": None, "recall": None, "precision": None, "f1": None, "pixels": 0}
    assert read["classes"][2:] == [pole, bus]
    assert read["classes_averaged"] == 3
    assert (read["miou"], read["mean_accuracy"], read["pixel_accuracy"]) == (
        scores.miou,
        scores.mean_accuracy,
        scores.pixel_accuracy,
    )


def test_to_dict_of_nothing_seen_is_json():
    read = json.loads(json.dumps(ConfusionMatrix(2).compute().to_dict(["a", "b"]), allow_nan=False))
    assert read["miou"] is read["mean_accuracy"] is read["pixel_accuracy"] is None


def test_to_dict_refuses_a_wrong_number_of_names():
    with pytest.raises(ValueError, match="class_names must hold 4 names, got 2"):
        ConfusionMatrix(4).compute().to_dict(["a", "b"])


# The official evaluation.


@pytest.fixture(scope="module")
def cityscapes():
    """The module of the official pixel-level evaluation (in the extra ``dev``)."""
    return pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")


def official_scores(module, pairs, folder):
    """IoU per evaluated class in trainId order, and their mean, from PNG pairs of Cityscapes label ids."""
    from PIL import Image

    args = copy.copy(module.args)
    args.evalInstLevelScore = False
    matrix = module.generateMatrix(args)
    for index, (predictions, labels) in enumerate(pairs):
        files = [str(folder / f"{index}_{name}.png") for name in ("prediction", "truth")]
        for file, ids in zip(files, (predictions, labels), strict=True):
            Image.fromarray(ids.astype(np.uint8)).save(file)
        module.evaluatePair(*files, matrix, {}, {}, args)
    evaluated = sorted((label.trainId, label.id) for label in module.labels if not label.ignoreInEval)
    scores = {id_: module.getIouScoreForLabel(id_, matrix, args) for _, id_ in evaluated}
    return np.array(list(scores.values())), module.getScoreAverage(scores, args)


def our_scores(module, pairs):
    """The same from our matrix: label ids to train ids; what is not evaluated becomes 255 in both maps."""
    to_train_id = np.full(256, 255)
    for label in module.labels:
        if not label.ignoreInEval:
            to_train_id[label.id] = label.trainId
    mapped = [(torch.from_numpy(to_train_id[p]), torch.from_numpy(to_train_id[y])) for p, y in pairs]
    return confusion_of(*mapped, num_classes=19).compute()


EVERY_ID = list(range(34))  # 0-6 and a few above are ids that the evaluation ignores
CASES = {
    "every id, ignored ones predicted too": (EVERY_ID, EVERY_ID),
    "classes absent from both": ([7, 8, 11, 0, 3], [7, 8, 11]),
    "classes only predicted": ([7, 8, 0], [7, 8, 24, 33]),
    "classes never predicted": ([7, 8, 24, 33], [7, 8]),
    "only ignored ids predicted": ([7, 8, 26], [0, 3, 9]),
    "one class": ([7], [7]),
    "only ignored labels": ([0, 1, 10], [7, 8]),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("label_ids", "predicted_ids"), CASES.values(), ids=CASES.keys())
def test_scores_equal_the_official_cityscapes_evaluation(cityscapes, tmp_path, label_ids, predicted_ids, seed):
    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(3):
        labels = generator.choice(label_ids, (23, 31))
        predictions = generator.choice(predicted_ids, labels.shape)
        right = (generator.random(labels.shape) < 0.5) & np.isin(labels, predicted_ids)
        pairs.append((np.where(right, labels, predictions), labels))
    iou, mean = official_scores(cityscapes, pairs, tmp_path)
    scores = our_scores(cityscapes, pairs)
    assert scores.iou.shape == iou.shape == (19,)
    # Both divide int64 counts in float64; the mean sums 19 of them in another order.
    np.testing.assert_allclose(scores.iou, iou, rtol=1e-12, atol=0, equal_nan=True)
    np.testing.assert_allclose(scores.miou, mean, rtol=1e-12, atol=0, equal_nan=True)
    assert scores.classes_averaged == np.count_nonzero(~np.isnan(iou))
