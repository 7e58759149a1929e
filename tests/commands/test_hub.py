"""A run that is given away is the same run to the last bit, and nothing but numbers and text."""

import dataclasses
import json
import random
import re
import shutil
import sys
from pathlib import Path

import cv2
import huggingface_hub
import numpy as np
import pytest
import torch
from hand_made_scores import metrics
from safetensors.torch import save_file
from tiny_runs import tiny_run

import eval_seg
import segloss
from segloss import hub
from segloss.config import EvalConfig, ExportConfig
from segloss.errors import InputError
from segloss.export import command as export
from segloss.flags import parse_config
from segloss.report.kept_scores import kept_scores
from segloss.report.model_card import front_matter, model_card

IMAGE = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def run(folder):
    return segloss.load_run(folder)


@pytest.fixture(scope="module")
def given(run, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("deep") / "to/streets"
    assert export.export_hub(run, target) == []
    return target


@pytest.fixture
def copy(given, tmp_path) -> Path:
    return Path(shutil.copytree(given, tmp_path / "copy"))


def test_it_holds_three_files_and_no_pickle(given, monkeypatch):
    assert sorted(path.name for path in given.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert [path.name for path in given.parent.iterdir()] == ["streets"]
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened a pickle"))
    segloss.load_run(given)


def test_predictions_and_all_that_makes_them_are_those_of_the_run(run, given):
    theirs = segloss.load_run(given)
    assert torch.equal(theirs.scores(IMAGE), run.scores(IMAGE))
    for decision in ("plain", "auto", "iou", "tau 0.3", "prior 0.5"):
        assert np.array_equal(theirs.predict(IMAGE, decision), run.predict(IMAGE, decision))
    images = torch.from_numpy(IMAGE.transpose(2, 0, 1))[None]
    assert torch.equal(theirs.posterior(images), run.posterior(images))
    assert (theirs.weights, theirs.kept) == (run.weights, dataclasses.replace(run.kept, others=()))
    assert (theirs.classes, theirs.counts, theirs.bands) == (run.classes, run.counts, run.bands)
    assert (theirs.name, theirs.folder) == ("streets", given)
    assert export.metadata_of(theirs) == export.metadata_of(run)


def test_calibration_and_a_chosen_point_come_along(folder, run, tmp_path):
    own = Path(shutil.copytree(folder, tmp_path / "own"))
    ours = segloss.load_run(own)
    chosen = {"rule": "prior", "value": 0.25, "choose_on": ["0001", str(tmp_path / "lists/val.txt")]}
    calibration = {"temperature": 1.5, "bias": [0.1] * len(run.classes), "floor": 1e-6}
    entry = json.loads((own / "decision.json").read_text())[run.weights]
    ours.keep(calibration={"terms": calibration}, rule=entry["rule"], point=chosen)
    export.export_hub(ours, tmp_path / "given")
    theirs = segloss.load_run(tmp_path / "given")
    assert str(theirs.decision) == "prior 0.25" and theirs.kept == ours.kept and theirs.kept.calibration is not None
    assert np.array_equal(theirs.predict(IMAGE, "auto"), ours.predict(IMAGE, "auto"))
    assert '"val.txt"' in (tmp_path / "given/config.json").read_text()
    card = (tmp_path / "given/README.md").read_text()
    assert '`"auto"` is prior 0.25, chosen on labels' in card and "calibrated, by temperature 1.5" in card


def test_paths_of_this_machine_stay_behind(folder, run, tmp_path):
    away = {"init_from": "/home/me/first", "encoder_weights": "/home/me/resnet.pth", "class_file": "/home/me/c.yaml"}
    ours = dataclasses.replace(run, config=dataclasses.replace(run.config, **away))
    export.export_hub(ours, tmp_path / "given")
    for path in (tmp_path / "given").iterdir():
        assert str(folder.parent).encode() not in path.read_bytes() and b"/home" not in path.read_bytes()
    assert "`--encoder-weights resnet.pth`" in (tmp_path / "given/README.md").read_text()
    assert segloss.load_run(tmp_path / "given").config.init_from == "first"


# ---- damage


def test_a_flipped_byte_of_the_weights_never_loads(copy):
    path = copy / hub.WEIGHTS
    whole = path.read_bytes()
    for place in random.Random(0).sample(range(len(whole)), 20):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(bytes(damaged))
        with pytest.raises(InputError, match=r"model\.safetensors: "):
            segloss.load_run(copy)


def test_what_config_says_of_the_weights_cannot_be_changed(copy):
    path = copy / hub.CONFIG
    path.write_text(path.read_text().replace('"pole"', '"poles"'))
    with pytest.raises(InputError, match=r"model\.safetensors: is damaged: its weights and config\.json do not match"):
        segloss.load_run(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"config\.json: is missing beside model\.safetensors; use the whole folder"),
        ("{", r"config\.json: cannot be read as JSON .*; use another copy"),
        ("[]", r"model\.safetensors: is no checkpoint of segloss"),
        ('{"model_type": "segformer"}', r"model\.safetensors: is no checkpoint of segloss"),
    ],
)
def test_a_folder_of_something_else_is_one_line(copy, content, message):
    (copy / hub.CONFIG).unlink() if content is None else (copy / hub.CONFIG).write_text(content)
    with pytest.raises(InputError, match=message) as error:
        segloss.load_run(copy)
    assert "\n" not in str(error.value)


