"""A run that was stopped goes on as if it had not been, wherever it was: weights, history, events, best score."""

import copy
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from killed_runs import WALL_CLOCK, events
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from small_training import FewImages, SmallNet, SmallRun
from tensorboard.summary.writer import event_file_writer
from torch import nn

from segloss.config import TrainConfig
from segloss.datasets.loading import EpochSampler
from segloss.errors import InputError
from segloss.run_folder import lock_run_folder, open_run_folder
from segloss.training.averaging import AveragedWeights
from segloss.training.checkpoints import LastCheckpoint
from segloss.training.optimisation import rate_factor
from segloss.weight_files import BEST, LAST, SHARED

ROOT = Path(__file__).resolve().parents[2]


class Dropping(SmallNet):
    """With dropout and running statistics, so that random numbers and buffers matter."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(super().forward(images)))


class Noisy(FewImages):
    """Images that differ from epoch to epoch, as augmentation makes them."""

    def __getitem__(self, key: Any) -> dict[str, Any]:
        sample = super().__getitem__(key)
        generator = torch.Generator().manual_seed(hash(key) % 2**32 if isinstance(key, tuple) else key)
        sample["image"] = (sample["image"] + torch.randint(0, 9, (3, 32, 32), generator=generator)).clamp(0, 255).byte()
        return sample


class Stop(Callback):
    """A signal, or an exception that stands for a kill, at a moment of the run."""

    def __init__(self, where: str, epoch: int, index: int, what: Any):
        self.at, self.what = (where, epoch, index), what

    def _reached(self, where: str, trainer: Any, index: int) -> None:
        if self.at != (where, trainer.current_epoch, index):
            return
        if isinstance(self.what, Exception):
            raise self.what
        os.kill(os.getpid(), self.what)

    def on_train_batch_start(self, trainer: Any, task: Any, batch: Any, index: int) -> None:
        self._reached("step", trainer, index)

    def on_validation_batch_start(self, trainer: Any, task: Any, batch: Any, index: int) -> None:
        self._reached("validation", trainer, index)


def small(folder: Path, epochs: int = 3, images: int = 10, **options: Any) -> SmallRun:
    return SmallRun(folder, Noisy(images), net=Dropping(), epochs=epochs, lr=1e-2, **options)


def outcome(run: SmallRun, folder: Path) -> dict[str, Any]:
    """All that must not depend on stops; of floats the very bits."""
    last, best = (torch.load(folder / name, weights_only=True) for name in (LAST, BEST))
    lines = [line.rsplit(",", 1)[0] for line in (folder / "history.csv").read_text().splitlines()]
    callbacks = {key.split("{")[0]: value for key, value in last["callbacks"].items() if "ModelCheckpoint" in key}
    return {
        "history": lines,
        "rows": [{key: value for key, value in row.items() if key not in WALL_CLOCK} for row in run.rows],
        "events": events(folder),
        "weights": {key: value.tolist() for key, value in last["state_dict"].items()},
        "optimiser": str(last["optimizer_states"]),
        "schedule": str(last["lr_schedulers"]),
        "best": {key: value.tolist() for key, value in best["state_dict"].items()},
        "best epoch": best["epoch"],
        "scores": [str(state.get("best_model_score")) for state in callbacks.values()],
        "step": last["global_step"],
    }


def stopped_and_resumed(folder: Path, stops: list[Stop], **options: Any) -> SmallRun:
    for stop in stops:
        run = small(folder, **options)
        run.trainer.callbacks.insert(0, stop)
        with pytest.raises((SystemExit, SIGTERMException, ZeroDivisionError)):
            run.fit(ckpt_path=folder / LAST if (folder / LAST).is_file() else None)
    run = small(folder, **options)
    return run.fit(ckpt_path=folder / LAST if (folder / LAST).is_file() else None)


@pytest.fixture(scope="module", autouse=True)
def events_in_order():
    """TensorBoard sorts the files of one second and one process by their numbers as words: 10 before 9."""
    event_file_writer._global_uid = event_file_writer.AtomicCounter(10**6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What comes of a run that was not stopped, by its options."""
    done: dict[str, dict[str, Any]] = {}

    def of(**options: Any) -> dict[str, Any]:
        if str(options) not in done:
            folder = tmp_path_factory.mktemp("whole")
            done[str(options)] = outcome(small(folder, **options).fit(), folder)
        return copy.deepcopy(done[str(options)])

    return of


