"""Operating points: what the sweep counts, what the rules decide, which point is chosen and how it is kept."""

import copy
import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from segloss.calibration import Calibration
from segloss.config import EvalConfig
from segloss.decisions import Decision, by_prior, decide, read_decision
from segloss.errors import InputError
from segloss.evaluation.ensemble import EnsembleReader
from segloss.evaluation.fitting import fitted_rule, over_tilted
from segloss.evaluation.posterior_maps import MapIndex, SavedPosterior
from segloss.evaluation.results import ImageResult, Totals
from segloss.evaluation.sources import say_of_plain
from segloss.evaluation.sweep import GRIDS, choose, sweep_counts, sweep_table, to_keep
from segloss.inference import Views, reader_of
from segloss.iou_rule import IoUDecision, iou_decision
from segloss.kept import FILE, Kept, fingerprint, load_kept, save_kept
from segloss.losses import build_criterion, class_prior
from segloss.metrics import PROTOCOLS, ConfusionMatrix, Scores
from segloss.pixel_sample import PixelSample
from segloss.report.plots import plot_sweeps
from segloss.report.wording import rule_text
from segloss.schema import SweepPoint

COUNTS = [9000, 700, 250, 50]
CLASSES = len(COUNTS)
RULES = {  # the rules that move the decision of each loss
    "outlying_mse": {"tau", "prior"},
    "outlying_mse+0.5*weighted_mse": {"tau", "prior"},
    "ce": {"prior"},
    "mse": {"prior"},  # a tilt, but the same of every class
    "ce+dice": {"prior"},
    "logit_adjusted": {"tau", "prior"},
    "weighted_ce": {"tau", "prior"},
    "weighted_ce+dice": {"tau", "prior"},
    "vector_scaling": {"tau", "prior"},  # no tilt, yet tau goes from the posterior's argmax to that of the scores
}


