"""Every habit of training does something: averages, early stop, scores, optimisers, schedules, frozen parts."""

import csv
import doctest
import math
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from data_trees import folder_tree
from small_training import FewImages, SmallNet, SmallRun
from street_trees import TINY, street_tree

import train_seg
from segloss.config import TrainConfig
from segloss.config.kept_weights import WHOLE_SCORES, KeptWeightsOptions
from segloss.config.optimisation import OPTIMIZERS, ScheduleOptions
from segloss.datasets import build_dataset
from segloss.datasets.transforms import train_transform
from segloss.errors import InputError
from segloss.flags import from_plain_dict, keys_of
from segloss.metrics import ConfusionMatrix
from segloss.models import ModelOptions, SegmentationModel
from segloss.resume import parse_train_config
from segloss.runs import load_run, read_checkpoint
from segloss.training.announce import _own_sizes, _padded_crops, _still_blocks
from segloss.training.auxiliary import presence_loss
from segloss.training.averaging import AveragedWeights
from segloss.training.optimisation import depths, parameter_groups, rate_factor
from segloss.training.reported import not_validated, reported, require_monitored
from segloss.weight_files import BEST, LAST

State = dict[str, torch.Tensor]


class NormNet(SmallNet):
    """With a batch norm in the encoder and one behind it, and what a segmentation model has."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Sequential(self.encoder, torch.nn.BatchNorm2d(4))
        self.decoder = torch.nn.BatchNorm2d(4)
        self.aux = torch.nn.Linear(4, 3)
        self.mean = torch.zeros(1, 3, 1, 1)

    def forward(self, images):
        found = self.head(self.decoder(torch.relu(self.encoder(images))))
        return found, self.aux(self.encoder(images).mean((2, 3)))


def norm_net() -> SegmentationModel:
    torch.manual_seed(0)
    return SegmentationModel(NormNet())


def trained(folder: Path, net=None, resume: bool = False, **options) -> SmallRun:
    """Three epochs of two steps, as train_seg.py would train them."""
    folder.mkdir(exist_ok=True)
    run = SmallRun(folder, net=net or norm_net(), **{"epochs": 3, "lr": 0.01, **options})
    run.task.model.freeze(encoder=run.config.encoder_lr_factor == 0, batch_norm=run.config.frozen_batch_norm)
    return run.fit(ckpt_path=folder / LAST if resume else None)


def state(run: SmallRun) -> State:
    return {name: tensor.clone() for name, tensor in run.task.model.state_dict().items()}


def saved(folder: Path, name: Path = BEST) -> State:
    content = read_checkpoint(folder / name)["state_dict"]
    return {key.removeprefix("model."): value for key, value in content.items() if key.startswith("model.")}


def moved(before: State, after: State, part: str) -> list[str]:
    return [name for name in after if part in name and not torch.equal(before[name], after[name])]


def same(one: State, other: State) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


# ---- one row for every option: what it changes, of a run and of the same without it


def averaged(plain: SmallRun, run: SmallRun, folder: Path) -> None:
    assert same(state(plain), state(run))  # training itself goes on as without
    assert not same(saved(folder, LAST), state(run))  # what is kept does not


def stopped(plain: SmallRun, run: SmallRun, folder: Path) -> None:
    assert len(run.rows) < len(plain.rows) == 6
    assert "stopped early: no better miou than" in run.said


def monitored(plain: SmallRun, run: SmallRun, folder: Path) -> None:
    best = next(callback for callback in run.trainer.checkpoint_callbacks if callback.monitor)
    history = list(csv.DictReader((folder / "history.csv").open()))
    scores = [float(row["val_iou/pole"]) for row in history]
    assert float(best.best_model_score) == pytest.approx(max(scores), abs=1e-6)


def learnt_otherwise(plain: SmallRun, run: SmallRun, folder: Path) -> None:
    assert not same(state(plain), state(run))


def with_momentum(plain: SmallRun, run: SmallRun, folder: Path) -> None:
    assert type(run.trainer.optimizers[0]) is torch.optim.SGD
    assert {group["momentum"] for group in run.trainer.optimizers[0].param_groups} == {0.9}
    learnt_otherwise(plain, run, folder)


def other_rates(plain: SmallRun, run: SmallRun, folder: Path) -> None:
    assert [row["lr"] for row in run.rows] != [row["lr"] for row in plain.rows]


def encoder_rates(plain: SmallRun, run: SmallRun, folder: Path) -> None:
    rates = {group["initial_lr"] for group in run.trainer.optimizers[0].param_groups}
    assert rates == {0.01, 0.0025, 0.0025 * 0.5}  # scores, batch norm of the encoder, its convolution
    learnt_otherwise(plain, run, folder)


def encoder_still(plain: SmallRun, run: SmallRun, folder: Path) -> None:
    before = norm_net().state_dict()
    assert not moved(before, state(run), "encoder") and moved(before, state(run), "head")
    assert len(moved(before, state(plain), "encoder")) == 7


def norms_still(plain: SmallRun, run: SmallRun, folder: Path) -> None:
    before = norm_net().state_dict()
    assert moved(before, state(run), "encoder.1") == [] == moved(before, state(run), "decoder")
    assert moved(before, state(run), "encoder.0") and moved(before, state(plain), "decoder")


def encoder_norms_still(plain: SmallRun, run: SmallRun, folder: Path) -> None:
    before = norm_net().state_dict()
    assert moved(before, state(run), "encoder.1") == [] and moved(before, state(run), "decoder")


def presence_learnt(plain: SmallRun, run: SmallRun, folder: Path) -> None:
    before = norm_net().state_dict()
    assert moved(before, state(run), "aux") and not moved(before, state(plain), "aux")


STILL = {"lr": 1e-12, "frozen_batch_norm": "all"}  # no score gets better
EFFECTS = {
    "ema": ({"ema": 0.9}, averaged),
    "swa_share": ({"swa_share": 0.7, "schedule": "constant"}, averaged),
    "early_stop": ({"early_stop": 1, "epochs": 6, **STILL}, stopped),
    "monitor": ({"monitor": "iou/pole"}, monitored),
    "optimizer": ({"optimizer": "SGD"}, with_momentum),
    "optimizer_options": ({"optimizer_options": {"betas": [0.5, 0.5]}}, learnt_otherwise),
    "layer_decay": ({"layer_decay": 0.5, "encoder_lr_factor": 0.25}, encoder_rates),
    "schedule": ({"schedule": "cosine"}, other_rates),
    "warmup_share": ({"warmup_share": 0.5}, other_rates),
    "lr": ({"lr": 0.02}, other_rates),
    "weight_decay": ({"weight_decay": 0.5}, learnt_otherwise),
    "encoder_lr_factor": ({"encoder_lr_factor": 0.0}, encoder_still),
    "frozen_batch_norm all": ({"frozen_batch_norm": "all"}, norms_still),
    "frozen_batch_norm encoder": ({"frozen_batch_norm": "encoder"}, encoder_norms_still),
    "auxiliary": ({"auxiliary": 0.4}, presence_learnt),
    "epochs": ({"epochs": 2}, lambda plain, run, folder: len(run.rows) == 2 and len(plain.rows) == 3),
    "batch_size": ({"batch_size": 4}, lambda plain, run, folder: run.trainer.global_step < plain.trainer.global_step),
}
ELSEWHERE = {"arch", "encoder", "encoder_weights", "find_lr", "auto_batch_size"}  # in test_models.py and test_trials.py


def test_every_option_of_these_groups_has_a_row():
    groups = (ScheduleOptions, KeptWeightsOptions, ModelOptions)
    names = {key.name for key in keys_of(TrainConfig) if key.group in groups}
    assert names == {name.split()[0] for name in EFFECTS} | ELSEWHERE


@pytest.mark.parametrize("option", EFFECTS)
def test_an_option_has_the_effect_that_it_is_for(tmp_path, option):
    options, effect = EFFECTS[option]
    beside = {name: value for name, value in options.items() if name != option.split()[0]}
    plain, run = trained(tmp_path / "plain", **beside), trained(tmp_path / "run", **options)
    assert effect(plain, run, tmp_path / "run") in (None, True)


# ---- averages


def test_the_moving_average_is_that_of_the_weights_after_each_step(tmp_path):
    steps: list[State] = []
    run = SmallRun(tmp_path, net=norm_net(), epochs=3, lr=0.01, ema=0.7)
    expected = {k: v.clone() for k, v in run.task.model.state_dict().items() if v.is_floating_point()}
    run.gradients.on_train_batch_end = lambda *_: steps.append(state(run))
    run.fit()
    for n, weights in enumerate(steps, 1):
        decay = min(0.7, (1 + n) / (10 + n))
        expected = {k: decay * v + (1 - decay) * weights[k] for k, v in expected.items()}
    kept = saved(tmp_path, LAST)
    for name, value in expected.items():
        assert torch.allclose(kept[name], value, atol=1e-6), name
    assert len(steps) == 6


def test_the_average_of_epochs_is_that_of_the_last_ones_at_a_rate_that_stays(tmp_path):
    ends: list[State] = []
    run = SmallRun(tmp_path, net=norm_net(), epochs=4, lr=0.01, swa_share=0.5)
    run.gradients.on_train_epoch_end = lambda *_: ends.append(state(run))
    run.fit()
    kept = saved(tmp_path, LAST)
    for name in (name for name, value in kept.items() if value.is_floating_point()):
        assert torch.allclose(kept[name], (ends[2][name] + ends[3][name]) / 2, atol=1e-6), name
    assert run.rows[2]["lr"] == run.rows[3]["lr"] != run.rows[1]["lr"]


@pytest.mark.parametrize("options", [{"ema": 0.9}, {"swa_share": 0.7}], ids=str)
def test_validation_sees_the_average_and_best_holds_it(tmp_path, options):
    run = trained(tmp_path, **options)
    net = norm_net()
    net.load_state_dict(saved(tmp_path, LAST))
    confusion = ConfusionMatrix(3)
    samples = [FewImages()[i] for i in range(4)]
    with torch.inference_mode():
        logits = net.eval()(torch.stack([sample["image"] for sample in samples]))
    confusion.update(run.task.criterion.decide(logits), torch.stack([sample["labels"] for sample in samples]))
    assert run.rows[-1]["val_miou"] == pytest.approx(confusion.compute().miou, abs=1e-6)
    if max(row["val_miou"] for row in run.rows) == run.rows[-1]["val_miou"]:
        assert same(saved(tmp_path, BEST), saved(tmp_path, LAST))


HABITS = [{"ema": 0.9}, {"swa_share": 0.7}, {"early_stop": 3}, {"optimizer": "sgd"}]


@pytest.mark.parametrize("options", HABITS, ids=str)
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path, options):
    options = {"epochs": 4, "lr": 0.01, "schedule": "constant", "warmup_share": 0, **options}
    whole = trained(tmp_path / "whole", **options)
    run = SmallRun(tmp_path / "parts", net=norm_net(), **options)
    run.gradients.on_train_epoch_end = lambda trainer, task: setattr(trainer, "should_stop", trainer.current_epoch == 1)
    run.fit()
    assert len(run.rows) == 2
    parts = trained(tmp_path / "parts", resume=True, **options)
    assert same(state(whole), state(parts))
    for name in (LAST, BEST):
        assert same(saved(tmp_path / "whole", name), saved(tmp_path / "parts", name))


@pytest.mark.parametrize("options", [{"ema": 0.9}, {"swa_share": 0.7}], ids=str)
def test_a_checkpoint_written_in_a_validation_knows_which_weights_are_which(tmp_path, options):
    run = SmallRun(tmp_path, net=norm_net(), epochs=3, lr=0.01, **options)
    run.gradients.on_validation_batch_end = lambda trainer, *_: trainer.save_checkpoint(tmp_path / "middle.ckpt")
    run.fit()
    middle, last = (read_checkpoint(tmp_path / name) for name in ("middle.ckpt", LAST))
    for key in ("state_dict", "training_weights"):
        assert same(middle[key], last[key])
    assert not same(last["training_weights"], last["state_dict"])


def test_a_run_that_leaves_its_average_goes_on_with_the_weights_it_trained(tmp_path):
    trained(tmp_path, epochs=2, lr=0.01, ema=0.99)
    weights = read_checkpoint(tmp_path / LAST)["training_weights"]
    run = SmallRun(tmp_path, net=norm_net(), epochs=3, lr=0.01, resume=True, override=True, output_dir=str(tmp_path))
    begun: list[State] = []
    run.gradients.on_train_start = lambda *_: begun.append(state(run))
    run.fit(ckpt_path=tmp_path / LAST)
    assert all(torch.equal(begun[0][name.removeprefix("model.")], value) for name, value in weights.items())


def test_an_average_of_the_other_kind_begins_anew(tmp_path):
    trained(tmp_path, epochs=2, lr=0.01, ema=0.9)
    ends: list[State] = []
    options = {"epochs": 3, "lr": 0.01, "swa_share": 0.2, "resume": True, "override": True}
    run = SmallRun(tmp_path, net=norm_net(), output_dir=str(tmp_path), **options)
    run.gradients.on_train_epoch_end = lambda *_: ends.append(state(run))
    run.fit(ckpt_path=tmp_path / LAST)
    assert len(ends) == 1 and same(saved(tmp_path, LAST), ends[0])


def test_the_average_of_epochs_begins_anew_where_the_last_ones_are_others_now():
    ended = AveragedWeights(0.0, first_epoch=7)
    ended.seen, ended.step = 3, 40
    for first_epoch, seen in ((7, 3), (14, 0)):
        goes_on = AveragedWeights(0.0, first_epoch=first_epoch)
        goes_on.load_state_dict(ended.state_dict())
        assert (goes_on.seen, goes_on.step) == (seen, 40)
    moving = AveragedWeights(0.9)
    moving.load_state_dict({"seen": 5, "step": 6, "decay": 0.9, "first_epoch": 0})
    assert moving.seen == 5


def test_two_averages_are_refused():
    with pytest.raises(InputError, match=r"--ema and --swa-share are two averages of the same weights; give one"):
        parse_train_config(["--ema", "0.9", "--swa-share", "0.2"])


# ---- early stop


def test_a_run_that_stopped_early_trains_nothing_when_it_is_resumed(tmp_path):
    first = trained(tmp_path, early_stop=2, epochs=9, **STILL)
    again = trained(tmp_path, resume=True, early_stop=2, epochs=9, **STILL)
    assert len(first.rows) == len(again.rows) == 3
    assert again.trainer.global_step == first.trainer.global_step


def test_what_is_for_the_last_share_and_is_not_reached_is_said(tmp_path):
    run = trained(tmp_path, early_stop=1, epochs=9, swa_share=0.2, late_jaccard=0.1, **STILL)
    assert "warning: no weights were averaged: no epoch of --swa-share came to its end" in run.said
    assert "warning: the loss stayed as it was: the training ended before --late-jaccard" in run.said


@pytest.mark.parametrize(("epochs", "told"), [(3, True), (4, False)])
def test_an_average_that_is_never_validated_is_said(tmp_path, epochs, told):
    run = trained(tmp_path, epochs=epochs, swa_share=0.3, trainer={"check_val_every_n_epoch": 2})
    line = "warning: the average of --swa-share was never validated: it is in last.ckpt alone, not in best.ckpt"
    assert (line in run.said) == told and "averaged" not in run.said


def test_patience_counts_validations_and_not_epochs(tmp_path):
    trainer = {"check_val_every_n_epoch": 2}
    run = trained(tmp_path, early_stop=1, epochs=9, **STILL, trainer=trainer)
    assert len(run.rows) == 4


def test_a_score_without_a_value_is_no_better_and_no_end(tmp_path):
    """Lightning stopped at the first, without a word."""
    net = norm_net()
    with torch.no_grad():
        net.network.head.bias[2] = -99.0
    run = trained(tmp_path, net, early_stop=2, monitor="precision/pole", epochs=9, **STILL)
    assert len(run.rows) == 2 and "stopped early: no precision/pole in 2 validations; to train on" in run.said


def test_with_more_patience_a_run_that_stopped_early_goes_on(tmp_path):
    first = trained(tmp_path, early_stop=1, epochs=9, **STILL)
    assert "in 1 validations; to train on: --resume --override --early-stop 2" in first.said
    again = trained(tmp_path, resume=True, override=True, early_stop=3, epochs=9, **STILL)
    assert (len(first.rows), len(again.rows)) == (2, 4)


def test_a_score_that_rises_goes_on(tmp_path):
    assert len(trained(tmp_path, early_stop=1, monitor="loss", epochs=4, lr=0.001, frozen_batch_norm="all").rows) == 4


# ---- monitored scores


@pytest.mark.parametrize("monitor", [name for name in WHOLE_SCORES if name != "loss"])
def test_every_named_score_chooses_the_best(tmp_path, monitor):
    run = trained(tmp_path, monitor=monitor)
    values = [float(row[f"val_{monitor}"]) for row in csv.DictReader((tmp_path / "history.csv").open())]
    best = next(callback for callback in run.trainer.checkpoint_callbacks if callback.monitor)
    assert all(0 <= value <= 1 for value in values)
    assert float(best.best_model_score) == pytest.approx(max(values), abs=1e-6)


def test_reported_scores_are_those_of_the_confusion_matrix():
    confusion = ConfusionMatrix(4)
    confusion.matrix = torch.tensor([[50, 5, 0, 1, 0], [4, 20, 1, 0, 0], [0, 3, 6, 0, 0], [0, 0, 0, 0, 0]])
    scores = confusion.compute()
    found = reported(scores, ["a", "b", "c", "d"], [100, 10, 5, 50])  # tail: b and c; of d there is no label
    iou = scores.iou.tolist()
    assert found["tail_miou"] == pytest.approx((iou[1] + iou[2]) / 2)
    assert found["head_miou"] == iou[0] and math.isnan(found["middle_miou"])
    assert found["worst_iou"] == min(iou[:3]) > iou[3] == 0 and found["iou/b"] == iou[1]
    assert found["recall/c"] == pytest.approx(6 / 9) and found["precision/c"] == pytest.approx(6 / 7)
    assert math.isnan(found["recall/d"]) and found["f1/a"] == pytest.approx(100 / 110)


@pytest.mark.parametrize(
    ("given", "name"), [("Tail-mIoU", "tail_miou"), ("IoU/Pole", "iou/Pole"), ("f1/traffic-sign", "f1/traffic-sign")]
)
def test_names_of_scores_are_known_in_any_case_and_classes_as_they_are(given, name):
    assert parse_train_config(["--monitor", given]).monitor == name


@pytest.mark.parametrize("given", ["iou", "iou/", "tail", "miou/pole", "/", "pole", "loss/pole", ""])
def test_a_score_that_there_is_not_is_refused(given):
    with pytest.raises(InputError, match=r"unknown --monitor '.*'; choose one of miou, .*, f1/CLASS"):
        parse_train_config(["--monitor", given])


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        ("iou/pol", r"unknown class of --monitor iou/CLASS 'pol'; choose one of road, car, pole; did you mean pole\?"),
        ("recall/pole", "val holds no pixel of pole, so --monitor recall/pole has no value; monitor another score"),
        ("tail_miou", "val holds no pixel of pole, so --monitor tail_miou has no value"),
        ("miou", None),
        ("iou/car", None),
        ("head_miou", None),
    ],
)
def test_a_score_that_no_validation_could_give_is_refused_before_training(monitor, message):
    arguments = (monitor, ["road", "car", "pole"], [5, 3, 0], [100, 10, 1])
    if message is None:
        require_monitored(*arguments)
        return
    with pytest.raises(InputError, match=message):
        require_monitored(*arguments)


def test_classes_that_val_does_not_hold_are_told():
    """Their IoU was 0 or none in every epoch, and only the table of val told."""
    names = ["road", "car", "pole"]
    assert not_validated(names, [5, 3, 1], [100, 10, 1]) == not_validated(names, [5, 3, 0], [100, 10, 0]) == []
    (line,) = not_validated(names, [5, 0, 0], [100, 10, 1])
    assert line.startswith("val holds no pixel of car, pole: no score tells how well it is learnt")
    assert line.endswith("; move images that hold it to val, or validate by --fold K/N")
    (line,) = not_validated(names, [5, 3, 0], [100, 10, 1], limited=True)
    assert line.startswith("val, as far as it is validated, holds no pixel of pole: ")
    assert line.endswith("; validate more batches")
    many = [str(k) for k in range(150)]
    assert "(149 in all)" in not_validated(many, [1] + [0] * 149, [1] * 150)[0]


@pytest.mark.parametrize("monitor", ["miou", "loss", "iou/car", "head_miou"])
def test_a_val_split_without_a_labelled_pixel_chooses_no_weights(monitor):
    with pytest.raises(InputError, match=f"val has no labelled pixel, so --monitor {monitor} has no value; move"):
        require_monitored(monitor, ["road", "car", "pole"], [0, 0, 0], [100, 10, 1])


def test_of_a_limited_validation_the_images_that_are_looked_at_count():
    held = (["road", "car", "pole"], [5, 3, 0], [100, 10, 1])
    with pytest.raises(InputError, match=r"val, as far as it is validated, holds no pixel of pole, .*or validate more"):
        require_monitored("iou/pole", *held, limited=True)


# ---- optimisers and schedules


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_of_torch_trains(tmp_path, name):
    run = trained(tmp_path, epochs=1, optimizer=name)
    assert type(run.trainer.optimizers[0]) is OPTIMIZERS[name]
    assert moved(norm_net().state_dict(), state(run), "head")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--optimizer adamv", r"unknown --optimizer 'adamv'; choose one of .*, adamw, .*sgd; did you mean adam"),
        ("--optimizer lbfgs", r"unknown --optimizer 'lbfgs'"),
        ("--optimizer sgd --optimizer-options.momentun 0.9", r"unknown option of --optimizer sgd 'momentun'.*momentum"),
        ("--optimizer-options.lr 1", r"unknown option of --optimizer adamw 'lr'"),
        ("--optimizer sgd --optimizer-options.momentum -1", r"--optimizer sgd: Invalid momentum value: -1"),
        ("--optimizer-options.betas 3", r"--optimizer adamw: "),
        (
            "--optimizer sgd --optimizer-options.nesterov maybe",
            r"--optimizer-options.nesterov: must be true or false, ",
        ),
        ("--optimizer-options.differentiable true", r"--optimizer adamw: .* in-place operation"),
        ("--layer-decay 0", r"--layer-decay must be in \(0, 1\], got 0"),
        ("--schedule step", r"unknown --schedule 'step'; choose one of poly, cosine, one_cycle, constant"),
    ],
)
def test_what_an_optimiser_or_a_schedule_is_not_is_refused_in_one_line(words, message):
    with pytest.raises(InputError, match=message) as raised:
        parse_train_config(words.split())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adamw", {"foreach": True}),
        ("adam", {"foreach": False}),
        ("sgd", {"nesterov": True}),
        ("adamw", {"fused": None}),
    ],
)
def test_options_of_an_optimiser_train(tmp_path, name, options):
    assert parse_train_config(
        ["--optimizer", name, *(f"--optimizer-options.{key}={value}" for key, value in options.items() if value)]
    ).optimizer_options == {key: value for key, value in options.items() if value}
    run = trained(tmp_path, epochs=1, optimizer=name, optimizer_options=options)
    assert run.trainer.optimizers[0].defaults.items() >= options.items()
    assert moved(norm_net().state_dict(), state(run), "head")


def test_options_that_do_nothing_beside_these_are_told():
    words = "--encoder-lr-factor 0 --layer-decay 0.5 --optimizer rprop --weight-decay 1"
    told = parse_train_config(words.split())
    assert told.unused_options() == [
        "--layer-decay does nothing with --encoder-lr-factor 0",
        "--weight-decay does nothing with --optimizer rprop",
        "--encoder-lr-factor 0 freezes random weights: add --encoder-weights or --init-from",
    ]
    told = parse_train_config(["--encoder-lr-factor", "0", "--init-from", "a", "--encoder-weights", "imagenet"])
    assert told.unused_options() == ["--encoder-weights does nothing with --init-from"]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_one_cycle_is_that_of_torch(share):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=50, pct_start=share)
    rates = []
    for _ in range(50):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step() if len(rates) < 50 else None
    assert [rate_factor(step, 50, share, "one_cycle") for step in range(50)] == pytest.approx(rates, rel=1e-9)


def test_one_cycle_without_a_rise_begins_at_its_peak():
    rates = [rate_factor(step, 50, 0.0, "one_cycle") for step in range(50)]
    assert rates[0] == 1 and rates == sorted(rates, reverse=True) and rates[-1] == pytest.approx(1 / 25e4)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("poly", lambda x: (1 - x) ** 0.9),
        ("cosine", lambda x: (1 + math.cos(math.pi * x)) / 2),
        ("constant", lambda x: 1),
    ],
)
def test_schedules_rise_and_fall_as_their_equations_say(schedule, expected):
    for total, share in ((100, 0.1), (37, 0.0), (1, 0.0), (10, 0.9)):
        warm = int(total * share)
        for step in range(total + 1):
            wanted = (step + 1) / (warm + 1) if step < warm else expected((step - warm) / (total - warm))
            assert rate_factor(step, total, share, schedule) == pytest.approx(wanted, abs=1e-12)
    assert rate_factor(90, 100, 0.1, schedule, 0.25) == rate_factor(75, 100, 0.1, schedule)


@pytest.mark.parametrize(
    ("encoder", "first", "last"),
    [
        ("resnet18", "conv1.weight", "layer4.1.bn2.weight"),
        ("mit_b0", "patch_embed1.proj.weight", "norm4.weight"),  # declares all its embeddings before its blocks
        ("tu-convnext_atto", "model.stem_0.weight", "model.stages_3.blocks.1.mlp.fc2.weight"),
        ("mobilenet_v2", "features.0.0.weight", "features.18.1.weight"),
    ],
)
def test_blocks_of_an_encoder_decay_in_the_order_in_which_an_image_meets_them(encoder, first, last):
    model = ModelOptions(encoder=encoder).build(3)
    depth = depths(model.encoder, 3)
    of_name = {name: depth[id(parameter)] for name, parameter in model.encoder.named_parameters()}
    assert of_name[last] == 0 and of_name[first] == max(depth.values()) >= 8
    config = from_plain_dict(TrainConfig, {"layer_decay": 0.5, "lr": 1.0, "encoder_lr_factor": 1.0})
    rates = {id(p): group["lr"] for group in parameter_groups(model, config) for p in group["params"]}
    for parameter in model.encoder.parameters():
        assert rates[id(parameter)] == 0.5 ** depth[id(parameter)]
    assert all(rates[id(p)] == 1 for p in model.network.segmentation_head.parameters())


# ---- frozen parts and the second loss


@pytest.mark.parametrize(("decay", "told"), [(0.65, True), (0.99, False), (1.0, False)])
def test_a_decay_that_stops_the_first_of_many_blocks_is_told(decay, told):
    config = from_plain_dict(TrainConfig, {"layer_decay": decay, "encoder": "densenet121"})
    lines = _still_blocks(config, ModelOptions(encoder="densenet121").build(2))
    assert bool(lines) == told
    said = r"--layer-decay 0\.65: densenet121 has \d+ blocks, so the first learns at \de-\d+ of the rate of"
    assert not told or re.match(said, lines[0])
    assert not _still_blocks(config, ModelOptions(encoder="resnet18").build(2))


@pytest.mark.parametrize(
    ("crop", "options", "said"),
    [
        (
            (512, 512),
            {},
            "at most 1[23]% of a crop of 512x512 can be image, the rest is padding; 128 96 fits: --crop-size 128",
        ),
        ((128, 96), {"scale_range": [1.0, 1.0], "image_scale": 0.5}, "at most 26% .*; 64 64 fits"),
        (
            (32, 32),
            {"image_scale": 0.001},
            "at most 0% of a crop of 32x32 can be image, the rest is padding; a larger --image-scale fills it$",
        ),
        ((128, 96), {}, None),
        ((160, 128), {"scale_range": [1.0, 1.0]}, None),
        ((512, 512), {"augmentations": "own.yaml"}, None),
    ],
)
def test_crops_of_more_padding_than_image_are_told(crop, options, said):
    sizes = [(10, 10), (128, 100), (900, 900)]

    class Sized(list):
        image_size = list.__getitem__

    splits: Any = SimpleNamespace(train=Sized(sizes), crop_size=crop)
    lines = _padded_crops(from_plain_dict(TrainConfig, options), splits)
    assert len(lines) == (said is not None) and (said is None or re.match(said, lines[0]))


@pytest.mark.parametrize(
    ("steps", "options", "said"),
    [
        ("- Resize: {height: 24, width: 32}\n- HorizontalFlip", {}, "0.5 .*see; --image-scale 0.5 in|at most 38% of a"),
        ("- Resize: {height: 24, width: 32}", {"image_scale": 0.5}, "at most 38% .*; 32 32 fits: --crop-size 32 32"),
        ("- LongestMaxSize: {max_size: 128}\n- RandomCrop: {height: 48, width: 64}", {}, "2 of what validation"),
        ("- RandomScale: {scale_limit: [-0.7, -0.5], p: 1}", {}, "0.[34]. of what validation|at most"),
        ("- RandomScale: {scale_limit: [-0.3, 1.0]}", {}, ""),
        ("- RandomCrop: {height: 40, width: 40}", {}, ""),
        ("- RandomCrop: {height: 400, width: 400}", {}, ""),  # refused where a sample is read
        ("- RandomResizedCrop: {size: [48, 64]}", {}, ""),
        ("- Affine: {rotate: [-20, 20]}\n- ColorJitter", {}, ""),
    ],
)
def test_own_augmentations_that_change_the_scale_or_leave_padding_are_told(tmp_path, steps, options, said):
    root = folder_tree(tmp_path / "data", splits=("train",), size=(48, 64), ids=(0, 1, 2))
    (tmp_path / "own.yaml").write_text(steps)
    config = from_plain_dict(TrainConfig, {"augmentations": str(tmp_path / "own.yaml"), **options})
    transform = train_transform(
        (32, 64), 0, image_scale=config.image_scale, augmentations=config.augmentations, class_pixels=[1, 1, 1]
    )
    splits: Any = SimpleNamespace(train=build_dataset("folder", root, "train", transform), crop_size=(32, 64))
    lines = _own_sizes(config, splits)
    assert len(lines) == len(said.split("|")) * bool(said) and all(map(re.search, said.split("|"), lines))


def test_a_frozen_encoder_stays_still_whoever_calls_train():
    model = ModelOptions(encoder="resnet18").build(3)
    model.freeze(encoder=True)
    for module in (model, model.train(), model.eval().train()):
        assert not module.encoder.training and module.network.decoder.training
        assert not any(p.requires_grad for p in module.encoder.parameters())
    before = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    model.train()(torch.rand(2, 3, 64, 64)).sum().backward()
    assert same(before, model.encoder.state_dict()) and model.network.segmentation_head[0].weight.grad is not None


def test_frozen_batch_norms_take_one_image_a_batch():
    from segloss.models import require_batch_statistics

    model = ModelOptions(arch="deeplabv3plus", encoder="resnet18").build(3)
    with pytest.raises(InputError, match=r"--batch-size 1 leaves a batch norm .*, or --frozen-batch-norm all$"):
        require_batch_statistics(model.train(), 1, (64, 64))  # pooled to one value at any size
    with pytest.raises(InputError, match=r"take --batch-size 2 .*-norm all, or a larger --crop-size$"):
        require_batch_statistics(ModelOptions(encoder="resnet18").build(3), 1, (32, 32))
    model.freeze(batch_norm="all")
    require_batch_statistics(model.train(), 1, (64, 64))


def test_the_second_loss_is_the_cross_entropy_of_the_classes_held():
    labels = torch.tensor([[[0, 2], [255, 2]], [[1, 1], [1, 255]]])
    a = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    held = torch.tensor([[1, 0, 1], [0, 1, 0]])
    p = torch.sigmoid(a)
    losses = -(held * p.log() + (1 - held) * (1 - p).log())
    assert float(presence_loss(a, labels)) == pytest.approx(float(losses.mean()), rel=1e-6)
    mask = torch.tensor([[True, True, False], [False, True, True]])
    assert float(presence_loss(a, labels, mask)) == pytest.approx(float(losses[mask].mean()), rel=1e-6)
    assert float(presence_loss(a, labels, torch.zeros(2, 3, dtype=torch.bool))) == 0


@pytest.mark.parametrize("arch", ["unet", "deeplabv3plus", "segformer", "upernet"])
def test_the_second_head_is_there_where_it_is_asked_for_and_scores_stay_scores(arch):
    plain = ModelOptions(arch=arch, encoder="resnet18").build(3).eval()
    model = ModelOptions(arch=arch, encoder="resnet18", auxiliary=0.4).build(3).eval()
    images = torch.rand(2, 3, 40, 72)
    logits, presence = model.with_presence(images)
    assert logits.shape == plain(images).shape == (2, 3, 40, 72) and presence.shape == (2, 3)
    assert torch.equal(model(images), logits) and plain.with_presence(images)[1] is None


def test_micro_batches_share_the_second_loss_out(tmp_path):
    whole = SmallRun(tmp_path / "whole", net=norm_net(), batch_size=4, auxiliary=1.0, frozen_batch_norm="all")
    parts = SmallRun(
        tmp_path / "parts",
        net=norm_net(),
        batch_size=1,
        auxiliary=1.0,
        frozen_batch_norm="all",
        trainer={"accumulate_grad_batches": 4},
    )
    for run in (whole, parts):
        run.task.model.freeze(batch_norm="all")
        run.fit()
    assert torch.allclose(whole.gradients.steps[0], parts.gradients.steps[0], rtol=1e-4, atol=1e-7)


def test_the_encoder_of_a_run_is_the_start_of_another(tmp_path):
    """It said that the checkpoint lacks 206 of the 206 tensors."""
    one = ModelOptions(encoder="resnet18").build(5, normalisation=((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    (tmp_path / "checkpoints").mkdir()
    content = {f"model.{name}": value for name, value in one.state_dict().items()}
    torch.save({"state_dict": {**content, "criterion.weight": torch.ones(5)}}, tmp_path / BEST)
    for given in (tmp_path, tmp_path / BEST):
        other = ModelOptions(encoder="resnet18", encoder_weights=str(given)).build(3)
        assert same(one.encoder.state_dict(), other.encoder.state_dict())
        assert other.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(InputError, match=r"lacks .* tensors of this encoder"):
        ModelOptions(encoder="resnet34", encoder_weights=str(tmp_path)).build(3)
    with pytest.raises(InputError, match=r"no such weights file; .* none, imagenet, a file or a run folder"):
        ModelOptions(encoder="resnet18", encoder_weights=str(tmp_path / "checkpoints")).build(3)


PREFIXES = ["", "module.", "encoder.", "module.encoder.", "student.backbone.", "model.network.encoder."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_weights_are_found_behind_any_prefix(tmp_path, prefix, encoder):
    one = ModelOptions(encoder=encoder).build(2)
    torch.save({f"{prefix}{name}": value for name, value in one.encoder.state_dict().items()}, tmp_path / "w.pth")
    other = ModelOptions(encoder=encoder, encoder_weights=str(tmp_path / "w.pth")).build(2)
    assert same(one.encoder.state_dict(), other.encoder.state_dict())


@pytest.mark.parametrize(
    ("prefixes", "refused"),
    [(("encoder_q.", "encoder_k."), True), (("student.net.", "teacher.net."), True), (("net.", "ema.net."), False)],
)
def test_of_two_encoders_in_a_file_none_is_taken_in_silence(tmp_path, capsys, prefixes, refused):
    one, other = (ModelOptions(encoder="resnet18").build(2).encoder.state_dict() for _ in range(2))
    path = tmp_path / "w.pth"

    def load(second: dict[str, torch.Tensor]) -> ModelOptions:
        pairs = zip(prefixes, (one, second), strict=True)
        torch.save({f"{prefix}{name}": value for prefix, each in pairs for name, value in each.items()}, path)
        return ModelOptions(encoder="resnet18", encoder_weights=str(path))

    assert same(one, load(one).build(2).encoder.state_dict()) and "encoder is" not in capsys.readouterr().err
    if refused:
        with pytest.raises(InputError, match=r"w\.pth: holds several such encoders: .*\* and .*\*; keep one of them"):
            load(other).build(2)
        return
    assert same(one, load(other).build(2).encoder.state_dict())
    assert "w.pth: the encoder is net.*, not that of ema.net.*\n" in capsys.readouterr().err


# ---- together, from the command line


def test_all_together_train_resume_and_score(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
    data = street_tree(tmp_path / "streets", train=8, val=3, test=2)
    words = (
        "--ema 0.9 --auxiliary 0.4 --optimizer sgd --lr 0.01 --schedule one_cycle --warmup-share 0.3 --layer-decay 0.8 "
        "--frozen-batch-norm encoder --monitor rule_miou --early-stop 5 --accelerator cpu"
    )
    argv = ["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(tmp_path / "run"), *TINY]
    train_seg.train([*argv, *words.split(), "--epochs", "1"])
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER")
    train_seg.train(["--resume", "--output-dir", str(tmp_path / "run"), "--epochs", "2"])
    rows = list(csv.DictReader((tmp_path / "run/history.csv").open()))
    assert len(rows) == 2 and all(0 <= float(row["val_rule_miou"]) <= 1 for row in rows)
    run = load_run(tmp_path / "run")
    assert run.config.ema == 0.9 and run.model(torch.zeros(1, 3, 64, 64)).shape == (1, 11, 64, 64)
    assert (tmp_path / "run/test_metrics.json").is_file() and "images/s" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["optimisation", "auxiliary", "trials", "pictures", "callbacks"])
def test_examples_in_docstrings_are_right(name):
    found = doctest.testmod(import_module(f"segloss.training.{name}"))
    assert found.attempted and not found.failed
