"""Intervals and differences against plain loops, and on simulated runs whose truth is known."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from segloss.errors import InputError
from segloss.evaluation import comparison as compared
from segloss.evaluation.comparison import block_sums, class_ious, mean_and_ious, on_common_images
from segloss.evaluation.intervals import WHY_NONE, inflation_of, t_quantile
from segloss.evaluation.results import ImageResult, Totals
from segloss.metrics import PROTOCOLS, Scores
from segloss.schema import Comparison, Interval

# Independent float64 quotients of the same sums.
CLOSE = {"rtol": 1e-12, "equal_nan": True}


def run(images=30, *, classes=3, share=0.7, seed=0, spread=0.1):
    """Counts ``(images, 3, C)`` of a made-up run: of every class's pixels about ``share`` are right."""
    generator = np.random.default_rng(seed)
    true = generator.integers(50, 200, (images, classes))
    shares = np.clip(share + spread * generator.standard_normal((images, 1)), 0, 1)
    hits = np.round(true * shares).astype(np.int64)
    predicted = hits + generator.integers(0, 40, (images, classes))
    return np.stack([hits, true, predicted], axis=1)


def compare(groups, **how):
    """As JSON, which reads back as the same comparison."""
    found = compared.compare(groups, **how)
    content = found.to_json()
    assert Comparison.from_json(json.loads(json.dumps(content))) == found
    return content


ABSENT = {"estimate": None, "low": None, "high": None, "why": WHY_NONE["absent"]}


def mean_iou(counts):
    """By the definition, of counts ``(3, C)``."""
    ious = [hits / (true + found - hits) for hits, true, found in counts.T.tolist() if true + found - hits]
    return sum(ious) / len(ious) if ious else math.nan


def video(seed=0, *, images=240, rho=0.9, **options):
    """A run whose images resemble their neighbours: how much of each is right is an AR(1) process."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(images)
    for t in range(1, images):
        noise[t] = rho * noise[t - 1] + math.sqrt(1 - rho**2) * noise[t]
    counts = run(images, seed=seed, spread=0, **options)
    counts[:, 0] = np.clip(counts[:, 0] * (1 + 0.15 * noise[:, None]), 0, counts[:, 1]).astype(np.int64)
    return counts


def sizes_of(union):
    """Share of the variance of each block, from the shares of a class's union."""
    squares = [part**2 for part in union]
    return [square / sum(squares) for square in squares] if sum(squares) else [0.0] * len(union)


def without_each(blocks, statistic):
    return [statistic(np.concatenate(blocks[:b] + blocks[b + 1 :])) for b in range(len(blocks))]


def squared(values):
    """The jackknife's variance from the values without each block."""
    middle, n = sum(values) / len(values), len(values)
    return (n - 1) / n * sum((value - middle) ** 2 for value in values)


def inflation(counts, block, statistic):
    whole = statistic(counts)
    left_out = without_each([image[None] for image in counts], statistic)
    return inflation_of(np.array([(len(counts) - 1) * (whole - value) for value in left_out]), block)


def looped(counts, block, statistic):
    """Variance and degrees of freedom of the jackknife over blocks, by loops over blocks and classes."""
    blocks = [counts[start : start + block] for start in range(0, len(counts), block)]
    variance = inflation(counts, block, statistic) * squared(without_each(blocks, statistic))
    shares = np.zeros(len(blocks))
    for c in range(counts.shape[2]):

        def iou(some, c=c):
            return mean_iou(some[:, :, c : c + 1].sum(0))

        union = [float((some[:, 1, c] + some[:, 2, c] - some[:, 0, c]).sum()) for some in blocks]
        if sum(union):
            shares += squared(without_each(blocks, iou)) * np.array(sizes_of(union))
    shares /= shares.sum()
    return variance, 1 / (shares**2).sum() - 1


def logit_interval(estimate, variance, df):
    half = float(t_quantile(0.95, np.array(df))) * math.sqrt(variance) / (estimate * (1 - estimate))
    return [1 / (1 + math.exp(-math.log(estimate / (1 - estimate)) - sign * half)) for sign in (-1, 1)]


def only(comparison):
    return comparison["ranking"][0]["miou"]


def width(row):
    return row["high"] - row["low"]


