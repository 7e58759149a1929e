"""The decision for mean IoU and the calibration, from training through every way of evaluating to the run folder."""

import copy
import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from street_trees import TINY, street_tree

import eval_seg
import segloss
import train_seg
from segloss.calibration import Calibration, calibration_scores
from segloss.decisions import Decision
from segloss.errors import InputError
from segloss.evaluation import fitting
from segloss.evaluation.counting import likelihood_counts
from segloss.evaluation.ensemble import ensemble_of
from segloss.evaluation.fitting import fitted_completely, over_tilted, sample_of
from segloss.iou_rule import iou_decision
from segloss.kept import FILE, fingerprint
from segloss.losses import CrossEntropyLoss, build_criterion
from segloss.pixel_sample import PixelSample


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of weighted cross entropy, calibrated, and what was printed."""
    root = tmp_path_factory.mktemp("run")
    data = street_tree(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGLOSS_CACHE", str(root / "cache"))
        patch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
        flags = ["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(root / "run")]
        train_seg.train([*flags, *TINY, "--loss", "weighted_ce", "--epochs", "2", "--calibrate"])
    return root / "run"


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def without_decision(run: Path) -> Path:
    (run / FILE).unlink()
    return run


def scores(run: Path, out: Path, *flags: str) -> dict:
    eval_seg.evaluate(["--checkpoint", str(run), "--output-dir", str(out), "--workers", "0", "--check", "off", *flags])
    return json.loads((out / "metrics.json").read_text())["runs"]["run"]


def kept(run: Path) -> dict:
    (entry,) = json.loads((run / FILE).read_text()).values()
    return entry


def change_weights(run: Path) -> None:
    path = run / "checkpoints/best.ckpt"
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    name = next(
        name for name, value in checkpoint["state_dict"].items() if value.is_floating_point() and value.ndim > 1
    )
    checkpoint["state_dict"][name] += 1e-3
    torch.save(checkpoint, path)


# ---- training


def test_training_keeps_calibration_and_rule_of_its_weights(trained):
    entry, run = kept(trained), segloss.load_run(trained)
    assert {*json.loads((trained / FILE).read_text())} == {run.weights} and entry["checkpoint"] == "best.ckpt"
    for name in ("calibration", "rule"):
        assert (entry[name]["split"], entry[name]["images"]) == ("val", 3)
    before, after = entry["calibration"]["before"], entry["calibration"]["after"]
    assert after["nll"] < before["nll"] and len(before["classwise_ece"]) == len(run.classes)
    assert run.kept.rule.score >= run.kept.rule.plain_score and run.kept.rule.counts == "posterior"
    assert str(run.decision) == "iou"


def test_the_rule_that_is_kept_is_that_of_the_calibrated_posterior(trained):
    run = segloss.load_run(trained)
    from segloss.datasets.transforms import EvalTransform

    sample = sample_of(run, run.config.open("val", EvalTransform(1.0)), device=torch.device("cpu"))
    calibrated = sample.map(run.kept.calibration.apply)
    plain = sample.posterior * run.criterion.tilt
    again = iou_decision(calibrated, counts="posterior")
    assert run.kept.rule.score >= again.score - 1e-9
    expected = torch.bincount(plain.argmax(1), minlength=len(run.classes))
    assert expected.sum() == run.kept.rule.pixels == sample.pixels
    # The plain argmax of the scores is a candidate, calibrated or not: its score is that of what it decides.
    p = calibrated.posterior.double()
    ids = plain.argmax(1)
    hits = torch.bincount(ids, p.gather(1, ids[:, None])[:, 0], len(run.classes))
    union = p.sum(0) + expected - hits
    assert run.kept.rule.plain_score == pytest.approx(float((hits / union)[union > 0].mean()), abs=2e-3)


def test_metrics_say_how_far_the_posterior_was_off_before(trained):
    for split in ("val", "test"):
        found = json.loads((trained / f"{split}_metrics.json").read_text())
        before = found["calibration"]["uncalibrated"]
        assert (
            {"ece", "brier", "nll", "classwise_ece", "bins"} == {*before} == {*found["calibration"]} - {"uncalibrated"}
        )
    assert found["decision"] == "tau 1"  # training tells the plain scores
    val = json.loads((trained / "val_metrics.json").read_text())["calibration"]
    entry = kept(trained)["calibration"]  # of the same pixels
    for section, other in ((val, "after"), (val["uncalibrated"], "before")):
        assert section["nll"] == pytest.approx(entry[other]["nll"], rel=1e-4)
        assert section["ece"] == pytest.approx(entry[other]["ece"], abs=1e-4)
        assert section["classwise_ece"] == pytest.approx(np.mean(entry[other]["classwise_ece"]), abs=1e-4)


def test_the_rule_counts_by_labels_where_there_are_enough_of_every_class(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fitting, "LABELLED_IMAGES", 0)
    monkeypatch.setattr(fitting, "LABELLED_PIXELS", 0)
    scores(without_decision(run), tmp_path / "a", "--decision", "iou")
    assert ", with labels), " in capsys.readouterr().out
    fitted, on = segloss.load_run(run).kept, kept(run)["rule"]["miou"]
    assert fitted.rule.counts == "labels" and on["iou"] >= on["plain"] and not fitted.plain_better
    assert on["iou"] == pytest.approx(fitted.rule.score, abs=1e-6)


@pytest.mark.parametrize(
    ("split", "images", "pixels", "found"),
    [
        ("val", (9, 5, 0), (900, 100, 0), "labels"),  # the last is in no training image either
        ("val", (9, 4, 9), (900, 100, 100), "posterior"),
        ("val", (9, 9, 9), (900, 99, 100), "posterior"),  # on whose pixels the grid hardly falls
        ("val", (0, 0, 0), None, "posterior"),
        ("train", (9, 9, 9), (900, 900, 900), "posterior"),
    ],
)
def test_labels_of_a_class_in_hardly_any_image_or_pixel_are_not_counted_by(split, images, pixels, found, monkeypatch):
    monkeypatch.setattr(fitting, "load_or_count", lambda dataset: (SimpleNamespace(images=images), "counted"))
    run = SimpleNamespace(counts=SimpleNamespace(pixels=(900, 10, 0)))
    labels = None if pixels is None else torch.arange(3).repeat_interleave(torch.tensor(pixels))
    assert fitting.counted_by(run, SimpleNamespace(split=split), SimpleNamespace(labels=labels)) == found


def test_labels_that_changed_since_the_fit_are_told_of(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    data = Path(shutil.copytree(segloss.load_run(run).used.data_path, tmp_path / "data"))
    moved = ["--data-path", str(data), "--decision", "iou", "--calibrate"]
    scores(run, tmp_path / "a", *moved)
    said = capsys.readouterr().out
    assert "calibrated already; delete" in said and "was fitted when the labels" not in said  # they have only moved
    mask = sorted((data / "valannot").rglob("*.png"))[0]
    cv2.imwrite(str(mask), np.full_like(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED), 3))
    scores(run, tmp_path / "b", *moved)
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("was fitted when the labels of val were others; delete") == 2  # rule and calibration


def test_a_continued_run_drops_what_no_longer_fits(run, capsys, monkeypatch):
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
    before = segloss.load_run(run).weights
    segloss.load_run(run / "checkpoints/last.ckpt").keep(point={"rule": "tau", "value": 0.5})
    change_weights(run)  # as if the best had been of other weights than those that are trained on
    train_seg.train(["--output-dir", str(run), "--resume", "--epochs", "3"])
    now = segloss.load_run(run).weights
    assert {*json.loads((run / FILE).read_text())} == {now} and now != before
    assert "IoU rule fitted on 3 images of val" in capsys.readouterr().out


# ---- evaluation


def test_the_runs_own_rule_is_used_and_said(run, tmp_path, capsys):
    found = scores(run, tmp_path / "auto", "--decision", "auto")
    said = capsys.readouterr().out
    assert "decision iou, calibrated" in said and "fitted" not in said and "NLL" in said
    assert (found["decision"], found["decision_tau"]) == ("iou", None)
    assert scores(run, tmp_path / "iou", "--decision", "IOU")["classes"] == found["classes"]
    rows = list(csv.DictReader((tmp_path / "auto/runs.csv").open()))
    assert rows[0]["scored"] == "decision iou, calibrated" and float(rows[0]["nll"]) > 0
    assert "decision iou" in (tmp_path / "auto/report.html").read_text()
    assert scores(run, tmp_path / "plain")["classes"] != found["classes"]


def test_a_run_without_a_rule_fits_it_first_the_same_way(run, tmp_path, capsys):
    rule = kept(run)["rule"]
    scores(without_decision(run), tmp_path / "a", "--decision", "iou", "--calibrate", "--batch-size", "4")
    said = capsys.readouterr().out
    assert kept(run)["rule"]["terms"]["slope"] == pytest.approx(rule["terms"]["slope"], rel=1e-2)
    assert (
        "run: calibrated on 3 images of val (" in said and "run: IoU rule fitted on 3 images of val: expected" in said
    )
    assert "pixels, without labels), " in said and said.count("fitted on") == 1
    scores(run, tmp_path / "a", "--decision", "iou", "--calibrate")
    assert "fitted" not in capsys.readouterr().out


def test_labels_of_val_say_whether_auto_is_the_rule_or_the_plain_argmax(run, tmp_path, capsys):
    """The rule trusts the posterior; a poor one costs it more than it gains."""
    found = kept(run)["rule"]["miou"]
    for decision, name in (("plain", "plain"), ("iou", "iou")):
        of_val = scores(run, tmp_path / name, "--split", "val", "--decision", decision)
        assert of_val["miou"] == pytest.approx(found[name], abs=1e-6)
    content = json.loads((run / FILE).read_text())
    for entry in content.values():
        entry["rule"]["miou"] = {"plain": 0.9, "iou": 0.1}
    (run / FILE).write_text(json.dumps(content))
    assert str(segloss.load_run(run).decision) == "tau 1" and segloss.load_run(run).kept.rule is not None
    assert scores(run, tmp_path / "auto", "--decision", "auto")["decision"] == "tau 1"
    assert scores(run, tmp_path / "asked", "--decision", "iou")["decision"] == "iou"


def test_a_rule_of_other_weights_is_not_used(run, tmp_path, capsys):
    old = kept(run)
    change_weights(run)
    with pytest.raises(InputError, match=r"decision.json: is of other weights, once in best.ckpt, .* --decision iou"):
        scores(run, tmp_path / "a", "--decision", "auto")
    found = scores(run, tmp_path / "b")
    assert "uncalibrated" not in found["calibration"]
    assert "warning: run: decision.json is of other weights, once in best.ckpt, and not used" in capsys.readouterr().out
    scores(run, tmp_path / "c", "--decision", "iou")
    assert "of other weights, once in best.ckpt; fitted anew" in capsys.readouterr().out
    assert kept(run)["rule"] != old["rule"] and "calibration" not in kept(run)


def test_a_point_of_an_older_version_is_refused_with_the_command(run, tmp_path):
    without_decision(run)
    (run / "operating_point.json").write_text(json.dumps({"rule": "tau", "value": 0.3, "checkpoint": "best.ckpt"}))
    with pytest.raises(
        InputError, match=r"operating_point.json: does not say for which weights it was chosen; run eval"
    ):
        scores(run, tmp_path / "a", "--decision", "auto")


@pytest.mark.parametrize("old", [["--decision-tau", "0"], ["--decision-tau=auto"], ["--decision_tau", "1"]])
def test_the_old_spelling_is_answered_with_the_new_one(run, tmp_path, old):
    match = r"^--decision-tau is --decision now; write --decision tau VALUE \(1 is plain\) or --decision auto$"
    with pytest.raises(InputError, match=match):
        scores(run, tmp_path / "a", *old)
    (tmp_path / "old.yaml").write_text("decision_tau: auto\n")
    with pytest.raises(InputError, match="--decision-tau is --decision now"):
        scores(run, tmp_path / "a", "--config", str(tmp_path / "old.yaml"))


def test_views_windows_and_sweeps_know_the_rule(run, tmp_path):
    plain = scores(run, tmp_path / "plain", "--decision", "iou")
    tiled = scores(run, tmp_path / "tile", "--decision", "iou", "--tile", "64", "96")  # a window covers the image
    assert tiled["classes"] == plain["classes"]
    flipped = scores(run, tmp_path / "tta", "--decision", "iou", "--tta-flip", "--sweep-tau")
    assert flipped["decision"] == "iou" and flipped["calibration"]["uncalibrated"]
    rows = list(csv.DictReader((tmp_path / "tta/sweep.csv").open()))
    (row,) = [row for row in rows if row["rule"] == "iou"]
    assert row["value"] == "" and float(row["miou"]) == pytest.approx(flipped["miou"], rel=1e-12)
    assert {row["rule"] for row in rows} == {"tau", "prior", "iou"}


def test_saved_predictions_and_folders_of_images_are_decided_by_the_rule(run, tmp_path):
    data = run.parent / "data" if (run.parent / "data").exists() else Path(segloss.load_run(run).used.data_path)
    found = scores(run, tmp_path / "a", "--decision", "iou", "--save-predictions")
    flags = ["--labels", str(data / "testannot"), "--class-table", "camvid", "--output-dir", str(tmp_path / "read")]
    eval_seg.evaluate(["--predictions", str(tmp_path / "a/predictions/run"), *flags])
    read = json.loads((tmp_path / "read/metrics.json").read_text())["runs"]["run"]
    assert read["classes"] == found["classes"]
    without_decision(run)
    flags = [
        "--images",
        str(data / "test"),
        "--decision",
        "iou",
        "--calibrate",
        "--output-dir",
        str(tmp_path / "images"),
    ]
    eval_seg.evaluate(["--checkpoint", str(run), *flags, "--workers", "0"])
    for file in (tmp_path / "a/predictions/run").iterdir():
        assert (tmp_path / "images" / file.name).read_bytes() == file.read_bytes()


def test_a_rule_cannot_be_fitted_where_the_data_is_gone(run, tmp_path):
    images = tmp_path / "some"
    shutil.copytree(Path(segloss.load_run(run).used.data_path) / "test", images)
    checkpoint = torch.load(run / "checkpoints/best.ckpt", map_location="cpu", weights_only=True)
    checkpoint["segloss"]["used"]["data_path"] = str(tmp_path / "gone")
    torch.save(checkpoint, run / "checkpoints/best.ckpt")
    without_decision(run)
    with pytest.raises(InputError, match=r"must be fitted first, .*; run eval_seg.py .* --data-path DIR once"):
        eval_seg.evaluate(["--checkpoint", str(run), "--images", str(images), "--decision", "iou"])


def test_a_decision_that_is_fitted_to_other_data_says_so(run, tmp_path, capsys):
    """The run decided by them from then on, and nothing said to which."""
    own = Path(segloss.load_run(run).used.data_path)
    flags = ["--decision", "iou", "--calibrate"]
    moved = Path(shutil.copytree(own, tmp_path / "moved"))
    scores(without_decision(run), tmp_path / "a", *flags, "--data-path", str(moved))
    said = capsys.readouterr().out
    assert f"run: calibrated on 3 images of val in {moved} (" in said and "warning: run: " not in said
    assert f"run: IoU rule fitted on 3 images of val in {moved}: expected" in said
    other = street_tree(tmp_path / "other", train=4)
    scores(without_decision(run), tmp_path / "b", *flags, "--data-path", str(other))
    said = capsys.readouterr().out
    assert f"run: IoU rule fitted on 3 images of val in {other}: expected" in said
    assert (
        f"warning: run: {other}: holds other training images than the run's; the decision that is fitted here is kept "
        f"for good; delete {run / FILE} to fit it anew"
    ) in said
    scores(without_decision(run), tmp_path / "c", *flags, "--data-path", str(own))
    assert "run: IoU rule fitted on 3 images of val: expected" in capsys.readouterr().out


def test_without_a_validation_split_the_training_images_are_taken(run, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(Path(segloss.load_run(run).used.data_path), data)
    for name in ("val", "valannot"):
        shutil.rmtree(data / name)
    without_decision(run)
    flags = ["--data-path", str(data), "--decision", "iou"]
    scores(run, tmp_path / "a", *flags)
    assert f"fitted on 10 images of train in {data}, which it was trained on: expected" in capsys.readouterr().out
    with pytest.raises(InputError, match="--calibrate needs labels of images that the run was not trained on"):
        scores(run, tmp_path / "b", *flags, "--calibrate")


# ---- from Python


def test_a_loaded_run_decides_as_the_command_does(trained):
    run = segloss.load_run(trained)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.inference_mode():
        logits = run.model(batch)
    posterior = run.kept.calibration.apply(run.criterion.posterior(logits))
    by_rule = run.kept.rule.decide(posterior)[0].numpy()
    for decision in (run.decision, "auto", "iou", run.kept.rule):
        np.testing.assert_array_equal(run.predict(image, decision), by_rule)
    np.testing.assert_allclose(run.posterior(batch), posterior)
    plain = logits.argmax(1)[0].numpy()
    for arguments in ({}, {"tau": 1.0}, {"decision": "plain"}, {"decision": 1.0}, {"decision": Decision()}):
        np.testing.assert_array_equal(run.predict(image, **arguments), plain)
    natural = run.criterion.decide(logits, 0.0)[0].numpy()
    for arguments in ({"tau": 0.0}, {"decision": 0}, {"decision": "tau 0"}):
        np.testing.assert_array_equal(run.predict(image, **arguments), natural)
    np.testing.assert_array_equal(run.decode(logits, tau=0.0)[0], natural)
    with pytest.raises(ValueError, match="decision must be plain, tau VALUE"):
        run.predict(image, "omega")


@pytest.mark.parametrize("part", ["whole", "decoder", "norms", "ensemble"])
def test_a_loaded_run_that_is_trained_on_sees_in_eval_mode(trained, part):
    """In train mode batch norms took the image's own statistics, and moved those of the network by them."""
    run = segloss.load_run(trained)
    if part == "ensemble":
        run = ensemble_of([run, segloss.load_run(trained)], trained, lambda line: None)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = run.predict(image), run.scores(image), run.posterior(batch)
    trained_on = {"decoder": lambda: run.model.network.decoder}.get(part, lambda: run.model)()
    trained_on.train()
    if part == "norms":
        run.model.freeze(batch_norm="encoder")
    state = {key: tensor.clone() for key, tensor in run.model.state_dict().items()}
    modes = [module.training for module in run.model.modules()]
    np.testing.assert_array_equal(run.predict(image), expected[0])
    assert torch.equal(run.scores(image), expected[1])
    assert torch.equal(run.posterior(batch), expected[2])
    with pytest.raises(InputError, match="images must have shape"):
        run.posterior(torch.from_numpy(image)[None])
    assert [module.training for module in run.model.modules()] == modes and any(modes)
    assert all(torch.equal(tensor, state[key]) for key, tensor in run.model.state_dict().items())


