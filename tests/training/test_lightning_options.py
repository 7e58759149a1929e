"""Options of Lightning's Trainer are answered before there is a run folder, and have an effect or are told of."""

import csv
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from small_training import FewImages, SmallRun

from segloss.config import TrainConfig
from segloss.errors import InputError
from segloss.flags import from_plain_dict
from segloss.training import Splits
from segloss.training.lightning_options import (
    batches_of_epoch,
    check_trainer_options,
    require_shared_norms,
    unused_trainer_options,
    validated_images,
)


def config_with(trainer: dict, **options) -> TrainConfig:
    return from_plain_dict(TrainConfig, {"trainer": trainer, **options})


def splits(images: int) -> Splits:
    data = FewImages(images)
    return Splits(data, data, None, (32, 32))


WRONG = {
    "accumulate_grad_batches": [0, -1, 1.5, "two", True],
    "num_nodes": [0, "all"],
    "check_val_every_n_epoch": [0, -2, 0.5],
    "log_every_n_steps": [-1, "often"],
    "num_sanity_val_steps": [-2, 0.5],
    "gradient_clip_val": [-1, float("nan"), float("inf"), "a lot", False],
    "gradient_clip_algorithm": ["sum", 2],
    "limit_train_batches": [0, -1, 1.5, "half", float("nan")],
    "limit_val_batches": [-1, 2.5, "none"],
    "overfit_batches": [-1, 1.5],
    "val_check_interval": [0, -1, 1.5],
    "reload_dataloaders_every_n_epochs": [-1, "each"],
    "deterministic": ["maybe", 3],
    "detect_anomaly": ["yes", 2],
    "benchmark": ["fast"],
    "inference_mode": ["eval"],
    "sync_batchnorm": ["all"],
    "barebones": ["a bit"],
    "profiler": ["fast", 1],
    "min_epochs": [-1, "some"],
    "min_steps": [0.5],
    "max_time": ["12:00:00", 43200, "an hour", True],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_value_that_cannot_be_is_one_line(name, value):
    """Some ended in tracebacks in the midst of the run, others were taken and did nothing."""
    with pytest.raises(InputError) as refusal:
        check_trainer_options(config_with({name: value}))
    message = str(refusal.value)
    assert message.startswith(f"--trainer.{name}: must be ") and message.endswith(f", got {value}")
    assert "\n" not in message


RIGHT = {
    "accumulate_grad_batches": [1, 4, 2.0],
    "check_val_every_n_epoch": [1, 3, None],
    "log_every_n_steps": [0, 50],
    "num_sanity_val_steps": [-1, 0, 2],
    "gradient_clip_val": [0, 0.5, 1, None],
    "gradient_clip_algorithm": ["norm", "value", "NORM"],
    "limit_train_batches": [0.5, 1, 1.0, 3, 10.0],
    "limit_val_batches": [0, 0.0, 0.5, 2],
    "overfit_batches": [0, 0.0],
    "val_check_interval": [0.5, 1, 1.0, 3, "00:01:00:00"],
    "deterministic": [True, False, "warn"],
    "detect_anomaly": [True, False, 1, 0],
    "profiler": ["simple", "Advanced", "pytorch", None],
    "max_time": ["00:01:00:00", "1:00:00:00", {"minutes": 2}],
    "min_epochs": [0, 1, 60],
    "strategy": ["auto", "ddp"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in RIGHT.items() for value in values])
def test_a_value_that_can_be_is_taken(name, value):
    check_trainer_options(config_with({name: value}))


@pytest.mark.parametrize(
    "trainer",
    [
        {"strategy": "nope"},
        {"plugins": "nope"},
        {"barebones": True},
        {"strategy": "deepspeed_stage_7"},
        {"val_check_interval": "later"},
    ],
    ids=str,
)
def test_what_lightning_refuses_itself_is_an_input_error_and_leaves_no_folder(tmp_path, trainer):
    with pytest.raises(InputError, match="refuses its options"):
        SmallRun(tmp_path / "run", trainer=trainer)
    assert not (tmp_path / "run").exists()


def test_more_epochs_at_least_than_at_most_are_refused():
    with pytest.raises(InputError, match=r"--trainer.min_epochs 9 is more than --epochs 2; raise --epochs"):
        check_trainer_options(config_with({"min_epochs": 9}, epochs=2))


@pytest.mark.parametrize(
    ("trainer", "part"),
    [
        ({"limit_val_batches": 0}, "limit_val_batches 0: nothing is validated, no best.ckpt kept, no --early-stop"),
        ({"limit_test_batches": 3}, "limit_test_batches does nothing: scores are those of whole splits"),
        ({"limit_predict_batches": 3}, "limit_predict_batches does nothing"),
        ({"gradient_clip_algorithm": "value"}, "does nothing: only with --trainer.gradient_clip_val"),
        ({"gradient_clip_algorithm": "value", "gradient_clip_val": 0}, "gradient_clip_algorithm does nothing"),
        ({"min_epochs": 1}, "min_epochs does nothing: nothing ends before --epochs but --trainer.max_time"),
        ({"min_steps": 3}, "min_steps does nothing"),
        ({"sync_batchnorm": True}, "sync_batchnorm does nothing: only with several --devices"),
        ({"check_val_every_n_epoch": 3}, "check_val_every_n_epoch is more than --epochs: nothing is validated"),
        ({"gradient_clip_val": 1, "gradient_clip_algorithm": "value"}, None),
        ({"min_epochs": 1, "max_time": "00:01:00:00"}, None),
        ({"limit_train_batches": 0.5, "accumulate_grad_batches": 2}, None),
        ({"limit_test_batches": None}, None),
    ],
    ids=str,
)
def test_an_option_without_effect_is_told(tmp_path, trainer, part):
    run = SmallRun(tmp_path, trainer=trainer)
    lines = unused_trainer_options(run.config, run.trainer)
    assert (len(lines) == 1 and part in lines[0]) if part else lines == []


@pytest.mark.parametrize(
    ("trainer", "auto", "images"),
    [
        ({}, False, 9),
        ({"limit_val_batches": 2}, False, 4),
        ({"limit_val_batches": 0.5}, False, 4),
        ({"limit_val_batches": 99}, False, 9),
        ({"limit_val_batches": 0}, False, 9),
        ({"limit_val_batches": 2}, True, 9),
    ],
    ids=str,
)
def test_the_images_that_are_validated_are_counted(tmp_path, trainer, auto, images):
    run = SmallRun(tmp_path, FewImages(9), trainer=trainer, auto_batch_size=auto)
    assert validated_images(run.config, 9, run.trainer) == images


@pytest.mark.parametrize(
    ("images", "trainer", "batches", "steps"),
    [
        (10, {}, 5, 5),
        (10, {"accumulate_grad_batches": 2}, 5, 3),
        (10, {"limit_train_batches": 3, "accumulate_grad_batches": 2}, 3, 2),
        (10, {"limit_train_batches": 0.5}, 2, 2),
        (10, {"limit_train_batches": 99}, 5, 5),
        (1, {}, 1, 1),
    ],
    ids=str,
)
def test_the_plan_counts_the_steps_that_are_taken(tmp_path, images, trainer, batches, steps):
    """It ignored accumulation and limits."""
    run = SmallRun(tmp_path, FewImages(images), trainer=trainer)
    assert batches_of_epoch(run.config, run.data.splits, run.trainer) == batches
    assert run.fit().trainer.global_step == steps == len(run.gradients.steps)


@pytest.mark.parametrize(
    ("trainer", "part"),
    [
        ({"limit_train_batches": 0.1}, r"limit_train_batches 0.1 leaves none of 5 batches; take a larger share"),
        ({"limit_val_batches": 0.1}, r"limit_val_batches 0.1 leaves none of 5 validation batches; take a larger share"),
        ({"val_check_interval": 6}, r"val_check_interval 6 is more than the 5 batches of an epoch; take fewer"),
        ({"val_check_interval": 3, "limit_train_batches": 2}, r"val_check_interval 3 is more than the 2 batches"),
    ],
)
def test_what_the_number_of_batches_forbids_is_refused_before_training(tmp_path, trainer, part):
    run = SmallRun(tmp_path / "run", FewImages(10), trainer=trainer)
    with pytest.raises(InputError, match=part):
        batches_of_epoch(run.config, run.data.splits, run.trainer)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("training", "validation", "message"),
    [
        (2, 3, "2 training images are fewer than the 3 devices; take fewer --devices"),
        (3, 2, "2 validation images are fewer than the 3 devices; take fewer --devices"),
    ],
)
def test_fewer_images_than_devices_are_refused(tmp_path, training, validation, message):
    run = SmallRun(tmp_path / "run", FewImages(3))
    few = Splits(FewImages(training), FewImages(validation), None, (32, 32))
    with pytest.raises(InputError, match=message):
        batches_of_epoch(run.config, few, SimpleNamespace(world_size=3))