def made_up(seed=0, size=(13, 17)):
    """Scores of one image and its labels, some ignored; right more often than not, common classes most."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor(COUNTS).double(), size[0] * size[1], True, generator=generator).view(size)
    logits = 2 * torch.randn(1, CLASSES, *size, generator=generator)
    logits += torch.nn.functional.one_hot(labels, CLASSES).permute(2, 0, 1)
    labels[torch.rand(size, generator=generator) < 0.1] = 255
    return logits, labels


def confusion_of(predicted, labels):
    confusion = ConfusionMatrix(CLASSES)
    confusion.update(predicted, labels)
    return confusion.matrix


@pytest.mark.parametrize("loss", RULES)
def test_the_sweep_counts_what_deciding_at_every_point_gives(loss):
    criterion, prior = build_criterion(loss, COUNTS), class_prior(COUNTS)
    for seed in range(3):
        logits, labels = made_up(seed)
        found = sweep_counts(criterion, logits, labels, prior)
        assert set(found) == RULES[loss]
        for rule, counts in found.items():
            assert counts.shape == (len(GRIDS[rule]), CLASSES, 2) and counts.dtype == np.int64
            for value, point in zip(GRIDS[rule], counts, strict=True):
                matrix = confusion_of(decide(criterion, logits, prior, Decision(rule, value))[0], labels)
                np.testing.assert_array_equal(point[:, 0], matrix.diagonal())
                np.testing.assert_array_equal(point[:, 1], matrix.sum(0)[:CLASSES])
        moved = {rule: len({counts[k].tobytes() for k in range(len(counts))}) for rule, counts in found.items()}
        assert min(moved.values()) > 3, moved  # the points are not all the same one


@pytest.mark.parametrize("loss", ["ce", "ce+dice"])
def test_without_a_tilt_tau_moves_nothing(loss):
    criterion, (logits, _) = build_criterion(loss, COUNTS), made_up()
    for tau in GRIDS["tau"]:
        assert torch.equal(decide(criterion, logits, class_prior(COUNTS), Decision("tau", tau)), logits.argmax(1))


@pytest.mark.parametrize("loss", RULES)
def test_the_default_decision_is_the_plain_argmax_of_the_scores(loss):
    logits, _ = made_up()
    assert Decision() == Decision("tau", 1.0) and str(Decision("tau", 0.3)) == "tau 0.3"
    decided = decide(build_criterion(loss, COUNTS), logits, class_prior(COUNTS), Decision())
    assert torch.equal(decided, logits.argmax(1))


@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0, 1.5])
def test_tau_of_the_outlying_label_follows_its_formula(tau):
    """argmax z_c t_c^(tau - 1), in float64, pixel by pixel; scores near their labels are positive."""
    criterion = build_criterion("outlying_mse", COUNTS)
    logits = made_up()[0].exp()
    values = criterion.label_values.double().tolist()
    decided = decide(criterion, logits, class_prior(COUNTS), Decision("tau", tau))[0]
    for place in np.ndindex(*decided.shape):
        scores = [z * t ** (tau - 1) for z, t in zip(logits[(0, slice(None), *place)].tolist(), values, strict=True)]
        assert scores[decided[place]] >= max(scores) * (1 - 1e-6)  # float32 against float64
    assert len(set(values)) == CLASSES


@pytest.mark.parametrize("loss", ["outlying_mse", "ce", "weighted_ce"])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_prior_follows_its_formula(loss, exponent):
    """argmax P(c|x) pi_c^-s, in float64, pixel by pixel."""
    criterion, logits = build_criterion(loss, COUNTS), made_up()[0]
    decided = decide(criterion, logits, class_prior(COUNTS), Decision("prior", exponent))[0]
    posterior = criterion.posterior(logits)[0]
    for place in np.ndindex(*decided.shape):
        p = posterior[(slice(None), *place)].tolist()
        scores = [p[c] * (COUNTS[c] / sum(COUNTS)) ** -exponent for c in range(CLASSES)]
        assert scores[decided[place]] >= max(scores) * (1 - 1e-6)  # float32 against float64


@pytest.mark.parametrize("exponent", [-1e9, -40.0, 1.0, 6.5, 16.0, 100.0, 1e9])
@pytest.mark.parametrize("rarest", [0.003, 1e-6])
def test_an_exponent_of_any_size_decides_by_its_formula(exponent, rarest):
    """Powers of the prior overflow in float32; of a class that the posterior rules out none is large enough."""
    prior = torch.tensor([0.9, 0.09, 0.005, rarest])
    posterior = torch.tensor([[0.45, 0.3, 0.249999, 1e-6], [0.6, 0.3, 0.1, 0.0], [1e-6, 1e-6, 0.999998, 0.0]])
    for p, decided in zip(posterior.tolist(), by_prior(posterior, prior, exponent).tolist(), strict=True):
        logs = [(math.log(p[c]) if p[c] else -math.inf) - exponent * math.log(prior[c]) for c in range(CLASSES)]
        assert decided == logs.index(max(logs))


def test_more_weight_on_rare_classes_predicts_them_more_often():
    criterion, (logits, labels) = build_criterion("ce", COUNTS), made_up()
    counts = sweep_counts(criterion, logits, labels, class_prior(COUNTS))["prior"]
    assert (np.diff(counts[:, -1, 1]) >= 0).all() and counts[-1, -1, 1] > counts[0, -1, 1]
    assert (np.diff(counts[:, 0, 1]) <= 0).all()


def test_a_uniform_prior_moves_nothing_and_is_not_swept():
    logits, labels = made_up()
    found = sweep_counts(build_criterion("weighted_ce", COUNTS), logits, labels, torch.full((4,), 0.25))
    assert [(rule, len(counts)) for rule, counts in found.items()] == [("tau", 16), ("prior", 1)]
    result = ImageResult("x", confusion_of(logits[0].argmax(0), labels).numpy(), 0, sweep=found)
    (row,) = [row for row in sweep_table(Totals.of([result]), [3]) if row.rule == "prior"]
    at_zero = Scores.from_confusion(confusion_of(build_criterion("weighted_ce", COUNTS).decide(logits, 0)[0], labels))
    assert row.value == 0 and row.miou == pytest.approx(at_zero.miou)


def test_what_a_point_was_chosen_under_is_kept_beside_it():
    row = SweepPoint("tau", 0.5, "cityscapes", 4, miou=0.5, mean_accuracy=None, pixel_accuracy=None, tail_miou=None)
    assert "views" not in to_keep(row, EvalConfig(checkpoint=("a",), choose_metric="miou"), 3)
    config = EvalConfig(checkpoint=("a",), choose_metric="miou", tta_flip=True, image_scale=0.5, data_path="other")
    assert to_keep(row, config, 3)["views"] == "--tta-flip --image-scale 0.5 --data-path other"


def test_an_image_without_a_labelled_pixel_counts_nothing():
    logits, labels = made_up()
    prior = class_prior(COUNTS)
    found = sweep_counts(build_criterion("outlying_mse", COUNTS), logits, torch.full_like(labels, 255), prior)
    assert [counts.shape for counts in found.values()] == [(16, 4, 2), (11, 4, 2)]
    assert all(not counts.any() for counts in found.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_scores_of_low_precision_are_swept(dtype):
    logits, labels = made_up()
    criterion, prior = build_criterion("outlying_mse", COUNTS), class_prior(COUNTS)
    low = sweep_counts(criterion, logits.to(dtype), labels, prior)
    widened = sweep_counts(criterion, logits.to(dtype).float(), labels, prior)
    for rule, counts in widened.items():
        np.testing.assert_array_equal(low[rule], counts)


def test_equal_scores_go_to_the_first_class_by_either_rule():
    logits = torch.zeros(1, 4, 3, 5)
    for decision in (Decision(), Decision("prior", 0.0)):
        assert not decide(build_criterion("ce", COUNTS), logits, torch.ones(4), decision).any()


def test_sweeping_leaves_its_inputs_unchanged():
    logits, labels = made_up()
    prior = class_prior(COUNTS)
    before = [tensor.clone() for tensor in (logits, labels, prior)]
    sweep_counts(build_criterion("outlying_mse", COUNTS), logits, labels, prior)
    assert all(torch.equal(a, b) for a, b in zip(before, (logits, labels, prior), strict=True))


# The prior.


def test_training_prior_is_the_share_of_pixels():
    prior = class_prior(COUNTS)
    assert prior.dtype == torch.float32
    np.testing.assert_allclose(prior, [0.9, 0.07, 0.025, 0.005], rtol=1e-7)


@pytest.mark.parametrize("counts", [[90, 0, 10], [0, 0, 7], [0, 5, 5]])
def test_a_class_without_training_pixels_takes_the_smallest_share(counts):
    prior = class_prior(counts)
    smallest = min(count for count in counts if count) / sum(counts)
    np.testing.assert_allclose(prior, [(count / sum(counts)) or smallest for count in counts], rtol=1e-7)
    assert torch.isfinite(prior**-1).all()


def test_without_a_training_pixel_all_shares_are_equal():
    assert class_prior([0, 0, 0]).unique().numel() == 1


def test_billions_of_pixels_keep_the_share_of_a_rare_class():
    prior = class_prior([2**40, 3])
    assert float(prior[1]) == pytest.approx(3 / (2**40 + 3), rel=1e-6)


# Tables and choice.


def test_the_sweep_table_holds_the_scores_of_every_point():
    criterion, prior, confusions = build_criterion("outlying_mse", COUNTS), class_prior(COUNTS), {}
    kept = []
    for seed in range(3):
        logits, labels = made_up(seed)
        result = ImageResult(str(seed), confusion_of(logits[0].argmax(0), labels).numpy(), 0)
        result.sweep = sweep_counts(criterion, logits, labels, prior)
        kept.append(result)
        for rule, grid in GRIDS.items():
            for value in grid:
                matrix = confusion_of(decide(criterion, logits, prior, Decision(rule, value))[0], labels)
                confusions[rule, value] = confusions.get((rule, value), 0) + matrix
    rows = sweep_table(Totals.of(kept), [2, 3])
    assert {row.protocol for row in rows} == {"cityscapes"}
    assert [(row.rule, row.value) for row in rows] == [(rule, v) for rule, grid in GRIDS.items() for v in grid]
    for row in rows:
        scores = Scores.from_confusion(confusions[row.rule, row.value])
        for key in ("miou", "mean_accuracy", "pixel_accuracy"):
            assert getattr(row, key) == pytest.approx(getattr(scores, key), rel=1e-12)
        assert row.tail_miou == pytest.approx(float(scores.iou[2:].mean()), rel=1e-12)
    json.dumps([row.to_json() for row in rows], allow_nan=False)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_sweep_follows_the_protocol(protocol):
    """Images of few of five classes each, so that all protocols differ; the scores come from the images' counts."""
    criterion, prior, kept, matrices = build_criterion("ce", [*COUNTS, 1]), class_prior([*COUNTS, 1]), [], {}
    for seed in range(3):
        logits, labels = made_up(seed)
        labels[labels == seed] = 255
        logits = torch.cat([logits, torch.full_like(logits[:, :1], -99)], 1)  # the fifth class is nowhere
        logits[:, seed] = -99
        matrix = confusion_of(logits[0].argmax(0), labels)
        result = ImageResult(str(seed), torch.nn.functional.pad(matrix, (0, 1, 0, 1)).numpy(), 0)
        result.sweep = sweep_counts(criterion, logits, labels, prior)
        kept.append(result)
        for value in GRIDS["prior"]:
            confusion = ConfusionMatrix(5)
            confusion.update(decide(criterion, logits, prior, Decision("prior", value))[0], labels)
            matrices.setdefault(value, []).append(confusion.matrix)
    rows = sweep_table(Totals.of(kept), [2, 3], protocol)
    for row in rows:
        every = torch.stack(matrices[row.value])
        counts = every.diagonal(dim1=1, dim2=2), every.sum(2), every[:, :, :5].sum(1)
        scores = Scores.from_counts(*counts, protocol)
        expected = None if protocol == "torchvision" else pytest.approx(scores.miou, rel=1e-12)
        assert row.miou == expected and row.protocol == protocol
        assert row.mean_accuracy == (None if math.isnan(scores.mean_accuracy) else scores.mean_accuracy)


