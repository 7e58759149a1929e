"""Intervals against closed forms and plain loops, and on simulated runs whose truth is known."""

import itertools
import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from segloss.evaluation.comparison import block_sums, mean_and_ious
from segloss.evaluation.intervals import (
    MIN_BLOCKS,
    WHY_NONE,
    choose_block,
    difference_interval,
    equal_shares,
    half_width,
    inflation_of,
    influences,
    interval,
    jackknife,
    p_value,
    pair_shares,
    t_quantile,
    t_within,
    union_shares,
)
from segloss.metrics import PROTOCOLS

# Independent float64 formulas of the same numbers.
CLOSE = {"rtol": 1e-10, "atol": 1e-12}
OF_IOU = {"statistic": mean_and_ious, "shares": union_shares}


def mean(sums):
    """Of numbers that are added up beside how many they are."""
    return sums[..., :1] / sums[..., 1:]


def numbers(values):
    values = np.asarray(values, np.float64)
    return np.stack([values, np.ones_like(values)], axis=-1)


def counts(number=12, *, classes=3, seed=0, ability=0.7, spread=0.1):
    """``(images, 3, C)`` of a made-up run."""
    generator = np.random.default_rng(seed)
    true = generator.integers(50, 200, (number, classes))
    shares = np.clip(ability + spread * generator.standard_normal((number, 1)), 0, 1)
    hits = np.round(true * shares).astype(np.int64)
    return np.stack([hits, true, hits + generator.integers(0, 40, (number, classes))], axis=1)


def sums(*args, block=1, **options):
    return block_sums(counts(*args, **options), block)


def ends(found):
    return np.stack([found.low, found.high])


# Student's t.


@pytest.mark.parametrize("level", [0.01, 0.5, 0.9, 0.95, 0.99, 0.9999])
def test_quantiles_of_one_two_and_four_degrees_of_freedom_have_closed_forms(level):
    one, two, four = t_quantile(level, np.array([1.0, 2.0, 4.0]))
    assert one == pytest.approx(math.tan(math.pi * level / 2), rel=1e-9)
    assert two == pytest.approx(level * math.sqrt(2 / (1 - level**2)), rel=1e-9)
    alpha = 1 - level**2  # 4 p (1 - p) of the one-sided p
    inverse = math.cos(math.acos(math.sqrt(alpha)) / 3) / math.sqrt(alpha)
    assert four == pytest.approx(2 * math.sqrt(inverse - 1), rel=1e-9)


@pytest.mark.parametrize(("df", "printed"), [(5, 2.571), (7, 2.365), (11, 2.201), (30, 2.042), (120, 1.980)])
def test_quantiles_are_those_of_the_printed_tables(df, printed):
    assert t_quantile(0.95, np.array(float(df))) == pytest.approx(printed, abs=5e-4)


def test_quantiles_go_on_between_whole_degrees_of_freedom_and_end_at_the_normal():
    df = np.concatenate([np.linspace(1, 10, 50), [100, 1e4, 1e9, np.inf]])
    for level in (0.3, 0.95, 0.999):
        found = t_quantile(level, df)
        assert (np.diff(found) <= 0).all()
        np.testing.assert_allclose(t_within(found[:-2], df[:-2]), level, rtol=1e-9)
        assert found[-1] == pytest.approx(NormalDist().inv_cdf((1 + level) / 2), rel=1e-5)


# One run.


def test_the_interval_of_a_mean_of_numbers_is_students():
    values = np.random.default_rng(0).standard_normal(9)
    found = interval([numbers(values)], mean, scale="identity")
    half = 2.306004135 * values.std(ddof=1) / 3  # 8 degrees of freedom
    np.testing.assert_allclose(ends(found)[:, 0], [values.mean() - half, values.mean() + half], rtol=1e-8)
    assert found.estimate == pytest.approx(values.mean()) and found.df == pytest.approx(8)
    assert found.why_none == ("",) and not found.seeds
    wide = interval([numbers(values)], mean, scale="identity", level=0.99)
    assert wide.low < found.low and found.high < wide.high


