"""--bias-init prior and --late-jaccard in training: the first scores, the last steps."""

import pytest
import torch
from small_training import COUNTS, FewImages, SmallRun

from segloss.config import TrainConfig
from segloss.errors import InputError
from segloss.flags import from_plain_dict
from segloss.losses import build_criterion, class_prior
from segloss.losses.late_jaccard import soft_jaccard_of
from segloss.models import build_model
from segloss.training.last_layer import start_bias


@pytest.mark.parametrize("arch", ["unet", "fpn", "deeplabv3plus"])
def test_a_network_that_sees_nothing_puts_out_the_prior(arch):
    model = build_model(arch, "resnet18", 3)
    criterion = build_criterion("outlying_mse", COUNTS, label_values="power", label_power=0.75)
    prior = class_prior(COUNTS)
    start_bias(model, criterion.scores_of(prior))
    for parameter in [p for name, p in model.named_parameters() if "segmentation_head" in name and p.ndim > 1]:
        torch.nn.init.zeros_(parameter)
    scores = model.eval()(torch.zeros(1, 3, 64, 64))
    torch.testing.assert_close(criterion.posterior(scores)[0, :, 0, 0], prior)


def test_a_head_without_bias_is_told_of():
    model = build_model("unet", "resnet18", 3)
    model.network.segmentation_head[0].bias = None
    with pytest.raises(InputError, match="no bias to start; leave --bias-init out"):
        start_bias(model, torch.zeros(3))


def losses_of_steps(tmp_path, share, loss="outlying_mse", **options):
    run = SmallRun(tmp_path, FewImages(8), loss=loss, epochs=2, late_jaccard=share, **options)
    late = []
    original = run.task.training_step
    run.task.training_step = lambda batch, index=0: (late.append(run.task.is_late), original(batch, index))[1]
    run.fit()
    return late


@pytest.mark.parametrize(("share", "steps"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_the_last_share_of_the_steps_is_late(tmp_path, share, steps):
    late = losses_of_steps(tmp_path, share)
    assert late == [False] * (8 - steps) + [True] * steps


@pytest.mark.parametrize("loss", ["outlying_mse", "weighted_ce", "ce+0.5*dice"])
def test_a_late_step_is_the_mixture(tmp_path, loss):
    run = SmallRun(tmp_path, loss=loss, late_jaccard=1.0)
    seen = []
    original = run.task.training_step
    run.task.training_step = lambda b, i=0: (seen.append((b, original(b, i))), seen[-1][1])[1]
    states = {key: value.clone() for key, value in run.task.model.state_dict().items()}
    run.fit()
    batch, value = seen[0]
    run.task.model.load_state_dict(states)
    logits = run.task.model(batch["image"])
    criterion = run.task.criterion
    jaccard = soft_jaccard_of(criterion.posterior(logits), batch["labels"])
    torch.testing.assert_close(value, 0.25 * criterion(logits, batch["labels"]) + 0.75 * jaccard)


def test_micro_batches_weigh_by_their_pixels(tmp_path):
    """The gradient of a step of two images is that of each, by its share of the pixels (image 1 has 64 of 1088)."""

    def first(micro_batches, valid=None):
        def only(index, sample):
            if valid is not None and index % 4 != valid:
                sample["labels"][:] = 255

        (tmp_path / f"{micro_batches}{valid}").mkdir()
        trainer = {"accumulate_grad_batches": micro_batches}
        run = SmallRun(
            tmp_path / f"{micro_batches}{valid}",
            FewImages(2, only),
            loss="mse",
            late_jaccard=1.0,
            batch_size=1,
            trainer=trainer,
        )
        return run.fit().gradients.steps[0]

    both, big, small = first(2), first(2, 0), first(2, 1)
    torch.testing.assert_close(both, (1024 * big + 64 * small) / 1088, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("words", [{"late_jaccard": 1.5}, {"late_jaccard": -0.1}, {"bias_init": "one"}])
def test_other_values_are_refused(words):
    with pytest.raises(InputError, match=next(iter(words)).replace("_", "-")):
        from_plain_dict(TrainConfig, words)