def test_a_student_is_trained_on_what_a_loaded_run_gives(trained):
    """Its scores and posteriors were tensors of inference mode, which torch takes into no gradient."""
    run = segloss.load_run(trained)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    student = torch.nn.Conv2d(3, len(run.classes), 1)
    posterior, scores = run.posterior(batch), run.scores(image)
    assert not posterior.requires_grad and not scores.requires_grad
    loss = F.kl_div(student(batch / 255).log_softmax(1), posterior, reduction="batchmean") + F.mse_loss(
        student(batch / 255), scores
    )
    (loss + run.criterion(student(batch / 255), run.decode(scores))).backward()
    assert student.weight.grad.any() and all(each.grad is None for each in run.model.parameters())


def test_a_loaded_run_that_was_trained_on_has_no_decision_of_the_weights_before(trained):
    """It went on with the rule and the calibration of the weights that were read."""
    run = segloss.load_run(trained)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    before, weights, state = run.predict(image, "iou"), run.weights, copy.deepcopy(run.model.state_dict())
    optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1)
    run.criterion(run.model(batch), torch.zeros(1, 64, 96, dtype=torch.long)).backward()
    optimizer.step()
    assert run.weights != weights and run.kept.rule is None and run.kept.calibration is None
    for decision in ("iou", "auto"):
        with pytest.raises(InputError, match=r"is of other weights, .* train on in Python give segloss.iou_decision"):
            run.predict(image, decision)
    with torch.inference_mode():
        assert torch.equal(run.posterior(batch), run.criterion.posterior(run.model(batch)))
    run.model.load_state_dict(state)
    assert run.weights == weights and np.array_equal(run.predict(image, "iou"), before)
    run.model.double().float()  # elsewhere, and the same
    assert run.weights == weights and run.kept.rule is not None
    for parameter in run.model.parameters():
        parameter.data.mul_(0.99)  # as averages of weights are written
    assert run.weights != weights and run.kept.rule is None
    run.model.load_state_dict(state)
    assert run.weights == weights
    run.model.train()(batch.repeat(2, 1, 1, 1))  # batch norms have moved
    assert run.weights != weights and run.kept.rule is None


