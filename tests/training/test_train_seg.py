"""train_seg.py from flags to run folder, on a small tree of made-up streets."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
import yaml
from data_trees import random_image
from street_trees import TINY, street_tree

import segloss
import train_seg
from segloss.datasets import build_dataset
from segloss.datasets.loading import epoch_length, repeat_factors
from segloss.errors import told
from segloss.pixel_counts import image_histograms
from segloss.training.optimisation import rate_factor
from segloss.training.task import SegmentationTask

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return street_tree(tmp_path_factory.mktemp("streets"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> tuple[Path, str]:
    """A finished run's folder and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    command = [sys.executable, ROOT / "train_seg.py", *arguments(data, folder)]
    environment = {"SEGLOSS_CACHE": str(folder.parent / "cache"), "COLUMNS": "80"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, done.stdout


def arguments(data: Path, folder: Path, *more: str) -> list[str]:
    return ["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(folder), *TINY, *more]


def refused(capsys, argv: list[str]) -> str:
    """The one line with which train_seg.py refuses its input."""
    with pytest.raises(SystemExit) as stop:
        run_main(argv)
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert printed.count("\n") == 1 and "Traceback" not in printed
    return printed


def run_main(argv: list[str]) -> None:
    sys.argv = ["train_seg.py", *argv]
    train_seg.main()


def history(folder: Path) -> list[dict]:
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_all_it_promises(finished):
    folder, _ = finished
    for name in ("config.yaml", "pixel_counts.json", "history.csv", "val_metrics.json", "test_metrics.json"):
        assert (folder / name).stat().st_size > 0
    for name in ("last.ckpt", "best.ckpt"):
        assert (folder / "checkpoints" / name).stat().st_size > 1_000_000
    for name in ("curves.png", "per_class_iou.png", "predictions.png"):
        picture = cv2.imread(str(folder / name))
        assert picture is not None and picture.std() > 5, f"{name} is blank"
    assert list((folder / "tensorboard").glob("events*"))
    assert not list(folder.rglob(".*")), "temporary files are left"


def test_a_run_says_what_it_will_do_and_what_came_of_it(finished):
    folder, printed = finished
    metrics = json.loads((folder / "test_metrics.json").read_text())
    for expected in (
        "10 train, 3 val, 3 test images, 11 classes",
        "outlying_mse",
        "label value",
        "bicyclist",
        "M parameters",
        "epoch 2/2",
        f"mIoU {100 * metrics['miou']:.1f}",
        str(folder),
    ):
        assert expected in printed
    lines = [line for line in printed.replace(str(folder), "").splitlines() if not line.startswith("warning: ")]
    assert max(map(len, lines)) <= 150


def test_metrics_follow_the_documented_schema(finished):
    for split, images in (("val", 3), ("test", 3)):
        metrics = json.loads((finished[0] / f"{split}_metrics.json").read_text())
        assert set(metrics) == {
            *("dataset", "split", "images", "ignored_pixels", "protocol", "decision_tau"),
            *("miou", "mean_accuracy", "pixel_accuracy", "classes_averaged", "classes"),
            *("frequency_weighted_iou", "groups", "worst_class", "calibration", "decision", "confusions"),
            *("unknown_predictions", "checkpoint", "weights", "views", "image_scale", "precision"),
        }
        assert (metrics["split"], metrics["images"], metrics["decision_tau"]) == (split, images, 1.0)
        assert [row["name"] for row in metrics["classes"]][:3] == ["sky", "building", "pole"]
        total = sum(row["pixels"] for row in metrics["classes"]) + metrics["ignored_pixels"]
        assert total == images * 64 * 96  # every pixel at the label's own resolution, each image once
        ratios = [row[key] for row in metrics["classes"] for key in ("iou", "recall", "precision", "f1")]
        assert all(ratio is None or 0 <= ratio <= 1 for ratio in ratios)
        averaged = [row["iou"] for row in metrics["classes"] if row["iou"] is not None]
        assert metrics["classes_averaged"] == len(averaged)
        assert metrics["miou"] == pytest.approx(np.mean(averaged), abs=1e-12)


def test_history_has_a_row_per_epoch_and_best_is_its_best(finished):
    folder, _ = finished
    rows = history(folder)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["2", "4"]  # 10 images in full batches of 4
    best = max(float(row["val_miou"]) for row in rows)
    # float32 in the history, and other batches change the last bits of the scores
    assert json.loads((folder / "val_metrics.json").read_text())["miou"] == pytest.approx(best, abs=1e-3)


def test_counts_in_the_run_folder_are_those_of_the_masks(finished, data):
    counts = segloss.PixelCounts.load(finished[0] / "pixel_counts.json")
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (data / "trainannot").iterdir()]
    assert list(counts.pixels) == [sum(int((mask == c).sum()) for mask in masks) for c in range(11)]
    assert counts.ignored_pixels == sum(int((mask == 11).sum()) for mask in masks)


def test_load_run_predicts_like_the_scored_model(finished, data):
    run = segloss.load_run(finished[0])
    assert run.classes.names[10] == "bicyclist" and not run.model.training
    confusion = segloss.ConfusionMatrix(11)
    for path in sorted((data / "test").iterdir()):
        image = cv2.imread(str(path))[..., ::-1].copy()
        mask = cv2.imread(str(data / "testannot" / path.name), cv2.IMREAD_UNCHANGED)
        labels = torch.from_numpy(mask).long()
        labels[labels == 11] = 255
        confusion.update(torch.from_numpy(run.predict(image)).long(), labels)
    expected = json.loads((finished[0] / "test_metrics.json").read_text())
    # A batch of one may round its scores otherwise than a batch of three: a few pixels on the edge of two classes.
    assert confusion.compute().pixel_accuracy == pytest.approx(expected["pixel_accuracy"], abs=1e-3)


def test_the_saved_config_repeats_the_run_exactly(finished, data, tmp_path):
    folder = tmp_path / "again"
    run_main(["--config", str(finished[0] / "config.yaml"), "--output-dir", str(folder)])
    first = torch.load(finished[0] / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    second = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_interrupted_run_resumes_as_if_it_had_not_been(finished, data, tmp_path, monkeypatch, workers):
    folder = tmp_path / "cut"
    step = SegmentationTask.training_step

    def power_cut(task, batch, index):
        if task.current_epoch == 1 and index == 1:
            raise RuntimeError("power cut")
        return step(task, batch, index)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(SegmentationTask, "training_step", power_cut)
        run_main(arguments(data, folder))
    assert [row["epoch"] for row in history(folder)] == ["1"]
    run_main(
        arguments(data, folder, "--resume", "--workers", workers)
    )  # the command that was interrupted, and --resume
    whole = torch.load(finished[0] / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    resumed = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    same = ("epoch", "step", "train_loss", "val_miou")
    assert [[row[key] for key in same] for row in history(folder)] == [
        [row[key] for key in same] for row in history(finished[0])
    ]


def test_a_rate_beyond_measure_stops_the_run_and_saves_no_weights(data, tmp_path, capsys):
    """It trained to NaN for all epochs, exited with 0 and reported the mIoU of NaN weights."""
    folder = tmp_path / "run"
    line = refused(capsys, arguments(data, folder, "--lr", "1e10", "--batch-size", "2"))
    assert "training: " in line and "learning rate " in line and "gradient norm " in line and "train_" in line
    assert (folder / "non_finite_batch.pt").is_file() and not (folder / "checkpoints").exists()


def test_so_does_one_in_two_processes(data, tmp_path):
    command = [sys.executable, ROOT / "train_seg.py", *arguments(data, tmp_path / "run", "--lr", "1e10")]
    command += ["--batch-size", "1", "--devices", "2", "--accelerator", "cpu", "--trainer.strategy", "ddp_fork"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: training: ") and "Traceback" not in done.stderr


def test_one_that_is_interrupted_while_it_is_scored_says_so(data, tmp_path, monkeypatch):
    folder = tmp_path / "trained"
    monkeypatch.setattr(train_seg, "score_run", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt, match="training is done") as stop:
        train_seg.train(arguments(data, folder))
    assert told(stop.value) == (
        f"interrupted, training is done and only its scores are missing; go on with --resume --output-dir {folder}",
        130,
    )
    monkeypatch.undo()
    train_seg.train(["--resume", "--output-dir", str(folder)])
    assert (folder / "test_metrics.json").exists()


def test_sigterm_while_a_run_is_scored_says_how_to_go_on(finished, monkeypatch, capsys):
    """The training is complete, so that going on with it scores at once."""
    folder = finished[0]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(train_seg, "score_run", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        run_main(["--resume", "--output-dir", str(folder)])
    assert stop.value.code == 143
    again = f"only its scores are missing; go on with --resume --output-dir {folder}"
    assert f"ended by SIGTERM, training is done and {again}" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_run_that_is_told_to_end_says_how_to_go_on_and_does(finished, data, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "ended"
    step = SegmentationTask.training_step

    def told_to_end(task, batch, index):
        if task.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(task, batch, index)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(SegmentationTask, "training_step", told_to_end)
        run_main(arguments(data, folder))
    assert stop.value.code == 143
    said = capsys.readouterr().out
    assert f"ended by SIGTERM, saved after step 3; go on with --resume --output-dir {folder}" in said
    run_main(["--resume", "--output-dir", str(folder)])
    whole, resumed = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (finished[0], folder)
    )
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_run_whose_last_checkpoint_is_damaged_goes_on_with_the_one_before(finished, tmp_path, capsys):
    folder = Path(shutil.copytree(finished[0], tmp_path / "damaged"))
    last = folder / "checkpoints/last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    run_main(["--resume", "--output-dir", str(folder)])
    said = capsys.readouterr().out
    assert "does not match its checksum" in said and "going on with the checkpoint before it" in said
    assert [row["epoch"] for row in history(folder)] == ["1", "2"]
    whole, again = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (finished[0], folder)
    )
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_a_run_killed_before_it_had_a_config_just_starts(data, tmp_path):
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "pixel_counts.json").write_text("{")
    run_main(arguments(data, folder, "--resume", "--epochs", "1"))
    assert [row["epoch"] for row in history(folder)] == ["1"] and (folder / "config.yaml").is_file()
    assert segloss.PixelCounts.load(folder / "pixel_counts.json").image_count == 10


def test_resuming_a_finished_run_with_more_epochs_goes_on(finished, tmp_path):
    folder = tmp_path / "longer"
    shutil.copytree(finished[0], folder)
    run_main(["--resume", "--output-dir", str(folder), "--epochs", "3"])
    assert [row["epoch"] for row in history(folder)] == ["1", "2", "3"]
    assert yaml.safe_load((folder / "config.yaml").read_text())["epochs"] == 3


@pytest.mark.parametrize(
    "loss",
    [
        *("mse", "ce", "weighted_ce", "focal", "ohem_ce", "logit_adjusted", "vector_scaling", "ldam"),
        *("dice", "tversky", "lovasz", "weighted_outlying_mse", "weighted_ce+0.5*dice"),
    ],
)
def test_every_other_loss_trains_a_step(data, tmp_path, loss):
    run_main(arguments(data, tmp_path / "run", "--loss", loss, "--epochs", "1"))
    run = segloss.load_run(tmp_path / "run")
    assert run.config.loss == loss
    assert np.isfinite(float(history(tmp_path / "run")[0]["train_loss"]))


def test_training_lowers_the_loss_on_what_it_sees(data, tmp_path):
    run_main(arguments(data, tmp_path / "run", "--epochs", "8", "--lr", "3e-3", "--encoder-lr-factor", "1"))
    losses = [float(row["train_loss"]) for row in history(tmp_path / "run")]
    assert np.mean(losses[-3:]) < 0.75 * losses[0]  # crops differ from epoch to epoch


@pytest.mark.parametrize("rare", [False, True], ids=["plain", "for rare classes"])
def test_two_processes_share_the_images_and_score_every_validation_image_once(data, tmp_path, rare):
    folder = tmp_path / "two"
    images, more = 10, []
    if rare:
        histograms = image_histograms(build_dataset("camvid", data, "train"))[0]
        images, more = epoch_length(10, repeat_factors(histograms, 1.0)), ["--repeat-threshold", "1"]
        more += ["--guided-crops", "0.5", "--cat-max-ratio", "0.75"]
        assert images // 4 > 2
    command = [sys.executable, ROOT / "train_seg.py", *arguments(data, folder, "--epochs", "1", "--batch-size", "2")]
    command += ["--devices", "2", "--accelerator", "cpu", "--trainer.strategy", "ddp_fork", *more]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = history(folder)
    alone = json.loads((folder / "val_metrics.json").read_text())
    assert float(row["val_pixel_accuracy"]) == pytest.approx(alone["pixel_accuracy"], abs=1e-3)
    assert int(row["step"]) == images // 2 // 2  # half of the images for each of the two, in full batches of 2


def test_a_folder_without_split_folders_trains_and_says_that_there_is_no_test(tmp_path, capsys):
    from street_trees import write_scene

    root = tmp_path / "data"
    for index in range(20):
        write_scene(root / f"images/{index}.png", root / f"masks/{index}.png", "train", index)
    (root / "classes.txt").write_text("\n".join(segloss.datasets.tables.CAMVID_11.names))
    folder = tmp_path / "run"
    run_main(["--dataset", "folder", "--data-path", str(root), "--output-dir", str(folder), *TINY, "--epochs", "1"])
    assert not (folder / "test_metrics.json").exists()
    assert "test_metrics.json is not written" in capsys.readouterr().out.replace("\n", " ")
    assert (folder / "predictions.png").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_warnings_are_said_by_the_first_process_alone(data, tmp_path, rank):
    root = broken(data, tmp_path)
    (root / "val/val_0.png").unlink()
    cv2.imwrite(str(root / "valannot/val_1.png"), np.full((64, 96), 77, np.uint8))
    command = [sys.executable, ROOT / "train_seg.py", *arguments(root, tmp_path / "run")]
    environment = {**os.environ, "LOCAL_RANK": rank, "COLUMNS": "80"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "holds id 77" in done.stderr
    assert ("mask without image" in done.stdout) == (rank == "0")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def broken(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "broken"))


def test_bad_data_is_one_line_and_leaves_no_run(data, tmp_path, capsys):
    folder = tmp_path / "run"
    cases = {
        "image without mask": lambda root: (root / "trainannot/train_0.png").unlink(),
        "is not a readable image": lambda root: (root / "val/val_0.png").write_bytes(b"no image"),
        "holds id 77": lambda root: cv2.imwrite(str(root / "valannot/val_0.png"), np.full((64, 96), 77, np.uint8)),
        "mask is 10x20": lambda root: cv2.imwrite(str(root / "trainannot/train_1.png"), np.zeros((20, 10), np.uint8)),
        "val_1.png: is cut off": lambda root: truncate(root / "val/val_1.png"),
        "holds no images": lambda root: [path.unlink() for path in (root / "val").iterdir()],
    }
    for number, (message, harm) in enumerate(cases.items()):
        root = broken(data, tmp_path / str(number))
        harm(root)
        line = refused(capsys, arguments(root, folder))
        assert message in line and str(root) in line
        assert not folder.exists()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--data-path", "/nowhere"], "/nowhere"),
        (["--dataset", "kitti"], "camvid, cityscapes, cityscapes-coarse, ade20k, voc, folder, hf, synthetic"),
        (["--arch", "vnet"], "unetplusplus"),
        (["--encoder", "resnet19"], "resnet34"),
        (["--loss", "hinge"], "outlying_mse, mse, ce, focal"),
        (["--label-values", "ranks"], "rank, uniform, power, log, effective"),
        (["--loss", "outlying_mse", "--label-values", "1", "2", "3"], "11"),
        (["--encoder-weights", "missing.pth"], "missing.pth"),
        (["--monitor", "f1"], "miou"),
        (["--lr", "fast"], "lr"),
        (["--learning-rate", "1"], "--learning-rate"),
        (["--accelerator", "cuda"], "cpu"),
        (["--trainer.max_time_travel", "1"], "max_time_travel"),
        (["--trainer.max_epochs", "3"], "use --epochs"),
        (["--trainer.fast_dev_run", "true"], "use --epochs"),
    ],
)
def test_a_bad_flag_is_one_line_with_the_cure_and_leaves_no_run(data, tmp_path, capsys, more, expected):
    if "cuda" in more and torch.cuda.is_available():
        more, expected = ["--accelerator", "mps"], "cpu"
    folder = tmp_path / "run"
    assert expected in refused(capsys, arguments(data, folder, *more))
    assert not folder.exists()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--arch", "deeplabv3+"], "unknown --arch 'deeplabv3+'; choose one of unet, "),
        (["--arch", "deeplabv3+"], "did you mean deeplabv3plus?"),
        (["--encoder", "resnet-34"], "did you mean resnet34?"),
        (["--encoder", "tu-convnext_tine"], "timm has no such model; near it: tu-convnext_tiny"),
        (["--arch", "linknet", "--encoder", "mit_b0"], "no linknet with encoder mit_b0"),
        (["--encoder", "tu-maxvit_tiny_tf_224"], "takes images of 224x224 only"),
        (["--encoder-weights", "gone.pth"], "gone.pth: no such weights file"),
        (["--encoder-weights", str(Path(__file__))], f"{Path(__file__).name}: cannot be read as weights"),
        (["--augmentations", "gone.yaml"], "gone.yaml: "),
        (["--loss", "hinge"], "unknown loss 'hinge'"),
        (["--label-values", "ranks"], "--label-values must be rank, uniform"),
        (["--dataset", "kamvid"], "did you mean camvid?"),
        (["--trainer.max_time_travel", "1"], "unknown option of --trainer 'max_time_travel'"),
        (["--trainer.gradient_clip", "1"], "did you mean gradient_clip_val?"),
        (["--trainer.max_epochs", "3"], "use --epochs"),
        (["--trainer.check_val_every_n_epoch", "often"], "must be a whole number of at least 1, got often"),
        (["--precision", "16-mixed", "--accelerator", "cpu"], "--precision 16-mixed needs a GPU"),
    ],
)
def test_what_can_be_refused_without_data_is_refused_before_data_is_looked_at(tmp_path, capsys, more, expected):
    """The folder is empty: a refusal that came after the first look at it would say so."""
    folder = tmp_path / "run"
    (tmp_path / "no data").mkdir()
    line = refused(capsys, arguments(tmp_path / "no data", folder, *more))
    assert expected in line and "no data" not in line
    assert not folder.exists()


