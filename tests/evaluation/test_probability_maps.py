"""Posteriors saved as files and scored again: the same scores as the run, by every decision, within half precision."""

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from data_trees import random_mask, write_png
from street_trees import TINY, street_tree

import eval_seg
import segloss
import train_seg
from segloss import PixelCounts
from segloss.datasets.classes import ClassTable
from segloss.datasets.tables import CAMVID_11
from segloss.decisions import Decision, decide
from segloss.errors import InputError
from segloss.evaluation.map_source import MapSource, decision_of_maps
from segloss.evaluation.mask_source import MaskSource
from segloss.evaluation.posterior_maps import (
    MapIndex,
    SavedPosterior,
    list_maps,
    read_map,
    write_arrays,
    write_pictures,
)
from segloss.evaluation.results import Totals
from segloss.iou_rule import iou_decision
from segloss.losses import build_criterion
from segloss.runs import load_run

SIZE = (13, 17)
THREE = ClassTable(("wall", "floor", "lamp"))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Outlying labels and calibrated, so that tilt and calibration must be kept apart."""
    root = tmp_path_factory.mktemp("run")
    data = street_tree(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGLOSS_CACHE", str(root / "cache"))
        patch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
        flags = ["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(root / "run"), *TINY]
        train_seg.train([*flags, "--epochs", "1", "--calibrate"])
    return root / "run"


VIEWS = ("--tta-flip", "--tile", "48", "48")


@pytest.fixture(scope="module")
def saved(run) -> Path:
    """All kinds of maps of the test split, seen in windows and mirrored."""
    out = run.parent / "out"
    flags = ["--save-predictions", "--save", "probability", "probability_png", "confidence", *VIEWS]
    evaluate(out, "--checkpoint", run, "--check", "off", *flags)
    return out / "predictions/run"


def evaluate(out: Path, *flags: object) -> dict:
    eval_seg.evaluate([*map(str, flags), "--output-dir", str(out), "--workers", "0"])
    return json.loads((out / "metrics.json").read_text())["runs"]


def of_maps(out: Path, run: Path, maps: Path, *flags: object) -> dict:
    labels = run.parent / "data/testannot"
    (found,) = evaluate(out, "--predictions", maps, "--labels", labels, "--class-table", "camvid", *flags).values()
    return found


def refused(capsys, *argv: object) -> str:
    sys.argv = ["eval_seg.py", *map(str, argv)]
    with pytest.raises(SystemExit) as stop:
        eval_seg.main()
    line = capsys.readouterr().err
    assert stop.value.code == 2 and line.count("\n") == 1 and "Traceback" not in line
    return line


@pytest.mark.parametrize(
    ("kind", "decision", "miou", "calibration"),
    [
        ("probability", "plain", 5e-4, 1e-5),
        ("probability", "tau 0.5", 5e-4, 1e-5),
        ("probability", "prior 0.4", 5e-4, 1e-5),
        ("probability_png", "plain", 0.02, 0.02),  # this network's posterior is flat: steps of 1/255 matter
    ],
)
def test_saved_maps_score_as_their_run(run, saved, tmp_path, kind, decision, miou, calibration):
    """Measured: mIoU off by up to 2.5e-4 from half precision and 1.3e-2 from 8 bit; the calibration scores by 2e-6 and
    3e-3, ECE by 4e-4, as a pixel at the edge of a bin goes to the next."""
    words = decision.split()
    direct = evaluate(tmp_path / "run", "--checkpoint", run, "--check", "off", "--decision", *words, *VIEWS)["run"]
    found = of_maps(tmp_path / "maps", run, saved / kind, "--decision", *words)
    keys = ("ece", "brier", "classwise_ece", "nll")
    off = {key: abs(found["calibration"][key] - direct["calibration"][key]) for key in keys}
    assert off.pop("ece") < max(calibration, 1e-3) and max(off.values()) < calibration
    assert found["miou"] == pytest.approx(direct["miou"], abs=miou)
    assert found["decision"] == direct["decision"] and found["groups"]["by_pixels_of"] == "training"


def test_the_rule_is_fitted_to_the_maps_themselves(run, saved, tmp_path, capsys):
    found = of_maps(tmp_path / "iou", run, saved / "probability", "--decision", "iou")
    assert "IoU rule fitted on these 3 probability maps: expected mIoU" in capsys.readouterr().out
    stacked, labels = [], []
    for name, path in list_maps(saved / "probability").items():
        true = cv2.imread(str(run.parent / f"data/testannot/{name}.png"), -1)
        labels.append(torch.from_numpy(np.where(true == 11, 255, true)).long())
        stacked.append(read_map(path, 11, true < 11))
    posterior, true = torch.stack(stacked), torch.stack(labels)
    rule = iou_decision(posterior, true, counts="posterior")
    confusion = segloss.ConfusionMatrix(11)
    confusion.update(rule.decide(posterior), true)
    # Another start (the plain argmax, which the tilt gives) may end at another rule of equal worth.
    assert found["miou"] == pytest.approx(confusion.compute().miou, abs=0.02) and found["decision"] == "iou"
    plain = of_maps(tmp_path / "plain", run, saved / "probability")
    assert plain["miou"] != found["miou"]


def test_auto_takes_the_runs_chosen_point_before_the_rule(run, saved, tmp_path):
    maps = Path(shutil.copytree(saved / "probability", tmp_path / "maps"))
    assert of_maps(tmp_path / "rule", run, maps, "--decision", "auto")["decision"] == "iou"
    index = json.loads((maps / "probability.json").read_text())
    (maps / "probability.json").write_text(json.dumps({**index, "point": {"rule": "prior", "value": 0.3}}))
    assert of_maps(tmp_path / "point", run, maps, "--decision", "auto")["decision"] == "prior 0.3"


def test_a_chosen_rule_is_saved_with_its_terms_and_fitted_where_it_was_saved_without(run, saved, tmp_path, capsys):
    maps = Path(shutil.copytree(saved / "probability", tmp_path / "maps"))
    index, rule = MapIndex.load(maps), load_run(run).kept.rule
    replace(index, point=Decision("iou", terms=rule)).save(maps)
    assert MapIndex.load(maps).point == Decision("iou", terms=rule)
    posterior = next(iter(MapSource("maps", maps, run.parent / "data/testannot", CAMVID_11)._maps()))[1]
    found = decision_of_maps(MapSource("maps", maps, run.parent / "data/testannot", CAMVID_11), "auto")
    assert torch.equal(decide(SavedPosterior(index), posterior, torch.ones(11), found), rule.decide(posterior))
    content = json.loads((maps / "probability.json").read_text())
    (maps / "probability.json").write_text(json.dumps({**content, "point": {"rule": "iou", "value": 1.0}}))
    fitted = of_maps(tmp_path / "auto", run, maps, "--decision", "auto")
    assert fitted["miou"] == of_maps(tmp_path / "iou", run, maps, "--decision", "iou")["miou"]
    assert "IoU rule fitted on these" in capsys.readouterr().out
    (maps / "probability.json").write_text(json.dumps(content))
    of_maps(tmp_path / "own", run, maps, "--decision", "auto")
    said = capsys.readouterr().out
    assert "maps: IoU rule of the run: " in said and "fitted on these" not in said
    with pytest.raises(ValueError, match="rule 'iou' has terms"):
        decide(SavedPosterior(index), posterior, torch.ones(11), Decision("iou"))


def test_the_training_pixels_of_maps_are_as_if_every_image_labelled_all_classes():
    of_both = {"pixels": (60, 10), "images": (2, 1), "pixels_of_images": (100, 50)}
    part = {"labelled_images": (2, 1), "seen_pixels": (100, 50)}
    counts = PixelCounts(("a", "b"), **of_both, ignored_pixels=0, image_count=2, **part)
    kept = SimpleNamespace(calibration=None, point=None)
    classes = SimpleNamespace(names=("a", "b"))
    run = SimpleNamespace(criterion=build_criterion("ce", (2, 1)), counts=counts, classes=classes, kept=kept)
    assert MapIndex.of(run).training_pixels == counts.complete.pixels != counts.pixels


def test_a_sweep_of_maps_is_that_of_the_run(run, saved, tmp_path):
    evaluate(tmp_path / "run", "--checkpoint", run, "--check", "off", "--sweep-tau", *VIEWS)
    of_maps(tmp_path / "maps", run, saved / "probability", "--sweep-tau")
    tables = []
    for name in ("run", "maps"):
        with (tmp_path / name / "sweep.csv").open(newline="") as file:
            tables.append({(r["rule"], r["value"]): float(r["miou"]) for r in csv.DictReader(file)})
    assert tables[0].keys() == tables[1].keys() and ("iou", "") in tables[1]
    off = [abs(tables[0][key] - tables[1][key]) for key in tables[0] if key[0] != "iou"]
    assert max(off) < 1e-3  # measured: 1e-4
    assert (tmp_path / "maps/sweep.png").is_file()


def test_a_sweep_without_training_pixels_has_no_prior_and_says_so(run, saved, tmp_path, capsys):
    maps = Path(shutil.copytree(saved / "probability", tmp_path / "of-others"))
    (maps / "probability.json").unlink()
    of_maps(tmp_path / "maps", run, maps, "--sweep-tau", "--class-table", "camvid")
    assert "no prior in the sweep: nothing says the training pixels" in " ".join(capsys.readouterr().out.split())
    with (tmp_path / "maps/sweep.csv").open(newline="") as file:
        assert [row["value"] for row in csv.DictReader(file) if row["rule"] == "prior"] == ["0.0"]


def test_confidence_is_the_largest_probability(saved):
    for name, path in list_maps(saved / "probability").items():
        picture = cv2.imread(str(saved / f"confidence/{name}.png"), cv2.IMREAD_UNCHANGED)
        expected = 255 * read_map(path, 11, np.ones((64, 96), bool)).max(0).values
        assert picture.dtype == np.uint8 and np.abs(picture - expected.numpy()).max() < 0.7  # rounded, of rounded ones


def test_maps_of_images_without_labels_are_those_of_the_split(run, saved, tmp_path):
    flags = ["--checkpoint", str(run), "--images", str(run.parent / "data/test"), "--save", "probability", *VIEWS]
    eval_seg.evaluate([*flags, "--output-dir", str(tmp_path), "--workers", "0"])
    written = tmp_path
    assert json.loads((written / "probability.json").read_text())["tilt"] is not None
    for name, path in list_maps(saved / "probability").items():
        np.testing.assert_array_equal(
            np.load(written / f"{name}.npz")["probability"], np.load(path)["probability"], err_msg=name
        )


def test_maps_are_the_calibrated_posterior_in_half_precision(run, tmp_path):
    flags = ["--checkpoint", str(run), "--images", str(run.parent / "data/test"), "--save", "probability"]
    # One by one, as below: in a batch scores are rounded otherwise, and clipped ones jump.
    eval_seg.evaluate([*flags, "--output-dir", str(tmp_path), "--workers", "0", "--batch-size", "1"])
    loaded = load_run(run)
    image = cv2.imread(str(run.parent / "data/test/test_0.png"))[..., ::-1]
    with torch.inference_mode():
        logits = loaded.model(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])
    expected = loaded.kept.calibration.apply(loaded.criterion.posterior(logits))[0]
    with np.load(tmp_path / "test_0.npz") as file:
        assert file["probability"].dtype == np.float16
        np.testing.assert_allclose(file["probability"], expected.numpy(), atol=5e-4)  # half a step of float16 below 1


# Maps of others.


def maps_of(root: Path, names="ba", dtype=np.float16, folder="pred") -> dict[str, np.ndarray]:
    """``root/pred/NAME.npz`` and ``root/true/NAME.png``, random."""
    found = {}
    for seed, name in enumerate(names):
        scores = np.random.default_rng(seed).normal(size=(3, *SIZE)) * 3
        found[name] = (np.exp(scores) / np.exp(scores).sum(0)).astype(dtype)
        (root / folder).mkdir(parents=True, exist_ok=True)
        np.savez(root / f"{folder}/{name}.npz", found[name])
        write_png(root / f"true/{name}.png", random_mask(seed, SIZE, (0, 1, 2, 255)))
    (root / "classes.txt").write_text("wall\nfloor\nlamp\n")
    return found


def score_maps(root: Path, *flags: object) -> dict:
    (found,) = evaluate(root / "out", "--predictions", root / "pred", "--labels", root / "true", *flags).values()
    return found


@pytest.mark.parametrize(
    "form", ["npz", "float64", "npy", "nnunet", "uint8 npy", "uint16 npz", "stated pictures", "16 bit pictures"]
)
def test_maps_from_anywhere_are_scored(tmp_path, form):
    maps = maps_of(tmp_path, dtype=np.float64 if form == "float64" else np.float32)
    flags = []
    for name, values in maps.items() if form not in ("npz", "float64") else ():
        (tmp_path / f"pred/{name}.npz").unlink()
        if form == "npy":
            np.save(tmp_path / f"pred/{name}.npy", values)
        elif form == "uint8 npy":
            np.save(tmp_path / f"pred/{name}.npy", np.round(values * 255).astype(np.uint8))
        elif form == "uint16 npz":
            np.savez(tmp_path / f"pred/{name}.npz", np.round(values * 65535).astype(np.uint16))
        elif form == "nnunet":
            np.savez(tmp_path / f"pred/{name}.npz", probabilities=values[:, None])
        else:
            flags, full = ["--prediction-form", "probability"], 255 if form == "stated pictures" else 65535
            for c, channel in enumerate(values):
                kind = np.uint8 if full == 255 else np.uint16
                write_png(tmp_path / f"pred/{name}/{c}.png", np.round(channel * full).astype(kind))
    found = score_maps(tmp_path, *flags)
    confusion = segloss.ConfusionMatrix(3)
    for name, values in maps.items():
        true = cv2.imread(str(tmp_path / f"true/{name}.png"), -1)
        confusion.update(torch.from_numpy(values.argmax(0)), torch.from_numpy(true))
    assert found["miou"] == pytest.approx(
        confusion.compute().miou, abs=0.02 if form in ("stated pictures", "uint8 npy") else 1e-12
    )
    assert found["calibration"]["nll"] > 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.__setitem__((slice(None), 3, 3), np.nan), "a.npz: holds NaN"),
        (lambda p: p.__imul__(7), "a.npz: holds a pixel of sum 7"),
        (lambda p: p.__isub__(0.4), "and smallest value -0."),
        (lambda p: p.__imul__(0), "a.npz: holds a pixel of sum 0 "),
        (lambda p: p.__imul__(0.98), "; divide each pixel by its sum over the classes"),
        (lambda p: p.__imul__(100), "; divide percent by 100"),
        (
            lambda p: p.__iadd__(1).__itruediv__(2),
            "with sum 1 over the classes; if each class has a sigmoid of its own, ",
        ),
    ],
    ids=["NaN", "sums", "negative", "zero", "a little off", "percent", "sigmoids"],
)
def test_what_are_no_probabilities_is_refused_or_left_out(tmp_path, capsys, spoil, message):
    maps = maps_of(tmp_path, dtype=np.float32)
    true = np.zeros(SIZE, np.uint8)
    write_png(tmp_path / "true/a.png", true)
    spoil(maps["a"])
    np.savez(tmp_path / "pred/a.npz", maps["a"])
    flags = ["--predictions", tmp_path / "pred", "--labels", tmp_path / "true", "--output-dir", tmp_path / "out"]
    for decision in (["plain"], ["iou"]):
        line = refused(capsys, *flags, "--decision", *decision)
        assert message in line
    found = score_maps(tmp_path, "--skip-bad", "--decision", "iou")
    assert found["images"] == 1 and message.split(": ")[-1] in found["skipped"][0]
    write_png(tmp_path / "true/a.png", np.full(SIZE, 255, np.uint8))  # where nothing is labelled nothing is asked
    assert score_maps(tmp_path)["images"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda: {"x": np.ones((4, *SIZE), np.float32) / 4},
            "has shape (4, 13, 17), its classes and label have (3, 13, 17)",
        ),
        (lambda: {"x": np.ones((3, 5, 5), np.float32) / 3}, "has shape (3, 5, 5)"),
        (lambda: {"x": np.ones((3, *SIZE), np.uint8)}, "holds a pixel of sum 0.01176 and smallest value 0.003922"),
        (lambda: {"x": np.eye(3, dtype=np.uint8)[:, 0, None, None] * np.ones(SIZE, np.uint8)}, "; one-hot maps: save"),
        (lambda: {"x": np.ones((3, *SIZE), np.int64)}, "holds int64 values; save criterion.posterior(logits)"),
        (lambda: {"x": np.ones(SIZE, np.int64)}, "holds int64 class ids of shape (13, 17), no prob"),
        (lambda: {"x": np.ones((1, *SIZE), np.float32)}, "holds float32 class ids of shape (1, 13, 17)"),
        (lambda: {"x": np.full(SIZE, 0.5)}, "has shape (13, 17), its classes"),
        (lambda: {"x": np.ones(2), "y": np.ones(2)}, "holds 2 arrays"),
        (lambda: {"x": np.array([{}], dtype=object)}, "cannot be read as an array"),
    ],
    ids=["classes", "size", "bytes", "one-hot", "integers", "ids", "float ids", "foreground", "two", "objects"],
)
def test_other_arrays_are_refused_in_one_line(tmp_path, capsys, content, message):
    maps_of(tmp_path)
    np.savez(tmp_path / "pred/a.npz", **content())
    flags = ["--predictions", tmp_path / "pred", "--labels", tmp_path / "true", "--output-dir", tmp_path / "out"]
    line = refused(capsys, *flags)
    assert message in line and "a.npz" in line
    (tmp_path / "pred/a.npz").write_bytes((tmp_path / "pred/b.npz").read_bytes()[:300])
    assert "cannot be read as an array" in refused(capsys, *flags)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_class_ids_as_arrays_are_read_where_it_is_said(tmp_path, dtype):
    for name, values in maps_of(tmp_path).items():
        (tmp_path / f"pred/{name}.npz").unlink()
        np.save(tmp_path / f"pred/{name}.npy", values.argmax(0).astype(dtype))
    assert score_maps(tmp_path, "--prediction-form", "ids")["images"] == 2


@pytest.mark.parametrize("first", [0, 1])
def test_a_picture_for_each_class_is_known_and_its_form_named(tmp_path, capsys, first):
    """The label was said to have several masks, with a cure for data sets."""
    for name, values in maps_of(tmp_path).items():
        (tmp_path / f"pred/{name}.npz").unlink()
        for c, channel in enumerate(values):
            write_png(tmp_path / f"pred/{name}/{c + first:03d}.png", np.round(channel * 255).astype(np.uint8))
    flags = ["--predictions", tmp_path / "pred", "--labels", tmp_path / "true", "--output-dir", tmp_path / "out"]
    assert "pred: holds folders of several pictures: a, b; say --prediction-form prob" in refused(capsys, *flags)
    assert "calibration" in score_maps(tmp_path, "--prediction-form", "probability")


@pytest.mark.parametrize(
    ("ending", "form"), [("mat", "auto"), ("pt", "auto"), ("nii.gz", "auto"), ("npz", "ids"), ("csv", "probability")]
)
@pytest.mark.parametrize("skip_bad", [True, False])
def test_predictions_in_a_form_that_is_not_read_are_named_by_it(tmp_path, capsys, ending, form, skip_bad):
    """It was said that their names share nothing, which they do, and to leave them out, which left none."""
    maps_of(tmp_path)
    for name in "ab":
        (tmp_path / f"pred/{name}.npz").rename(tmp_path / f"pred/{name}.{ending}")
    (tmp_path / "pred/README").write_text("")
    (tmp_path / "pred/.hidden").write_text("")
    flags = ["--predictions", tmp_path / "pred", "--labels", tmp_path / "true", "--output-dir", tmp_path / "out"]
    line = refused(capsys, *flags, "--prediction-form", form, *["--skip-bad"] * skip_bad)
    held = f"pred: holds no masks: 2 files .{ending}, 1 files without ending, which are not read; save PNG of class ids"
    assert held in line and "skip-bad" not in line


def test_pictures_in_one_folder_are_no_maps(tmp_path, capsys):
    maps_of(tmp_path)
    for name in "ab":
        (tmp_path / f"pred/{name}.npz").unlink()
        for c in range(3):
            write_png(tmp_path / f"pred/{name}_{c}.png", np.zeros(SIZE, np.uint8))
    flags = ["--predictions", tmp_path / "pred", "--labels", tmp_path / "true", "--output-dir", tmp_path / "out"]
    line = refused(capsys, *flags, "--prediction-form", "probability")
    assert "pred: holds 6 pictures and no probability maps; save .npz" in line


@pytest.mark.parametrize("inside", ["pred", "true/scores"])
def test_results_in_a_folder_of_maps_or_labels_are_not_read_as_masks(tmp_path, inside):
    """The second evaluation was refused for a prediction or a label called confusion-pred."""
    maps_of(tmp_path)
    flags = ("--predictions", tmp_path / "pred", "--labels", tmp_path / "true", "--sweep-tau")
    before = evaluate(tmp_path / inside, *flags)
    pictures = {path.name for path in (tmp_path / inside).glob("*.png")} - {"a.png", "b.png"}
    assert pictures == {"confusion-pred.png", "reliability.png", "sweep.png"}
    assert evaluate(tmp_path / inside, *flags) == before


def test_maps_of_other_classes_and_a_broken_index_are_refused(run, saved, tmp_path, capsys):
    maps = Path(shutil.copytree(saved / "probability", tmp_path / "maps"))
    flags = ["--predictions", maps, "--labels", run.parent / "data/testannot", "--output-dir", tmp_path / "out"]
    (tmp_path / "classes.txt").write_text("\n".join("abcdefghijk"))
    assert "holds maps of other classes (sky, building" in refused(
        capsys, *flags, "--class-table", tmp_path / "classes.txt"
    )
    for content in ("[]", "{", '{"classes": 3}', (maps / "probability.json").read_text().replace('"sky",', "")):
        (maps / "probability.json").write_text(content)
        assert "probability.json: cannot be read; save the maps again" in refused(
            capsys, *flags, "--class-table", "camvid"
        )


@pytest.mark.parametrize("value", ["0", "-5", "0.5"])
def test_tau_of_maps_of_an_unknown_loss_is_refused(tmp_path, capsys, value):
    """It moved nothing, and stood in the scores."""
    maps_of(tmp_path)
    flags = ["--predictions", tmp_path / "pred", "--labels", tmp_path / "true", "--output-dir", tmp_path / "out"]
    line = refused(capsys, *flags, "--decision", "tau", value)
    assert (
        "pred: --decision tau needs the tilt of the loss that the maps are of, which nothing says; take plain" in line
    )
    asked = (["--decision", "plain"], ["--decision", "tau", "1"])
    plain, one = (evaluate(tmp_path / "out", *flags[:4], *each)["pred"] for each in asked)
    assert plain["miou"] == one["miou"]


def test_a_sweep_of_maps_of_an_unknown_loss_says_that_it_is_without_tau(tmp_path, capsys):
    maps_of(tmp_path)
    evaluate(tmp_path / "out", "--predictions", tmp_path / "pred", "--labels", tmp_path / "true", "--sweep-tau")
    said = " ".join(capsys.readouterr().out.split())
    assert "pred: no tau in the sweep: nothing says the tilt of the loss that the maps are of" in said


def test_decisions_need_probability_maps(tmp_path, capsys):
    maps_of(tmp_path, folder="elsewhere")
    for name in "ab":
        write_png(tmp_path / f"pred/{name}.png", random_mask(5, SIZE, (0, 1, 2)))
    flags = ["--predictions", tmp_path / "pred", "--labels", tmp_path / "true", "--output-dir", tmp_path / "out"]
    for asked in (["--decision", "iou"], ["--sweep-tau"]):
        assert f"{asked[0]} needs probability maps, which --predictions do not hold" in refused(capsys, *flags, *asked)
    both = ["--predictions", tmp_path / "pred", tmp_path / "elsewhere", "--labels", tmp_path / "true"]
    found = evaluate(tmp_path / "out", *both, "--decision", "iou", "--sweep-tau")  # beside maps, ids are as they are
    assert "decision" not in found["pred"] and found["elsewhere"]["decision"] == "iou"


def perfect_maps(root: Path, labels: dict[str, np.ndarray], num_classes: int) -> None:
    """Maps that are right wherever ``labels`` hold a class number."""
    (root / "pred").mkdir(parents=True)
    for name, ids in labels.items():
        known = np.where(ids < num_classes, ids, 0)
        np.savez(root / f"pred/{name}.npz", np.eye(num_classes, dtype=np.float32)[known].transpose(2, 0, 1))


def test_labels_beside_maps_may_hold_train_ids(tmp_path, capsys):
    labels = {"a": np.arange(76, dtype=np.uint8).reshape(4, 19) % 19}
    perfect_maps(tmp_path, labels, 19)
    write_png(tmp_path / "true/a.png", labels["a"])
    flags = ["--class-table", "cityscapes", "--label-ids", "trainIds"]
    assert score_maps(tmp_path, *flags)["miou"] == 1
    given = ["--predictions", tmp_path / "pred", "--labels", tmp_path / "true", "--output-dir", tmp_path / "out"]
    line = refused(capsys, *given, *flags, "--prediction-ids", "trainIds")
    assert "--prediction-ids says what ids of masks mean, and --predictions hold probability maps" in line


def test_maps_and_masks_are_scored_alike_where_images_label_a_part_of_the_classes(tmp_path):
    maps_of(tmp_path)
    (tmp_path / "true/labelled_classes.csv").write_text("a,wall;floor\n")
    source = MapSource("maps", tmp_path / "pred", tmp_path / "true", THREE)
    assert source.labelled is not None
    for seen, posterior in source._maps():
        write_png(tmp_path / f"masks/{seen['name']}.png", posterior[0].argmax(0).numpy().astype(np.uint8))
    masks = MaskSource("masks", tmp_path / "masks", tmp_path / "true", THREE)
    (of_maps, of_masks) = ({r.name: r for _, r in each.results()} for each in (source, masks))
    for name in "ab":
        np.testing.assert_array_equal(of_maps[name].matrix, of_masks[name].matrix)
        assert of_maps[name].ignored == of_masks[name].ignored
    assert of_maps["a"].matrix[2].sum() == 0 < of_maps["b"].matrix[2].sum()
    assert source.picture("a")[1].max() == 255 and (source.picture("a")[1] != 2).all()
    for each in (source, masks):  # lamp, which a does not label, is predicted there
        totals = Totals.of(result for _, result in each.results())
        assert totals.written.unlabelled[2] == of_maps["a"].matrix[:, 3].sum() > 0.01 * totals.matrix.sum()
        assert not any("no class" in str(found) for found in each.findings(totals))


def test_labels_that_fool_a_score_are_seen_beside_maps(tmp_path, capsys):
    two = {name: np.full(SIZE, c, np.uint8) for name, c in (("a", 0), ("b", 1))}
    perfect_maps(tmp_path, two, 2)
    (tmp_path / "classes.txt").write_text("wall\ncrack\n")
    half = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 2
    for name in "ab":
        write_png(tmp_path / f"true/{name}.png", (half * 255).astype(np.uint8))
    flags = ["--predictions", tmp_path / "pred", "--labels", tmp_path / "true", "--output-dir", tmp_path / "out"]
    assert "labels hold 0 and 255 alone, and 255 is ignored" in refused(capsys, *flags)


def test_the_prior_of_foreign_maps_must_be_given(tmp_path, capsys):
    maps = maps_of(tmp_path)
    flags = ["--predictions", tmp_path / "pred", "--labels", tmp_path / "true", "--decision", "prior", "1"]
    assert "--decision prior needs the training pixels of each class" in refused(
        capsys, *flags, "--output-dir", tmp_path
    )
    counts = segloss.count_labels([torch.tensor([0] * 90 + [1] * 9 + [2])[None]], 3, class_names=THREE.names)
    counts.save(tmp_path / "counts.json")
    found = score_maps(tmp_path, "--decision", "prior", "1", "--training-counts", tmp_path / "counts.json")
    confusion, prior = segloss.ConfusionMatrix(3), np.array([0.9, 0.09, 0.01]).reshape(3, 1, 1)
    for name, values in maps.items():
        true = cv2.imread(str(tmp_path / f"true/{name}.png"), -1)
        confusion.update(torch.from_numpy((values / prior).argmax(0)), torch.from_numpy(true))
    assert found["miou"] == pytest.approx(confusion.compute().miou, abs=1e-3)  # a tie of half precision may turn


def test_a_map_that_changed_is_scored_anew(tmp_path):
    maps_of(tmp_path)
    before = score_maps(tmp_path)["miou"]
    np.savez(tmp_path / "pred/a.npz", np.eye(3, dtype=np.float32)[0][:, None, None] * np.ones((3, *SIZE), np.float32))
    assert score_maps(tmp_path)["miou"] != before


def test_images_beside_arrays_stay_the_predictions(tmp_path):
    """nnU-Net writes both into one folder; what was scored before is scored."""
    maps_of(tmp_path)
    for name in "ab":
        write_png(tmp_path / f"pred/{name}.png", random_mask(9, SIZE, (0, 1, 2)))
    assert "calibration" not in score_maps(tmp_path)
    assert "calibration" in score_maps(tmp_path, "--prediction-form", "probability")


def test_maps_are_matched_as_masks_are(tmp_path):
    classes, frame = segloss.datasets.tables.CITYSCAPES, "frankfurt_000000_000294"
    write_png(tmp_path / f"true/frankfurt/{frame}_gtFine_labelIds.png", random_mask(0, SIZE, range(34)))
    (tmp_path / "pred/frankfurt").mkdir(parents=True)
    np.savez(tmp_path / f"pred/frankfurt/{frame}_leftImg8bit.npz", np.full((19, *SIZE), 1 / 19, np.float32))
    source = MapSource("maps", tmp_path / "pred", tmp_path / "true", classes)
    assert source.names == [frame] and len([*source.results()]) == 1
    (tmp_path / "pred/frankfurt/other.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"no label in .* for 1: frankfurt/other"):
        MapSource("maps", tmp_path / "pred", tmp_path / "true", classes)


def test_pictures_of_more_classes_than_bits_are_refused(tmp_path):
    from segloss.evaluation.predictions import PredictionWriter

    most = ClassTable(tuple(f"c{k}" for k in range(254)))
    PredictionWriter(tmp_path, most, ["probability_png"], None)


def test_pictures_are_in_the_order_of_their_numbers(tmp_path):
    """Class 2 before class 10, from 0 or 1 on; names that are no such numbers say no order."""
    valid = np.ones((12, 2), bool)
    for first in (0, 1):
        for c in range(12):
            channel = np.zeros((12, 2), np.uint8)
            channel[c] = 255
            write_png(tmp_path / f"{first}/prob_{c + first}.png", channel)
        np.testing.assert_array_equal(read_map(tmp_path / str(first), 12, valid).argmax(0)[:, 0], range(12))
    (tmp_path / "0/prob_3.png").rename(tmp_path / "0/car.png")
    with pytest.raises(InputError, match=r"its names do not number the classes: car.png, prob_0.png.*000.png"):
        read_map(tmp_path / "0", 12, valid)


def test_calibration_and_tilt_of_maps_undo_each_other():
    """Plain argmax of u p, and of its calibrated form read back."""
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(1, 4, 9, 9, generator=generator).softmax(1)
    tilt = torch.tensor([1.0, 2.0, 0.5, 3.0])
    calibration = segloss.calibration.Calibration(1.7, (0.3, -0.1, -0.4, 0.2))
    read = SavedPosterior(MapIndex(None, None, tuple(tilt.tolist()), calibration))
    for tau in (0.0, 0.5, 1.0):
        expected = (p * tilt.view(1, 4, 1, 1) ** tau).argmax(1)
        assert torch.equal(read.decide(calibration.apply(p), tau), expected)


def test_the_rule_of_maps_needs_a_labelled_pixel(tmp_path):
    maps_of(tmp_path)
    for name in "ab":
        write_png(tmp_path / f"true/{name}.png", np.full(SIZE, 255, np.uint8))
    source = MapSource("maps", tmp_path / "pred", tmp_path / "true", THREE)
    with pytest.raises(InputError, match="no pixel is labelled"):
        decision_of_maps(source, "iou")


def test_both_forms_come_back_as_they_were(tmp_path):
    p = torch.rand(5, 4, 7, generator=torch.Generator().manual_seed(1)).softmax(0)
    write_arrays(tmp_path / "a", p)
    write_pictures(tmp_path / "b", p)
    valid = np.ones((4, 7), bool)
    assert torch.allclose(read_map(tmp_path / "a.npz", 5, valid), p, atol=2.5e-4)
    assert torch.allclose(read_map(tmp_path / "b", 5, valid), p, atol=6e-3)  # half of 1/255, before the sum is made 1


def test_suspicious_labels_of_a_run_are_shown_with_their_images(run, tmp_path, monkeypatch):
    """A network hardly trained is sure of little."""
    out = tmp_path / "out"
    monkeypatch.setattr("segloss.evaluation.suspects.MARGIN", 0.05)
    evaluate(out, "--checkpoint", run, "--check", "off", "--suspects", 4, "--save-predictions")
    with (out / "suspects-run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and all(row["labelled"] != row["predicted"] for row in rows)
    assert "(image, label, prediction)" in (out / "suspects-run.html").read_text()
    assert len([*(out / "predictions/run").iterdir()]) == 3