@pytest.mark.parametrize(("images", "block"), [(30, 1), (30, 4), (31, 5), (6, 1), (240, 24)])
@pytest.mark.parametrize("make", [run, video])
def test_intervals_follow_the_plain_loop(make, images, block):
    counts = make(images=images)
    row = compare({"a": [counts]}, block=block)["ranking"][0]
    estimate = mean_iou(counts.sum(0))
    variance, df = looped(counts, block, lambda some: mean_iou(some.sum(0)))
    low, high = logit_interval(estimate, variance, df)
    assert row["miou"] == pytest.approx({"estimate": estimate, "low": low, "high": high, "df": df}, rel=1e-9)
    assert low < estimate < high and row["seeds"] is False


@pytest.mark.parametrize("make", [run, video])
def test_differences_follow_the_plain_loop(make):
    a, b = make(images=48, seed=1, share=0.8), make(images=48, seed=2, share=0.7)
    comparison = compare({"b": [b], "a": [a]}, block=4)
    (pair,) = comparison["pairs"]
    assert [row["name"] for row in comparison["ranking"]] == [pair["a"], pair["b"]] == ["a", "b"]

    def apart(some):
        return mean_iou(some[:, :3].sum(0)) - mean_iou(some[:, 3:].sum(0))

    both = np.concatenate([a, b], axis=1)
    blocks = [both[start : start + 4] for start in range(0, 48, 4)]
    variance = inflation(both, 4, apart) * squared(without_each(blocks, apart))
    df = pair["miou"]["df"]  # of the blocks' shares: followed by loops above and in test_intervals
    half = float(t_quantile(0.95, np.array(df))) * math.sqrt(variance)
    expected = {"estimate": apart(both), "low": apart(both) - half, "high": apart(both) + half, "df": df}
    assert pair["miou"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert 5 < df <= 11 and pair["seeds"] is False
    assert (pair["p_value"] < 0.05) is (pair["miou"]["low"] > 0)


def test_estimates_are_the_scores_of_all_images():
    counts = run(classes=5)
    counts[:, :, 2] = 0
    row = compare({"a": [counts]})["ranking"][0]
    scores = Scores.from_counts(*(torch.from_numpy(counts[:, k]) for k in range(3)))
    assert row["miou"]["estimate"] == pytest.approx(scores.miou, rel=1e-12)
    estimates = [np.nan if entry["estimate"] is None else entry["estimate"] for entry in row["classes"]]
    np.testing.assert_allclose(estimates, scores.iou, **CLOSE)


def with_absent_classes():
    """Three classes and one that is nowhere; the third is in some images only."""
    counts = run(classes=4)
    counts[:, :, 3] = 0
    counts[::3, :, 2] = 0
    return counts


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("block", [1, 5])
def test_estimates_and_intervals_follow_the_protocol(protocol, block):
    counts = with_absent_classes()

    def miou(some):
        return Scores.from_counts(*(torch.from_numpy(some[:, k]) for k in range(3)), protocol).miou

    found = compare({"a": [counts]}, block=block, protocol=protocol)
    assert (found["protocol"], found["images"]) == (protocol, len(counts))
    if protocol == "torchvision":
        assert only(found) == ABSENT
        return
    variance, _ = looped(counts, block, miou)
    low, high = logit_interval(miou(counts), variance, only(found)["df"])
    expected = {"estimate": miou(counts), "low": low, "high": high, "df": only(found)["df"]}
    assert only(found) == pytest.approx(expected, rel=1e-9)


def test_a_protocol_changes_the_ranking_where_it_changes_the_scores():
    """b is better but predicts a class that is not there, a 0 in its mean; only segnet gives a that 0 too."""
    a = np.array([[[60, 60, 0], [100, 100, 0], [60, 60, 0]]])
    b = np.array([[[70, 70, 0], [100, 100, 0], [70, 70, 1]]])
    for protocol, best in (("cityscapes", "a"), ("smp", "a"), ("segnet", "b")):
        assert compare({"a": [a], "b": [b]}, protocol=protocol)["ranking"][0]["name"] == best


def test_rows_name_their_runs():
    groups = {"a": [run(), run(seed=1)], "b": [run(seed=2)]}
    for members, expected in ((None, [["a"], ["b"]]), ({"a": ["x", "y"], "b": ["z"]}, [["x", "y"], ["z"]])):
        ranking = compare(groups, members=members)["ranking"]
        assert sorted(row["members"] for row in ranking) == expected


def test_counts_beyond_float32_and_int32_stay_exact():
    counts = np.full((3, 3, 2), 2**40 + 1, np.int64)
    counts[:, 0] -= np.array([[1], [2], [3]])
    ious = mean_and_ious(np.array([[3.0, 0, 0], [0, 0, 3]]) @ block_sums(counts, 1))[:, 1:]
    expected = [3 * 2**40 / (3 * 2**40 + 6), (3 * 2**40 - 6) / (3 * 2**40 + 12)]
    np.testing.assert_array_equal(ious, np.repeat(np.array(expected)[:, None], 2, axis=1))


def test_the_interval_of_independent_images_covers_the_truth_about_as_often_as_it_says():
    """100 data sets of 12 images; the truth is the IoU of very many images drawn the same way."""
    truth = mean_iou(run(40_000, seed=10_000).sum(0))
    covered = 0
    for seed in range(100):
        row = only(compare({"a": [run(12, seed=seed)]}))
        covered += row["low"] <= truth <= row["high"]
    assert 90 <= covered <= 100, covered  # of 95; a percentile bootstrap of 12 images covers 87 %


def test_blocks_widen_the_interval_of_images_that_resemble_their_neighbours():
    scenes = run(10, seed=4, spread=0.2)
    frames = np.repeat(scenes, 20, axis=0)  # 20 frames of each scene
    alone, wide, chosen = (
        only(compare({"a": [counts]}, block=block)) for counts, block in ((scenes, 1), (frames, 20), (frames, None))
    )
    assert width(wide) > 0.95 * width(alone)  # as if there were only 10 images
    assert 0.5 < width(chosen) / width(alone) < 2 and wide["estimate"] == pytest.approx(alone["estimate"], rel=1e-12)


def test_a_block_length_is_chosen_from_the_data_and_given_ones_are_kept():
    chosen, given = compare({"a": [video()]}), compare({"a": [video()]}, block=7)
    assert 10 < chosen["block"] <= 40 and chosen["block_chosen"]
    assert given["block"] == 7 and not given["block_chosen"]
    independent = compare({"a": [run(240)], "b": [run(240, seed=1)]})
    assert independent["block"] == 1 and independent["block_chosen"]
    assert compare({"a": [run(4)]})["block"] == 1
    assert compare({"a": [run(240)], "b": [video()]})["block"] == chosen["block"]  # the longest any run asks for


def test_a_block_length_that_is_too_short_does_not_make_the_interval_of_a_video_short():
    short, chosen = (width(only(compare({"a": [video()]}, block=block))) for block in (2, None))
    assert 0.6 < short / chosen < 1.5


def test_blocks_do_not_widen_the_interval_of_independent_images_much():
    counts = run(400, seed=1)
    single, blocks = (width(only(compare({"a": [counts]}, block=block))) for block in (1, 5))
    assert 0.7 < blocks / single < 1.4


def test_two_identical_runs_differ_by_exactly_nothing():
    (pair,) = compare({"a": [run()], "b": [run()]}, block=3)["pairs"]
    assert pair["p_value"] == 1
    for row in (pair["miou"], *pair["classes"]):
        assert {key: row[key] for key in ("estimate", "low", "high")} == {"estimate": 0, "low": 0, "high": 0}


def test_pairing_narrows_the_difference_of_runs_that_find_the_same_images_hard():
    a = run(seed=1, spread=0.2)
    b = a.copy()
    b[:, 0] = np.maximum(b[:, 0] - 2, 0)
    comparison = compare({"a": [a], "b": [b]})
    (pair,) = comparison["pairs"]
    assert pair["p_value"] < 0.001 and pair["miou"]["low"] > 0
    first, second = (row["miou"] for row in comparison["ranking"])
    assert first["low"] < second["high"]  # the intervals overlap, and still the difference is sure
    assert width(pair["miou"]) < width(first) / 4


def test_a_difference_changes_its_sign_with_the_order_of_the_pair():
    """A class on which the worse run leads: b - a is what the pair says of a - b, turned round."""
    a, b = run(seed=1, share=0.8), run(seed=2, share=0.7)
    swapped = [np.ascontiguousarray(counts[:, :, ::-1]) for counts in (a, b)]
    (pair,), (other,) = (compare({"a": [x], "b": [y]})["pairs"] for x, y in ((a, b), swapped))
    assert pair["classes"] == other["classes"][::-1]
    (turned,) = compare({"a": [b], "b": [a]})["pairs"]  # the better run comes first, whatever it is called
    assert turned == {**pair, "a": "b", "b": "a"}


def test_order_and_company_of_runs_do_not_change_a_comparison():
    shares = {"a": 0.9, "b": 0.8, "c": 0.6}
    runs = {name: [run(seed=seed, share=share) for seed in range(3)] for name, share in shares.items()}
    whole = compare(runs)
    assert compare(dict(reversed(runs.items()))) == whole
    alone = compare({name: runs[name] for name in ("c", "a")})
    assert alone["pairs"] == [pair for pair in whole["pairs"] if (pair["a"], pair["b"]) == ("a", "c")]
    assert [row["name"] for row in whole["ranking"]] == ["a", "b", "c"]
    assert [(pair["a"], pair["b"]) for pair in whole["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_the_same_counts_give_the_same_comparison():
    groups = {"a": [run(seed=1), run(seed=2)], "b": [run(seed=3, share=0.6)]}
    assert compare(groups) == compare(groups)


def test_comparing_leaves_the_counts_unchanged():
    counts = run()
    before = counts.copy()
    compare({"a": [counts, counts], "b": [counts]}, block=4)
    np.testing.assert_array_equal(counts, before)


# Seeds.


def test_seeds_that_differ_widen_the_interval():
    apart = [run(share=share, spread=0.02) for share in (0.6, 0.7, 0.8)]
    same = [apart[1]] * 3
    groups = compare({"apart": apart, "same": same})["ranking"]
    widths = {row["name"]: width(row["miou"]) for row in groups}
    assert widths["apart"] > 3 * widths["same"]
    assert {row["runs"] for row in groups} == {3} and all(row["seeds"] for row in groups)
    assert widths["same"] == pytest.approx(width(only(compare({"one": [apart[1]]}))), rel=1e-9)


def test_an_interval_is_about_seeds_only_where_every_setting_has_several_runs():
    several, one = [run(seed=1), run(seed=2)], [run(seed=3, share=0.6)]
    mixed = compare({"a": several, "b": one})
    assert [(row["name"], row["seeds"]) for row in mixed["ranking"]] == [("a", True), ("b", False)]
    assert mixed["pairs"][0]["seeds"] is False
    assert compare({"a": several, "b": one * 2})["pairs"][0]["seeds"] is True


def test_two_settings_of_two_seeds_are_seldom_called_different_where_they_are_equal():
    """100 pairs whose seeds differ as much as CamVid's do: 5 are expected, the percentile bootstrap had 17."""
    called = 0
    for number in range(100):
        abilities = 0.7 + 0.02 * np.random.default_rng(number).standard_normal(4)
        runs = [run(20, seed=10 * number + k, share=ability, spread=0.02) for k, ability in enumerate(abilities)]
        called += compare({"a": runs[:2], "b": runs[2:]})["pairs"][0]["p_value"] < 0.05
    assert called <= 11, called


def test_the_estimate_of_seeds_is_the_mean_of_their_scores():
    seeds = [run(seed=seed) for seed in range(3)]
    expected = sum(mean_iou(counts.sum(0)) for counts in seeds) / 3
    assert only(compare({"a": seeds}))["estimate"] == pytest.approx(expected, rel=1e-12)


def test_two_seeds_without_spread_over_images_have_students_interval_of_two_numbers():
    """One image, eight times: what is left is the t of 12.7 with one degree of freedom, on the logit scale."""
    low, high = (np.repeat(run(1, share=share), 8, axis=0) for share in (0.6, 0.64))
    a, b = mean_iou(low.sum(0)), mean_iou(high.sum(0))
    row = only(compare({"x": [low, high]}))
    expected = logit_interval((a + b) / 2, (b - a) ** 2 / 4, 1)
    assert [row["low"], row["high"]] == pytest.approx(expected, rel=1e-6) and row["df"] == pytest.approx(1)


# Images.


def totals(names, seed=0):
    """Of images whose counts tell them apart; the labels are the same whatever the seed."""
    first = {name: 10 * (ord(name) - ord("a")) + 1 for name in names}
    matrices = {name: np.array([[n + seed, n + 5 - seed, n]] * 2) for name, n in first.items()}
    return Totals.of(ImageResult(name, matrix, 0) for name, matrix in matrices.items())


def test_runs_are_compared_on_the_images_that_all_have_paired_by_name():
    runs = {"x": totals("dacb", 0), "y": totals("abcf", 1), "z": totals("cebd", 2)}
    counts = on_common_images(runs)
    assert list(counts) == ["x", "y", "z"]
    expected = [[ord(name) - ord("a")] for name in "bc"]
    for seed, run_counts in enumerate(counts.values()):
        np.testing.assert_array_equal(run_counts[:, 0, 0], 10 * np.ravel(expected) + seed + 1)


def test_runs_on_the_same_images_are_compared_on_all_of_them():
    runs = {"x": totals("abc", 0), "y": totals("abc", 1)}
    for name, counts in on_common_images(runs).items():
        np.testing.assert_array_equal(counts, runs[name].counts)
    assert on_common_images({"x": totals("a")})["x"].shape == (1, 3, 2)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["f_1", "f_10", "f_11", "f_2"], ["f_1", "f_2", "f_10", "f_11"]),
        (["f-01", "f-10", "f01", "f10", "f_02"], ["f-01", "f-10", "f01", "f10", "f_02"]),
        (["f_2", "f_10", "f_1"], ["f_1", "f_2", "f_10"]),  # a list that was shuffled
        (["b/9.png", "a/10.png", "b/1.png", "a/9.png"], ["a/9.png", "a/10.png", "b/1.png", "b/9.png"]),
    ],
)
def test_frames_follow_one_another_by_their_numbers(names, expected):
    """Frame 10 stood between 1 and 2, and blocks of such neighbours made the interval a third too narrow; of a shuffled
    list no neighbours were left at all."""
    counts = np.array([[[k, 0], [50, 2], [50, 2]] for k in range(len(names))])
    one = SimpleNamespace(names=names, counts=counts)
    found = on_common_images({"x": one, "y": one})["y"][:, 0, 0]
    assert [names[k] for k in found] == expected