def test_a_tail_that_is_not_there_has_no_score():
    matrix = np.array([[5, 0, 0, 0], [0, 5, 0, 0], [0, 0, 0, 0]])
    result = ImageResult("x", matrix, 0, sweep={"prior": np.zeros((11, 3, 2), np.int64)})
    result.sweep["prior"][:, :2] = 5
    rows = sweep_table(Totals.of([result]), [2])
    assert all(row.tail_miou is None and row.miou == 1 for row in rows)
    with pytest.raises(InputError, match="--choose-metric tail_miou: no class of it is in the images to choose on"):
        choose(rows, "tail_miou")


def rows_of(*rows):
    others = dict.fromkeys(["mean_accuracy", "pixel_accuracy", "tail_miou"])
    return [SweepPoint(rule, value, "cityscapes", 2, miou=score, **others) for rule, value, score in rows]


def test_the_point_of_the_highest_score_is_chosen():
    assert choose(rows_of(("tau", 0.0, 0.1), ("tau", 1.0, 0.3), ("prior", 0.7, 0.4)), "miou").value == 0.7
    assert choose(rows_of(("tau", 0.0, None), ("tau", 1.0, 0.0)), "miou").value == 1.0


@pytest.mark.parametrize("turned", [False, True])
def test_of_equal_points_the_one_nearest_to_the_plain_argmax_is_chosen(turned):
    tau = rows_of(("tau", 0.0, 0.5), ("tau", 0.8, 0.5), ("tau", 1.5, 0.5), ("tau", 1.0, 0.4))
    prior = rows_of(("prior", 1.0, 0.5), ("prior", 0.3, 0.5), ("prior", 0.0, 0.1))
    for rows, value in ((tau, 0.8), (prior, 0.3), (prior + tau, 0.8)):
        assert choose(rows[::-1] if turned else rows, "miou").value == value


