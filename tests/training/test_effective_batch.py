"""Micro-batches and processes do not change what is learnt: the mean is that of the whole optimiser step."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_training
import torch
import whole_steps
from small_training import SmallRun, first_step
from street_trees import street_tree

from segloss.losses import LOSSES
from segloss.training.data import StepBatches

PIXEL_MEANS = sorted({*LOSSES} - {"dice", "jaccard", "tversky", "lovasz", "ohem_ce"})
LOSSES_TRIED = [*PIXEL_MEANS, "weighted_ce", "weighted_outlying_mse", "ce+0.5*weighted_focal"]


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).double().norm() / other.double().norm())


def require_same(got: dict, whole: dict, loss: str) -> None:
    assert distance(got["gradient"], whole["gradient"]) < 1e-5
    # Validation batches of a sum of losses are weighted by the first term's divisor, so their size shows.
    for name in ("train_loss", "val_miou", "score_share", *([] if "+" in loss else ["val_loss"])):
        if name in whole["rows"][0]:
            assert got["rows"][0][name] == pytest.approx(whole["rows"][0][name], rel=1e-4), name


@pytest.mark.parametrize("loss", LOSSES_TRIED)
def test_micro_batches_apply_the_gradient_of_the_whole_batch(tmp_path, loss):
    (tmp_path / "whole").mkdir()
    whole = first_step(tmp_path / "whole", loss, 1, 1)
    for micro_batches in (2, 4):
        folder = tmp_path / str(micro_batches)
        folder.mkdir()
        require_same(first_step(folder, loss, 1, micro_batches), whole, loss)


def test_two_processes_of_two_micro_batches_apply_the_gradient_of_the_whole_batch(tmp_path):
    losses = ["outlying_mse", "ce", "weighted_ce", "ce+0.5*weighted_focal"]
    command = [sys.executable, small_training.__file__, str(tmp_path), *losses]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for loss in losses:
        (tmp_path / "whole" / loss).mkdir(parents=True)
        whole = first_step(tmp_path / "whole" / loss, loss, 1, 1)
        require_same(torch.load(tmp_path / loss / "first.pt", weights_only=True), whole, loss)


def test_two_processes_train_what_one_trains(tmp_path):
    """Six steps of SGD, the valid pixels uneven and the images no multiple of the batch."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    command = [sys.executable, small_training.__file__, str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    two = torch.load(tmp_path / "two/trained.pt", weights_only=True)
    one = small_training.several_steps(tmp_path / "one", 1)
    assert one["steps"] == two["steps"] == 6
    start = small_training.SmallNet().state_dict()
    for name, expected in one["parameters"].items():
        assert distance(two["parameters"][name], expected) < 1e-6, name
        assert distance(start[name], expected) > 1e-3, name
    for got, wanted in zip(two["rows"], one["rows"], strict=True):
        assert got["val_miou"] == wanted["val_miou"] and got["train_loss"] == pytest.approx(wanted["train_loss"], 1e-6)


@pytest.mark.slow
def test_train_seg_applies_it_for_every_loss(tmp_path):
    """In two processes of two micro-batches, from the flags to the optimiser."""
    data = street_tree(tmp_path / "streets")
    command = [sys.executable, whole_steps.__file__, str(data), str(tmp_path), *LOSSES_TRIED]
    environment = {**os.environ, "SEGLOSS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    environment.pop("SEGLOSS_RUN_FOLDER", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    far = {}
    for loss in LOSSES_TRIED:
        whole, shared = (torch.load(tmp_path / f"{loss}-{name}.pt", weights_only=True) for name in whole_steps.DEALT)
        assert whole.norm() > 0, loss
        far[loss] = distance(shared, whole)
    assert max(far.values()) < 1e-4, far  # means of means were 0.3 to 5 off


def test_a_micro_batch_of_void_does_not_shorten_the_step(tmp_path):
    void = small_training.FewImages(4, lambda index, sample: index < 2 and sample["labels"].fill_(255))
    alone = small_training.FewImages(2)
    alone_at = small_training.FewImages.__getitem__
    run = SmallRun(tmp_path / "void", void, batch_size=1, trainer={"accumulate_grad_batches": 4}).fit()

    class LastTwo(small_training.FewImages):
        def __getitem__(self, key):
            return alone_at(self, (key if isinstance(key, int) else key[1]) + 2)

    expected = SmallRun(tmp_path / "two", LastTwo(len(alone)), batch_size=2).fit()
    assert distance(run.gradients.steps[0], expected.gradients.steps[0]) < 1e-5
    assert run.rows[0]["train_loss"] == pytest.approx(expected.rows[0]["train_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("images", "limit", "steps"), [(5, None, [2, 2, 1]), (6, 5, [2, 2, 1]), (6, 0.5, [2, 1]), (4, None, [2, 2])]
)
def test_the_last_step_of_an_epoch_divides_by_what_it_has(tmp_path, images, limit, steps):
    """Its micro-batches are fewer; Lightning still divides by their usual number."""
    seen = []

    class Watched(StepBatches):
        def __iter__(self):
            for batch in super().__iter__():
                seen.append((float(batch["divisor"]), int((batch["labels"] != 255).sum())))
                yield batch

    trainer = {"accumulate_grad_batches": 2} | ({} if limit is None else {"limit_train_batches": limit})
    run = SmallRun(tmp_path, small_training.FewImages(images), batch_size=1, trainer=trainer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segloss.training.data.StepBatches", Watched)
        run.fit()
    assert len(run.gradients.steps) == len(steps)
    for count in steps:
        step, seen = seen[:count], seen[count:]
        assert {divisor for divisor, _ in step} == {sum(own for _, own in step)}


def test_the_mean_of_an_epoch_is_over_its_pixels(tmp_path):
    run = SmallRun(tmp_path, batch_size=1, lr=1e-12)
    before = run.task.model.state_dict()
    run.fit()
    net = small_training.SmallNet()
    net.load_state_dict(before)
    samples = [small_training.FewImages()[i] for i in range(4)]
    images, labels = (torch.stack([sample[key] for sample in samples]) for key in ("image", "labels"))
    expected = float(run.task.criterion(net(images), labels).detach())
    assert run.rows[0]["train_loss"] == pytest.approx(expected, rel=1e-4)
    assert run.rows[0]["val_loss"] == pytest.approx(expected, rel=1e-4)
    assert Path(tmp_path / "history.csv").is_file()