def test_runs_without_a_common_image_are_refused():
    with pytest.raises(InputError, match="no image is in all of x, y; score them apart"):
        on_common_images({"x": totals("ab"), "y": totals("cd")})


def test_images_of_the_same_names_with_other_labels_are_not_paired():
    one, two = (
        SimpleNamespace(names=["a", "b"], counts=np.array([[[1, 0], [4, 2], [4, 2]], [[1, 1], [3, held], [4, 2]]]))
        for held in (3, 2)
    )
    assert on_common_images({"x": one, "y": one})["y"].shape == (2, 3, 2)
    with pytest.raises(InputError, match="y and x have other labels of 1 of 2 images of the same names, the first b"):
        on_common_images({"x": one, "y": two})


# What cannot be compared.


@pytest.mark.parametrize("protocol", ["pascal-typo", "", "city"])
def test_an_unknown_protocol_is_refused_wherever_a_mean_is_made(protocol):
    for mean in (
        lambda: compare({"a": [run()]}, protocol=protocol),
        lambda: mean_and_ious(block_sums(run(), 1), protocol),
    ):
        with pytest.raises(ValueError, match=f"protocol must be one of cityscapes, .*per-image, got '{protocol}'"):
            mean()


def test_a_protocol_is_known_in_any_case():
    assert compare({"a": [run()]}, protocol="SegNet") == compare({"a": [run()]}, protocol="segnet")


