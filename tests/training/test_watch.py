"""A run that goes wrong stops with a reason, and says what looks wrong."""

import math
import os
import signal
from pathlib import Path

import pytest
import torch
from small_training import FewImages, SmallNet, SmallRun

from segloss.errors import InputError
from segloss.training.watch import BAD_BATCH, doubts


class Poisoned(SmallNet):
    """Does something to itself before a given forward pass in training."""

    def __init__(self, at: int, harm):
        super().__init__()
        self.at, self.harm, self.passes = at, harm, 0

    def forward(self, images):
        scores = super().forward(images)
        if self.training:
            self.passes += 1
            if self.passes == self.at:
                scores = self.harm(self, scores)
        return scores


def stopped(run: SmallRun) -> str:
    with pytest.raises(InputError) as stop:
        run.fit()
    message = str(stop.value)
    assert "\n" not in message and not Path(run.trainer.default_root_dir, "checkpoints").exists()
    return message


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (lambda net, scores: scores * math.nan, "the loss is nan"),
        (lambda net, scores: scores * 1e30, "the loss is inf"),
        # sqrt'(0) is infinite: a finite loss whose gradient is not
        (lambda net, scores: scores + (scores - scores.detach()).abs().sqrt(), "the gradient is not finite"),
    ],
    ids=["nan", "inf", "gradient"],
)
def test_a_loss_or_gradient_that_is_no_number_stops_the_run(tmp_path, harm, what, micro_batches):
    """--lr 1e10 trained to NaN for all epochs, with exit status 0."""
    options = {"batch_size": 1, "trainer": {"accumulate_grad_batches": micro_batches}}
    message = stopped(SmallRun(tmp_path, net=Poisoned(3, harm), **options))
    step = -(-3 // micro_batches)
    assert message.startswith(
        f"training: {what} at step {step}: learning rate 0.00"
    )  # that of the step, not of the next
    assert "gradient norm " in message and "lower --lr" in message and BAD_BATCH in message
    kept = torch.load(tmp_path / BAD_BATCH, weights_only=True)
    assert kept["step"] == step and kept["lr"] > 0
    names = [name for batch in kept["batches"] for name in batch["name"]]
    assert ", ".join(names) in message and len(names) == (1 if "loss" in what else micro_batches)
    assert kept["batches"][0]["image"].shape == (1, 3, 32, 32)


def test_the_last_step_of_a_run_is_judged_too(tmp_path):
    message = stopped(SmallRun(tmp_path, batch_size=4, net=Poisoned(1, lambda net, scores: scores * math.nan)))
    assert "the loss is nan at step 1" in message


def break_statistics(net: SmallNet, scores: torch.Tensor) -> torch.Tensor:
    net.register_buffer("running", torch.tensor(math.inf))
    return scores


def test_a_buffer_that_is_no_number_stops_the_run_before_it_is_saved(tmp_path):
    message = stopped(SmallRun(tmp_path, net=Poisoned(1, break_statistics)))
    assert message.startswith("training: model.running of the network is not finite at step 2: ")


def test_weights_that_are_no_number_stop_the_run_before_it_is_saved(tmp_path):
    """Finite loss and gradient, and a step that overflows."""
    run = SmallRun(tmp_path, lr=1e38, batch_size=4, weight_decay=1e10)
    message = stopped(run)
    assert "not finite" in message or "the loss is" in message


def test_scores_that_are_no_number_are_not_decided_on(tmp_path):
    class Overflowing(SmallNet):
        def forward(self, images):
            scores = super().forward(images)
            return scores if self.training else torch.where(scores == scores.amax(), math.nan, scores)

    message = stopped(SmallRun(tmp_path, net=Overflowing()))
    assert (
        message.startswith("validation: the network's scores of ") and "images are not finite after step 2: " in message
    )
    assert "image" in message.split("step 2: ")[1] and "lower --lr" in message


def test_a_learning_rate_beyond_measure_is_one_line(tmp_path):
    message = stopped(SmallRun(tmp_path, lr=1e30, epochs=5, loss="ce"))
    assert "learning rate" in message


@pytest.mark.parametrize("where", ["first epoch", "second epoch"])
def test_sigterm_ends_the_run_and_says_how_to_go_on(tmp_path, where):
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    at = {"first epoch": 1, "second epoch": 3}[where]

    def terminate(net, scores):
        os.kill(os.getpid(), signal.SIGTERM)
        return scores

    run = SmallRun(tmp_path, net=Poisoned(at, terminate), epochs=3)
    with pytest.raises(SIGTERMException):
        run.fit()
    assert f"ended by SIGTERM, saved after step {at}; go on with --resume --output-dir {tmp_path}" in run.said
    kept = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert (kept["global_step"], kept["epoch"]) == (at, at // 2)


# ---- doubts


def row(epoch: int = 1, **values) -> dict:
    usual = {"train_loss": 1 / epoch, "val_loss": 1.1 / epoch, "never_predicted": [], "score_share": 1.0}
    return {**usual, **values}


def history(count: int, **values) -> list[dict]:
    """Rows whose values are functions of the epoch, or the same in all."""
    return [
        row(epoch, **{key: value(epoch) if callable(value) else value for key, value in values.items()})
        for epoch in range(1, count + 1)
    ]


CASES = {
    "a class never predicted": (
        history(3, never_predicted=["pole"]),
        "pole: never predicted in the last three",
        "weigh it more",
    ),
    "two of them": (
        history(3, never_predicted=["pole", "car"]),
        "pole, car: never predicted in the last three",
        "train",
    ),
    "a loss that stays": (history(3, train_loss=0.7), "the loss has not moved from 0.7 in 3 epochs", "raise --lr"),
    "one that trembles": (
        history(3, train_loss=lambda e: 2 + 0.001 * (-1) ** e),
        "the loss has not moved from 1.999 in 3 epochs",
        "raise --lr",
    ),
    "scores far off": (
        history(3, score_share=0.1),
        "reach only 10 % of their label values",
        "train longer; then lower --alpha",
    ),
    "flat images": (history(1, flat_images=["a", "b"]), "training images of one colour: a, b (2)", "look at them"),
    "many of them": (history(1, flat_images=list("abcdef")), "of one colour: a, b, c, d ... (6);", ""),
    "learnt by heart": (
        history(5, train_loss=lambda e: 1 / e**3, val_loss=lambda e: 1 + 0.2 * (e > 1) * e),
        "has risen to",
        "fewer --epochs",
    ),
    "a starving loader": (history(1, wait_share=0.5), "50 % of the time goes into waiting", "raise --workers"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_doubt_is_one_line_with_its_cure_and_said_once(case):
    rows, what, cure = CASES[case]
    rows = [*rows, rows[-1]]
    said = [line for last in range(len(rows) + 1) for line in doubts(rows[:last])]
    assert len(said) == 1 and what in said[0] and cure in said[0] and "\n" not in said[0]


@pytest.mark.parametrize(
    "rows",
    [
        history(8),
        history(8, train_loss=lambda e: 1 - 0.01 * e),  # slow is not still
        history(8, never_predicted=lambda e: ["pole"] if e % 3 else []),
        history(8, score_share=lambda e: 0.9 if e == 2 or e > 3 else 0.1),
        history(8, val_loss=5.0),  # far above training from the first, but not risen
        history(8, wait_share=0.2),
        history(8, flat_images=[]),
        [{"train_loss": 1 / epoch} for epoch in range(1, 9)],  # never validated
        [],
    ],
)
def test_what_is_usual_raises_no_doubt(rows):
    assert [line for last in range(len(rows) + 1) for line in doubts(rows[:last])] == []


def test_rows_of_an_older_run_raise_no_doubt():
    older = [{"train_loss": 1 / epoch, "val_loss": 2.0, "val_miou": 0.1} for epoch in range(1, 5)]
    assert doubts(older) == doubts([*older, row(5, never_predicted=["pole"])]) == []


def test_epochs_without_validation_are_left_out_of_the_three():
    rows = [row(e, never_predicted=["pole"]) if e % 2 else {"train_loss": 1 / e} for e in range(1, 6)]
    assert doubts(rows[:4]) == [] and "pole" in doubts(rows)[0]


def test_a_run_gathers_what_it_doubts(tmp_path):
    def flatten(index, sample):
        if index == 2:
            sample["image"][:] = 7

    run = SmallRun(tmp_path, FewImages(24, flatten), lr=1e-12, epochs=4, batch_size=2, alpha=6.0).fit()
    said = run.said
    assert "warning: training images of one colour: image2 (1); look at them" in said
    assert "warning: the loss has not moved" in said
    assert said.count("warning: the scores reach only") <= 1
    assert {"wait_share", "never_predicted", "score_share"} <= {*run.rows[0]}
    assert run.rows[1]["flat_images"] == [] and 0 <= run.rows[0]["wait_share"] < 1
    assert "never_predicted" not in (tmp_path / "history.csv").read_text()
