"""A run that begins with the weights of another, whose classes may be others."""

from pathlib import Path

import pytest
import torch
from street_trees import TINY, street_tree

import train_seg
from segloss.config import TrainConfig
from segloss.datasets import ClassTable
from segloss.datasets.bands import RGB, Bands
from segloss.errors import InputError
from segloss.flags import from_plain_dict
from segloss.losses import build_criterion
from segloss.models import IMAGENET_MEAN, IMAGENET_STD, ModelOptions, SegmentationModel
from segloss.pixel_counts import count_labels
from segloss.runs import Run, Used
from segloss.training.warm_start import fit_normalisation, start_from

OLD = ["sky", "road", "car", "bus"]
NEW = ["road", "pole", "sky"]


def run_of(names: list[str], **options) -> Run:
    torch.manual_seed(1)
    config = from_plain_dict(TrainConfig, {"encoder": "resnet18", "loss": "ce", **options})
    model = config.build(len(names), normalisation=((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    counts = count_labels([torch.arange(len(names)).view(1, -1)], len(names), class_names=names)
    return Run(model, build_criterion("ce", counts.pixels), classes(names), counts, config, Path("old.ckpt"), Used())


def classes(names: list[str]) -> ClassTable:
    return ClassTable(tuple(names))


def begun(run: Run, names: list[str], **options) -> tuple[SegmentationModel, SegmentationModel, str]:
    """A new model, what it was before, and what was said."""
    torch.manual_seed(2)
    model = ModelOptions(encoder="resnet18", **options).build(len(names))
    torch.manual_seed(2)
    before = ModelOptions(encoder="resnet18", **options).build(len(names))
    return model, before, start_from(run, model, classes(names))


def test_heads_are_matched_by_the_names_of_classes_and_the_rest_is_said():
    run = run_of(OLD)
    model, before, said = begun(run, NEW)
    head, old, fresh = (m.network.segmentation_head[0] for m in (model, run.model, before))
    for place, source in ((0, old.weight[1]), (1, fresh.weight[1]), (2, old.weight[0])):
        assert torch.equal(head.weight[place], source)
    assert torch.equal(head.bias[[0, 2]], old.bias[[1, 0]]) and head.bias[1] == fresh.bias[1]
    for name, value in run.model.state_dict().items():
        if "segmentation_head" not in name:
            assert torch.equal(model.state_dict()[name], value), name
    assert said == ("begins with the weights of old.ckpt; classes kept: road, sky; new: pole; left behind: car, bus")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (OLD, "classes kept: sky, road, car, bus"),
        (OLD[::-1], "classes kept: bus, car, road, sky"),
        (["tree", "grass"], "classes new: tree, grass; left behind: sky, road, car, bus"),
        ([*OLD, "tree"], "classes kept: sky, road, car, bus; new: tree"),
    ],
)
def test_the_same_classes_in_another_order_are_the_same_classes(names, said):
    run = run_of(OLD)
    model, _, line = begun(run, names)
    assert line.endswith(said)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = model.eval()(images), run.model.eval()(images)
    for place, name in enumerate(names):
        if name in OLD:
            assert torch.equal(ours[:, place], theirs[:, OLD.index(name)])


def test_the_second_head_comes_along_and_may_be_new():
    run = run_of(OLD, auxiliary=0.4)
    model, _, _ = begun(run, NEW, auxiliary=0.4)
    rows = [m.network.classification_head[3].weight for m in (model, run.model)]
    assert torch.equal(rows[0][0], rows[1][1]) and torch.equal(rows[0][2], rows[1][0])
    model, before, _ = begun(run_of(OLD), NEW, auxiliary=0.4)
    assert torch.equal(model.network.classification_head[3].weight, before.network.classification_head[3].weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"encoder": "resnet34"},
            r"old\.ckpt: is of unet with encoder resnet34 for 3 bands: .* add --arch unet",
        ),
        ({"arch": "fpn"}, r"old\.ckpt: is of fpn with encoder resnet18"),
    ],
)
def test_weights_of_another_network_are_refused_with_the_options_that_fit(options, message):
    with pytest.raises(InputError, match=message):
        begun(run_of(OLD, **options), NEW)


def test_a_run_of_other_bands_is_refused_with_what_can_be_done():
    model = ModelOptions(encoder="resnet18").build(3, in_channels=4)
    cure = "give images of 3 bands, or the run as --encoder-weights"
    with pytest.raises(InputError, match=f"is of unet with encoder resnet18 for 3 bands: .*; {cure}"):
        start_from(run_of(OLD), model, classes(NEW))


@pytest.mark.parametrize(
    ("dtype", "std", "message"),
    [
        ("uint16", 58.0, r"old\.ckpt: began on images of uint8, whose normalisation does not fit uint16: they spread"),
        ("float32", 0.001, "does not fit float32: they spread"),
        ("uint16", 0.3, None),  # 8 bits in files of 16
        ("uint8", 58.0, None),
    ],
)
def test_images_of_another_kind_that_the_normalisation_does_not_fit_are_refused(dtype, std, message):
    model = ModelOptions(encoder="resnet18").build(3, normalisation=((std,) * 3, (std,) * 3))
    bands = Bands(3, dtype, mean=(255 * std,) * 3, std=(255 * std,) * 3)
    if message is None:
        assert "classes kept" in start_from(run_of(OLD), model, classes(NEW), bands)
        return
    with pytest.raises(InputError, match=message):
        start_from(run_of(OLD), model, classes(NEW), bands)


@pytest.mark.parametrize(
    ("std", "bands", "fitted"), [(58.0, RGB, True), (0.3, RGB, False), (58.0, Bands(3, "uint16"), False)]
)
def test_the_encoder_of_a_run_on_more_than_8_bits_meets_rgb_with_the_mean_of_rgb(std, bands, fitted):
    model = ModelOptions(encoder="resnet18").build(3, normalisation=((std,) * 3, (std,) * 3))
    lines = fit_normalisation(model, bands)
    assert bool(lines) == fitted
    assert model.mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN if fitted else (std,) * 3)
    assert model.std.flatten().tolist() == pytest.approx(IMAGENET_STD if fitted else (std,) * 3)


def test_a_run_begins_with_another_and_with_a_fold(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
    monkeypatch.setattr(train_seg, "score_run", lambda *_: None)
    data = street_tree(tmp_path / "streets", train=9, val=3, test=1)
    argv = ["--dataset", "camvid", "--data-path", str(data), *TINY, "--epochs", "1", "--accelerator", "cpu"]
    train_seg.train([*argv, "--output-dir", str(tmp_path / "a")])
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
    more = ["--init-from", str(tmp_path / "a"), "--fold", "2/3", "--lr", "1e-12", "--output-dir", str(tmp_path / "b")]
    train_seg.train([*argv, *more, "--frozen-batch-norm", "all"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "best.ckpt; classes kept: sky, building" in printed and "fold 2 of 3 of train and val" in printed
    assert "8 train, 4 val, 1 test images" in printed
    one, other = (
        torch.load(tmp_path / name / "checkpoints/best.ckpt", weights_only=True)["state_dict"] for name in "ab"
    )
    for name in one:
        if name.startswith("model."):
            assert torch.allclose(one[name], other[name], atol=1e-6), name