def test_the_reason_for_a_missing_interval_is_written_only_where_there_is_one():
    plain = Interval(0.5, 0.4, 0.6, df=7.0)
    assert plain.to_json() == {"estimate": 0.5, "low": 0.4, "high": 0.6, "df": 7.0}
    assert Interval(0.5, None, None, "one block").to_json()["why"] == "one block"


@pytest.mark.parametrize("other", [run(29), run(30, classes=4)], ids=["images", "classes"])
def test_runs_on_other_images_or_classes_are_refused(other):
    message = "only runs on the same images and classes can be compared, got .* images of .* and .*; score them apart"
    with pytest.raises(InputError, match=message):
        compare({"a": [run(30)], "b": [other]})
    with pytest.raises(InputError, match=message):
        compare({"a": [run(30), other]})


def test_a_class_that_is_nowhere_has_no_numbers_and_is_outside_the_mean():
    counts = run(classes=4)
    counts[:, :, 1] = 0
    comparison = compare({"a": [counts], "b": [run(classes=4, share=0.2)]})
    by_name = {row["name"]: row for row in comparison["ranking"]}
    assert by_name["a"]["classes"][1] == ABSENT != by_name["b"]["classes"][1]
    assert comparison["pairs"][0]["classes"][1] == ABSENT
    without = only(compare({"a": [np.delete(counts, 1, axis=2)]}))
    assert by_name["a"]["miou"] == pytest.approx(without, rel=1e-9)  # sums of 4 and of 3 numbers
    json.dumps(comparison, allow_nan=False)


