"""ONNX: the file gives the model's logits at several sizes and says how to read them."""

import copy
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_runs import tiny_run

import segloss
from segloss.calibration import Calibration
from segloss.decisions import Decision, decide
from segloss.errors import InputError
from segloss.export import command as export
from segloss.kept import Kept
from segloss.losses import build_criterion
from segloss.models import ModelOptions

onnxruntime = pytest.importorskip("onnxruntime")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return segloss.load_run(tiny_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def session(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "deep/model.onnx"
    assert export.export_onnx(run, path) <= export.TOLERANCE
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("count", "height", "width"), [(1, 32, 32), (3, 96, 64), (2, 128, 224)])
def test_logits_are_those_of_the_model_at_sizes_that_export_never_saw(run, session, count, height, width):
    images = torch.randint(0, 256, (count, 3, height, width)).float()
    (found,) = session.run(["logits"], {"images": images.numpy()})
    with torch.inference_mode():
        expected = run.model(images).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("size", [(1, 1), (1, 77), (37, 53), (64, 95), (131, 32)])
def test_images_of_any_size_are_decided_as_the_run_predicts_them(run, session, size):
    image = np.random.default_rng(size[1]).integers(0, 256, (*size, 3)).astype(np.uint8)
    batch = image.transpose(2, 0, 1)[None].astype(np.float32)
    logits, classes = session.run(["logits", "classes"], {"images": batch})
    assert logits.shape == (1, len(run.classes), *size) and classes.shape == (1, *size)
    with torch.inference_mode():
        expected = run.model(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    # The output is decided by what the run holds; pixels within rounding of two classes may differ.
    assert (classes[0] == run.predict(image, "auto")).mean() > 0.998


@pytest.mark.parametrize("smallest_side", [0, 128])
def test_a_network_with_a_smallest_side_is_padded_to_it_in_the_graph(run, tmp_path, smallest_side):
    changed = dataclasses.replace(run, model=copy.deepcopy(run.model))
    changed.model.smallest_side = smallest_side
    export.export_onnx(changed, tmp_path / "model.onnx", Decision())
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for size in ((40, 51), (150, 20)):
        images = torch.randint(0, 256, (1, 3, *size)).float()
        with torch.inference_mode():
            expected = changed.model(images).numpy()
        found = session.run(["logits"], {"images": images.numpy()})[0]
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


class Exotic(torch.nn.Module):
    """Singular values, for which ONNX has no operator."""

    def forward(self, images):
        return images[:, :1].expand(-1, 11, -1, -1) * torch.linalg.svdvals(images).sum((1, 2))[:, None, None, None]


def test_a_network_with_a_second_loss_is_written_without_it(run):
    model = ModelOptions(arch="linknet", encoder="resnet18", auxiliary=0.4).build(len(run.classes)).eval()
    images = torch.rand(1, 3, 40, 33) * 255
    with torch.inference_mode():
        logits, classes = export._Network(dataclasses.replace(run, model=model), Decision())(images)
        torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-5)
    assert classes.shape == (1, 40, 33)


class Decided(torch.nn.Module):
    def __init__(self, criterion, decision):
        super().__init__()
        self.criterion, self.decision = criterion, decision

    def forward(self, logits):
        return decide(self.criterion, logits, PRIOR, self.decision)


PRIOR = torch.tensor([0.9, 0.09, 0.01])
DECISIONS = [Decision("tau", 0.0), Decision("tau", 0.5), Decision("prior", 0.5), Decision("prior", 3.0)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decision", DECISIONS, ids=str)
@pytest.mark.parametrize("name", ["focal", "weighted_focal", "weighted_ce"])
def test_decisions_of_softmax_losses_have_operators_in_onnx(name, decision):
    file, network = io.BytesIO(), Decided(build_criterion(name, (900, 90, 10)), decision)
    axes = {"z": {0: "n", 2: "h", 3: "w"}}
    torch.onnx.export(
        *(network, (torch.randn(2, 3, 8, 8),), file),
        dynamo=False,
        opset_version=17,
        input_names=["z"],
        dynamic_axes=axes,
    )
    logits = 8 * torch.randn(3, 3, 17, 9, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"z": logits.numpy()})
    assert found.tolist() == network(logits).tolist()


def test_a_decision_that_cannot_be_written_names_the_plain_one(run, tmp_path, monkeypatch):
    for write in ("_write_traced", "_write_exported"):
        monkeypatch.setattr(export, write, lambda *_: 1 / 0)
    with pytest.raises(InputError, match=r"with classes by tau 0 cannot be exported: .*; take --decision plain, load"):
        export.export_onnx(run, tmp_path / "model.onnx", Decision("tau", 0.0))


def test_an_operator_that_onnx_lacks_is_one_line_and_no_file(run, tmp_path, capfd):
    changed = dataclasses.replace(run, model=copy.deepcopy(run.model))
    changed.model.network = Exotic()
    with pytest.raises(InputError, match=r"unet cannot be exported: .*svd") as error:
        export.export_onnx(changed, tmp_path / "model.onnx", Decision())
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")  # nothing of the exporters' own


@pytest.mark.parametrize(
    ("output", "message"),
    [("folder", r"folder: cannot be written: is a folder"), ("file/model.onnx", r"model\.onnx: cannot be written: .+")],
)
def test_a_place_that_cannot_be_written_is_told_before_anything_is_made(run, tmp_path, monkeypatch, output, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(export, "_write_traced", lambda *_: pytest.fail("exported"))
    with pytest.raises(InputError, match=f"{message}; choose another --output"):
        export.export_onnx(run, tmp_path / output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(run, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"export needs {package}, which is not installed; pip install onnx"):
        export.export_onnx(run, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_metadata_turn_logits_into_the_runs_decisions_and_posterior(run, session):
    told = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert told["classes"] == list(run.classes.names) and told["ids"] == list(run.classes.ids)
    assert told["loss"] == "outlying_mse" and told["stride"] == 32
    np.testing.assert_allclose(told["prior"], np.array(run.counts.pixels) / sum(run.counts.pixels), rtol=1e-6)
    images = torch.randint(0, 256, (1, 3, 64, 96)).float()
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    with torch.inference_mode():
        expected = run.criterion.posterior(run.model(images)).numpy()
    posterior = np.maximum(logits / np.array(told["tilt"])[None, :, None, None], 0)
    posterior /= posterior.sum(1, keepdims=True)
    np.testing.assert_allclose(posterior, expected, atol=1e-4)


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_graph_decides_by_the_runs_rule(run, tmp_path, calibrated):
    run = dataclasses.replace(run)
    rule, calibration = run.kept.rule, None
    assert rule is not None
    if calibrated:
        calibration = Calibration(1.5, tuple(0.1 * (c - 1) for c in range(len(rule.slope))))
    run.kept = Kept(calibration, dataclasses.replace(rule, offset=tuple(0.3 * a for a in rule.slope)))
    path = tmp_path / "model.onnx"
    export.export_onnx(run, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = torch.randint(0, 256, (2, 3, 96, 64)).float()
    logits, classes = session.run(["logits", "classes"], {"images": images.numpy()})
    told = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    posterior = np.maximum(logits / np.array(told["tilt"])[None, :, None, None], 0)
    posterior /= posterior.sum(1, keepdims=True)
    if calibrated:
        of = told["calibration"]
        scores = np.log(np.maximum(posterior, of["floor"])) / of["temperature"]
        posterior = np.exp(scores + np.array(of["bias"])[None, :, None, None])
        posterior /= posterior.sum(1, keepdims=True)
    slope, offset = (np.array(told["iou_rule"][key])[None, :, None, None] for key in ("slope", "offset"))
    assert (classes == (slope * posterior - offset).argmax(1)).mean() > 0.999 and classes.dtype == np.int64
    assert told["decision"] == "iou" and (told["calibration"] is not None) == calibrated
    assert (classes != logits.argmax(1)).any()


@pytest.mark.parametrize("decision", [Decision(), Decision("tau", 0.0), Decision("prior", 0.5)], ids=str)
def test_the_graph_decides_as_it_is_told(run, tmp_path, decision):
    path = tmp_path / "model.onnx"
    export.export_onnx(run, path, decision)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = torch.randint(0, 256, (1, 3, 64, 96)).float()
    logits, classes = session.run(["logits", "classes"], {"images": images.numpy()})
    expected = run.decode(torch.from_numpy(logits), decision).numpy()
    assert (classes == expected).mean() > 0.999
    told = json.loads(session.get_modelmeta().custom_metadata_map["decision"])
    assert told == ("plain" if decision == Decision() else str(decision))


def test_the_check_sees_other_class_numbers(run, tmp_path):
    path = tmp_path / "model.onnx"
    export.export_onnx(run, path, Decision())
    other = dataclasses.replace(run.kept.rule, offset=tuple(float(c > 0) for c in range(len(run.classes))))
    assert export.check_onnx(run, path, Decision("iou", terms=other)) == np.inf


def test_a_file_that_differs_from_the_model_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "check_onnx", lambda *_: 0.1)
    monkeypatch.setattr(export, "_write_exported", lambda *_: (_ for _ in ()).throw(RuntimeError("no\nway")))
    with pytest.raises(InputError, match=r"cannot be exported: differs by 1\.0e-01 .*; RuntimeError: no way"):
        export.export_onnx(run, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_check_sees_a_wrong_file(run, tmp_path):
    path = tmp_path / "model.onnx"
    export.export_onnx(run, path)
    with torch.no_grad():
        parameter = next(run.model.network.parameters())
        kept = parameter.clone()
        parameter.mul_(2)
    try:
        assert export.check_onnx(run, path) > 1e-3
    finally:
        with torch.no_grad():
            parameter.copy_(kept)


def test_the_command(run, tmp_path):
    command = [sys.executable, "-m", "segloss.export", "--checkpoint", str(run.folder), "--output"]
    done = subprocess.run([*command, str(tmp_path / "x.onnx")], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path}/x.onnx: ") and "largest difference from the model" in done.stdout
    done = subprocess.run([sys.executable, "-m", "segloss.export"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "--checkpoint" in done.stderr and done.stderr.count("\n") == 1


def test_a_decision_of_other_weights_is_told(tmp_path, monkeypatch, capsys):
    path = tmp_path / "x.onnx"
    kept, config = Kept(others=("best.ckpt",)), SimpleNamespace(image_scale=0.5)
    monkeypatch.setattr(export, "load_run", lambda _: SimpleNamespace(kept=kept, path=Path("run"), config=config))
    monkeypatch.setattr(export, "export_onnx", lambda *_: float(path.write_bytes(b"")))
    export.main(["--checkpoint", "run", "--output", str(path)])
    said = "warning: decision.json is of other weights, once in best.ckpt, and not used; eval_seg.py --checkpoint run"
    out = capsys.readouterr().out
    assert out.startswith(said)
    assert out.endswith(
        "its images must be resized by 0.5 first, as in training, and its classes back; it does not do so\n"
    )


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        ("outlying_mse", "outlying"),
        ("weighted_mse", "outlying"),
        ("ce", "softmax"),
        ("weighted_ce+dice", "softmax"),
        ("logit_adjusted", "softmax"),
        ("vector_scaling", "other"),
        ("focal", "other"),
        ("ldam", "other"),
    ],
)
def test_the_metadata_say_which_formula_gives_the_posterior(run, loss, kind):
    criterion = build_criterion(loss, [2**k for k in range(len(run.classes), 0, -1)], pixels_of_images=None)
    told = export.metadata_of(dataclasses.replace(run, criterion=criterion))
    assert json.loads(told["posterior"]) == kind