def test_a_damaged_decision_is_told_where_it_is(copy):
    content = json.loads((copy / hub.CONFIG).read_text())
    next(iter(content["decision"].values()))["rule"]["terms"] = 3
    (copy / hub.CONFIG).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"config\.json: cannot be read as decisions; use another copy"):
        segloss.load_run(copy).predict(IMAGE, "auto")


def test_a_checkpoint_that_lies_beside_is_not_opened(copy, run):
    (copy / "checkpoints").mkdir()
    (copy / "checkpoints/best.ckpt").write_bytes(b"no checkpoint")
    assert segloss.load_run(copy).weights == run.weights


def test_weights_of_others_in_a_run_folder_say_so(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"config\.json: is missing"):
        segloss.load_run(tmp_path)


# ---- the hub


@pytest.fixture
def on_hub(given, tmp_path, monkeypatch) -> list[dict]:
    """A hub of one model, ``me/streets``, and what it was asked."""
    asked: list[dict] = []

    def snapshot_download(repo_id: str, **options) -> str:
        asked.append({"repo_id": repo_id, **options})
        if repo_id != "me/streets":
            raise OSError("we are offline\nand this is a long story")
        target = tmp_path / "cache/models--me--streets/snapshots/0a1b"
        if not target.exists():
            shutil.copytree(given, target)
        return str(target)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_a_name_on_the_hub_is_the_run(run, on_hub):
    theirs = segloss.load_run("hf:me/streets")
    assert (theirs.name, theirs.weights) == ("streets", run.weights)
    assert np.array_equal(theirs.predict(IMAGE, "auto"), run.predict(IMAGE, "auto"))
    segloss.load_run("hf:me/streets@v1.0")
    files = ["model.safetensors", "config.json", "README.md"]
    expected = {"repo_id": "me/streets", "revision": None, "allow_patterns": files}
    assert on_hub == [expected, {**expected, "revision": "v1.0"}]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:streets", "hf:streets: is no name on the hub; write hf:OWNER/NAME"),
        ("hf:me/../x", "is no name on the hub"),
        ("hf:", "is no name on the hub"),
        ("hf:me/gone", r"hf:me/gone: cannot be fetched from the hub \(OSError: we are offline\); check name"),
    ],
)
def test_what_is_not_on_the_hub_is_one_line(on_hub, name, message):
    with pytest.raises(InputError, match=message) as error:
        segloss.load_run(name)
    assert "\n" not in str(error.value) and "long story" not in str(error.value)


def test_a_model_of_something_else_on_the_hub_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/best.ckpt").write_bytes(b"")
    with pytest.raises(InputError, match=r"hf:a/b: holds no model\.safetensors with config\.json, so it is no model"):
        segloss.load_run("hf:a/b")


def test_without_the_package_of_the_hub_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="needs huggingface_hub, which is not installed; pip install huggingface_hub"):
        segloss.load_run("hf:me/streets")