def test_the_jackknife_leaves_out_one_block_at_a_time():
    """Of the ratios 1/2, 2/4 and 6/8 of sums: 9/14 of all; 8/12, 7/10 and 3/6 without one."""
    found, without = jackknife(np.array([[1.0, 2], [2, 4], [6, 8]]), mean)
    assert found.tolist() == [9 / 14]
    np.testing.assert_allclose(without[:, 0], [8 / 12, 7 / 10, 3 / 6], **CLOSE)


def test_the_jackknife_of_many_blocks_is_that_of_few_at_a_time(monkeypatch):
    some = sums(50)
    expected = jackknife(some, mean_and_ious)
    monkeypatch.setattr("segloss.evaluation.intervals.AT_ONCE", 40)
    for actual, whole in zip(jackknife(some, mean_and_ious), expected, strict=True):
        np.testing.assert_array_equal(actual, whole)


def test_a_score_has_its_interval_on_the_logit_scale():
    """By hand, of mean IoU: the delta method, and degrees of freedom from equal shares."""
    some = sums(8)
    total = some.sum(0)
    without = [mean_and_ious(total - block)[0] for block in some]
    estimate = mean_and_ious(total)[0]
    error = math.sqrt(7 / 8 * sum((one - np.mean(without)) ** 2 for one in without))
    half = 2.364624252 * error / (estimate * (1 - estimate))
    centre = math.log(estimate / (1 - estimate))
    found = interval([some], mean_and_ious)
    expected = [1 / (1 + math.exp(-centre + half)), 1 / (1 + math.exp(-centre - half))]
    np.testing.assert_allclose(ends(found)[:, 0], expected, rtol=1e-8)


def test_intervals_of_scores_stay_between_0_and_1():
    some = sums(6, spread=0.9, ability=0.5)
    found = interval([some], **OF_IOU, level=0.9999)
    assert (found.low >= 0).all() and (found.low < found.estimate).all()
    assert (found.estimate < found.high).all() and (found.high <= 1).all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_estimates_are_the_scores_of_all_images_whatever_the_protocol(protocol):
    some = counts(20, classes=4)
    some[::3, :, 2] = 0
    statistic = partial(mean_and_ious, protocol=protocol)
    shares = pair_shares if protocol == "per-image" else union_shares
    found = interval([block_sums(some, 2)], statistic, shares=shares)
    np.testing.assert_allclose(found.estimate, statistic(block_sums(some, 20)[0]), **CLOSE)
    assert found.why_none == ("",) * 5
    assert (found.low < found.estimate).all() and (found.estimate < found.high).all()


def test_order_of_blocks_runs_and_classes_changes_nothing():
    runs = [counts(12, seed=seed, classes=4) for seed in range(3)]
    other = [counts(12, seed=seed, classes=4, ability=0.6) for seed in (3, 4)]
    order, classes = np.random.default_rng(0).permutation(12), [2, 0, 3, 1]
    columns = [0, *(1 + c for c in classes)]

    def both(first, second):
        blocks = [[block_sums(run, 1) for run in some] for some in (first, second)]
        return ends(interval(blocks[0], **OF_IOU)), ends(difference_interval(*blocks, **OF_IOU))

    changed = both([run[order] for run in reversed(runs)], [run[order] for run in reversed(other)])
    renamed = both([run[..., classes] for run in runs], [run[..., classes] for run in other])
    for one, moved, named in zip(both(runs, other), changed, renamed, strict=True):
        np.testing.assert_allclose(moved, one, **CLOSE)
        np.testing.assert_allclose(named, one[:, columns], **CLOSE)


def test_intervals_leave_their_input_unchanged():
    some = [sums(seed=seed) for seed in range(2)]
    before = [one.copy() for one in some]
    interval(some, **OF_IOU)
    difference_interval(some, some[:1], **OF_IOU)
    for one, old in zip(some, before, strict=True):
        np.testing.assert_array_equal(one, old)


def test_inflation_widens_by_its_root():
    values = numbers(np.random.default_rng(0).standard_normal(9))
    narrow, wide = (interval([values], mean, scale="identity", inflation=factor) for factor in (1, 4))
    np.testing.assert_allclose(wide.high - wide.low, 2 * (narrow.high - narrow.low), **CLOSE)


# How unevenly blocks weigh.


def with_a_class_in(blocks, number=12):
    """Counts whose last class is in so many blocks, in each with the same union."""
    some = counts(number)
    some[:, :, 2] = 0
    some[:blocks, :, 2] = [[40 + 2 * k, 100, 40 + 2 * k] for k in range(blocks)]
    return block_sums(some, 1)