@pytest.mark.parametrize("rows", [[], rows_of(("tau", 1.0, None))])
def test_nothing_to_choose_from_is_an_input_error(rows):
    with pytest.raises(InputError, match="--choose-metric miou: no class"):
        choose(rows, "miou")


# On disk.

RULE = {"terms": IoUDecision((1.0, 0.5), (0.0, 0.1), 0.5, 0.4, "posterior", 9, True, 3, "plain").to_dict()}
WEIGHTS = "5f3a"


def entry(**items):
    return {WEIGHTS: {"checkpoint": "best.ckpt", **items}}


def test_the_rule_that_was_chosen_comes_back_with_its_terms(tmp_path):
    config = EvalConfig(choose_metric="miou", split="val")
    (row,) = rows_of(("iou", None, 0.5))
    rule = IoUDecision.from_dict(RULE["terms"])
    save_kept(tmp_path, WEIGHTS, "best.ckpt", {"point": to_keep(row, config, 12), "rule": RULE})
    assert load_kept(tmp_path, WEIGHTS).decision == Decision("iou", terms=rule)
    save_kept(
        tmp_path, WEIGHTS, "best.ckpt", {"calibration": {"terms": Calibration(2.0, (0.0, 0.0)).to_dict()}}
    )  # another posterior: both are gone
    assert load_kept(tmp_path, WEIGHTS).decision is None