@pytest.mark.parametrize("holders", [1, 2])
def test_a_class_that_one_or_two_images_hold_has_no_interval_and_says_why(holders):
    counts = run(10)
    counts[holders:, :, 2] = 0
    row = compare({"a": [counts]})["ranking"][0]["classes"][2]
    estimate = pytest.approx(mean_iou(counts[:holders].sum(0)[:, 2:]), rel=1e-12)
    assert row == {"estimate": estimate, "low": None, "high": None, "why": WHY_NONE["held by few blocks"]}


def test_a_class_that_is_found_nowhere_has_no_interval_and_says_why():
    counts = run(10)
    counts[:, 0, 1] = 0
    row = compare({"a": [counts]})["ranking"][0]["classes"][1]
    assert row == {"estimate": 0, "low": None, "high": None, "why": WHY_NONE["at the edge"]}


@pytest.mark.parametrize("block", [None, 1, 2])
def test_images_that_are_all_the_same_have_no_interval_and_say_why(block):
    """Eight copies of an image had intervals of width 0, and p < 0.001 between two settings."""
    a, b = (np.repeat(run(1, share=share), 16, axis=0) for share in (0.8, 0.5))
    comparison = compare({"a": [a], "b": [b], "c": [a, a]}, block=block)
    for row in comparison["ranking"]:
        for found in (row["miou"], *row["classes"]):
            assert found["why"] == WHY_NONE["all alike"] and found["low"] is None
    pairs = {(pair["a"], pair["b"]): pair for pair in comparison["pairs"]}
    for names, pair in pairs.items():
        if "b" in names:
            assert pair["miou"]["why"] == WHY_NONE["all alike"] and "p_value" not in pair
        else:  # equal runs differ by 0 wherever they are scored
            assert (pair["miou"]["low"], pair["miou"]["high"]) == (0, 0)