@pytest.mark.parametrize("part", ["model", "network"])
def test_a_compiled_network_has_the_decision_of_its_weights(trained, part):
    """Its weights have other names, by which they were taken for others."""
    run, image = segloss.load_run(trained), np.zeros((64, 96, 3), np.uint8)
    expected = run.predict(image, "iou")
    of = run if part == "model" else run.model
    setattr(of, part, torch.compile(getattr(of, part), backend="eager"))
    np.testing.assert_array_equal(run.predict(image, "iou"), expected)
    assert fingerprint(run.model, run.criterion) == run.weights == segloss.load_run(trained).weights


# ---- numbers


def test_sums_of_images_give_the_scores_of_all_pixels():
    torch.manual_seed(0)
    posterior = torch.softmax(2 * torch.randn(4, 5, 9, 7), 1)
    labels = torch.randint(0, 5, (4, 9, 7))
    labels[:, 0] = 255
    labels[3] = 255
    parts = [likelihood_counts(p, y) for p, y in zip(posterior, labels, strict=True)]
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    expected = calibration_scores(posterior, labels)
    assert total["nll"][0] / expected.pixels == pytest.approx(expected.nll, rel=1e-6)
    assert total["looked_at"] == [expected.pixels] and not parts[3]["gaps"].any()
    np.testing.assert_allclose(np.abs(total["gaps"]).sum(1) / expected.pixels, expected.classwise_ece, atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "told"), [([1.0, 1.0, 1.0], False), ([1.0, 3.0, 9.0], True), ([1.0, 2.0, 2.0], True)]
)
def test_a_tilt_that_the_scores_do_not_have_is_told(weights, told):
    """Scores that class weights left alone: the posterior read from them has the weights divided out all the same."""
    torch.manual_seed(0)
    u = torch.tensor(weights)
    true = torch.distributions.Dirichlet(torch.tensor([2.0, 0.5, 0.2])).sample((20_000,))
    labels = torch.multinomial(true, 1)[:, 0]
    read = true / u / (true / u).sum(1, keepdim=True)
    weighted = CrossEntropyLoss(weight=u)
    lines = over_tilted(PixelSample.of(read, labels), weighted, "run", "val")
    assert bool(lines) == told
    tilted = true * u / (true * u).sum(1, keepdim=True)  # as a loss with these weights trains them
    divided = PixelSample.of(tilted / u / (tilted / u).sum(1, keepdim=True), labels)
    assert not over_tilted(divided, weighted, "run", "val") and not over_tilted(PixelSample(), weighted, "run", "val")
    assert not over_tilted(PixelSample.of(read), weighted, "run", "val")