@pytest.mark.parametrize(("plain", "by_rule", "decision"), [(0.5, 0.4, "tau 1"), (0.4, 0.5, "iou"), (0.5, 0.5, "iou")])
def test_auto_is_the_better_one_of_plain_argmax_and_rule_by_labels(tmp_path, plain, by_rule, decision):
    rule = {**RULE, "miou": {"plain": plain, "iou": by_rule}}
    save_kept(tmp_path, WEIGHTS, "best.ckpt", {"rule": rule})
    kept = load_kept(tmp_path, WEIGHTS)
    assert str(kept.decision) == decision and kept.rule == IoUDecision.from_dict(RULE["terms"])
    save_kept(tmp_path, WEIGHTS, "best.ckpt", {"point": {"rule": "prior", "value": 0.3}})
    assert str(load_kept(tmp_path, WEIGHTS).decision) == "prior 0.3"  # what somebody chose comes first


def test_the_chosen_point_comes_back(tmp_path):
    config = EvalConfig(choose_metric="miou", split="val", choose_on=["a_"])
    for rule, value in (("tau", 0.3), ("prior", 1.0), ("tau", 0)):
        (row,) = rows_of((rule, value, 0.5))
        path = save_kept(tmp_path / "run", WEIGHTS, "best.ckpt", {"point": to_keep(row, config, 12)})
        assert path == tmp_path / "run" / FILE
        kept = load_kept(tmp_path / "run", WEIGHTS)
        assert kept == Kept(point=Decision(rule, value)) and kept.decision == kept.point
    content = json.loads(path.read_text())[WEIGHTS]["point"]
    assert (content["metric"], content["score"], content["images"]) == ("miou", 0.5, 12)
    assert (content["split"], content["choose_on"]) == ("val", ["a_"])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "5",
        '{"5f3a": 5}',
        '{"5f3a": {"point": {"rule": "tau"}}}',
        '{"5f3a": {"point": {"value": 1}}}',
        *(f'{{"5f3a": {{"point": {{"rule": "tau", "value": {value}}}}}}}' for value in ('"x"', "null", "[1]", "NaN")),
        *(f'{{"5f3a": {{"point": {{"rule": {rule}, "value": 1}}}}}}' for rule in ('"omega"', '""', "5", '["tau"]')),
        '{"5f3a": {"rule": {"terms": {"slope": [1], "offset": [0]}}}}',
        '{"5f3a": {"rule": {}}}',
        '{"5f3a": {"calibration": {"terms": {"temperature": 1}}}}',
        '{"other": {"point": {}}}',
        '{"5f3a": {"point": {"rule": "tau", "value": Infinity}}}',
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_file_is_one_input_error_and_is_written_anew(tmp_path, content):
    (tmp_path / FILE).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(
        InputError, match=f"{FILE}: cannot be read as decisions; move it away, then choose or fit again"
    ):
        load_kept(tmp_path, WEIGHTS)
    save_kept(tmp_path, WEIGHTS, "best.ckpt", {"point": {"rule": "tau", "value": 0.5}})
    assert load_kept(tmp_path, WEIGHTS).point == Decision("tau", 0.5)


def test_a_folder_that_is_a_file_holds_nothing(tmp_path):
    (tmp_path / "run").write_text("")
    assert load_kept(tmp_path / "run", WEIGHTS) == Kept()


