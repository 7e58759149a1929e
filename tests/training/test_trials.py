"""Tries before a run: the learning rate, the size of a batch; and the compiled network."""

import copy
from types import SimpleNamespace

import pytest
import torch
from small_training import COUNTS, FewImages, SmallNet, SmallRun
from street_trees import TINY, street_tree

import train_seg
from segloss.config import TrainConfig
from segloss.errors import InputError
from segloss.flags import from_plain_dict
from segloss.inference import Machine
from segloss.losses import build_criterion
from segloss.models import ModelOptions, SegmentationModel
from segloss.training import trials
from segloss.training.compiled import compile_network
from segloss.training.data import Splits
from segloss.training.trials import batches_forever, largest_batch, steepest, step_bytes, try_rates

CPU = Machine(torch.device("cpu"), "32-true", 0)


def small_model() -> SegmentationModel:
    return SegmentationModel(SmallNet())


def config(**options) -> TrainConfig:
    return from_plain_dict(TrainConfig, {"batch_size": 2, "loss": "ce", "encoder_lr_factor": 0.5, **options})


@pytest.fixture
def batches():
    return batches_forever(Splits(FewImages(), FewImages(), None, (32, 32)), config(), 0)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_rates_grow_until_the_loss_is_gone_and_the_model_stays_as_it_was(batches, optimizer):
    model, criterion = small_model(), build_criterion("ce", COUNTS)
    before = copy.deepcopy(model.state_dict())
    curve = try_rates(model, criterion, config(optimizer=optimizer), batches, CPU)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    rates, losses = zip(*curve, strict=True)
    assert rates[0] == pytest.approx(1e-6) and list(rates) == sorted(rates)
    assert max(losses) <= 4 * min(losses[:-1]) * 1.5 and all(loss == loss for loss in losses)
    assert 1e-5 < steepest(curve) < 1


def test_the_encoder_keeps_its_share_of_the_rate_in_the_trial(batches, monkeypatch):
    seen = set()
    step = torch.optim.SGD.step

    def watched(self, *arguments, **options):
        seen.add(tuple(round(group["lr"] / self.param_groups[-1]["lr"], 6) for group in self.param_groups))
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    try_rates(small_model(), build_criterion("ce", COUNTS), config(optimizer="sgd"), batches, CPU, steps=5)
    assert seen == {(0.5, 0.5, 1.0, 1.0)}


@pytest.mark.parametrize(
    ("losses", "place"),
    [
        ([5, 4.9, 3, 2.9, 9], 2),
        ([5, 5, 5, 4.9, 4, 1, 0.9, 3], 4),
        ([5, 1, 1, 0.9, 20], 1),
    ],
)
def test_the_steepest_rate_is_where_the_loss_falls_most(losses, place):
    rates = [10.0**k for k in range(len(losses))]
    falls = {k: losses[k + 1] - losses[k - 1] for k in range(1, losses.index(min(losses)) + 1)}
    assert steepest([*zip(rates, losses, strict=True)]) == rates[min(falls, key=falls.get)]
    assert abs(rates.index(steepest([*zip(rates, losses, strict=True)])) - place) <= 1


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
def test_a_loss_that_never_falls_has_no_rate(losses):
    with pytest.raises(InputError, match="--find-lr: the loss falls at no rate"):
        steepest([(10.0**k, loss) for k, loss in enumerate(losses)])


@pytest.mark.parametrize(("free", "most", "expected"), [(1000, 99, 9), (1000, 5, 5), (300, 99, 2), (10**12, 40, 40)])
def test_the_largest_batch_is_that_whose_step_fits(free, most, expected):
    assert largest_batch(lambda n: 100 + 100 * n, free, most) == expected


def test_a_batch_of_two_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"--auto-batch-size: two images need .* GiB, .* are free; take a smaller"):
        largest_batch(lambda n: 100 * n, 150, 8)


@pytest.mark.parametrize(("images", "devices", "most"), [(12, 1, 2), (12, 2, 2), (3, 2, 1), (64, 2, 4), (1, 1, 1)])
def test_a_batch_is_an_eighth_of_the_images_of_a_device_or_two(monkeypatch, images, devices, most):
    """On a CPU the processes share its memory."""
    monkeypatch.setattr(trials, "step_bytes", lambda *_: lambda n: 100 * n)
    monkeypatch.setattr(trials, "free_bytes", lambda _: 10_000)
    splits = SimpleNamespace(images_per_epoch=images, crop_size=(64, 64))
    asked = config(devices=devices)
    assert trials.fitting_batch_size(None, None, asked, splits, CPU) == (most, most)
    monkeypatch.setattr(trials, "free_bytes", lambda _: 400)
    splits.images_per_epoch = 800
    assert trials.fitting_batch_size(None, None, asked, splits, CPU)[0] == 4 // devices


def test_what_a_step_takes_grows_with_its_images():
    model = ModelOptions(encoder="resnet18").build(3)
    measure = step_bytes(model, build_criterion("ce", COUNTS), config(), (64, 64), CPU)
    two, four, eight = measure(2), measure(4), measure(8)
    assert (eight - four) == pytest.approx(2 * (four - two), rel=0.02)
    weights = 4 * sum(p.numel() for p in model.parameters())
    assert two > 3 * weights and not any(p.grad is not None for p in model.parameters())


def test_both_are_asked_for_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("segloss.training.trials.STEPS", 30)
    monkeypatch.setattr(train_seg, "score_run", None)
    data = street_tree(tmp_path / "streets", train=17, val=1, test=1)
    argv = ["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(tmp_path / "run"), *TINY]
    train_seg.train([*argv, "--accelerator", "cpu", "--find-lr", "--auto-batch-size"])
    printed = capsys.readouterr().out
    assert "batch size: 2, of at most 2" in printed and "the loss falls fastest at --lr " in printed
    assert not (tmp_path / "run").exists()


# ---- compiled


class WithNetwork(SmallNet):
    """Has what a segmentation model has."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(self.encoder, torch.nn.ReLU(), self.head)

    def forward(self, images):
        return self.network(images / 255)


def test_a_compiled_network_learns_the_same_and_keeps_its_names(tmp_path, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_(self, backend=backend))
    states = []
    for name, compiled in (("plain", False), ("compiled", True)):
        (tmp_path / name).mkdir()
        run = SmallRun(tmp_path / name, net=WithNetwork(), compile=compiled, lr=0.01).fit()
        states.append(run.task.model.state_dict())
        assert bool(graphs) is compiled
    assert list(states[0]) == list(states[1])
    for name in states[0]:
        assert torch.allclose(states[0][name], states[1][name], atol=1e-6), name


@pytest.mark.parametrize(
    ("device", "message"),
    [("cpu", "--compile needs a C.. compiler; install g"), ("cuda", "--compile needs Triton; pip install")],
)
def test_what_compiling_needs_is_asked_for_before_the_first_step(monkeypatch, device, message):
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setattr("segloss.training.compiled.find_spec", lambda name: None)
    with pytest.raises(InputError, match=message):
        compile_network(WithNetwork(), torch.device(device))


# ---- memory format


def test_networks_and_images_are_in_channels_last_memory():
    model = ModelOptions(encoder="resnet18").build(3)
    seen = []
    model.network.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(torch.zeros(2, 3, 40, 72, dtype=torch.uint8))
    assert seen[0].is_contiguous(memory_format=torch.channels_last) and not seen[0].is_contiguous()
    kernels = [p for p in model.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert kernels and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