PLACES = {
    "first step": ("step", 0, 0),
    "first epoch": ("step", 0, 2),
    "last step of an epoch": ("step", 1, 4),
    "validation": ("validation", 1, 1),
    "first validation": ("validation", 0, 0),
    "last validation": ("validation", 2, 1),
    "first step of an epoch": ("step", 2, 0),
    "last step": ("step", 2, 4),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "micro-batches": {"batch_size": 1, "trainer": {"accumulate_grad_batches": 3}},
    "validations within": {"trainer": {"val_check_interval": 2}},
    "half an epoch": {"trainer": {"limit_train_batches": 3}},
    "validation now and then": {"trainer": {"check_val_every_n_epoch": 2}},
    "cross entropy by loss": {"loss": "ce", "monitor": "loss"},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, ZeroDivisionError()], ids=["TERM", "INT", "crash"])
def test_a_run_that_was_stopped_anywhere_is_that_which_was_not(tmp_path, whole, place, how):
    options = {"checkpoint_minutes": 0.0} if isinstance(how, Exception) else {}
    run = stopped_and_resumed(tmp_path, [Stop(*PLACES[place], how)], **options)
    assert outcome(run, tmp_path) == whole()


@pytest.mark.parametrize("name", OPTIONS)
def test_so_it_is_with_other_options_and_several_stops(tmp_path, whole, name):
    options = OPTIONS[name]
    stops = [
        Stop("step", 0, 1, signal.SIGTERM),
        Stop("validation", 1, 0, signal.SIGINT),
        Stop("step", 2, 2, signal.SIGTERM),
    ]
    run = stopped_and_resumed(tmp_path, stops[:: 2 if name == "validation now and then" else 1], **options)
    assert outcome(run, tmp_path) == whole(**options)


def test_a_stop_in_the_midst_loses_no_step(tmp_path):
    """What is saved on SIGTERM is the step that was being done, not the last epoch."""
    run = small(tmp_path, epochs=2)
    run.trainer.callbacks.insert(0, Stop("step", 1, 2, signal.SIGTERM))
    with pytest.raises(SIGTERMException):
        run.fit()
    saved = torch.load(tmp_path / LAST, weights_only=True)
    assert (saved["epoch"], saved["global_step"], saved["epoch_so_far"]["images"]) == (1, 8, 6)
    assert f"ended by SIGTERM, saved after step 8; go on with --resume --output-dir {tmp_path}" in run.said


def test_a_second_interrupt_ends_at_once(tmp_path):
    class Twice(Stop):
        def _reached(self, where, trainer, index):
            super()._reached(where, trainer, index)
            super()._reached(where, trainer, index)

    run = small(tmp_path)
    run.trainer.callbacks.insert(0, Twice("step", 0, 1, signal.SIGINT))
    with pytest.raises(SystemExit):
        run.fit()
    assert not (tmp_path / LAST).exists()
    assert f"interrupted, nothing is saved; go on with --resume --output-dir {tmp_path}" in run.said


@pytest.mark.parametrize(("minutes", "within"), [(0.0, 8), (10.0, 0), (1e9, 0)])
def test_within_an_epoch_it_is_saved_after_so_many_minutes(tmp_path, monkeypatch, minutes, within):
    steps = []
    save = LastCheckpoint._save

    def counted(self: LastCheckpoint, trainer: Any) -> None:
        steps.append(trainer.global_step)
        save(self, trainer)

    monkeypatch.setattr(LastCheckpoint, "_save", counted)
    small(tmp_path, epochs=2, checkpoint_minutes=minutes).fit()
    assert {*steps} >= {5, 10}
    assert len({*steps} - {5, 10}) == within


@pytest.mark.parametrize("stop", [("step", 1, 2), ("validation", 1, 0)])
def test_an_epoch_goes_on_with_batches_of_another_size(tmp_path, stop):
    """As with another number of devices: every image of the epoch once, the schedule that of the new steps."""
    seen: list[int] = []

    class Watched(Noisy):
        def __getitem__(self, key):
            if isinstance(key, tuple) and key[0] == 1:
                seen.append(key[1])
            return super().__getitem__(key)

    def of(batch_size: int) -> SmallRun:
        run = SmallRun(tmp_path, Watched(12), net=Dropping(), epochs=3, batch_size=batch_size)
        run.data.splits = replace(run.data.splits, val=Noisy(12))
        return run

    run = of(2)
    run.trainer.callbacks.insert(0, Stop(*stop, signal.SIGTERM))
    with pytest.raises(SIGTERMException):
        run.fit()
    run = of(3).fit(ckpt_path=tmp_path / LAST)
    assert [row["epoch"] for row in run.rows] == [1, 2, 3]
    assert sorted(seen) == [*range(12)]