def test_what_is_of_other_weights_is_not_used_and_named(tmp_path):
    point = {"rule": "tau", "value": 0.3}
    save_kept(tmp_path, WEIGHTS, "best.ckpt", {"point": point})
    save_kept(tmp_path, "b0", "last.ckpt", {"point": point | {"value": 0.7}})
    assert load_kept(tmp_path, WEIGHTS) == Kept(point=Decision("tau", 0.3), others=("last.ckpt",))
    assert load_kept(tmp_path, "b0").point == Decision("tau", 0.7)
    assert load_kept(tmp_path, "retrained") == Kept(others=("best.ckpt", "last.ckpt"))


def test_saving_drops_what_was_of_earlier_weights_of_the_same_file(tmp_path):
    point = {"rule": "tau", "value": 0.3}
    for weights, checkpoint in ((WEIGHTS, "best.ckpt"), ("b0", "last.ckpt"), ("new", "best.ckpt")):
        save_kept(tmp_path, weights, checkpoint, {"point": point})
    assert {*json.loads((tmp_path / FILE).read_text())} == {"b0", "new"}
    save_kept(tmp_path, "newer", "best.ckpt", {"point": point}, alone=True)
    assert {*json.loads((tmp_path / FILE).read_text())} == {"newer"}


@pytest.mark.parametrize("rule", ["tau", "prior"])
def test_a_new_calibration_drops_what_read_the_posterior_before(tmp_path, rule):
    save_kept(tmp_path, WEIGHTS, "best.ckpt", {"point": {"rule": rule, "value": 0.3}, "rule": RULE})
    save_kept(tmp_path, WEIGHTS, "best.ckpt", {"calibration": {"terms": Calibration(2.0, (0.0, 0.0)).to_dict()}})
    kept = load_kept(tmp_path, WEIGHTS)
    assert kept.calibration == Calibration(2.0, (0.0, 0.0)) and kept.rule is None
    assert kept.point == (Decision("tau", 0.3) if rule == "tau" else None)


def test_a_chosen_point_goes_before_the_rule(tmp_path):
    save_kept(tmp_path, WEIGHTS, "best.ckpt", {"rule": RULE})
    assert str(load_kept(tmp_path, WEIGHTS).decision) == "iou"
    save_kept(tmp_path, WEIGHTS, "best.ckpt", {"point": {"rule": "prior", "value": 0.3}})
    assert str(load_kept(tmp_path, WEIGHTS).decision) == "prior 0.3" and load_kept(tmp_path, WEIGHTS).rule


def test_the_fingerprint_is_of_every_value_and_name():
    torch.manual_seed(0)
    model, criterion = (
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)),
        build_criterion("ce", COUNTS),
    )
    seen = {fingerprint(model, criterion)}
    assert fingerprint(copy.deepcopy(model), criterion) in seen
    assert fingerprint(copy.deepcopy(model).to(memory_format=torch.channels_last), criterion) in seen
    for change in (
        lambda m: m[0].weight[0, 0].add_(1e-6),
        lambda m: m[1].running_mean[3].sub_(1),
        lambda m: m[1].num_batches_tracked.add_(1),
        lambda m: m[0].double(),
        lambda m: m[0].bfloat16(),
        lambda m: m.append(torch.nn.Linear(1, 1)),
    ):
        other = copy.deepcopy(model)
        with torch.no_grad():
            change(other)
        seen.add(fingerprint(other, criterion))
    seen.add(fingerprint(model, build_criterion("weighted_ce", COUNTS)))
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["plain"], Decision()),
        (["tau", "0.5"], Decision("tau", 0.5)),
        (["tau 0.5"], Decision("tau", 0.5)),
        (["prior", "-1"], Decision("prior", -1.0)),
        (["iou"], "iou"),
        (["auto"], "auto"),
    ],
)
def test_words_are_decisions(words, found):
    assert read_decision(words) == found


@pytest.mark.parametrize(
    "words",
    [
        [],
        [""],
        ["0"],
        ["tau"],
        ["prior"],
        ["tau", "x"],
        ["tau", "nan"],
        ["iou", "1"],
        ["plain", "0"],
        ["tau", "1", "2"],
    ],
)
def test_words_that_are_none_are_refused(words):
    with pytest.raises(ValueError):
        read_decision(words)


# The rule beside the curves.