@pytest.mark.parametrize("blocks", [3, 4, 7, 12])
def test_a_class_that_few_blocks_hold_has_degrees_of_freedom_of_these(blocks):
    found = interval([with_a_class_in(blocks)], **OF_IOU)
    assert found.df[3] == pytest.approx(blocks - 1, rel=0.01)
    assert found.df[1] > 8


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_class_that_one_or_two_blocks_hold_has_no_interval(blocks):
    found = interval([with_a_class_in(blocks)], **OF_IOU)
    assert found.why_none == ("", "", "", "held by few blocks")
    assert np.isnan(found.low[3]) and np.isnan(found.df[3]) and found.estimate[3] > 0
    assert found.low[0] < found.estimate[0] < found.high[0]


def test_shares_add_up_to_one_and_go_with_the_square_of_the_union():
    some = sums(6)
    shares = union_shares(some, np.array([1.0, 2.0, np.nan, 0.5]))
    np.testing.assert_allclose(shares.sum(0), 1, **CLOSE)
    union = some[:, 3] + some[:, 6] - some[:, 0]
    np.testing.assert_allclose(shares[:, 1], union**2 / (union**2).sum(), **CLOSE)
    expected = shares[:, 1:] @ [2.0, 2.0, 0.5] / 4.5  # the mean's: NaN counts as the largest
    np.testing.assert_allclose(shares[:, 0], expected, **CLOSE)
    pairs = pair_shares(some, np.ones(4))
    np.testing.assert_allclose(pairs[:, 0], 1 / 6, **CLOSE)  # each image has three pairs
    assert equal_shares(some, np.ones(4)).sum(0).tolist() == pytest.approx([1] * 4)


# Seeds.


def test_the_difference_of_runs_without_spread_over_images_is_welchs():
    a, b = np.array([3.0, 5.0, 4.5]), np.array([1.0, 4.0])
    groups = [[numbers(np.full(8, value)) for value in some] for some in (a, b)]
    found = difference_interval(*groups, mean)
    parts = a.var(ddof=1) / 3, b.var(ddof=1) / 2
    df = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 1)
    assert found.df == pytest.approx(df) and found.seeds
    half = float(t_quantile(0.95, np.array(df))) * math.sqrt(sum(parts))
    np.testing.assert_allclose(ends(found)[:, 0], [a.mean() - b.mean() - half, a.mean() - b.mean() + half], **CLOSE)


def test_the_parts_of_the_variance_are_those_of_a_two_way_table():
    """Runs times blocks of plain numbers: mean squares by loops, as in a textbook's random-effects layout."""
    generator = np.random.default_rng(1)
    runs, n = 4, 9
    table = generator.standard_normal((runs, n)) + 2 * generator.standard_normal((runs, 1))
    table += generator.standard_normal(n)
    found = interval([numbers(row) for row in table], mean, scale="identity")
    rows, columns, all_of_it = table.mean(1), table.mean(0), table.mean()
    inter = sum(
        (table[r, k] - rows[r] - columns[k] + all_of_it) ** 2 for r, k in itertools.product(range(runs), range(n))
    ) / ((runs - 1) * (n - 1))
    of_seeds = sum((row - all_of_it) ** 2 for row in rows) / (runs - 1) / runs - inter / (runs * n)
    of_blocks = sum((column - all_of_it) ** 2 for column in columns) / (n - 1) / n
    np.testing.assert_allclose([part[0] for part in found.parts], [of_seeds, runs - 1, of_blocks, n - 1], rtol=1e-9)


def test_seeds_that_differ_no_more_than_their_blocks_do_add_nothing():
    """Each run has the same numbers on other blocks, so all that they differ by is the interaction of run and block."""
    values = np.arange(8.0)
    found = interval([numbers(values), numbers(values[::-1])], mean, scale="identity")
    assert found.parts[0] == 0 and found.seeds