def test_a_sampler_yields_what_is_left_of_an_epoch_alone():
    for world_size in (1, 2, 3):
        for rank in range(world_size):
            sampler = EpochSampler(20, shuffle=True, seed=3, rank=rank, world_size=world_size)
            sampler.set_epoch(4)
            whole = [*sampler]
            sampler.begun = 4, 6
            assert [*sampler] == whole[6 // world_size :] and len(sampler) == len(whole)
            sampler.set_epoch(5)
            assert len([*sampler]) == len(whole)


# ---- a budget of time


class Clock:
    """A second passes at each step."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("lightning.pytorch.callbacks.timer.time.monotonic", lambda: self.now)


class Tick(Callback):
    def __init__(self, clock: Clock):
        self.clock = clock

    def on_train_batch_start(self, *_: Any) -> None:
        self.clock.now += 1


def test_a_used_up_budget_is_told_and_more_of_it_goes_on_exactly(tmp_path, monkeypatch):
    """The resumed run trained nothing and said nothing."""
    clock = Clock(monkeypatch)

    def timed(folder: Path, seconds: int) -> SmallRun:
        run = small(folder, trainer={"max_time": {"seconds": seconds}})
        run.trainer.callbacks.insert(0, Tick(clock))
        return run

    run = timed(tmp_path, 7).fit()
    assert run.trainer.global_step == 7 and "val_miou" in run.rows[-1]
    said = f"--trainer.max_time is used up in epoch 2 of 3; go on with --resume --output-dir {tmp_path} and more of it"
    assert run.said.count(said) == 1
    again = timed(tmp_path, 7).fit(ckpt_path=tmp_path / LAST)
    assert again.trainer.global_step == 7
    assert "warning: --trainer.max_time is used up, nothing is trained; give more of it" in again.said
    done = timed(tmp_path, 10_000).fit(ckpt_path=tmp_path / LAST)
    assert [(row["epoch"], row["step"]) for row in done.rows] == [(1, 5), (2, 10), (3, 15)]
    assert "max_time" not in done.said
    assert "max_time" not in timed(tmp_path, 12).fit(ckpt_path=tmp_path / LAST).said  # it has done all it was to do


def test_the_schedule_ends_with_the_budget(tmp_path, monkeypatch):
    clock, rates = Clock(monkeypatch), []

    class Rates(Callback):
        def on_train_batch_end(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[-1]["lr"])

    run = small(tmp_path, epochs=100, trainer={"max_time": {"seconds": 20}})
    run.trainer.callbacks[:0] = [Tick(clock), Rates()]
    run.fit()
    assert len(rates) == 20 and max(rates) > 0.005 and rates[-1] < 0.001


def test_what_is_for_the_last_share_is_done_where_the_time_ends_a_run(tmp_path, monkeypatch):
    clock, late = Clock(monkeypatch), []
    own = {"epochs": 100, "swa_share": 0.5, "late_jaccard": 0.4}

    def timed(seconds: int) -> SmallRun:
        run = small(tmp_path, **own, trainer={"max_time": {"seconds": seconds}})
        run.trainer.callbacks.insert(0, Tick(clock))
        run.gradients.on_train_batch_start = lambda *_: late.append(run.task.is_late)
        return run.fit(ckpt_path=tmp_path / LAST if (tmp_path / LAST).is_file() else None)

    def averaged(run: SmallRun) -> int:
        return next(each.seen for each in run.trainer.callbacks if isinstance(each, AveragedWeights))

    run = timed(20)
    assert averaged(run) in (2, 3) and "averaged" not in run.said and "--late-jaccard" not in run.said
    assert not any(late[:11]) and all(late[12:])
    assert averaged(timed(80)) in (8, 9)  # not with those of before


# ---- other options


def test_override_changes_what_is_learnt(tmp_path):
    run = small(tmp_path, epochs=2)
    run.trainer.callbacks.insert(0, Stop("step", 1, 0, signal.SIGTERM))
    with pytest.raises(SIGTERMException):
        run.fit()
    changed = {"lr": 1e-4, "weight_decay": 0.5, "resume": True, "override": True, "output_dir": str(tmp_path)}
    run = SmallRun(tmp_path, Noisy(10), net=Dropping(), epochs=2, **changed)
    rates: list[Any] = []

    class Rates(Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append([(group["lr"], group["weight_decay"]) for group in trainer.optimizers[0].param_groups])

    run.trainer.callbacks.insert(0, Rates())
    run.task.criterion.label_values.mul_(3)
    run.fit(ckpt_path=tmp_path / LAST)
    assert all(0 < lr <= 1e-4 for step in rates for lr, _ in step)
    assert {decay for _, decay in rates[0]} == {0.5, 0.0}
    kept = torch.load(tmp_path / LAST, weights_only=True)["state_dict"]["criterion.label_values"]
    assert kept.tolist() == [3.0, 6.0, 9.0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "sgd"}, "warning: the optimiser begins anew: what it has gathered is of other options"),
        ({"optimizer_options": {"amsgrad": True}}, "warning: the optimiser begins anew"),
        ({"encoder_lr_factor": 0.0}, "warning: the optimiser begins anew"),
        ({"monitor": "loss"}, "warning: best.ckpt is chosen anew, by loss"),
        ({"lr": 1e-3}, ""),
    ],
    ids=str,
)
@pytest.mark.parametrize("override", [True, False], ids=["override", "one that was killed before"])
def test_what_no_longer_fits_begins_anew_and_is_said(tmp_path, options, said, override):
    first = SmallRun(tmp_path, net=Dropping(), epochs=1).fit()
    steps = first.trainer.global_step
    again = {"epochs": 2, "resume": True, "override": override, "output_dir": str(tmp_path), **options}
    net = Dropping()
    net.encoder.requires_grad_(options.get("encoder_lr_factor", 1.0) > 0)
    run = SmallRun(tmp_path, net=net, **again)
    held: list[int] = []
    run.gradients.on_train_start = lambda trainer, _: held.append(len(trainer.optimizers[0].state))
    run.fit(ckpt_path=tmp_path / LAST)
    assert said in run.said and (said or "anew" not in run.said)
    assert bool(held[0]) == ("optimiser" not in said)
    assert run.trainer.global_step == 2 * steps


@pytest.mark.parametrize("epochs", [2, 4])
def test_more_epochs_have_their_schedule_from_the_first_step_on(tmp_path, epochs):
    """The checkpoint holds the rate of the step after, by the schedule that was to end here."""
    options = {"lr": 0.01, "schedule": "cosine", "warmup_share": 0.2}
    SmallRun(tmp_path, Noisy(10), net=Dropping(), epochs=1, **options).fit()
    rates: list[float] = []

    class Rates(Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    run = SmallRun(tmp_path, Noisy(10), net=Dropping(), epochs=epochs, **options)
    run.trainer.callbacks.insert(0, Rates())
    run.fit(ckpt_path=tmp_path / LAST)
    steps = 5 * epochs
    assert rates == [0.01 * rate_factor(step, steps, 0.2, "cosine") for step in range(5, steps)]


# ---- one process in a folder


HOLD = "import sys, time\nfrom pathlib import Path\nfrom segloss.run_folder import lock_run_folder\n"


def hold(folder: Path, more: str = "") -> subprocess.Popen:
    """Another process that trains there."""
    code = f"{HOLD}lock_run_folder(Path({str(folder)!r}))\n{more}print('held', flush=True)\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.skipif(os.name != "posix", reason="no locks there")
def test_two_processes_in_one_folder_are_refused_until_the_first_has_died(tmp_path):
    """Its workers live on for some seconds: they hold nothing."""
    process = hold(tmp_path, "import os\nif os.fork() == 0:\n    time.sleep(5)\n    os._exit(0)\n")
    try:
        with pytest.raises(InputError) as refusal:
            lock_run_folder(tmp_path)
        assert f"another process trains in it: process {process.pid} on " in str(refusal.value)
        assert "wait for it to end" in str(refusal.value) and "\n" not in str(refusal.value)
    finally:
        process.kill()
        process.wait()
    lock_run_folder(tmp_path)
    lock_run_folder(tmp_path)  # what this process holds is its own


def test_a_folder_that_another_process_took_meanwhile_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("epochs: 3\n")
    with pytest.raises(InputError, match="already holds a run; add --resume"):
        open_run_folder(tmp_path / "run", TrainConfig(), None, None)


# ---- a disk that is full


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(tmp_path, whole):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", str(disk)], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        run = small(disk)
        ballast = disk / "ballast"
        run.trainer.callbacks.insert(0, Fill(ballast))
        with pytest.raises(OSError, match="No space left"):
            run.fit()
        assert "ended: No space left on device" in run.said
        assert f"go on with --resume --output-dir {disk}" in run.said
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        run = small(disk)
        run.fit(ckpt_path=disk / LAST)
        assert outcome(run, disk) == whole()
        assert not list(disk.rglob(".*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


class Fill(Callback):
    """Leaves no room on the disk in the second epoch."""

    def __init__(self, ballast: Path):
        self.ballast = ballast

    def on_validation_start(self, trainer: Any, task: Any) -> None:
        if trainer.current_epoch == 1:
            with pytest.raises(OSError), self.ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"0" * 1024)


@pytest.mark.parametrize(
    ("trainer", "epochs", "said"),
    [
        (
            {"limit_train_batches": 1},
            3,
            "the learning rate has come to its end: 4 steps are done, and 3 epochs have 3 now",
        ),
        ({"limit_train_batches": 1}, 9, None),
        ({"limit_val_batches": 1}, 3, "best.ckpt is chosen anew, by miou on what is validated now"),
        ({"limit_val_batches": 1.0}, 3, None),
    ],
    ids=str,
)
def test_other_limits_of_batches_are_told_where_they_harm(tmp_path, trainer, epochs, said):
    SmallRun(tmp_path, net=Dropping(), epochs=2).fit()
    again = {"epochs": epochs, "resume": True, "override": True, "output_dir": str(tmp_path), "trainer": trainer}
    run = SmallRun(tmp_path, net=Dropping(), **again).fit(ckpt_path=tmp_path / LAST)
    assert f"warning: {said}" in run.said if said else "warning: best" not in run.said and "come to" not in run.said


VAL = {"pixels": [5, 3, 1], "images_digest": "a"}


@pytest.mark.parametrize("val", [VAL, None, {**VAL, "pixels": [4, 4, 1]}, {**VAL, "images_digest": "b"}], ids=str)
def test_the_best_score_on_another_val_split_is_left_behind(tmp_path, val):
    first = SmallRun(tmp_path, net=Dropping())
    first.task.checkpoint_content["val"] = VAL
    first.fit()
    again = {"epochs": 2, "early_stop": 9, "resume": True, "output_dir": str(tmp_path)}
    other = val not in (VAL, None)

    run = SmallRun(tmp_path, net=Dropping(), **again, override=other)
    run.task.checkpoint_content |= {"val": val} if val else {}
    said = run.fit(ckpt_path=tmp_path / LAST).said
    assert ("best.ckpt is chosen anew, by miou on the val split that is there now" in said) == other
    kept = torch.load(tmp_path / BEST, weights_only=True)["epoch"]
    assert kept == 1 or not other


def test_a_best_checkpoint_that_is_gone_is_told_and_chosen_anew(tmp_path):
    """Else the score that it had would keep worse ones from being kept, and the run would end without any."""
    options = {"monitor": "loss", "lr": 1e-2, "output_dir": str(tmp_path)}
    SmallRun(tmp_path, net=Dropping(), epochs=1, **options).fit()
    (tmp_path / BEST).unlink()
    content = torch.load(tmp_path / LAST, weights_only=True)
    for state in content["callbacks"].values():  # nothing to come will be better
        if "best_model_score" in state and state["best_model_path"].endswith(BEST.name):
            state["best_model_score"] = torch.tensor(-1.0)
            state["best_k_models"] = {path: torch.tensor(-1.0) for path in state["best_k_models"]}
    torch.save(content, tmp_path / LAST)
    again = SmallRun(tmp_path, net=Dropping(), epochs=3, resume=True, early_stop=9, **options)
    run = again.fit(ckpt_path=tmp_path / LAST)
    assert "warning: best.ckpt is chosen anew, of what comes from here on: it is gone" in run.said
    assert torch.load(tmp_path / BEST, weights_only=True)["epoch"] >= 1


def test_weights_to_give_away_stand_for_a_best_checkpoint_that_is_gone(tmp_path):
    SmallRun(tmp_path, net=Dropping(), epochs=1).fit()
    (tmp_path / BEST).rename(tmp_path / SHARED)
    run = SmallRun(tmp_path, net=Dropping(), epochs=2, resume=True).fit(ckpt_path=tmp_path / LAST)
    assert "warning: best.ckpt is gone; best.safetensors stands for it until a better one comes" in run.said
    assert "chosen anew" not in run.said


def test_a_best_checkpoint_that_never_was_is_not_missed(tmp_path):
    options = {"trainer": {"check_val_every_n_epoch": 2}, "output_dir": str(tmp_path)}
    SmallRun(tmp_path, net=Dropping(), epochs=1, **options).fit()
    assert not (tmp_path / BEST).exists()
    run = SmallRun(tmp_path, net=Dropping(), epochs=2, resume=True, **options).fit(ckpt_path=tmp_path / LAST)
    assert "warning: best" not in run.said and (tmp_path / BEST).is_file()