def test_the_rule_is_a_point_of_the_sweep_that_is_not_chosen(tmp_path):
    criterion, prior, kept = build_criterion("outlying_mse", COUNTS), class_prior(COUNTS), []
    logits, labels = made_up()
    rule = iou_decision(criterion.posterior(logits), labels[None], counts="posterior", tilt=criterion.tilt)
    for place in range(2):
        result = ImageResult(str(place), confusion_of(logits[0].argmax(0), labels).numpy(), 0)
        result.sweep = sweep_counts(criterion, logits, labels, prior, rule)
        kept.append(result)
    rows = sweep_table(Totals.of(kept), [2, 3])
    (row,) = [row for row in rows if row.rule == "iou"]
    expected = Scores.from_confusion(2 * confusion_of(criterion.decide(logits, rule)[0], labels))
    assert row.value is None and row.miou == pytest.approx(expected.miou, rel=1e-12)
    assert choose([*rows, dataclasses.replace(row, miou=1.0)], "miou").rule == "iou"
    plain = max(point.miou for point in rows if point.rule in GRIDS)
    assert choose([*rows, dataclasses.replace(row, miou=plain)], "miou").rule in GRIDS  # not without a gain
    plot_sweeps({"a": rows, "b": rows}, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 10_000


@pytest.mark.parametrize("loss", RULES)
def test_every_criterion_decides_by_the_rule_on_its_posterior(loss):
    criterion, (logits, _) = build_criterion(loss, COUNTS), made_up()
    posterior = criterion.posterior(logits)
    rule = iou_decision(posterior, tilt=criterion.tilt)
    assert torch.equal(criterion.decide(logits, rule), rule.decide(posterior))
    assert torch.equal(
        decide(criterion, logits, class_prior(COUNTS), Decision("iou", terms=rule)), rule.decide(posterior)
    )


@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_the_plain_argmax_is_a_point_of_a_calibrated_sweep(loss):
    criterion, (logits, labels) = build_criterion(loss, COUNTS), made_up()
    calibrated = reader_of(criterion, calibration=Calibration(2.0, (1.0, -1.0, 0.5, -0.5)))
    found = sweep_counts(calibrated, logits, labels, class_prior(COUNTS))
    matrix = confusion_of(logits.argmax(1)[0], labels)
    np.testing.assert_array_equal(found["tau"], np.stack([matrix.diagonal(), matrix.sum(0)[:CLASSES]], 1)[None])
    assert (found["prior"][0] != found["tau"][0]).any()  # the argmax of the calibrated posterior
    pairs = {rule: np.ones((len(counts), 2)) for rule, counts in found.items()}
    totals = SimpleNamespace(matrix=matrix.numpy(), sweep=found, sweep_pairs=pairs)
    table = sweep_table(totals, (3,))
    assert [row.value for row in table if row.rule == "tau"] == [1.0]
    right = Scores.from_counts(matrix.diagonal(), matrix.sum(1), matrix.sum(0)[:CLASSES])
    assert table[0].miou == pytest.approx(right.miou)


CALIBRATION = Calibration(1.6, (1.0, -1.0, 0.5, -0.5))
TOLD = [("outlying_mse", {"true_channel_weight": 5.0}), ("weighted_mse", {"true_channel_weight": 15.0})]
TOLD += [("0.5*outlying_mse+weighted_mse", {"true_channel_weight": 5.0}), ("outlying_mse", {}), ("logit_adjusted", {})]
TOLD += [("weighted_ce", {}), ("ce", {"label_smoothing": 0.1}), ("weighted_focal", {}), ("jaccard", {})]
UNTOLD = [("vector_scaling", {}), ("0.25*weighted_ce+0.75*jaccard", {"label_smoothing": 0.1})]


def at_their_optimum(criterion, pixels=500):
    """Scores ``(1, C, pixels)``."""
    torch.manual_seed(0)
    posteriors = torch.distributions.Dirichlet(torch.tensor([1.0, 0.6, 0.5, 0.4])).sample((pixels,)).clamp(min=1e-6)
    posteriors = posteriors / posteriors.sum(1, keepdim=True)
    return torch.stack([criterion.scores_of(posterior) for posterior in posteriors], 1)[None]


def readers_of_posteriors(criterion, folder):
    """What reads the posterior of a criterion alone: averaged over views or members, saved; and the calibration."""
    yield reader_of(criterion, Views(flip=True)), None
    yield EnsembleReader([criterion] * 2), None
    yield EnsembleReader([criterion] * 2, [CALIBRATION] * 2), CALIBRATION
    names = SimpleNamespace(names=tuple("abcd"))
    for calibration in (None, CALIBRATION):
        counts, kept = SimpleNamespace(complete=SimpleNamespace(pixels=tuple(COUNTS))), Kept(calibration)
        index = MapIndex.of(SimpleNamespace(classes=names, counts=counts, kept=kept, criterion=criterion))
        index.save(folder)
        yield SavedPosterior(MapIndex.load(folder)), calibration


@pytest.mark.parametrize(("loss", "options"), TOLD)
def test_posteriors_are_decided_plainly_as_the_scores_that_they_are_of(tmp_path, loss, options):
    """Of a true class that counts k times two equal views decided otherwise than one."""
    criterion, said = build_criterion(loss, COUNTS, **options), []
    logits = at_their_optimum(criterion)
    posterior, plain = criterion.posterior(logits), criterion.decide(logits)
    for reader, calibration in readers_of_posteriors(criterion, tmp_path):
        found = reader.decide(posterior if calibration is None else calibration.apply(posterior))
        assert (found == plain).double().mean() >= 0.998
        say_of_plain("a", reader, Decision(), said.append)
    assert not said


@pytest.mark.parametrize("calibration", [None, CALIBRATION])
@pytest.mark.parametrize(("loss", "options"), TOLD)
def test_the_rule_is_told_beside_the_plain_argmax_of_the_scores(loss, options, calibration):
    criterion = build_criterion(loss, COUNTS, **options)
    logits = at_their_optimum(criterion)
    posterior, labels = criterion.posterior(logits), torch.randint(4, (1, 500))
    sample = PixelSample.of(posterior if calibration is None else calibration.apply(posterior), labels)
    rule = fitted_rule(sample, "labels", criterion, calibration)
    confusion = confusion_of(criterion.decide(logits), labels)
    assert rule.plain_score == pytest.approx(Scores.from_confusion(confusion).miou, abs=2e-3)
    assert f"mIoU {100 * rule.plain_score:.1f} -> " in rule_text(rule)


@pytest.mark.parametrize(("loss", "options"), UNTOLD)
def test_where_posteriors_do_not_tell_the_plain_argmax_a_line_says_so(tmp_path, loss, options):
    criterion = build_criterion(loss, COUNTS, **options)
    posterior = criterion.posterior(at_their_optimum(criterion))
    rule = fitted_rule(PixelSample.of(posterior), "posterior", criterion)
    assert rule.plain_score is None and f"mIoU {100 * rule.score:.1f} (500 pixels" in rule_text(rule)
    assert not over_tilted(PixelSample.of(posterior, torch.randint(4, (1, 500))), criterion, "a", "val")
    for reader, _ in readers_of_posteriors(criterion, tmp_path):
        said = []
        for each in (reader, reader_of(reader, calibration=CALIBRATION)):
            say_of_plain("a", each, Decision(), said.append)
        assert len(said) == 2 and "warning: a: no mean of posteriors" in said[0]
        assert fitted_rule(PixelSample.of(posterior), "posterior", reader).plain_score is None
        for decision in (Decision("tau", 0.0), Decision("prior", 0.5), Decision("iou", terms=rule)):
            say_of_plain("a", reader, decision, said.append)
        say_of_plain("a", criterion, Decision(), said.append)
        assert len(said) == 2


def test_operating_points_do_not_see_the_calibration_and_the_rule_does():
    criterion, (logits, _) = build_criterion("outlying_mse", COUNTS), made_up()
    calibrated = reader_of(criterion, calibration=Calibration(2.0, (1.0, -1.0, 0.5, -0.5)))
    for tau in (0.0, 0.4, 1.0):
        assert torch.equal(calibrated.decide(logits, tau), criterion.decide(logits, tau))
    assert not torch.allclose(calibrated.posterior(logits), criterion.posterior(logits))
    rule = iou_decision(calibrated.posterior(logits))
    assert torch.equal(calibrated.decide(logits, rule), rule.decide(calibrated.posterior(logits)))