@pytest.mark.parametrize(
    ("encoder", "strategy", "refused"),
    [
        ("tu-tf_efficientnet_lite0", DDPStrategy(), True),
        ("tu-tf_efficientnet_lite0", SingleDeviceStrategy("cpu"), False),
        ("resnet18", DDPStrategy(), False),
    ],
)
def test_shared_batch_norms_that_would_lose_their_activations_are_refused(encoder, strategy, refused):
    config = config_with({"sync_batchnorm": True}, encoder=encoder)
    arguments: tuple = SimpleNamespace(strategy=strategy), config, config.build(2)
    if not refused:
        require_shared_norms(*arguments)
        return
    with pytest.raises(
        InputError, match=r"--trainer\.sync_batchnorm would drop the activations in .* BatchNormAct2d; leave"
    ):
        require_shared_norms(*arguments)
    require_shared_norms(arguments[0], config_with({}), arguments[2])


def test_a_check_of_the_validation_before_training_changes_nothing(tmp_path):
    """It wrote a checkpoint of an epoch that had not begun."""
    plain = SmallRun(tmp_path / "plain").fit()
    checked = SmallRun(tmp_path / "checked", trainer={"num_sanity_val_steps": 1}).fit()
    assert torch.equal(plain.task.model.head.weight, checked.task.model.head.weight)
    of_time = ("seconds", "wait_share")
    rows = [[{key: row[key] for key in row if key not in of_time} for row in run.rows] for run in (plain, checked)]
    assert rows[0] == rows[1]