def test_the_default_network_is_not_looked_up_before_the_data_is():
    """segmentation_models_pytorch takes seconds to import, and a misspelt flag or path is answered at once."""
    program = (
        "import sys, train_seg\n"
        "for flags in ([], ['--data-path', 'nowhere', '--gamma', '3']):\n"
        "    try: train_seg.train(flags)\n"
        "    except ValueError as error: print(error)\n"
        "slow = {'segmentation_models_pytorch', 'lightning', 'albumentations', 'timm', 'torch._dynamo'}\n"
        "print(slow & {*sys.modules})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    first, second, slow = done.stdout.splitlines()
    assert "'camvid' needs --data-path" in first and "nowhere: data folder is missing" in second and slow == "set()"


def test_a_run_keeps_what_was_asked_and_what_was_used(data, tmp_path, monkeypatch):
    monkeypatch.chdir(data.parent)
    folder = tmp_path / "run"
    command = ["--dataset", "CamVid", "--data-path", data.name, "--output-dir", str(folder), *TINY, "--epochs", "1"]
    crop = command.index("--crop-size")
    run_main([*command[:crop], *command[crop + 3 :], "--precision", "auto", "--image-scale", "0.5"])
    asked = yaml.safe_load((folder / "config.yaml").read_text())
    assert (asked["crop_size"], asked["precision"], asked["dataset"]) == (None, "auto", "camvid")
    assert asked["data_path"] == data.name
    used = yaml.safe_load((folder / "used.yaml").read_text())
    assert (used["crop_size"], used["workers"], used["data_path"]) == ([32, 48], 0, str(data))
    assert used["precision"] in ("32-true", "bf16-mixed", "16-mixed")
    content = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["segloss"]
    assert content["used"] == used and content["config"]["precision"] == "auto"
    assert segloss.load_run(folder).used.crop_size == (32, 48)

    (folder / "used.yaml").write_text(yaml.safe_dump({**used, "precision": "32-true", "crop_size": [32, 64]}))
    monkeypatch.chdir(tmp_path)
    run_main(["--resume", "--output-dir", str(folder), "--epochs", "2"])
    again = yaml.safe_load((folder / "used.yaml").read_text())
    assert (again["precision"], again["crop_size"], again["data_path"]) == ("32-true", [32, 64], str(data))
    assert yaml.safe_load((folder / "config.yaml").read_text())["precision"] == "auto"


def test_a_run_of_before_resumes_and_loads(finished, tmp_path):
    """Its config.yaml holds what was used, and nothing else does."""
    folder = Path(shutil.copytree(finished[0], tmp_path / "old"))
    asked, used = (yaml.safe_load((folder / name).read_text()) for name in ("config.yaml", "used.yaml"))
    (folder / "used.yaml").unlink()
    (folder / "config.yaml").write_text(yaml.safe_dump({**asked, **used}))
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = torch.load(folder / "checkpoints" / name, weights_only=True)
        content = checkpoint["segloss"]
        content["config"] |= content.pop("used")
        torch.save(checkpoint, folder / "checkpoints" / name)
    run = segloss.load_run(folder)
    assert (run.used.crop_size, run.used.data_path) == ((64, 64), used["data_path"])
    run_main(["--resume", "--output-dir", str(folder), "--epochs", "3"])
    assert [row["epoch"] for row in history(folder)] == ["1", "2", "3"]


def test_a_mask_set_with_one_class_left_is_refused_with_the_cure(tmp_path, capsys):
    root = tmp_path / "data"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(6):
        cv2.imwrite(str(root / f"images/{index}.png"), random_image(index, (64, 64)))
        cv2.imwrite(str(root / f"masks/{index}.png"), 255 * np.eye(64, dtype=np.uint8))
    (root / "classes.txt").write_text("background\ncrack\n")
    folder = tmp_path / "run"
    line = refused(capsys, ["--dataset", "folder", "--data-path", str(root), "--output-dir", str(folder), *TINY])
    assert "only background in the" in line and "id: 255" in line
    assert not folder.exists()


def test_validating_every_other_epoch_leaves_gaps_in_the_history(data, tmp_path):
    run_main(arguments(data, tmp_path / "run", "--trainer.check_val_every_n_epoch", "2", "--epochs", "4"))
    assert [bool(row["val_miou"]) for row in history(tmp_path / "run")] == [False, True, False, True]
    assert (tmp_path / "run/curves.png").exists()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_every_precision(data, tmp_path, precision):
    more = ["--precision", precision, "--accelerator", "cpu", "--epochs", "1", "--trainer.gradient_clip_val", "1.0"]
    run_main(arguments(data, tmp_path / "run", *more))
    assert np.isfinite(float(history(tmp_path / "run")[0]["train_loss"]))


def test_a_batch_of_one_value_per_channel_is_one_line_before_training(data, tmp_path, capsys):
    folder = tmp_path / "run"
    small = ["--batch-size", "1", "--crop-size", "32", "32"]
    assert "--batch-size 1 leaves a batch norm of the network one value" in refused(
        capsys, arguments(data, folder, *small)
    )
    assert not folder.exists()
    run_main(arguments(data, folder, "--batch-size", "1", "--epochs", "1"))  # 64x64 pixels are enough
    assert len(history(folder)) == 1


def test_options_without_effect_are_told_before_training(data, tmp_path, capsys):
    run_main(arguments(data, tmp_path / "run", "--epochs", "1", "--loss", "focal", "--alpha", "0.25"))
    said = capsys.readouterr().out.replace("\n", " ")
    assert "warning: --alpha does nothing with --loss focal, only with outlying_mse and mse" in said


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(finished, data, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished[0].rglob("*")}
    assert "--resume" in refused(capsys, arguments(data, finished[0]))
    assert {path: path.stat().st_mtime_ns for path in finished[0].rglob("*")} == before


def test_resuming_with_another_learning_rate_is_refused(finished, capsys):
    line = refused(capsys, ["--resume", "--output-dir", str(finished[0]), "--lr", "0.5"])
    assert "--lr" in line


def test_resuming_on_another_val_split_is_refused_and_changes_nothing(finished, tmp_path, capsys):
    data = street_tree(tmp_path / "data", val=4)
    files = [path for path in finished[0].rglob("*") if path.is_file() and path.name != "run.lock"]
    before = {path: path.read_bytes() for path in files}
    more = ["--data-path", str(data), "--epochs", "50"]
    line = refused(capsys, ["--resume", "--output-dir", str(finished[0]), *more])
    cure = "restore it, or add --override to choose best.ckpt anew"
    assert line == f"error: {finished[0]}: its val split was another one; {cure}\n"
    assert {path: path.read_bytes() for path in files} == before


def test_resuming_where_no_run_is_is_refused(tmp_path, capsys):
    assert "no run folder" in refused(capsys, ["--resume", "--output-dir", str(tmp_path / "none")])


def test_the_learning_rate_warms_up_then_falls_to_zero():
    factors = [rate_factor(step, 100, 0.1) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert max(factors) == factors[10] == 1
    assert all(a < b for a, b in pairwise(factors[:11]))
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert factors[100] == 0
    assert factors[55] == pytest.approx(0.5**0.9)