def test_a_block_of_any_number_of_images_is_at_most_all_of_them():
    assert compare({"a": [run(7)]}, block=10**21)["ranking"] == compare({"a": [run(7)]}, block=7)["ranking"]


def test_images_without_a_labelled_pixel_change_nothing_but_the_spread():
    counts = run(20)
    counts[5:] = 0
    found = only(compare({"a": [counts]}))
    assert found["estimate"] == pytest.approx(mean_iou(counts[:5].sum(0)), rel=1e-12)
    assert found["df"] <= 4.0001  # as if the five images with pixels were all
    nothing = compare({"a": [np.zeros_like(counts)], "b": [counts]})
    assert [row["name"] for row in nothing["ranking"]] == ["b", "a"]
    assert nothing["ranking"][1]["miou"] == ABSENT
    assert "p_value" not in nothing["pairs"][0]
    json.dumps(nothing, allow_nan=False)


@pytest.mark.parametrize(("images", "block"), [(1, 1), (15, 15), (15, 20), (5, 1), (15, 3), (5, None)])
def test_fewer_than_six_blocks_have_no_interval(images, block):
    comparison = compare({"a": [run(images)], "b": [run(images, share=0.5)]}, block=block)
    for row in (*comparison["ranking"], *comparison["pairs"]):
        assert row["miou"]["estimate"] > 0 and row["miou"]["low"] is None and row["miou"]["high"] is None
        assert row["miou"]["why"] == WHY_NONE["few blocks"] and "df" not in row["miou"]
    assert "p_value" not in comparison["pairs"][0]


def test_class_ious_follow_the_definition():
    counts = np.array([[3, 0, 0], [5, 0, 2], [4, 0, 0]])
    np.testing.assert_allclose(class_ious(counts), [3 / 6, np.nan, 0], **CLOSE)