def test_validation_after_a_time_is_taken(tmp_path):
    run = SmallRun(tmp_path, FewImages(10), trainer={"val_check_interval": "00:01:00:00"})
    assert batches_of_epoch(run.config, run.data.splits, run.trainer) == 5
    assert run.fit().trainer.global_step == 5


def test_a_profiler_leaves_its_report_in_the_run_folder(tmp_path):
    """It was logged below the level that is shown."""
    SmallRun(tmp_path, trainer={"profiler": "simple"}).fit()
    (report,) = tmp_path.glob("*profile*")
    assert "training_step" in report.read_text()


def test_validations_within_an_epoch_are_counted_as_before(tmp_path):
    SmallRun(tmp_path, FewImages(8), trainer={"val_check_interval": 2}).fit()
    with (tmp_path / "history.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["4"]


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_overfitting_a_few_batches_trains_on_them(tmp_path, micro_batches):
    seen: list[str] = []
    trainer = {"overfit_batches": micro_batches, "accumulate_grad_batches": micro_batches}
    run = SmallRun(tmp_path, FewImages(8), epochs=2, trainer=trainer)
    step = run.task.training_step
    run.task.training_step = lambda *batch: (seen.extend(batch[0]["name"]), step(*batch))[1]
    with pytest.warns(UserWarning, match="overfit"):
        run.fit()
    assert len(seen) == 4 * micro_batches and len(run.gradients.steps) == 2
    if micro_batches == 1:
        assert len({*seen}) == 2