def test_the_half_width_lies_between_satterthwaites_and_banerjees():
    parts = [np.array([value]) for value in (0.5, 1.0, 2.0, 11.0)]
    df = 2.5**2 / (0.5**2 / 1 + 2**2 / 11)
    narrow = float(t_quantile(0.95, np.array(df))) * math.sqrt(2.5)
    wide = math.sqrt(12.70620474**2 * 0.5 + 2.20098516**2 * 2)
    assert half_width(0.95, *parts) == pytest.approx((narrow + wide) / 2, rel=1e-8)
    alone = half_width(0.95, np.array([0.0]), np.array([1.0]), *parts[2:])
    assert alone == pytest.approx(2.20098516 * math.sqrt(2), rel=1e-8)


def test_only_with_two_runs_on_both_sides_does_a_difference_cover_seeds():
    runs = [sums(seed=seed) for seed in range(5)]
    for a, b, seeds in ((2, 3, True), (1, 3, False), (3, 1, False), (1, 1, False)):
        assert difference_interval(runs[:a], runs[-b:], **OF_IOU).seeds is seeds
    assert interval(runs[:2], **OF_IOU).seeds and not interval(runs[:1], **OF_IOU).seeds


def test_a_run_given_twice_is_one_run_without_spread_over_seeds():
    twice, once = interval([sums()] * 2, **OF_IOU), interval([sums()], **OF_IOU)
    np.testing.assert_allclose(ends(twice), ends(once), **CLOSE)


# Differences.


def test_a_difference_of_single_runs_is_students_of_the_pairs():
    generator = np.random.default_rng(2)
    a, b = generator.standard_normal((2, 10))
    found = difference_interval([numbers(a)], [numbers(b)], mean)
    half = 2.262157163 * (a - b).std(ddof=1) / math.sqrt(10)
    np.testing.assert_allclose(ends(found)[:, 0], [(a - b).mean() - half, (a - b).mean() + half], rtol=1e-8)
    size = abs((a - b).mean()) / ((a - b).std(ddof=1) / math.sqrt(10))
    assert p_value(found) == pytest.approx(1 - float(t_within(np.array(size), np.array(9.0))), abs=2e-6)


def test_turning_a_pair_round_turns_its_interval_round():
    a, b = [sums(seed=1), sums(seed=2)], [sums(seed=3, ability=0.6), sums(seed=4)]
    one, other = difference_interval(a, b, **OF_IOU), difference_interval(b, a, **OF_IOU)
    np.testing.assert_allclose(one.low, -other.high, **CLOSE)
    np.testing.assert_allclose(p_value(one), p_value(other), **CLOSE)


def test_identical_runs_differ_by_exactly_nothing():
    found = difference_interval([sums()], [sums()], **OF_IOU)
    assert (found.estimate == 0).all() and (ends(found) == 0).all() and (p_value(found) == 1).all()


def test_p_is_below_5_percent_exactly_where_the_interval_leaves_out_0():
    seen = set()
    for seed in range(30):
        runs = [sums(8, seed=4 * seed + k, ability=0.7 if k < 2 else 0.75) for k in range(4)]
        found = difference_interval(runs[:2], runs[2:], **OF_IOU)
        apart = (found.low > 0) | (found.high < 0)
        np.testing.assert_array_equal(p_value(found) < 0.05, apart)
        seen |= set(apart.tolist())
    assert seen == {True, False}


# Where there is none.


@pytest.mark.parametrize("blocks", [1, 2, MIN_BLOCKS - 1])
def test_fewer_than_six_blocks_have_no_interval(blocks):
    for found in (
        interval([sums(blocks)], **OF_IOU),
        difference_interval([sums(blocks)] * 2, [sums(blocks)], **OF_IOU),
    ):
        assert found.why_none == ("few blocks",) * 4 and np.isnan(ends(found)).all() and np.isnan(found.df).all()
        assert not np.isnan(found.estimate).any()
    assert interval([sums(MIN_BLOCKS)], **OF_IOU).why_none == ("",) * 4


def test_a_class_that_is_nowhere_or_never_found_has_no_interval():
    some = counts(classes=4)
    some[:, :, 1] = 0
    some[:, 0, 3] = 0
    found = interval([block_sums(some, 1)], **OF_IOU)
    assert found.why_none == ("", "", "absent", "", "at the edge")
    assert np.isnan(found.estimate[2]) and found.estimate[4] == 0
    pair = difference_interval([block_sums(some, 1)], [block_sums(some, 1)], **OF_IOU)
    assert pair.why_none == found.why_none and np.isnan(p_value(pair)[[2, 4]]).all()
    plain = partial(mean_and_ious, protocol="torchvision")
    assert interval([block_sums(some, 1)], plain, shares=union_shares).why_none[0] == "absent"


