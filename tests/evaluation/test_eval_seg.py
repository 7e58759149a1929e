"""eval_seg.py from checkpoints to tables, on a small tree of made-up streets."""

import csv
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from data_trees import folder_tree
from street_trees import TINY, street_tree

import eval_seg
import segloss
import train_seg
from segloss.datasets.bands import read_bands
from segloss.errors import InputError


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return street_tree(tmp_path_factory.mktemp("streets"))


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> tuple[Path, Path]:
    """An outlying-label run and a cross-entropy run, one epoch each."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGLOSS_CACHE", str(root / "cache"))
        for loss in ("outlying_mse", "ce"):
            patch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
            flags = ["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(root / loss), "--loss", loss]
            train_seg.train([*TINY, *flags, "--epochs", "1"])
    return root / "outlying_mse", root / "ce"


@pytest.fixture
def run(runs, tmp_path) -> Path:
    return Path(shutil.copytree(runs[0], tmp_path / "run"))


def evaluate(*argv: object) -> None:
    eval_seg.evaluate([*map(str, argv), "--workers", "0"])


def refused(capsys, *argv: object) -> str:
    sys.argv = ["eval_seg.py", *map(str, argv)]
    with pytest.raises(SystemExit) as stop:
        eval_seg.main()
    line = capsys.readouterr().err
    assert stop.value.code == 2 and line.count("\n") == 1 and "Traceback" not in line
    return line


def test_evaluating_a_run_gives_the_scores_that_training_gave(run):
    evaluate("--checkpoint", run)
    evaluated = json.loads((run / "eval-test/metrics.json").read_text())["runs"]["run"]
    assert evaluated.pop("checkpoint") == str(run / "checkpoints/best.ckpt")
    trained = json.loads((run / "test_metrics.json").read_text())
    assert trained.pop("checkpoint").endswith("outlying_mse/checkpoints/best.ckpt")
    assert evaluated == trained


def test_the_metrics_say_how_the_network_ran(run, tmp_path):
    how = ["--tta-flip", "--tta-scales", "1", "1.5", "--tile", "64", "48", "--tile-overlap", "0.25"]
    evaluate("--checkpoint", run, *how, "--image-scale", "0.5", "--output-dir", tmp_path / "out")
    found = json.loads((tmp_path / "out/metrics.json").read_text())["runs"]["run"]
    views = {"tta_scales": [1.0, 1.5], "tta_flip": True, "tile": [64, 48], "tile_overlap": 0.25}
    assert (found["views"], found["image_scale"], found["precision"]) == (views, 0.5, "32-true")
    plain = json.loads((run / "test_metrics.json").read_text())
    assert (plain["views"]["tile"], plain["image_scale"], plain["precision"]) == (None, 1.0, "32-true")


def test_results_agree_with_each_other(run, tmp_path):
    out = tmp_path / "out"
    evaluate("--checkpoint", run, "--split", "val", "--output-dir", out)
    metrics = json.loads((out / "metrics.json").read_text())["runs"]["run"]
    with (out / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [row["name"] for row in metrics["classes"]]
    assert [row["iou"] for row in rows] == ["" if row["iou"] is None else str(row["iou"]) for row in metrics["classes"]]
    with (out / "confusion-run.csv").open(newline="") as file:
        matrix = np.array([list(map(int, row[1:])) for row in list(csv.reader(file))[1:]])
    scores = segloss.Scores.from_confusion(torch.from_numpy(matrix))
    assert scores.miou == metrics["miou"] and scores.pixel_accuracy == metrics["pixel_accuracy"]
    assert matrix.sum(1).tolist() == [row["pixels"] for row in metrics["classes"]]
    assert cv2.imread(str(out / "confusion-run.png")).std() > 5


def test_several_runs_stand_side_by_side(runs, tmp_path, capsys):
    evaluate("--checkpoint", *runs, "--output-dir", tmp_path / "out")
    results = json.loads((tmp_path / "out/metrics.json").read_text())["runs"]
    assert list(results) == ["outlying_mse", "ce"]
    printed = capsys.readouterr().out
    for metrics in results.values():
        assert f"mIoU {100 * metrics['miou']:.1f}" in printed


def test_two_runs_of_one_name_are_told_apart(runs, run, tmp_path):
    other = shutil.copytree(runs[1], tmp_path / "elsewhere/run")
    evaluate("--checkpoint", run, other, "--output-dir", tmp_path / "out")
    assert list(json.loads((tmp_path / "out/metrics.json").read_text())["runs"]) == ["run", "run-2"]


def test_runs_on_other_images_are_refused_before_the_work(run, data, tmp_path, capsys):
    """A run keeps the folder of its data in its checkpoint."""
    root = Path(shutil.copytree(data, tmp_path / "renamed"))
    for path in [*(root / "test").iterdir(), *(root / "testannot").iterdir()]:
        path.rename(path.with_name(f"other_{path.name}"))
    checkpoint = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    checkpoint["segloss"]["used"]["data_path"] = str(root)
    torch.save(checkpoint, tmp_path / "other.ckpt")
    line = refused(capsys, "--checkpoint", run, tmp_path / "other.ckpt", "--output-dir", tmp_path / "out")
    assert "no image is in all of run, other; score them apart" in line and not (tmp_path / "out").exists()


def test_saved_predictions_score_the_same_and_use_the_data_sets_ids(run, data, tmp_path):
    out = tmp_path / "out"
    evaluate("--checkpoint", run, "--save-predictions", "--output-dir", out)
    confusion = segloss.ConfusionMatrix(11, ignore_index=11)
    for path in (data / "testannot").iterdir():
        predicted = cv2.imread(str(out / "predictions/run" / path.name), cv2.IMREAD_UNCHANGED)
        assert predicted.shape == (64, 96) and predicted.dtype == np.uint8
        confusion.update(torch.from_numpy(predicted).long(), torch.from_numpy(cv2.imread(str(path), -1)).long())
    metrics = json.loads((out / "metrics.json").read_text())["runs"]["run"]
    assert confusion.compute().miou == metrics["miou"]


@pytest.mark.parametrize("views", [["--tta-flip"], ["--tile", "48", "48"]], ids=["flip", "tile"])
def test_predictions_saved_with_other_views_score_as_said(run, data, tmp_path, views):
    """What is written is what was counted, not the plain prediction."""
    evaluate("--checkpoint", run, "--save-predictions", *views, "--output-dir", tmp_path / "out")
    predicted, true = tmp_path / "out/predictions/run", data / "testannot"
    folders = ["--predictions", predicted, "--labels", true, "--class-table", "camvid"]
    evaluate(*folders, "--training-counts", run / "pixel_counts.json", "--output-dir", tmp_path / "masks")
    of_run, of_masks = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("out", "masks"))
    for key in ("classes", "miou", "groups", "ignored_pixels", "unknown_predictions"):
        assert of_run["runs"]["run"][key] == of_masks["runs"]["run"][key]
    assert of_run["comparison"] == of_masks["comparison"]
    plain = json.loads((run / "test_metrics.json").read_text())
    assert plain["classes"] != of_run["runs"]["run"]["classes"]


def test_runs_of_one_group_are_one_row(runs, tmp_path):
    flags = ["--checkpoint", *runs, "--names", "x", "y", "--group", "both", "both"]
    evaluate(*flags, "--output-dir", tmp_path / "out", "--block", "2", "--protocol", "segnet")
    found = json.loads((tmp_path / "out/metrics.json").read_text())
    (row,) = found["comparison"]["ranking"]
    assert (row["name"], row["runs"], row["members"]) == ("both", 2, ["x", "y"]) and found["comparison"]["pairs"] == []
    mean = sum(found["runs"][name]["miou"] for name in "xy") / 2
    assert row["miou"]["estimate"] == pytest.approx(mean, rel=1e-12)


def test_the_operating_point_moves_the_decision_of_the_outlying_loss_only(runs, tmp_path):
    evaluate("--checkpoint", *runs, "--output-dir", tmp_path / "one")
    evaluate("--checkpoint", *runs, "--decision", "tau", "0", "--output-dir", tmp_path / "zero")
    one, zero = (json.loads((tmp_path / name / "metrics.json").read_text())["runs"] for name in ("one", "zero"))
    assert one["outlying_mse"]["pixel_accuracy"] != zero["outlying_mse"]["pixel_accuracy"]
    assert zero["outlying_mse"]["decision_tau"] == 0
    assert one["ce"]["classes"] == zero["ce"]["classes"]


def test_scores_are_computed_at_the_labels_resolution(run, tmp_path):
    evaluate("--checkpoint", run, "--image-scale", "0.5", "--output-dir", tmp_path / "half")
    metrics = json.loads((tmp_path / "half/metrics.json").read_text())["runs"]["run"]
    assert sum(row["pixels"] for row in metrics["classes"]) + metrics["ignored_pixels"] == 3 * 64 * 96


def test_batch_size_does_not_change_the_scores(run, tmp_path):
    for batch in (1, 2, 8):
        evaluate("--checkpoint", run, "--batch-size", batch, "--output-dir", tmp_path / str(batch))
    scores = [
        json.loads((tmp_path / name / "metrics.json").read_text())["runs"]["run"]["pixel_accuracy"]
        for name in ("1", "2", "8")
    ]
    assert max(scores) - min(scores) < 1e-3  # rounding differs with the batch; a few pixels lie on an edge


def test_images_of_different_sizes_are_scored_together(run, data, tmp_path):
    root = Path(shutil.copytree(data, tmp_path / "mixed"))
    image, mask = root / "test/test_1.png", root / "testannot/test_1.png"
    cv2.imwrite(str(image), cv2.imread(str(image))[:50, :70])
    cv2.imwrite(str(mask), cv2.imread(str(mask), -1)[:50, :70])
    evaluate("--checkpoint", run, "--data-path", root, "--output-dir", tmp_path / "out")
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())["runs"]["run"]
    assert sum(row["pixels"] for row in metrics["classes"]) + metrics["ignored_pixels"] == 2 * 64 * 96 + 50 * 70


def test_a_checkpoint_file_serves_as_well_as_its_folder(run, tmp_path):
    single = shutil.copy(run / "checkpoints/best.ckpt", tmp_path / "model.ckpt")
    evaluate("--checkpoint", single, "--output-dir", tmp_path / "out")
    results = json.loads((tmp_path / "out/metrics.json").read_text())["runs"]
    trained = json.loads((run / "test_metrics.json").read_text())
    assert results == {"model": {**trained, "checkpoint": str(single)}}


def test_bad_input_is_one_line_with_the_cure(run, data, tmp_path, capsys):
    assert "no such run folder" in refused(capsys, "--checkpoint", tmp_path / "none")
    assert "--checkpoint" in refused(capsys)
    (tmp_path / "junk.ckpt").write_bytes(b"junk")
    assert "junk.ckpt" in refused(capsys, "--checkpoint", tmp_path / "junk.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    assert "no checkpoint of segloss" in refused(capsys, "--checkpoint", tmp_path / "other.ckpt")
    assert "split" in refused(capsys, "--checkpoint", run, "--split", "validation")
    assert "/nowhere" in refused(capsys, "--checkpoint", run, "--data-path", "/nowhere")
    assert "--decision must be" in refused(capsys, "--checkpoint", run, "--decision", "tau", "inf")
    root = Path(shutil.copytree(data, tmp_path / "unlabelled"))
    shutil.rmtree(root / "testannot")
    assert "no labels" in refused(capsys, "--checkpoint", run, "--data-path", root)


def test_a_damaged_checkpoint_is_one_line(run, tmp_path, capsys):
    whole = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    for name, harm in {
        "tensor": lambda c: c["state_dict"].popitem(),
        "counts": lambda c: c["segloss"].pop("counts"),
        "format": lambda c: c["segloss"].pop("format"),
        "content": lambda c: c.update(segloss=5),
    }.items():
        checkpoint = {**whole, "state_dict": dict(whole["state_dict"]), "segloss": dict(whole["segloss"])}
        harm(checkpoint)
        torch.save(checkpoint, tmp_path / f"{name}.ckpt")
        assert f"{name}.ckpt" in refused(capsys, "--checkpoint", tmp_path / f"{name}.ckpt")


def test_an_impossible_output_folder_is_one_line_before_the_work(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        line = refused(capsys, "--checkpoint", run, "--output-dir", tmp_path / name)
        assert f"{name}: cannot be made: " in line and "; choose another --output-dir" in line


def test_names_of_runs_stay_distinct():
    from segloss.evaluation.sources import distinct_names

    names = distinct_names(["x", "x", "x-2", "x"])
    assert names[0] == "x" and len(set(names)) == 4


def test_a_run_decodes_logits_and_refuses_what_is_no_image(run):
    loaded = segloss.load_run(run)
    logits = torch.randn(2, 11, 4, 5)
    assert torch.equal(loaded.decode(logits), logits.argmax(1))
    assert torch.equal(loaded.decode(logits, tau=0.0), loaded.criterion.posterior(logits).argmax(1))
    for image in (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="uint8 RGB"):
            loaded.predict(image)


@pytest.mark.parametrize(
    ("image", "got", "cure"),
    [
        ("a.png", "str", "read the file: segloss.datasets.bands.read_bands(Path(image), run.bands)[0]"),
        (Path("a.png"), "PosixPath", "read the file: segloss.datasets.bands.read_bands(Path(image), run.bands)[0]"),
        (torch.zeros(8, 9, 3), "Tensor", "give an array, as image.cpu().numpy() of a tensor"),
        (np.zeros((3, 8, 9), np.uint8), "uint8 (3, 8, 9)", "give image.transpose(1, 2, 0)"),
        (np.zeros((8, 9), np.uint8), "uint8 (8, 9)", "give np.stack([image.squeeze()] * 3, -1)"),
        (np.zeros((8, 9, 4), np.uint8), "uint8 (8, 9, 4)", "give image[..., :3] without the fourth band"),
        (np.zeros((8, 9, 5), np.uint8), "uint8 (8, 9, 5)", "give red, green and blue alone"),
        (np.zeros((2, 8, 9, 3), np.uint8), "uint8 (2, 8, 9, 3)", "give one image at a time"),
        (
            np.zeros((8, 9, 3), np.float32),
            "float32 (8, 9, 3)",
            "give (image * 255).round().astype(np.uint8) where 1 is white",
        ),
    ],
)
def test_what_is_no_image_is_told_with_its_cure(run, image, got, cure):
    with pytest.raises(InputError) as error:
        segloss.load_run(run).predict(image)
    assert str(error.value) == f"image must be uint8 RGB of shape (H, W, 3), got {got}; {cure}"


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_images_of_pil_are_predicted_as_files_of_them_are(run, tmp_path, mode):
    image = pytest.importorskip("PIL.Image")
    loaded = segloss.load_run(run)
    colours = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    picture = image.fromarray(colours).convert(mode)
    picture.save(tmp_path / "a.png")
    expected = loaded.predict(read_bands(tmp_path / "a.png", loaded.bands)[0])
    np.testing.assert_array_equal(loaded.predict(picture), expected)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("turn", [3, 6])
def test_images_of_pil_are_turned_as_files_of_them_are(run, tmp_path, turn, ending):
    """A phone's photograph was seen as it lay on its side; Pillow itself turns TIFF alone."""
    image = pytest.importorskip("PIL.Image")
    loaded, exif, path = segloss.load_run(run), image.Exif(), tmp_path / f"a.{ending}"
    exif[0x0112] = turn
    image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)).save(path, exif=exif)
    expected = loaded.predict(read_bands(path, loaded.bands)[0])
    assert expected.shape == ((32, 64) if turn == 3 else (64, 32))
    for picture in (image.open(path), image.open(path).convert("RGBA")):
        np.testing.assert_array_equal(loaded.predict(picture), expected)


