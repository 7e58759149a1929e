"""An ensemble decides by the mean of its members' posteriors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from street_trees import street_tree

from segloss.calibration import Calibration
from segloss.config import EvalConfig, TrainConfig
from segloss.datasets.tables import CAMVID_11
from segloss.errors import InputError
from segloss.evaluation.ensemble import EnsembleReader, ensemble_of
from segloss.evaluation.sources import predict_images, sources_of_runs
from segloss.flags import from_plain_dict
from segloss.inference import Views, infer, infer_dataset, reader_of
from segloss.kept import Kept, fingerprint
from segloss.losses import build_criterion
from segloss.pixel_counts import count_labels
from segloss.runs import Run, Used, checkpoint_content
from segloss.training.checkpoints import WholeCheckpoints
from segloss.weight_files import BEST

ENCODER = "tu-mobilenetv3_small_050"
CPU = torch.device("cpu")


def run_of(seed: int, **options) -> Run:
    torch.manual_seed(seed)
    config = from_plain_dict(TrainConfig, {"encoder": ENCODER, "dataset": "camvid", **options})
    counts = count_labels(
        [torch.arange(11).view(1, -1)] * 2 + [torch.zeros(5, 3).long()], 11, class_names=CAMVID_11.names
    )
    model = config.build(11).eval()
    criterion = build_criterion(config.loss, counts.pixels, **config.loss_options)
    return Run(model, criterion, CAMVID_11, counts, config, Path(f"run{seed}.ckpt"), Used())


def silent(line: str) -> None:
    pass


def batch(images: int = 3) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    made = torch.randint(0, 256, (images, 3, 64, 96), dtype=torch.uint8, generator=generator)
    return [{"image": image, "name": str(place), "size": (80, 120)} for place, image in enumerate(made)]


def test_an_ensemble_of_members_calibrated_otherwise_has_other_weights(tmp_path):
    found = set()
    for temperature in (None, 2.0, 3.0):
        runs = [run_of(0), run_of(1)]
        if temperature is not None:
            kept = Kept(calibration=Calibration(temperature, (0.0,) * 11))
            runs[0].kept = kept
        found.add(fingerprint(*(lambda run: (run.model, run.criterion))(ensemble_of(runs, tmp_path, silent))))
    assert len(found) == 3


@pytest.mark.parametrize("views", [Views(), Views(flip=True), Views(scales=(0.5, 1.0))], ids=["once", "flip", "scales"])
def test_scores_are_the_mean_of_the_posteriors_at_the_size_of_the_labels(tmp_path, views):
    runs = [run_of(0), run_of(1, loss="ce"), run_of(2, loss="weighted_ce")]
    whole = ensemble_of(runs, tmp_path, silent)
    found = [scores for _, scores in infer(whole.model, whole.criterion, [batch()], device=CPU, views=views)]
    each = [[s for _, s in infer(run.model, run.criterion, [batch()], device=CPU, views=views)] for run in runs]
    for place, scores in enumerate(found):
        expected = [reader_of(run.criterion, views).posterior(of[place]) for run, of in zip(runs, each, strict=True)]
        assert scores.shape == (1, 11, 80, 120)
        assert torch.allclose(scores, torch.stack(expected).mean(0), atol=1e-6)


def test_an_ensemble_of_one_run_twice_decides_as_the_run(tmp_path):
    run = run_of(0)
    whole = ensemble_of([run, run], tmp_path, silent)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for tau in (1.0, 0.5, 0.0):
        assert (whole.predict(image, tau=tau) == run.predict(image, tau=tau)).mean() > 0.999
    assert torch.allclose(whole.criterion.tilt / run.criterion.tilt, torch.ones(11))


@pytest.mark.parametrize("loss", ["ce", "weighted_ce", "logit_adjusted"])
def test_an_ensemble_of_one_calibrated_run_twice_has_its_plain_decision(tmp_path, loss):
    run = run_of(0, loss=loss)
    bias = tuple(torch.linspace(-0.8, 0.8, 11).tolist())
    run.kept = Kept(calibration=Calibration(1.6, bias))
    whole = ensemble_of([run, run], tmp_path, silent)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    assert (whole.predict(image) == run.predict(image)).mean() > 0.999
    posterior = run.reader.posterior(run.model(torch.rand(1, 3, 64, 64)))
    assert (posterior.argmax(1) != whole.criterion.decide(posterior)).any()  # the calibrated argmax is another


def test_a_network_that_is_given_twice_is_told_of(tmp_path):
    one, other, said = run_of(1), run_of(2), []
    ensemble_of([one, other], tmp_path, said.append)
    assert not any("warning" in line for line in said)
    ensemble_of([one, other, replace(run_of(1), path=Path("copy.ckpt"))], tmp_path, said.append)
    told = "warning: copy.ckpt has the weights of run1.ckpt: the same network twice, whose say is doubled"
    assert [line for line in said if "warning" in line] == [told]


def test_the_tilt_is_the_geometric_mean_of_the_members():
    criteria = [build_criterion("outlying_mse", [100, 10, 1], alpha=a) for a in (1.0, 4.0)]
    reader = EnsembleReader([*criteria, build_criterion("ce", [100, 10, 1])])
    assert torch.allclose(reader.tilt, (4 * torch.tensor([1.0, 2.0, 3.0]) ** 2) ** (1 / 3))
    assert EnsembleReader([build_criterion("ce", [2, 1])] * 2).tilt is None


def test_windows_see_the_mean_too(tmp_path):
    runs = [run_of(0), run_of(1)]
    whole = ensemble_of(runs, tmp_path, silent)
    data = from_plain_dict(TrainConfig, {"dataset": "camvid", "data_path": str(street_tree(tmp_path / "d", 2, 2, 1))})
    dataset = data.open("test")
    views = Views(tile=(32, 64))

    def rows(run: Run) -> torch.Tensor:
        return torch.cat([s for _, s in infer_dataset(run.model, run.criterion, dataset, device=CPU, views=views)], -2)

    expected = torch.stack([run.criterion.posterior(rows(run)) for run in runs]).mean(0)
    assert torch.allclose(rows(whole), expected, atol=1e-5)


def test_members_read_their_own_calibration(tmp_path):
    run, plain = run_of(0), run_of(0)
    plain.kept = run.kept
    object.__setattr__(run, "kept", run.kept.__class__(calibration=Calibration(2.0, (0.0,) * 11)))
    logits = torch.randn(1, 11, 4, 4)
    assert not torch.allclose(run.reader.posterior(logits), plain.reader.posterior(logits))
    whole = ensemble_of([run, run], tmp_path, silent)
    image = torch.rand(1, 3, 64, 64)
    assert torch.allclose(whole.model(image), run.reader.posterior(run.model(image)), atol=1e-6)


@pytest.mark.parametrize(("options", "what"), [({"image_scale": 0.5}, "image scale")])
def test_members_that_do_not_fit_together_are_refused(tmp_path, options, what):
    with pytest.raises(
        InputError, match=rf"run1\.ckpt: has another {what} than run0\.ckpt; leave it out of --ensemble"
    ):
        ensemble_of([run_of(0), run_of(1, **options)], tmp_path, silent)


def test_members_of_other_folds_are_warned_of(tmp_path):
    said: list[str] = []
    ensemble_of([run_of(0, fold="1/3"), run_of(1, fold="2/3")], tmp_path, said.append)
    assert said[0] == "ensemble of 2: run0.ckpt, run1.ckpt" and "members were trained on other folds" in said[1]


def test_members_of_other_images_are_warned_of(tmp_path):
    said: list[str] = []
    runs = [run_of(0), run_of(1)]
    for run, digest in zip(runs, ("a", "b"), strict=True):
        run.counts = replace(run.counts, images_digest=digest)
    ensemble_of(runs, tmp_path, said.append)
    assert "members were trained on other images than each other: some may have seen the images of val" in said[1]


@pytest.fixture
def saved(tmp_path) -> list[str]:
    """Run folders of two networks."""
    data = str(street_tree(tmp_path / "data", 3, 2, 2))
    for seed in (0, 1):
        run = run_of(seed, data_path=data, fold="1/2")
        used = Used((64, 64), "32-true", 0, data, None, None)
        content = checkpoint_content(run.config, used, CAMVID_11, run.counts, run.model)
        state = {f"model.{name}": value for name, value in run.model.state_dict().items()}
        state |= {f"criterion.{name}": value for name, value in run.criterion.state_dict().items()}
        WholeCheckpoints().save_checkpoint({"segloss": content, "state_dict": state}, tmp_path / f"run{seed}" / BEST)
    return [str(tmp_path / f"run{seed}") for seed in (0, 1)]


def test_the_options_of_evaluation_make_one_source_of_several_runs(saved, tmp_path):
    config = from_plain_dict(
        EvalConfig,
        {
            "checkpoint": saved,
            "ensemble": True,
            "decision": ["iou"],
            "workers": 0,
            "accelerator": "cpu",
            "check": "off",
        },
    )
    config.validate()
    quiet = lambda title: lambda items, length: items  # noqa: E731
    (source,) = sources_of_runs(config, tmp_path / "out", silent, quiet, lambda *_: None)
    assert source.name == "ensemble" and source.measures.decision.rule == "iou"
    assert (tmp_path / "out" / "decision.json").is_file()  # fitted to the ensemble, not to a member
    assert not (Path(saved[0]) / "decision.json").is_file()
    assert len([*source.results()]) == 2
    from_plain_dict(EvalConfig, {**MASK, "checkpoint": saved, "images": str(tmp_path / "data/test")}).validate()
    images = {"checkpoint": saved, "ensemble": True, "images": str(tmp_path / "data/test"), "workers": 0}
    (written,) = predict_images(from_plain_dict(EvalConfig, images), tmp_path / "seen", silent, quiet)
    assert len(list(written.glob("*.png"))) == 2


MASK = {"workers": 0}


def test_a_run_of_a_fold_is_scored_on_its_own_images(saved, tmp_path):
    """Its val split is that of the fold; the data set's own it was trained on."""
    base = {"checkpoint": saved[:1], "workers": 0, "accelerator": "cpu", "check": "off", "split": "val"}
    quiet = lambda title: lambda items, length: items  # noqa: E731
    names = {}
    for fold in (None, "1/2"):
        config = from_plain_dict(EvalConfig, {**base, "fold": fold})
        names[fold] = sources_of_runs(config, tmp_path / "out", silent, quiet, lambda *_: None)[0].names
    assert names[None] == names["1/2"] and 0 < len(names[None]) < 5


@pytest.mark.parametrize(
    "asked",
    [
        {"split": "val", "fold": "2/2"},
        {"split": "train", "fold": "2/2"},
        {"split": "test", "fold": "2/2", "decision": ["iou"]},  # fitted on val
    ],
)
def test_the_val_of_another_fold_is_refused_as_the_run_was_trained_on_it(saved, tmp_path, asked):
    quiet = lambda title: lambda items, length: items  # noqa: E731
    config = from_plain_dict(EvalConfig, {**MASK, "checkpoint": saved[:1], "check": "off", **asked})
    with pytest.raises(InputError, match=r"--fold 2/2: is of other images .* \(fold 1/2\).*; leave it out: each run"):
        sources_of_runs(config, tmp_path / "out", silent, quiet, lambda *_: None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"checkpoint": ["a"]}, "--ensemble must be given with several --checkpoint, got a"),
        ({"checkpoint": ["a", "b"], "names": ["x", "y"]}, "--names must be one for each of the 1 runs or folders"),
        ({"predictions": ["a", "b"], "labels": "c"}, "--ensemble does nothing with --predictions"),
    ],
)
def test_an_ensemble_of_what_is_none_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        from_plain_dict(EvalConfig, {**given, "ensemble": True}).validate()