def test_a_class_that_only_one_of_two_settings_finds_has_a_difference():
    blind = counts(seed=1)
    blind[:, 0, 2] = 0
    found = difference_interval([sums(seed=2)], [block_sums(blind, 1)], **OF_IOU)
    assert found.why_none == ("",) * 4 and found.low[3] > 0


def test_blocks_without_a_class_are_left_out_of_it_but_count():
    """A class in 8 of 12 blocks has the interval of these 8, but for the factor (n - 1) / n."""
    some = counts(12, classes=2)
    some[8:, :, 1] = 0
    whole, part = (interval([block_sums(one, 1)], **OF_IOU) for one in (some, some[:8]))
    assert whole.estimate[2] == part.estimate[2] and whole.df[2] == pytest.approx(part.df[2])
    assert whole.parts[2][2] / part.parts[2][2] == pytest.approx(11 / 12 / (7 / 8), rel=0.02)


def test_every_reason_has_a_sentence():
    assert set(WHY_NONE) == {"", "few blocks", "absent", "held by few blocks", "at the edge", "all alike"}
    assert all(text.startswith("no interval: ") for reason, text in WHY_NONE.items() if reason)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            r"the same shape \(blocks, sums\), got \(11, 11\) and \(12, 11\)",
            lambda: interval([sums(12), sums(11)], **OF_IOU),
        ),
        ("at least one run", lambda: difference_interval([sums()], [], **OF_IOU)),
        (r"got \(4,\); cut them", lambda: interval([np.zeros(4)], **OF_IOU)),
        ("level must lie between 0 and 1, got 95", lambda: interval([sums()], **OF_IOU, level=95)),
        ("inflation must be at least 1 and finite, got 0.5", lambda: interval([sums()], **OF_IOU, inflation=0.5)),
        ("scale must be logit or identity, got 'log'", lambda: interval([sums()], **OF_IOU, scale="log")),
        ("block must be at least 1, got 0", lambda: inflation_of(np.zeros(9), 0)),
        (
            r"values must have shape .images,. or .images, series., got \(2, 2, 2\)",
            lambda: choose_block(np.ones([2] * 3)),
        ),
    ],
)
def test_what_does_not_fit_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()


# Images that resemble their neighbours.


def sequence(number, rho=0.9, seed=0):
    """An AR(1) process of variance 1."""
    noise = np.random.default_rng(seed).standard_normal(number)
    for t in range(1, number):
        noise[t] = rho * noise[t - 1] + math.sqrt(1 - rho**2) * noise[t]
    return noise


def test_independent_images_are_blocks_of_one():
    lengths = [choose_block(np.random.default_rng(seed).standard_normal(200)) for seed in range(40)]
    assert sum(length == 1 for length in lengths) >= 36  # chance alone now and then looks like likeness
    assert choose_block(np.ones(50)) == 1 and inflation_of(np.ones(50), 1) == 1
    assert choose_block(np.ones(1)) == 1


def test_images_of_a_video_are_blocks_longer_than_their_likeness():
    lengths = [choose_block(sequence(2000, seed=seed)) for seed in range(20)]
    assert 60 < np.median(lengths) < 140  # 2 * 4.7 / L of the variance is missing: L = 90 leaves 10 %
    assert max(lengths) <= 2000 // MIN_BLOCKS
    assert choose_block(sequence(150)) == 150 // MIN_BLOCKS  # no longer than what gives six blocks
    several = np.stack([sequence(2000, rho=0.3), sequence(2000)], axis=1)
    assert choose_block(several) == max(choose_block(one) for one in several.T)


def test_inflation_is_what_the_spread_of_blocks_misses():
    """An AR(0.9) process: variance of the mean over what blocks show on average, from its covariance matrix."""
    length, block = 3000, 30
    covariance = 0.9 ** np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    of_blocks = covariance.reshape(100, block, 100, block).sum((1, 3)) / block**2
    shown = (np.trace(of_blocks) - of_blocks.sum() / 100) / 99 / 100
    expected = of_blocks.mean() / shown
    found = np.median([inflation_of(sequence(length, seed=seed), block) for seed in range(20)])
    assert 1.3 < expected == pytest.approx(found, rel=0.1)
    factors = [inflation_of(sequence(length), block) for block in (1, 3, 10, 30, 100)]
    assert factors == sorted(factors, reverse=True) and factors[-1] >= 1