def test_half_transparent_images_of_pil_are_refused_as_files_of_them_are(run):
    image = pytest.importorskip("PIL.Image")
    with pytest.raises(InputError, match=r"got uint8 \(8, 9, 4\); give image\[..., :3\]"):
        segloss.load_run(run).predict(image.fromarray(np.full((8, 9, 4), 128, np.uint8)))


def test_another_class_count_is_refused_before_anything_is_written(run, tmp_path, capsys):
    root = tmp_path / "two"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(3):
        cv2.imwrite(str(root / f"images/{index}.png"), np.zeros((40, 40, 3), np.uint8))
        cv2.imwrite(str(root / f"masks/{index}.png"), np.eye(40, dtype=np.uint8))
    (root / "classes.txt").write_text("background\ncrack\n")
    out = tmp_path / "out"
    common = ("--checkpoint", run, "--dataset", "folder", "--data-path", root, "--split", "val", "--output-dir", out)
    line = refused(capsys, *common)
    assert "11 classes" in line and "has 2" in line
    names = list(segloss.load_run(run).classes.names)
    (root / "classes.txt").write_text("\n".join(names[::-1]))
    assert "'sky'" in refused(capsys, *common) and not out.exists()


def test_a_class_file_that_gives_other_ids_than_in_training_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
    root, out = folder_tree(tmp_path / "data", splits=("train", "val"), size=(64, 96), ids=(0, 1, 2)), tmp_path / "run"
    where = ("--dataset", "folder", "--data-path", str(root), "--output-dir", str(out))
    train_seg.train([*TINY, *where, "--epochs", "1", "--check", "off"])

    def told(*options: object) -> list[str]:
        capsys.readouterr()
        evaluate("--checkpoint", out, "--split", "val", "--check", "off", *options)
        return [line for line in capsys.readouterr().out.splitlines() if "other ids than in training" in line]

    assert told() == []
    other = Path(shutil.copytree(root, tmp_path / "other"))
    for place in (root, other):
        (place / "classes.yaml").write_text("{wall: 0, floor: 2, lamp: 1}\n")
    assert told("--output-dir", tmp_path / "a", "--data-path", other) == []  # a data set of its own
    (line,) = told("--output-dir", tmp_path / "b")
    assert line.startswith("warning: run: classes have other ids than in training: floor 2 (it was 1), lamp 1 (it was")


def test_a_stray_id_found_while_scoring_is_one_line(run, data, tmp_path, capsys):
    root = Path(shutil.copytree(data, tmp_path / "stray"))
    cv2.imwrite(str(root / "testannot/test_2.png"), np.full((64, 96), 200, np.uint8))
    for workers in ("0", "1"):
        line = refused(capsys, "--checkpoint", run, "--data-path", root, "--workers", workers)
        assert "test_2.png" in line and "200" in line
    assert not (run / "eval-test/metrics.json").exists()
