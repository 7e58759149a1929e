"""What is recorded of a run: services beside TensorBoard, pictures, how fast it is, and a bar that fits anywhere."""

import io
import re
import sys
from pathlib import Path

import lightning.pytorch.loggers
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from rich.console import Console
from small_training import FewImages, SmallRun
from street_trees import street_tree
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segloss.config import DataOptions
from segloss.datasets.transforms import EvalTransform
from segloss.errors import InputError
from segloss.flags import from_plain_dict
from segloss.report.terminal import new_progress
from segloss.training.callbacks import describe_speed, peak_bytes
from segloss.training.pictures import Pictures, captioned, choose_shown
from segloss.training.records import build_loggers, log_picture
from segloss.training.task import SegmentationTask
from segloss.training.trainer import build_trainer


class Service(Logger):
    """What a service is told."""

    def __init__(self, **options):
        super().__init__()
        self.options, self.told, self.shown = options, {}, []
        self.name_, self.version_ = "service", "1"

    name = property(lambda self: self.name_)
    version = property(lambda self: self.version_)

    def log_hyperparams(self, *_, **__):
        pass

    def log_metrics(self, metrics, step=None):
        self.told.update(metrics)

    def log_image(self, key, images, step=None):
        self.shown.append((key, images[0], step))


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


@pytest.mark.parametrize("name", ["WandbLogger", "MLFlowLogger", "CometLogger"])
def test_a_service_is_told_what_tensorboard_is(tmp_path, monkeypatch, name):
    monkeypatch.setattr(lightning.pytorch.loggers, name, Service)
    run = SmallRun(tmp_path, epochs=2, logger=[name.removesuffix("Logger").lower()]).fit()
    service = run.trainer.loggers[1]
    tags = set(events(tmp_path).Tags()["scalars"])
    wanted = {"train_loss", "lr", "val_miou", "val_tail_miou", "val_iou/pole", "images_per_second", "wait_share"}
    assert wanted | {"peak_mib", "minutes_left"} <= tags and wanted <= set(service.told)


def test_tensorboard_shows_nothing_of_a_process_that_was_killed_before_its_first_checkpoint(tmp_path):
    SmallRun(tmp_path, epochs=2).fit()
    run = SmallRun(tmp_path, epochs=1).fit()
    (shown,) = events(tmp_path).Scalars("train_loss")
    assert shown.step == run.trainer.global_step


@pytest.mark.parametrize("name", ["~/run", "$OWN/run"])
def test_a_run_is_in_one_place_whatever_it_is_called(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OWN", "own")
    SmallRun(Path(name)).fit()
    assert {path.name for path in Path(name).iterdir()} == {"checkpoints", "history.csv", "tensorboard"}
    assert [path.name for path in tmp_path.iterdir()] == [Path(name).parts[0]]


def test_a_run_and_its_continuation_are_one_to_wandb(tmp_path, monkeypatch):
    monkeypatch.setattr(lightning.pytorch.loggers, "WandbLogger", Service)
    first, again, other = (build_loggers(("wandb",), tmp_path / name)[1].options for name in ("a", "a", "b"))
    assert first == again and first["id"] != other["id"] and first["resume"] == "allow"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("no wandb"), "--logger wandb needs a package; pip install wandb"),
        (RuntimeError("401\nlog in"), r"--logger wandb: refuses \(RuntimeError: 401 log in\); log in, or leave it out"),
    ],
)
def test_a_service_that_is_not_there_is_said_in_one_line(tmp_path, monkeypatch, error, message):
    def refuse(**_):
        raise error

    monkeypatch.setattr(lightning.pytorch.loggers, "WandbLogger", refuse)
    with pytest.raises(InputError, match=message) as raised:
        SmallRun(tmp_path, logger=["wandb"])
    assert "\n" not in str(raised.value) and not any(tmp_path.iterdir())


# ---- pictures


def test_images_are_chosen_for_the_rarest_classes_each_once():
    histograms = torch.tensor([[50, 0, 9, 1], [40, 3, 0, 1], [9, 9, 9, 1], [60, 0, 0, 0]])
    assert choose_shown(histograms, [1, 2, 0]) == [(2, 1), (0, 2), (3, 0)]
    assert choose_shown(histograms, [1, 2, 0], 1) == [(2, 1)]
    assert choose_shown(torch.zeros(3, 4), [0, 1, 2]) == []