def test_influences_of_numbers_are_their_distances_from_the_mean():
    values = np.random.default_rng(0).standard_normal(20)
    np.testing.assert_allclose(influences(numbers(values), mean), values - values.mean(), **CLOSE)
    assert influences(sums(30), mean_and_ious).shape == (30,)


# How often they cover the truth.


def standard_errors(share, repeats):
    return 4 * math.sqrt(share * (1 - share) / repeats)


def simulated(seeds, repeats=600):
    """Coverage of a mean and of the difference of two equal settings, of six blocks of skewed ratios."""
    generator = np.random.default_rng(8)
    covered = np.zeros((repeats, 2), bool)
    for repeat in range(repeats):
        size = np.exp(0.5 * generator.standard_normal(6))
        block, run = 0.5 * generator.standard_normal(6), 0.2 * generator.standard_normal((2 * seeds, 1))
        right = 1 / (1 + np.exp(-(block + run + 0.2 * generator.standard_normal((2 * seeds, 6)))))
        runs = [np.stack([size * one, size], axis=1) for one in right]
        single, pair = interval(runs[:seeds], mean), difference_interval(runs[:seeds], runs[seeds:], mean)
        covered[repeat] = single.low[0] <= 0.5 <= single.high[0], pair.low[0] <= 0 <= pair.high[0]
    return covered.mean(0)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_six_blocks_and_a_few_seeds_cover_the_truth_as_often_as_said(seeds):
    for share in simulated(seeds):
        assert 0.93 - standard_errors(0.93, 600) < share < 0.985 + standard_errors(0.985, 600), share


def test_without_the_seeds_equal_settings_are_called_different():
    """The check above can fail: intervals about images only are too short where seeds differ."""
    generator, repeats, wrong = np.random.default_rng(9), 300, 0
    for _ in range(repeats):
        block, run = generator.standard_normal(8), generator.standard_normal((2, 1))
        a, b = block + run + 0.2 * generator.standard_normal((2, 8))
        found = difference_interval([numbers(a)], [numbers(b)], mean)
        wrong += not found.low[0] <= 0 <= found.high[0]
    assert wrong > 0.5 * repeats


def test_frames_of_a_video_cover_the_truth_in_blocks_chosen_from_the_data():
    repeats, covered, naive = 300, 0, 0
    for seed in range(repeats):
        values = sequence(400, seed=seed)
        block = choose_block(values)
        starts = np.arange(0, 400, block)
        blocks = np.add.reduceat(numbers(values), starts, axis=0)
        found = interval([blocks], mean, scale="identity", inflation=inflation_of(values, block))
        covered += found.low[0] <= 0 <= found.high[0]
        single = interval([numbers(values)], mean, scale="identity")
        naive += single.low[0] <= 0 <= single.high[0]
    share = covered / repeats
    assert 0.93 - standard_errors(0.93, repeats) < share < 0.97 + standard_errors(0.97, repeats), share
    assert naive < 0.6 * repeats


def test_the_long_simulation_prints_a_table_and_json(tmp_path):
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "intervals.py"
    options = ["--kinds", "images", "chosen", "--blocks", "6", "--frames", "60", "--seeds", "1", "2"]
    options += ["--repeats", "3", "--truth-images", "100"]
    done = subprocess.run(
        [sys.executable, str(script), *options, "--output", str(tmp_path / "found.json")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "found.json").read_text())
    assert saved == json.loads(done.stdout.splitlines()[-1])
    assert [(row["kind"], row["size"], row["seeds"]) for row in saved["rows"]] == [
        ("images", 6, 1),
        ("images", 6, 2),
        ("chosen", 60, 1),
        ("chosen", 60, 2),
    ]
    assert all(0 <= row["mean"] <= 1 and 0 <= row["difference"] <= 1 for row in saved["rows"])
    assert subprocess.run([sys.executable, str(script), "--repeats", "0"], capture_output=True).returncode == 2