SURE = 12 * torch.eye(3)[torch.arange(300) % 3]  # scores of 300 pixels of which the largest is that of class i % 3


@pytest.mark.parametrize(
    ("loss", "wrong", "told"),
    [
        ("weighted_ce", 0, True),
        ("weighted_ce", 30, False),
        ("logit_adjusted", 0, True),
        ("ce", 0, False),  # nothing to divide out
        ("outlying_mse", 0, False),  # t is what scores are trained to be
        ("weighted_outlying_mse", 0, True),
    ],
)
def test_training_images_that_are_fitted_completely_are_told_of(monkeypatch, loss, wrong, told):
    """On val nothing need show: the loss has no tilt where it is 0."""
    criterion, labels = build_criterion(loss, (900, 90, 10)), torch.arange(300) % 3
    labels[:wrong] = (labels[:wrong] + 1) % 3
    looked_at = []

    def sample(run, dataset, *, places):
        looked_at.append([*places])
        return PixelSample.of(criterion.posterior(SURE), labels)

    monkeypatch.setattr(fitting, "sample_of", sample)
    run, training = SimpleNamespace(name="run", criterion=criterion), mock.MagicMock(has_labels=True)
    training.__len__.return_value = 100
    lines = fitted_completely(run, training)
    assert bool(lines) == told
    if told:
        assert lines[0].startswith(
            "warning: run: mean accuracy on 16 training images is 100.0 %: where they are fitted"
        )
        assert "add --calibrate (docs/losses.md)" in lines[0] and len(lines) == 1
    assert looked_at in ([], [[*range(0, 96, 6)]])
    training.has_labels = False
    assert fitted_completely(run, training) == []


def test_a_run_that_is_trained_looks_at_its_training_images(monkeypatch, tmp_path, capsys):
    """Whole and as they are, not as they are cropped and coloured in training."""
    seen = []
    monkeypatch.setattr(fitting, "fitted_completely", lambda run, training, **how: seen.append(training) or ["told"])
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
    data = street_tree(tmp_path / "data")
    flags = ["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(tmp_path / "run")]
    train_seg.train([*flags, *TINY, "--loss", "weighted_ce", "--epochs", "1"])
    (training,) = seen
    assert training.split == "train" and type(training.transform).__name__ == "EvalTransform"
    assert "told" in capsys.readouterr().out


def test_a_calibration_is_plain_in_the_file(trained):
    terms = kept(trained)["calibration"]["terms"]
    assert Calibration.from_dict(terms) == segloss.load_run(trained).kept.calibration