class SevenByColour(torch.nn.Module):
    """Scores of eleven classes from the red band: wrong in most places, but not everywhere."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Conv2d(3, 11, 1)

    def forward(self, images):
        return self.encoder(images.float() / 255)


def test_the_sheet_shows_fixed_images_and_the_worst_class_first(tmp_path, monkeypatch):
    from segloss.losses import build_criterion
    from segloss.training import SegmentationData, Splits

    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    data = street_tree(tmp_path / "streets", train=4, val=5, test=1)
    options = from_plain_dict(DataOptions, {"data_path": str(data)})
    train, val = (options.open(split, EvalTransform(1.0)) for split in ("train", "val"))
    run = SmallRun(tmp_path / "run", epochs=2, batch_size=2, lr=0.01)
    run.trainer = build_trainer(run.config, "32-true", tmp_path / "run", Console(file=io.StringIO()))
    content = {"classes": {"names": list(val.classes.names)}, "format": 1}
    task = SegmentationTask(SevenByColour(), build_criterion("ce", [1] * 11), run.config, content)
    captions = []
    monkeypatch.setattr(
        "segloss.training.pictures.captioned", lambda row, text: (captions.append(text), captioned(row, text))[1]
    )
    run.trainer.fit(task, SegmentationData(Splits(train, val, None, (64, 96)), run.config, 0))
    sheets = events(tmp_path / "run").Images("val/worst_classes_first")
    assert len(sheets) == 2 and sheets[0].step < sheets[1].step
    callback = next(each for each in run.trainer.callbacks if isinstance(each, Pictures))
    assert len({place for place, _ in callback.shown}) == len(callback.shown) == 4
    for epoch in (captions[:4], captions[4:]):
        values = [float(text.rpartition(" ")[2]) for text in epoch]
        assert values == sorted(values)
    assert {text.partition(":")[0] for text in captions[:4]} == {text.partition(":")[0] for text in captions[4:]}


def test_pictures_reach_each_kind_of_logger(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    service = Service()
    log_picture(service, "a", picture, 3)
    assert service.shown[0][0] == "a" and (service.shown[0][1] == picture).all() and service.shown[0][2] == 3

    class MLflow(Service):
        log_image = None
        run_id = "r"
        experiment = Service()

    MLflow.experiment.log_image = lambda run, image, name: MLflow.experiment.shown.append((run, name))
    del MLflow.log_image, Service.log_image
    try:
        log_picture(MLflow(), "a", picture, 3)
        assert MLflow.experiment.shown == [("r", "a-0000003.png")]
        log_picture(Service(), "a", picture, 3)  # takes none
    finally:
        Service.log_image = lambda self, key, images, step=None: self.shown.append((key, images[0], step))
    tensorboard = TensorBoardLogger(tmp_path, name="tensorboard", version="")
    log_picture(tensorboard, "a", picture, 3)
    tensorboard.experiment.flush()
    assert events(tmp_path).Images("a")[0].width == 9


# ---- speed


def test_every_epoch_says_how_fast_it_was(tmp_path):
    said = SmallRun(tmp_path, FewImages(8), epochs=3).fit().said
    lines = [line for line in said.splitlines() if "images/s" in line]
    form = r"  \d+\.\d images/s, \d+ % waiting for data, memory \d+\.\d GiB, (\d+ min left|last epoch)"
    assert len(lines) == 3 and all(re.fullmatch(form, line) for line in lines)
    assert lines[-1].endswith("last epoch") and lines[0].endswith("1 min left")


@pytest.mark.parametrize("scale", [0, 1e-3, 1, 10])
def test_the_line_fits_80_columns(scale):
    speed = {
        "images_per_second": 99 * scale,
        "wait_share": min(1, scale),
        "peak_mib": 80e3,
        "minutes_left": 9e2 * scale,
    }
    assert len(describe_speed(speed)) <= 80


@pytest.mark.parametrize("epoch", ["epoch 3/60", "epoch 1000/1000"])
@pytest.mark.parametrize("width", [80, 60])
def test_the_bar_fits_narrow_terminals_with_the_time_left(epoch, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with new_progress(console) as bar:
        bar.advance(bar.add_task(epoch, total=123456), 61728)
        bar.refresh()
    printed = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", printed) if line.strip()]
    assert all(len(line) <= width for line in lines)
    assert any(epoch in line and re.search(r"\d:\d\d:\d\d|--:--", line) for line in lines)


def test_a_pipe_gets_lines_and_no_bar(tmp_path):
    run = SmallRun(tmp_path, epochs=2).fit()
    assert "\x1b" not in run.said and "\r" not in run.said
    assert len(run.said.splitlines()) == 4  # of each epoch its scores and its speed


def test_memory_is_told_where_the_system_tells_it(monkeypatch):
    assert peak_bytes(torch.device("cpu")) > 2**26  # torch alone takes more
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert peak_bytes(torch.device("cpu")) == 0