# ---- writing


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (["a.txt"], r"already holds a\.txt; choose another --hub, or empty it"),
        (["a.txt", "b.txt", "README.md"], r"already holds README\.md and 2 more"),
    ],
)
def test_a_folder_that_holds_something_is_refused_and_left_alone(run, tmp_path, held, message):
    for name in held:
        (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=message):
        export.export_hub(run, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(held, "mine")


def test_a_file_in_its_place_is_refused_and_an_empty_folder_is_filled(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; choose another --hub"):
        export.export_hub(run, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    export.export_hub(run, tmp_path / "empty")
    assert len([*(tmp_path / "empty").iterdir()]) == 3


def test_a_disk_that_is_full_leaves_nothing(run, tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(self, content):
        if self.name == "README.md":
            raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        export.export_hub(run, tmp_path / "given")
    assert [*tmp_path.iterdir()] == []


def test_what_was_given_away_is_not_written_again(given, tmp_path):
    with pytest.raises(InputError, match="streets: was given away already; copy it"):
        export.main(["--checkpoint", str(given), "--hub", str(tmp_path / "again")])


def test_the_command_says_where_and_what_next(folder, tmp_path, capsys):
    export.main(["--checkpoint", str(folder), "--hub", str(tmp_path / "given")])
    said = capsys.readouterr().out
    said_of = r".*/given: \d+\.\d MiB; load_run reads it, hf upload OWNER/NAME .*/given gives it away\n"
    assert re.fullmatch(said_of, said)


@pytest.mark.parametrize(("flag", "value"), [("--output", "x.onnx"), ("--decision", "iou")])
def test_options_of_onnx_are_refused_beside_it(flag, value):
    with pytest.raises(InputError, match=f"{flag} does nothing with --hub"):
        parse_config(ExportConfig, "export", ["--checkpoint", "a", "--hub", "b", flag, value])


# ---- the other commands


def test_it_is_scored_like_the_run_and_left_as_it_was(folder, given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = ["--workers", "0", "--data-path", str(folder.parent / "data"), "--precision", "32-true"]
    eval_seg.evaluate(["--checkpoint", str(given), *common])
    results = next((tmp_path / "runs").glob("eval-*/metrics.json"))
    found = json.loads(results.read_text())["runs"]["streets"]
    expected = json.loads((folder / "test_metrics.json").read_text())
    assert (found["miou"], found["classes"], found["weights"]) == (
        expected["miou"],
        expected["classes"],
        expected["weights"],
    )
    assert len([*given.iterdir()]) == 3
    on_hub = parse_config(EvalConfig, "eval", ["--checkpoint", "hf:a/b"])
    assert eval_seg.output_folder(on_hub).parts[0] == "runs"


def test_a_rule_that_is_fitted_later_is_kept_in_its_config(copy, run, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    content = json.loads((copy / hub.CONFIG).read_text())
    (copy / hub.CONFIG).write_text(json.dumps({**content, "decision": {}}))
    with pytest.raises(InputError, match=r"config\.json: no decision was fitted to or chosen for these weights"):
        segloss.load_run(copy).predict(IMAGE, "auto")
    common = ["--workers", "0", "--data-path", str(folder.parent / "data"), "--precision", "32-true"]
    eval_seg.evaluate(["--checkpoint", str(copy), "--decision", "iou", *common])
    theirs = segloss.load_run(copy)
    assert theirs.kept.rule == run.kept.rule and not (copy / "decision.json").exists()
    assert np.array_equal(theirs.predict(IMAGE, "iou"), run.predict(IMAGE, "iou"))


# ---- the card


def test_the_hub_reads_the_head_of_the_card(folder, given):
    card = huggingface_hub.ModelCard.load(given / hub.CARD)
    assert card.data.library_name == "segloss" and card.data.pipeline_tag == "image-segmentation"
    assert {"segloss", "semantic-segmentation", "unet", "outlying_mse"} <= set(card.data.tags)
    found = {(r.dataset_split, r.metric_type): r for r in card.data.eval_results}
    assert {key[0] for key in found} == {"test", "val"} and {key[1] for key in found} >= {"mean_iou", "accuracy"}
    assert all(result.dataset_type == "camvid" for result in found.values())
    expected = json.loads((folder / "test_metrics.json").read_text())["miou"]
    assert found["test", "mean_iou"].metric_value == pytest.approx(expected, abs=1e-4)


def test_the_block_of_the_card_gives_the_class_map(given, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("image.png", IMAGE[..., ::-1])
    block = re.search(r"```python\n(.*?)```", (given / hub.CARD).read_text(), re.DOTALL)[1]
    names: dict = {}
    exec(block.replace("hf:OWNER/NAME", str(given)), names)
    assert np.array_equal(names["class_map"], run.predict(IMAGE, "auto"))


def test_the_card_tells_classes_scores_training_and_limits(given, run):
    card = (given / hub.CARD).read_text()
    for heading in ("Use", "How it decides", "Scores", "Classes", "Training", "Limits"):
        assert f"\n## {heading}\n" in card
    rows = [line for line in card.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == len(run.classes)
    pole = next(row for row in rows if "| pole |" in row).split("|")
    c = run.classes.names.index("pole")
    share = 100 * run.counts.pixels[c] / sum(run.counts.pixels)
    assert f"{share:.3g} %" in pole[5] and f"{float(run.criterion.label_values[c]):.3g}" == pole[7].strip()
    assert "no intervals: `eval_seg.py` makes them" in card and run.weights in card
    assert "10 images" in card and "`--loss outlying_mse" in card.replace("Options: ", "")
    assert max(map(len, card.splitlines())) < 500


def with_scores(folder: Path, target: Path, **changes) -> tuple[Path, dict]:
    """A copy of a run with hand-made scores as ``eval_seg.py`` leaves them."""
    own = Path(shutil.copytree(folder, target))
    ours = segloss.load_run(own)
    classes = metrics().to_json()["classes"]
    held = json.loads((own / "test_metrics.json").read_text())["classes"]
    rows = [{**classes[0], "name": row["name"], "pixels": row["pixels"]} for row in held]
    scores = metrics(classes=rows, weights=ours.weights, **changes).to_json()
    interval = {"estimate": 0.5, "low": 0.4, "high": 0.6, "df": 5.0}
    row = {"name": "own", "runs": 1, "members": ["own"], "miou": interval, "classes": [interval] * len(rows)}
    form = {"level": 0.95, "block": 2, "protocol": "cityscapes", "images": 9, "ranking": [row], "pairs": []}
    (own / "eval-test").mkdir()
    (own / "eval-test/metrics.json").write_text(json.dumps({"runs": {"own": scores}, "comparison": form}))
    return own, scores


def test_intervals_of_an_evaluation_stand_in_table_and_head(folder, tmp_path):
    own, _ = with_scores(folder, tmp_path / "own")
    export.export_hub(segloss.load_run(own), tmp_path / "given")
    card = (tmp_path / "given/README.md").read_text()
    assert "| camvid test | 9 | plain | 50.0 [40.0, 60.0] |" in card
    assert "95 % intervals by a jackknife over blocks of 2 consecutive images" in card
    assert "95 % interval 0.400 to 0.600" in " ".join(card.split("---")[1].split())


def test_scores_of_other_images_are_left_out_and_named(folder, tmp_path):
    own, scores = with_scores(folder, tmp_path / "own")
    for row in scores["classes"]:
        row["pixels"] += 7
    content = {"runs": {"own": scores}, "comparison": 3}
    form = json.loads((own / "eval-test/metrics.json").read_text())["comparison"]
    (own / "eval-test/metrics.json").write_text(json.dumps({**content, "comparison": form}))
    found, (line,) = kept_scores(segloss.load_run(own))
    expected = json.loads((own / "test_metrics.json").read_text())["miou"]
    assert {kept.where: kept.miou.estimate for kept in found}["camvid test"] == expected
    assert line.endswith("metrics.json: camvid test holds other labels there than in the run's own scores")


def test_scores_by_another_protocol_stand_beside_the_runs_own(folder, tmp_path):
    own, _ = with_scores(folder, tmp_path / "own", protocol="smp")
    found, passed_over = kept_scores(segloss.load_run(own))
    assert [kept.how for kept in found if kept.where == "camvid test"] == ["plain", "protocol smp"] and not passed_over


def test_scores_of_other_weights_are_left_out_and_named(folder, tmp_path, capsys):
    own, scores = with_scores(folder, tmp_path / "own")
    for name, content in (("val_metrics.json", {**scores, "weights": "0a"}), ("test_metrics.json", {"miou": 3})):
        (own / name).write_text(json.dumps(content))
    older = {key: value for key, value in scores.items() if key != "weights"}
    (own / "eval-val").mkdir()
    (own / "eval-val/metrics.json").write_text(json.dumps({"runs": {"own": older}, "comparison": 3}))
    found, passed_over = kept_scores(segloss.load_run(own))
    assert [kept.where for kept in found] == ["camvid test"] and len(passed_over) == 3
    assert all("; score again" in line for line in passed_over)
    export.main(["--checkpoint", str(own), "--hub", str(tmp_path / "given")])
    said = capsys.readouterr().out
    assert said.count("left out: ") == 3 and "val_metrics.json: not said to be of these weights; score again" in said


def test_names_that_would_be_markup_are_text(run):
    nasty = "a|b <script>`x` *y*\n---\n# z"
    names = (nasty, *run.classes.names[1:])
    ours = dataclasses.replace(run, classes=dataclasses.replace(run.classes, names=names))
    card = model_card(ours, [], nasty)
    assert r"a\|b \<script\>\`x\` \*y\* --- \# z" in card and "<script>" not in card.split("---\n", 2)[2]
    rows = [re.findall(r"(?<!\\)\|", line) for line in card.splitlines() if line.startswith("| 0 |")]
    assert len(rows[0]) == 8
    assert huggingface_hub.ModelCard(card).data.to_dict()["library_name"] == "segloss"
    assert "model-index" not in front_matter(ours, [], nasty) and "None came with the run." in card


# ---- half the size


def test_in_half_precision_values_are_rounded_once_and_all_else_stays(folder, given, tmp_path):
    own = segloss.load_run(folder)
    export.export_hub(own, tmp_path / "half", half=True)
    whole, half = segloss.load_run(given), segloss.load_run(tmp_path / "half")
    for name, tensor in whole.model.state_dict().items():
        rounded = tensor.half().float() if tensor.is_floating_point() else tensor
        assert (
            torch.equal(half.model.state_dict()[name], rounded) and half.model.state_dict()[name].dtype == tensor.dtype
        )
    for name, tensor in whole.criterion.state_dict().items():
        assert torch.equal(half.criterion.state_dict()[name], tensor)
    assert half.weights != whole.weights and half.kept.rule == whole.kept.rule
    assert np.mean(half.predict(IMAGE, "iou") == whole.predict(IMAGE, "iou")) > 0.9
    sizes = [(place / "model.safetensors").stat().st_size for place in (tmp_path / "half", given)]
    assert 0.5 <= sizes[0] / sizes[1] < 0.51
    assert "The weights are float16" in (tmp_path / "half/README.md").read_text()


def test_a_weight_beyond_float16_is_refused(folder, tmp_path):
    own = segloss.load_run(folder)
    with torch.no_grad():
        next(own.model.parameters())[0, 0, 0, 0] = 1e5
    with pytest.raises(InputError, match=r"holds values beyond those of float16; leave --half out"):
        export.export_hub(own, tmp_path / "half", half=True)
    assert not (tmp_path / "half").exists()


def test_half_wants_a_folder_to_give_away():
    with pytest.raises(InputError, match="--half does nothing without --hub"):
        parse_config(ExportConfig, "export", ["--checkpoint", "a", "--half"])


# ---- the model that ships


def test_the_model_that_ships_is_small_and_its_rule_finds_the_signs():
    from segloss.datasets.street_scenes import render_street

    run = segloss.load_run("demo")
    assert run.name == "demo" and (run.path.stat().st_size / 2**20) < 3
    scores = {}
    for decision in ("plain", "iou"):
        confusion = segloss.ConfusionMatrix(len(run.classes))
        for index in range(8):
            image, labels = render_street(0, "test", index)
            confusion.update(run.predict(image, decision), labels)
        scores[decision] = confusion.compute()
    assert scores["iou"].miou > scores["plain"].miou > 0.4
    signs = run.classes.names.index("sign_symbol")  # 1 % of the pixels
    assert float(scores["iou"].iou[signs]) > 0.6 > float(scores["plain"].iou[signs])


def test_a_folder_called_demo_comes_before_the_model_that_ships(given, tmp_path, monkeypatch):
    shutil.copytree(given, tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    assert segloss.load_run("demo").weights == segloss.load_run(given).weights
