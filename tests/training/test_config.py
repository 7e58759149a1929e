"""Options: one field, one flag, one line of YAML; wrong input is one line that names the flag."""

import dataclasses
import pickle
import re
from pathlib import Path

import pytest
import yaml

from segloss.config import (
    DemoConfig,
    DoctorConfig,
    EvalConfig,
    ExportConfig,
    FrequencyConfig,
    PlanConfig,
    RasteriseConfig,
    TrainConfig,
)
from segloss.errors import InputError
from segloss.flags import Frozen, from_plain_dict, keys_of, parse_config, to_plain_dict
from segloss.inference import find_machine
from segloss.losses import CLASS_WEIGHTS, LABEL_VALUES, LOSS_OPTIONS, LOSSES
from segloss.models import ModelOptions
from segloss.resume import parse_train_config, used_so_far
from segloss.run_folder import Used, read_config_file

KINDS = {
    "train_seg.py": TrainConfig,
    "eval_seg.py": EvalConfig,
    "python -m segloss.frequency": FrequencyConfig,
    "python -m segloss.doctor": DoctorConfig,
    "python -m segloss.export": ExportConfig,
    "python -m segloss.plan": PlanConfig,
    "python -m segloss.rasterise": RasteriseConfig,
    "python -m segloss.demo": DemoConfig,
}
DEFAULT = f"--loss {TrainConfig().loss}"


def changed(config) -> dict:
    """The options that are not the class's own defaults."""
    defaults = to_plain_dict(type(config)())
    return {key: value for key, value in to_plain_dict(config).items() if value != defaults[key]}


def parse_eval(argv: list[str]) -> EvalConfig:
    return parse_config(EvalConfig, "eval_seg.py", argv)


# ---- flags


def test_without_flags_every_option_has_the_default_of_its_class():
    assert changed(parse_train_config([])) == {}
    assert changed(parse_config(FrequencyConfig, "frequency", [])) == {}
    assert changed(parse_eval(["--checkpoint", "runs/a"])) == {"checkpoint": ["runs/a"]}


def test_a_parsed_config_cannot_be_changed():
    config = parse_train_config(["--trainer.max_depth", "1"])
    for key in keys_of(TrainConfig):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, key.holder, key.of(config))
        hash(tuple(key.of(config)) if isinstance(key.of(config), Frozen) else key.of(config))  # a list has no hash
    for held in (config.trainer, config.loss_options):
        with pytest.raises(TypeError, match="does not support item assignment"):
            held["gamma"] = 3.0
        assert pickle.loads(pickle.dumps(held)) == held


def test_a_config_made_in_python_is_that_of_no_flags():
    assert TrainConfig() == parse_train_config([]) and TrainConfig().unused_options() == []


def test_validating_changes_nothing():
    config = parse_train_config(["--workers", "3"])
    before = to_plain_dict(config)
    config.validate()
    assert to_plain_dict(config) == before


# A value other than the default for every field of TrainConfig: flags and what they mean.
EVERY_TRAIN_FLAG = {
    "dataset": (["folder"], "folder"),
    "data_path": (["some where"], "some where"),
    "classes": (["32"], 32),
    "val_share": (["0.3"], 0.3),
    "image_column": (["pixel_values"], "pixel_values"),
    "label_column": (["annotation"], "annotation"),
    "subset": (["full"], "full"),
    "class_file": (["names.yaml"], "names.yaml"),
    "streaming": ([], True),
    "channels": (["4"], 4),
    "show_bands": (["3", "2", "1"], [3, 2, 1]),
    "check": (["off"], "off"),
    "arch": (["fpn"], "fpn"),
    "encoder": (["mit_b0"], "mit_b0"),
    "encoder_weights": (["imagenet"], "imagenet"),
    "loss": (["focal"], "focal"),
    "late_jaccard": (["0.33"], 0.33),
    "bias_init": (["prior"], "prior"),
    "score_units": (["label_values"], "label_values"),
    "true_channel_weight": (["3"], 3.0),
    "class_weights": (["enet"], "enet"),
    "gamma": (["3"], 3.0),
    "label_smoothing": (["0.1"], 0.1),
    "adjustment": (["-0.5"], -0.5),
    "epochs": (["7"], 7),
    "batch_size": (["3"], 3),
    "optimizer": (["SGD"], "sgd"),
    "optimizer_options": (['{"foreach": false}'], {"foreach": False}),
    "layer_decay": (["0.75"], 0.75),
    "schedule": (["one_cycle"], "one_cycle"),
    "early_stop": (["20"], 20),
    "find_lr": ([], True),
    "logger": (["WandB", "mlflow"], ["wandb", "mlflow"]),
    "auto_batch_size": ([], True),
    "compile": ([], True),
    "init_from": (["runs/a"], "runs/a"),
    "fold": (["2/5"], "2/5"),
    "ema": (["0.999"], 0.999),
    "swa_share": (["0.25"], 0.25),
    "frozen_batch_norm": (["encoder"], "encoder"),
    "auxiliary": (["0.4"], 0.4),
    "lr": (["1e-4"], 1e-4),
    "encoder_lr_factor": (["1"], 1.0),
    "weight_decay": (["0"], 0.0),
    "warmup_share": (["0"], 0.0),
    "image_scale": (["0.5"], 0.5),
    "scale_range": (["0.5", "2"], [0.5, 2.0]),
    "crop_size": (["64", "96"], [64, 96]),
    "color": (["strong"], "strong"),
    "augmentations": (["own.yaml"], "own.yaml"),
    "guided_crops": (["0.5"], 0.5),
    "cat_max_ratio": (["0.75"], 0.75),
    "repeat_threshold": (["0.1"], 0.1),
    "mix": (["paste"], "paste"),
    "mix_share": (["0.25"], 0.25),
    "cache": (["ram"], "ram"),
    "workers": (["11"], 11),
    "seed": (["5"], 5),
    "precision": (["32-true"], "32-true"),
    "accelerator": (["cpu"], "cpu"),
    "devices": (["2"], 2),
    "monitor": (["loss"], "loss"),
    "plan": (["auto"], "auto"),
    "output_dir": (["runs/x"], "runs/x"),
    "calibrate": ([], True),
    "checkpoint_minutes": (["2.5"], 2.5),
    "resume": ([], True),
    "override": ([], True),
    "trainer": (['{"max_time": 3}'], {"max_time": 3}),
    "label_values": (["1", "2.5", "7"], ["1", "2.5", "7"]),
    "label_power": (["1"], 1.0),
    "alpha": (["6"], 6.0),
}


@pytest.fixture(autouse=True)
def pipeline(tmp_path, monkeypatch):
    """The pipeline that --augmentations own.yaml asks for lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("- HorizontalFlip\n")


def test_the_table_above_holds_every_field():
    spread = {key.name for key in keys_of(TrainConfig) if key.holder != key.name}  # a loss of one's own adds to these
    assert set(EVERY_TRAIN_FLAG) | spread == {key.name for key in keys_of(TrainConfig)}
    assert {"gamma", "alpha", "label_values", "class_weights"} <= spread & set(EVERY_TRAIN_FLAG)


@pytest.mark.parametrize("name", [name for name in EVERY_TRAIN_FLAG if name not in ("resume", "override")])
def test_each_field_is_set_by_the_flag_of_its_name_and_changes_nothing_else(name):
    words, value = EVERY_TRAIN_FLAG[name]
    config = parse_train_config(["--" + name.replace("_", "-"), *words])
    assert changed(config) == {name: value}
    assert type(to_plain_dict(config)[name]) is type(value)


def test_flags_of_evaluation():
    config = parse_eval(
        ["--checkpoint", "a", "b c", "--decision", "tau", "0", "--save-predictions", "--image-scale", "0.5"]
    )
    expected = {"checkpoint": ["a", "b c"], "decision": ["tau", "0"], "save_predictions": True, "image_scale": 0.5}
    assert changed(config) == expected


def test_label_values_are_a_recipe_or_numbers():
    assert parse_train_config(["--label-values", "log"]).loss_options["label_values"] == ("log",)
    assert parse_train_config(["--label-values", "1", "2.5"]).loss_options["label_values"] == ("1", "2.5")
    refusal(["--label-values", "1", "log"])


def test_every_option_of_the_network_is_a_flag():
    names = [key.name for key in keys_of(ModelOptions)]
    assert [key.name for key in keys_of(TrainConfig) if key.group is ModelOptions] == names


def test_every_option_of_a_loss_is_a_flag():
    assert {*LOSS_OPTIONS} <= {key.name for key in keys_of(TrainConfig)}
    assert {"label_values", "label_power", "alpha"} < {key.name for key in keys_of(FrequencyConfig)}
    assert parse_train_config(["--gamma", "3"]).loss_options["gamma"] == 3.0


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--loss CE", "loss", "ce"),
        ("--loss Weighted_CE+0.5*Dice", "loss", "weighted_ce+0.5*dice"),
        ("--arch FPN", "arch", "fpn"),
        ("--encoder MiT_B0", "encoder", "mit_b0"),
        ("--dataset Cityscapes", "dataset", "cityscapes"),
        ("--color Strong", "color", "strong"),
        ("--precision BF16-mixed", "precision", "bf16-mixed"),
        ("--monitor Loss", "monitor", "loss"),
        ("--class-weights ENet", "class_weights", "enet"),
        ("--label-values Log", "label_values", ["log"]),
    ],
)
def test_names_are_known_in_any_case_and_kept_as_they_are_declared(words, name, value):
    assert changed(parse_train_config(words.split())) == {name: value}


def test_names_of_evaluation_are_known_in_any_case():
    config = parse_eval(["--checkpoint", "a", "--split", "Val", "--protocol", "SegNet"])
    assert (config.split, config.protocol) == ("val", "segnet")
    config = parse_eval(["--predictions", "a", "--labels", "b", "--prediction-ids", "TRAINIDS"])
    assert config.prediction_ids == "trainIds"


def test_a_switch_can_be_unset(tmp_path):
    Path("own.yaml").write_text("tta_flip: true\nsave_predictions: false\n")
    argv = ["--checkpoint", "a", "--config", "own.yaml"]
    assert parse_eval(argv).tta_flip and not parse_eval([*argv, "--no-tta-flip"]).tta_flip
    assert parse_eval([*argv, "--no-tta-flip", "--tta-flip"]).tta_flip
    assert not parse_eval(argv).save_predictions
    Path("own.yaml").write_text("tta_flip: yes please\n")
    assert refusal(argv, parse_eval) == "--config own.yaml: --tta-flip must be true or false, got yes please"


def test_all_options_are_written_as_a_file_that_can_be_read(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_train_config(["--lr", "0.5", "--print_config"])
    assert stop.value.code == 0
    Path("written.yaml").write_text(capsys.readouterr().out)
    assert parse_train_config(["--config", "written.yaml"]) == parse_train_config(["--lr", "0.5"])


def test_trainer_options_are_read_as_yaml_would():
    flags = (
        "--trainer.max_depth 3 --trainer.detect_anomaly=true --trainer.gradient_clip_val 0.5 --trainer.profiler simple"
    )
    assert parse_train_config(flags.split()).trainer == {
        "max_depth": 3,
        "detect_anomaly": True,
        "gradient_clip_val": 0.5,
        "profiler": "simple",
    }


# ---- files


def test_flags_win_over_the_file_wherever_they_stand(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("lr: 0.5\nepochs: 3\nscale_range: [1, 2]\ntrainer:\n  min_steps: 7\n")
    from_file = {"lr": 0.5, "epochs": 3, "scale_range": [1.0, 2.0], "trainer": {"min_steps": 7}}
    assert changed(parse_train_config(["--config", str(path)])) == from_file
    for argv in (
        ["--config", str(path), "--lr", "0.2"],
        ["--lr", "0.2", "--config", str(path)],
        ["--lr", "0.2", f"--config={path}"],
    ):
        assert changed(parse_train_config(argv)) == {**from_file, "lr": 0.2}
    merged = parse_train_config(["--trainer.min_epochs", "1", "--config", str(path)])
    assert merged.trainer == {"min_steps": 7, "min_epochs": 1}


def test_a_mapping_may_override_what_it_takes_from_another(tmp_path):
    text = "trainer: &own {<<: {min_steps: 1, min_epochs: 1}, min_steps: 7}\nloss: ce\n"
    (tmp_path / "own.yaml").write_text(text)
    assert parse_train_config(["--config", str(tmp_path / "own.yaml")]).trainer == {"min_steps": 7, "min_epochs": 1}


@pytest.mark.parametrize("time", ["1:00:00:00", "00:12:00:00"])
def test_a_time_is_the_text_that_was_written(tmp_path, time):
    (tmp_path / "own.yaml").write_text(f"trainer:\n  max_time: {time}\n")
    for words in (["--trainer.max_time", time], ["--config", str(tmp_path / "own.yaml")]):
        config = parse_train_config(words)
        assert config.trainer == {"max_time": time}
        (tmp_path / "kept.yaml").write_text(yaml.safe_dump(to_plain_dict(config)))
        assert parse_train_config(["--config", str(tmp_path / "kept.yaml")]) == config


@pytest.mark.parametrize(
    ("line", "words"),
    [
        *(
            (f"output_dir: {text}", ["--output-dir", text])
            for text in ("001", "0x10", "1.10", "2024_01_01", "2024-01-01")
        ),
        *((f"subset: {text}", ["--subset", text]) for text in ("010", "no", "1e3", "off")),
        ("label_values: [1, 2.50]", ["--label-values", "1", "2.50"]),
        ("logger: []", []),
        ("seed: 010", ["--seed", "010"]),
        ("batch_size: 0x10", ["--batch-size", "16"]),
        ("subset: null", []),
        *((f"output_dir: {text}", ["--output-dir", text]) for text in ("1e5", "1e-3")),
        ("output_dir: '1e5'", ["--output-dir", "1e5"]),
        ("label_values: [1e-3, 2E+1]", ["--label-values", "1e-3", "2E+1"]),
        ("lr: 1e-2", ["--lr", "0.01"]),
        ("optimizer_options: {eps: 1e-8}", ["--optimizer-options.eps", "1e-8"]),
        ("optimizer_options: {betas: [0.9, 999e-3]}", ["--optimizer-options.betas", "[0.9, 999e-3]"]),
        ("optimizer_options: {betas: [0.9, 999e-3]}", ["--optimizer-options", "{betas: [.9, 0.999]}"]),
        ("trainer:\n  gradient_clip_val: 1e-1", ["--trainer.gradient_clip_val", "0.1"]),
        ("trainer: {limit_train_batches: 5.E-1}", ["--trainer.limit_train_batches", "0.5"]),
        ("trainer: {profiler: '1e-1'}", ["--trainer", "{profiler: '1e-1'}"]),
    ],
)
def test_a_value_in_a_file_is_what_it_is_on_the_command_line(tmp_path, line, words):
    (tmp_path / "own.yaml").write_text(line)
    assert parse_train_config(["--config", str(tmp_path / "own.yaml")]) == parse_train_config(words)


@pytest.mark.parametrize("name", ["1e5", "1e-3", "010"])
def test_texts_that_look_like_numbers_are_kept_by_a_run(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    saved = from_plain_dict(TrainConfig, {"output_dir": name, "subset": name, "label_values": [name, "2"]})
    (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(to_plain_dict(saved)))
    used = Used((64, 96), "32-true", 0, data_path=name)
    (tmp_path / name / "used.yaml").write_text(yaml.safe_dump(used.to_dict()))
    resumed = parse_train_config(["--resume", "--output-dir", name])
    assert (resumed.output_dir, resumed.subset, resumed.loss_options["label_values"]) == (name, name, (name, "2"))
    assert resumed.data_path == used_so_far(resumed).data_path == name


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Home, a variable, and folders that are really called ``$OWN`` and ``~``."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OWN", "own")
    monkeypatch.delenv("UNSET", raising=False)
    for name in ("home", "$OWN", "a/~/$UNSET"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("~/runs/a", "HERE/home/runs/a"),
        ("~nobody-at-all/a", "~nobody-at-all/a"),
        ("HERE/a/~/b", "HERE/a/~/b"),
        ("HERE/a/~/$UNSET/b", "HERE/a/~/$UNSET/b"),
        ("$OWN/b", "$OWN/b"),
        ("runs/$OWN", "runs/own"),
        ("runs/${OWN}-1", "runs/own-1"),
        ("~/$OWN", "HERE/home/own"),
        ("runs/a$", "runs/a$"),
        ("runs/a/", "runs/a/"),
    ],
)
def test_a_path_is_read_as_a_shell_would(home, given, meant):
    given, meant = (text.replace("HERE", str(home)) for text in (given, meant))
    (home / "own.yaml").write_text(f"output_dir: {given}\n")
    assert parse_train_config([f"--output-dir={given}"]).output_dir == meant
    assert parse_train_config(["--config", "own.yaml"]).output_dir == meant
    if given.startswith("~/"):
        (home / "home/own.yaml").write_text("seed: 7\n")
        assert parse_train_config(["--config=~/own.yaml"]).seed == 7
        assert from_plain_dict(TrainConfig, {"data_path": given}).data_path == given  # saved elsewhere


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("s3://bucket/run", "must be a path of this machine, got s3://bucket/run; give a folder or file here"),
        ("$UNSET/run", "$UNSET/run names $UNSET, which is not set; set it, or make the folder"),
        ("runs/${UNSET}", "runs/${UNSET} names $UNSET, which is not set"),
    ],
)
def test_a_path_that_cannot_be_meant_is_refused(home, given, message):
    for name in ("output_dir", "data_path", "init_from"):
        (home / "own.yaml").write_text(f"{name}: {given}\n")
        assert refusal([flag(name), given]).startswith(f"{flag(name)} {message}"[:30])
        assert f"--config own.yaml: {flag(name)} {message}" in refusal(["--config", "own.yaml"])


def test_every_option_that_is_a_file_or_folder_says_so():
    paths = {"DIR", "FILE", "FILE.html", "DIR|FILE", "NAME|FILE", "RUN", "STORE", "FOLDER", "SOURCE", "OUT"}
    for kind in KINDS.values():
        for key in keys_of(kind):
            is_path = key.form.get("metavar") in paths or key.name == "encoder_weights"
            assert bool(key.form.get("path")) == is_path, (kind, key.name)


def test_of_two_files_the_later_wins(tmp_path):
    for name, lr in (("a", 0.1), ("b", 0.2)):
        (tmp_path / name).write_text(f"lr: {lr}\n")
    argv = ["--config", str(tmp_path / "a"), "--epochs", "3", "--config", str(tmp_path / "b")]
    assert changed(parse_train_config(argv)) == {"lr": 0.2, "epochs": 3}


def test_a_config_survives_yaml(tmp_path):
    one_average = [name for name in EVERY_TRAIN_FLAG if name not in ("resume", "override", "swa_share")]
    argv = [word for name in one_average for word in (flag(name), *EVERY_TRAIN_FLAG[name][0])]
    config = parse_train_config(argv)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(to_plain_dict(config)))
    assert from_plain_dict(TrainConfig, read_config_file(path), "here") == config
    assert parse_train_config(["--config", str(path)]) == config


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


# ---- refusals


def refusal(argv: list[str], parse=parse_train_config) -> str:
    with pytest.raises(InputError) as raised:
        parse(argv)
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ("--batch-sise 3", ("--batch-sise", "did you mean --batch-size?", "train_seg.py --help")),
        ("--batch_size 3", ("--batch_size", "did you mean --batch-size?")),
        ("--epoch 3", ("--epoch", "did you mean --epochs?")),  # no abbreviations: tomorrow's flag may share the start
        ("--nonsense 3", ("unrecognized arguments: --nonsense",)),
        ("extra", ("unrecognized arguments: extra",)),
        ("--loss ce dice --seed 1", ("--loss takes one value, got another: dice; write one", "sums as ce+0.5*dice")),
        ("--dataset folder --loss ce folder", ("--loss takes one value, got another: folder",)),
        ("--lr 1 2", ("--lr takes one value, got another: 2",)),
        ("--label-values 1 2 3 --check off on", ("--check takes one value, got another: on",)),
        ("--epochs many", ("--epochs must be a whole number, got many",)),
        ("--epochs 1.5", ("--epochs must be a whole number, got 1.5",)),
        ("--batch-size many", ("--batch-size must be a whole number, got many",)),
        ("--lr fast", ("--lr must be a number, got fast",)),
        ("--lr", ("--lr: expected one argument",)),
        ("--crop-size 64", ("--crop-size: expected 2 arguments",)),
        ("--crop-size 64 wide", ("--crop-size must be 2 whole numbers, got 64 wide",)),
        ("--scale-range 1", ("--scale-range: expected 2 arguments",)),
        ("--label-values", ("--label-values: expected at least one argument",)),
        ("--trainer 5", ("--trainer must be options, as {name: value}, got 5",)),
        ("--trainer.x [1", ("--trainer.x: cannot be read as YAML: [1",)),
        ("--resume true", ("--resume takes no value, got true; leave it out",)),
        ("--epochs 0", ("--epochs must be at least 1, got 0",)),
        ("--batch-size 0", ("--batch-size must be at least 1, got 0",)),
        ("--devices 0", ("--devices must be at least 1, got 0",)),
        ("--workers -1", ("--workers must be in 0..1024, got -1",)),
        ("--workers 1000000", ("--workers must be in 0..1024, got 1000000",)),
        ("--image-scale 1e9", ("--image-scale must be positive and at most 100, got 1e9",)),
        ("--scale-range 1e9 1e9", ("--scale-range must be two positive numbers, the smaller first, at most 100, got",)),
        ("--crop-size 100000000 64", ("--crop-size must be in 32..32768 each, got 100000000 64",)),
        ("--seed -1", ("--seed must be in 0..4294967295, got -1",)),
        ("--seed 4294967296", ("--seed must be in 0..4294967295",)),
        ("--lr 0", ("--lr must be positive and finite, got 0",)),
        ("--lr nan", ("--lr",)),
        ("--image-scale -1", ("--image-scale must be positive",)),
        ("--encoder-lr-factor -1", ("--encoder-lr-factor must be >= 0",)),
        ("--weight-decay -0.1", ("--weight-decay must be >= 0",)),
        ("--gamma -1", ("--gamma must be >= 0",)),
        ("--alpha 0", ("--alpha must be positive",)),
        ("--label-power -1", ("--label-power must be >= 0",)),
        ("--warmup-share 1", ("--warmup-share must be in [0, 1), got 1",)),
        ("--guided-crops -0.1", ("--guided-crops must be in [0, 1], got -0.1",)),
        ("--repeat-threshold 2", ("--repeat-threshold must be in [0, 1], got 2",)),
        ("--cat-max-ratio 0", ("--cat-max-ratio must be in (0, 1], got 0",)),
        ("--color loud", ("unknown --color 'loud'; choose one of none, light, strong",)),
        ("--cache disk", ("unknown --cache 'disk'; choose one of none, ram",)),
        ("--val-share 0", ("--val-share must be between 0 and 1, got 0",)),
        ("--scale-range 2 1", ("--scale-range must be two positive numbers, the smaller first",)),
        ("--scale-range 0 1", ("--scale-range",)),
        ("--scale-range 1 inf", ("--scale-range",)),
        ("--crop-size 31 64", ("--crop-size must be in 32..32768 each, got 31 64",)),
        ("--loss cee", ("--loss: unknown loss 'cee'; choose one of", *LOSSES)),
        ("--loss ce+0*dice", ("--loss: factors of a sum of losses must be positive",)),
        ("--loss outlying_mse+dice", ("--loss: a squared error and a softmax loss cannot share their scores",)),
        ("--label-smoothing 1", ("--label-smoothing must be in [0, 1), got 1",)),
        ("--adjustment nan", ("--adjustment must be finite, got nan",)),
        ("--class-weights none", ("--class-weights must be one of", *CLASS_WEIGHTS, "got none")),
        (
            "--label-values rang",
            ("--label-values must be", *LABEL_VALUES, "or one number per class, got rang"),
        ),
        ("--label-values rank log", ("--label-values must be", "got rank log")),
        ("--monitor iou", ("unknown --monitor 'iou'; choose one of miou, mean_accuracy, pixel_accuracy, loss",)),
        ("--precision bf16", ("unknown --precision 'bf16'; choose one of auto, 32-true, bf16-mixed, 16-mixed",)),
        ("--accelerator tpu", ("unknown --accelerator 'tpu'; choose one of auto, cpu, gpu, cuda, mps",)),
        ("--resume", ("--resume needs --output-dir",)),
        ("--trainer.max_epochs 3", ("--trainer.max_epochs is not for Lightning alone to know; use --epochs",)),
        ("--dataset camvids", ("unknown --dataset 'camvids'; choose one of bdd100k, camvid, ", "did you mean camvid?")),
    ],
)
def test_wrong_training_flags_are_answered_in_one_line(argv, parts):
    message = refusal(argv.split())
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ("", "give either --checkpoint, run folders or .ckpt files, or"),
        ("--checkpoint", "--checkpoint: expected at least one argument"),
        ("--checkpoint a --batch-size 0", "--batch-size must be at least 1, got 0"),
        ("--checkpoint a --image-scale 0", "--image-scale must be positive and at most 100, got 0"),
        ("--checkpoint a --val-share 2", "--val-share must be between 0 and 1, got 2"),
        ("--checkpoint a --decision tau inf", "--decision"),
        ("--checkpoint a --workers -2", "--workers must be in 0..1024, got -2"),
        ("--checkpoint a --precision half", "unknown --precision 'half'; choose one of auto, 32-true"),
        ("--checkpoint a --accelerator none", "unknown --accelerator 'none'; choose one of auto, cpu"),
        ("--checkpoint a --images x.jpg y.jpg", "--images takes one value, got another: y.jpg; write one, and no *"),
        ("--checkpoint a --los ce", "unrecognized arguments: --los"),
        ("--checkpoint a --predictions b --labels c", "give either --checkpoint"),
        ("--images c", "give either --checkpoint"),
        ("--checkpoint a --save color", "--save must be given with --save-predictions or --images, got color"),
        ("--checkpoint a --dataset camvid --split tets", "unknown --split 'tets'; choose one of train, val, test"),
        ("--checkpoint a --shard 4/3", "--shard must be K/N, the K-th of N shares, such as 3/16, got 4/3"),
        ("--checkpoint a --shard 0/3", "--shard must be K/N"),
        (
            "--checkpoint a --shard 1/2 --merge b",
            "--merge must be given without --shard, in a command of",
        ),
        ("--checkpoint a --shard 1/2 --suspects 3", "--suspects does nothing with --shard; leave it out"),
        ("--checkpoint a --merge b --suspects 3", "--suspects does nothing with --merge; leave it out"),
        ("--checkpoint a --merge b --save-predictions", "--save-predictions does nothing with --merge"),
        (
            "--checkpoint a --split val --shard 1/2 --sweep-tau --choose-metric miou",
            "--choose-metric does nothing with --shard; give it with --merge",
        ),
        ("--checkpoint a --names b/c", "--names must be names of files: not empty, without '/', got 'b/c'"),
    ],
)
def test_wrong_evaluation_flags_are_answered_in_one_line(argv, part):
    assert part in refusal(argv.split(), parse_eval)


MODES = {
    "--checkpoint": "--checkpoint a",
    "--predictions": "--predictions a --labels b",
    "--images": "--checkpoint a --images b",
}
# option: the modes that read it, or None where all do
EVERY_EVALUATION_FLAG = {
    "show-bands 3 2 1": ["--checkpoint", "--images"],
    "labels x": ["--predictions"],
    "class-table voc": ["--predictions"],
    "prediction-form probability": ["--predictions"],
    "prediction-ids trainIds": ["--predictions"],
    "label-ids trainIds": ["--predictions"],
    "skip-bad": ["--predictions"],
    "training-counts x": ["--predictions"],
    "names x": None,
    "group x": ["--checkpoint", "--predictions"],
    "dataset folder": ["--checkpoint"],
    "data-path x": ["--checkpoint"],
    "split val": ["--checkpoint"],
    "classes 11": ["--checkpoint"],
    "val-share 0.3": ["--checkpoint"],
    "image-column x": ["--checkpoint"],
    "label-column x": ["--checkpoint"],
    "subset x": ["--checkpoint"],
    "class-file x": ["--checkpoint"],
    "streaming": ["--checkpoint"],
    "fold 2/5": ["--checkpoint"],
    "ensemble": ["--checkpoint", "--images"],
    "check off": ["--checkpoint", "--predictions"],
    "protocol smp": ["--checkpoint", "--predictions"],
    "boundary": ["--checkpoint", "--predictions"],
    "components": ["--checkpoint", "--predictions"],
    "error-places": ["--checkpoint", "--predictions"],
    "block 2": ["--checkpoint", "--predictions"],
    "by folder": ["--checkpoint", "--predictions"],
    "decision tau 0": None,
    "calibrate": ["--checkpoint", "--images"],
    "sweep-tau": ["--checkpoint", "--predictions"],
    "choose-metric miou --sweep-tau --split val": ["--checkpoint"],
    "choose-on x --choose-metric miou --sweep-tau --split val": ["--checkpoint"],
    "image-scale 0.5": ["--checkpoint", "--images"],
    "tta-scales 1 2": ["--checkpoint", "--images"],
    "tta-flip": ["--checkpoint", "--images"],
    "tile 64 64": ["--checkpoint", "--images"],
    "tile-overlap 0.2 --tile 64 64": ["--checkpoint", "--images"],
    "batch-size 2": ["--checkpoint", "--images"],
    "workers 0": None,
    "precision auto": ["--checkpoint", "--images"],
    "accelerator cpu": ["--checkpoint", "--images"],
    "save-predictions": ["--checkpoint"],
    "save color --save-predictions": ["--checkpoint"],
    "save probability confidence --save-predictions": ["--checkpoint"],
    "suspects 5": ["--checkpoint", "--predictions"],
    "page-images 9": ["--checkpoint", "--predictions"],
    "output-dir x": None,
    "shard 3/16": None,
    "merge x": ["--checkpoint", "--predictions"],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flag", EVERY_EVALUATION_FLAG)
def test_a_flag_of_another_mode_is_refused(mode, flag):
    """With --predictions, --sweep-tau ended in a traceback after all the scoring; most others were passed over."""
    argv, modes = [*MODES[mode].split(), *f"--{flag}".split()], EVERY_EVALUATION_FLAG[flag]
    if flag == "ensemble" and "a" in argv:
        argv.insert(argv.index("a"), "other")
    if modes is None or mode in modes:
        parse_eval(argv)
        return
    message = refusal(argv, parse_eval)
    words = {word.split("=")[0] for word in argv if word.startswith("--")}
    assert message.split()[0] in words and f"does nothing with {mode}, only with " in message


def test_every_evaluation_flag_has_its_modes():
    tried = {flag.split()[0].replace("-", "_") for flag in EVERY_EVALUATION_FLAG}
    spread = {key.name for key in keys_of(EvalConfig) if key.holder != key.name}  # a metric of one's own adds to these
    assert tried | spread | {"checkpoint", "predictions", "images"} == {key.name for key in keys_of(EvalConfig)}
    assert "boundary" in spread & tried


def test_workers_of_masks_are_those_asked_for():
    masks = MODES["--predictions"].split()
    assert parse_eval([*masks, "--workers", "3"]).workers == 3 and parse_eval(masks).workers is None
    asked = parse_eval(["--checkpoint", "a"]).workers
    assert asked is None and find_machine("cpu", "32-true", asked).workers >= 0
    assert find_machine("cpu", "32-true", 5).workers == 5


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"epoch: 3\n", "unknown option 'epoch'; did you mean epochs?"),
        (b"nonsense: 3\n", "unknown option 'nonsense'; known are accelerator, "),
        (b"epochs: many\n", "own.yaml: --epochs must be a whole number, got many"),
        (b"epochs: 0\n", "--epochs must be at least 1, got 0"),
        (b"loss: cee\n", "--loss: unknown loss 'cee'; choose one of"),
        (b"lr: .nan\n", "--lr"),
        (b"a: [\n", "own.yaml: cannot be read as YAML"),
        (b"", "own.yaml: holds no option, expected options, one 'name: value' a line"),
        (b"# lr: 1\n", "own.yaml: holds no option"),
        (b"- a\n", "expected options"),
        (b"lr: 0.1\nseed: 1\nlr: 0.2\n", "own.yaml: cannot be read as YAML: lr is given twice, in lines 1 and 3"),
        (b"trainer:\n  min_steps: 1\n  min_steps: 2\n", "min_steps is given twice, in lines 2 and 3"),
        (b"\x89PNG\xff\x00", "own.yaml: cannot be read as YAML"),
    ],
)
def test_a_wrong_config_file_is_answered_in_one_line(tmp_path, content, part):
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    assert part in refusal(["--config", str(path)])


def test_a_missing_config_file_is_named(tmp_path):
    message = refusal(["--config", str(tmp_path / "gone.yaml")])
    assert message.startswith("--config ") and "gone.yaml: cannot be read: No such file" in message
    assert "cannot be read: Is a directory" in refusal(["--config", str(tmp_path)])


def test_a_saved_config_with_an_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="here: unknown option 'paint'; known are accelerator, adjustment, alpha"):
        from_plain_dict(TrainConfig, {"lr": 0.1, "paint": 3}, "here")
    with pytest.raises(InputError, match=r"here: unknown option 'colour'; did you mean color\?"):
        from_plain_dict(TrainConfig, {"lr": 0.1, "colour": 3}, "here")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "is missing, so .* is no run folder"),
        (b"- a\n", "expected options, one 'name: value' a line, got"),
        (b"a: [\n", "cannot be read as YAML"),
        (b"\x89PNG\xff\x00", "cannot be read as YAML"),
        (b"colour: red\n", "unknown option 'colour'"),
    ],
)
def test_a_run_with_a_broken_config_cannot_be_resumed(tmp_path, content, part):
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(InputError, match=rf"config\.yaml: {part}"):
        parse_train_config(["--resume", "--output-dir", str(tmp_path)])


# ---- going on with a run


@pytest.fixture
def run(tmp_path) -> list[str]:
    """The flags that go on with a run whose options differ from the defaults."""
    own = {"lr": 0.1, "loss": "ce", "crop_size": [64, 96], "label_values": ["1", "2"], "epochs": 5}
    own |= {"trainer": {"min_steps": 3}, "output_dir": str(tmp_path)}
    saved = from_plain_dict(TrainConfig, own)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_plain_dict(saved)))
    return ["--resume", "--output-dir", str(tmp_path)]


def test_the_config_of_the_run_stands_in_for_the_defaults(run):
    assert changed(parse_train_config(run)) == {
        "lr": 0.1,
        "loss": "ce",
        "crop_size": [64, 96],
        "label_values": ["1", "2"],
        "epochs": 5,
        "trainer": {"min_steps": 3},
        "output_dir": run[-1],
        "resume": True,
    }


def test_options_that_repeat_the_run_are_welcome(run):
    more = ["--lr", "0.1", "--loss", "ce", "--crop-size", "64", "96", "--label-values", "1", "2"]
    assert parse_train_config([*run, *more]) == parse_train_config(run)


@pytest.mark.parametrize(
    ("words", "was", "now"),
    [
        ("--lr 0.2", "0.1", "0.2"),
        ("--loss outlying_mse", "ce", "outlying_mse"),  # the class's default is no excuse
        ("--crop-size 64 64", "[64, 96]", "[64, 64]"),
        ("--seed 1", "0", "1"),
        ("--label-values rank", "['1', '2']", "['rank']"),
        ("--batch-size 4", "8", "4"),
        ("--encoder mit_b0", "resnet34", "mit_b0"),
    ],
)
def test_what_is_learnt_cannot_be_changed_on_the_way(run, words, was, now):
    name = words.split()[0]
    message = refusal([*run, *words.split()])
    other = "choose another --output-dir" if name == "--encoder" else "add --override to go on with what is given now"
    what = f"{name} was {was} in {run[-1]} and is {now} now"
    assert message == f"{what}; leave it out to go on with that run, or {other}"


def test_all_that_differs_is_named_in_one_line(run):
    message = refusal([*run, *["--lr", "0.2", "--seed", "1", "--color", "strong", "--epochs", "9"]])
    for what in ("--lr was 0.1 in ", "--seed was 0 in ", "--color was light in "):
        assert what in message
    assert "; leave them out to go on with that run, or add --override" in message and "epochs" not in message


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--lr 0.2", "lr", 0.2),
        ("--crop-size 64 64", "crop_size", [64, 64]),
        ("--color strong", "color", "strong"),
        ("--monitor loss", "monitor", "loss"),
        ("--loss focal", "loss", "focal"),
        ("--alpha 2", "alpha", 2.0),
    ],
)
def test_with_override_it_goes_on_with_what_is_given(run, words, name, value):
    config = parse_train_config([*run, *words.split(), "--override"])
    assert changed(config) == {**changed(parse_train_config(run)), name: value, "override": True}
    assert used_so_far(config).crop_size == (tuple(value) if name == "crop_size" else (64, 96))


@pytest.mark.parametrize(
    "words",
    [
        *("--encoder mit_b0", "--arch fpn --lr 0.2", "--dataset folder", "--val-share 0.5"),
        *("--init-from other", "--bias-init prior", "--auto-batch-size", "--auxiliary 0.3"),
    ],
)
def test_another_network_or_other_data_are_another_run_even_so(run, words):
    message = refusal([*run, *words.split(), "--override"])
    assert f"{words.split()[0]} was " in message and "or choose another --output-dir" in message
    assert "--lr" not in message and "--override" not in message


def test_of_lightnings_options_those_that_change_what_is_learnt_are_named(run):
    assert parse_train_config([*run, "--trainer.max_time", "00:01:00:00"]).trainer["max_time"] == "00:01:00:00"
    words = [*run, "--lr", "0.2", "--trainer.gradient_clip_val", "1"]
    what = "--lr was 0.1 in {0} and is 0.2 now; --trainer.gradient_clip_val was not given in {0} and is 1 now"
    assert refusal(words).startswith(
        f"{what.format(run[-1])}; leave them out to go on with that run, or add --override"
    )
    assert parse_train_config([*words, "--override"]).trainer["gradient_clip_val"] == 1


@pytest.mark.parametrize("name", ["limit_train_batches", "limit_val_batches"])
def test_limits_of_batches_are_among_them(run, name):
    assert f"--trainer.{name} was not given in {run[-1]} and is 1 now" in refusal([*run, f"--trainer.{name}", "1"])
    assert parse_train_config([*run, f"--trainer.{name}", "1.0"]).trainer == {"min_steps": 3, name: 1.0}  # all


def test_an_option_of_lightning_is_given_up_by_null_with_override_alone(run):
    folder = Path(run[-1])
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    saved["trainer"] = {"gradient_clip_val": 1.0}
    (folder / "config.yaml").write_text(yaml.safe_dump(saved))
    assert parse_train_config(run).trainer["gradient_clip_val"] == 1
    dropped = [*run, "--trainer.gradient_clip_val", "null"]
    assert refusal(dropped).startswith(f"--trainer.gradient_clip_val was 1.0 in {folder} and is None now")
    assert parse_train_config([*dropped, "--override"]).trainer["gradient_clip_val"] is None


@pytest.mark.parametrize(("name", "was"), [("early_stop", 3), ("crop_size", [64, 96]), ("augmentations", "own.yaml")])
def test_null_in_a_file_gives_an_option_up_with_override_alone(run, tmp_path, name, was):
    path = Path(run[-1]) / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {name: was}))
    (tmp_path / "null.yaml").write_text(f"{name}: null\ninit_from: null\n")
    words = [*run, "--config", str(tmp_path / "null.yaml")]
    assert to_plain_dict(parse_train_config(run))[name] == was
    assert f"{flag(name)} was {was} in {run[-1]} and is None now" in refusal(words)
    config = parse_train_config([*words, "--override"])
    assert getattr(config, name) is None
    assert used_so_far(config).crop_size == (None if name == "crop_size" else (64, 96))


def test_where_no_run_is_nothing_can_be_gone_on_with(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    message = f"{empty / 'config.yaml'}: is missing, so {empty} is no run folder; without --resume one begins there"
    assert refusal(["--resume", "--output-dir", str(empty)]) == message
    (empty / "notes.txt").write_text("")
    for place in (empty, empty / "notes.txt"):
        assert refusal(["--resume", "--output-dir", str(place)]).endswith("; give the folder of a run")


def test_where_a_run_is_near_it_is_named(run):
    folder = Path(run[-1])
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/last.ckpt").write_text("")
    for place in (folder.parent, folder / "checkpoints", folder / "checkpoints/last.ckpt"):
        message = refusal(["--resume", "--output-dir", str(place)])
        assert message.endswith(f"is no run folder; give a run's folder, such as --output-dir {folder}")


def test_a_value_for_a_switch_is_refused_with_what_the_switch_is():
    message = "--resume takes no value, got runs/a; leave it out; it is: go on with the run in --output-dir"
    assert refusal(["--resume", "runs/a", "--lr", "0.1"]) == message


def test_override_alone_is_refused():
    assert refusal(["--override"]) == "--override does nothing without --resume; leave it out"


def test_a_config_file_cannot_change_it_either(run, tmp_path):
    (tmp_path / "other.yaml").write_text("lr: 0.3\n")
    assert "--lr was 0.1" in refusal([*run, "--config", str(tmp_path / "other.yaml")])


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--epochs 90", "epochs", 90),
        ("--workers 11", "workers", 11),
        ("--cache ram", "cache", "ram"),
        ("--data-path elsewhere", "data_path", "elsewhere"),
        ("--accelerator cpu", "accelerator", "cpu"),
        ("--devices 2", "devices", 2),
        ("--trainer.log_every_n_steps 2", "trainer", {"min_steps": 3, "log_every_n_steps": 2}),
    ],
)
def test_where_and_how_long_it_runs_can_be_changed(run, words, name, value):
    config = parse_train_config([*run, *words.split()])
    assert changed(config) == {**changed(parse_train_config(run)), name: value}


# ---- help


def help_of(prog: str, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        parse_config(KINDS[prog], prog, ["--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("prog", KINDS)
@pytest.mark.parametrize("width", [80, 120])
def test_help_names_every_flag_and_fits_the_terminal(prog, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    text = help_of(prog, capsys)
    assert text.startswith(f"usage: {prog}")
    assert max(map(len, text.splitlines())) <= width
    explained = {match[1] for match in re.finditer(r"^  (--[a-z-]+)", text, re.MULTILINE)}
    for key in keys_of(KINDS[prog]):
        assert key.flag in explained
        assert re.sub(r"\s", "", key.option.help) in re.sub(r"\s", "", text)


@pytest.mark.parametrize("prog", ["train_seg.py", "eval_seg.py"])
def test_help_has_groups_with_an_example_each_and_the_examples_are_right(prog, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    text = help_of(prog, capsys)
    examples = re.findall(r"^  example: (.*)$", text, re.MULTILINE)
    assert len(examples) == len({key.group for key in keys_of(KINDS[prog])}) > 5
    for example in examples:
        parser = KINDS[prog], prog, example.split()
        if prog == "train_seg.py" or "--predictions" in example:
            parse_config(*parser)
        else:
            runs = ["--checkpoint", *"abcd"] if "--checkpoint" not in example else []
            parse_config(*parser[:2], [*runs, *parser[2]])


def test_help_begins_with_data_and_model(capsys):
    text = help_of("train_seg.py", capsys)
    places = [text.index(flag) for flag in ("--dataset", "--data-path", "--arch", "--encoder", "--loss", "--epochs")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crop_size: [64]", "--crop-size must be 2 whole numbers, got 64"),
        ("scale_range: [1]", "--scale-range must be 2 numbers, got 1"),
        ("scale_range: 1", "--scale-range"),
        ("seed: null", "--seed must be a whole number, got None; leave it out to have the default"),
        ("encoder_weights: null", "--encoder-weights must be text, got None; write none"),
        ("mix: null", "--mix must be text, got None; write none"),
        ("crop_size: 32 48", r"--crop-size must be 2 whole numbers, got 32 48; write \[32, 48\]"),
        ("crop_size: 32x48", r"got 32x48; write \[32, 48\]"),
        ("scale_range: 0.5,2", r"got 0.5,2; write \[0.5, 2\]"),
        ("crop_size: small", "--crop-size must be 2 whole numbers, got small$"),
    ],
)
def test_a_value_of_another_type_in_a_file_is_named(tmp_path, text, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        parse_train_config(["--config", str(path)])


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ("--crop-size 32,48", "write --crop-size 32 48"),
        ("--lr 1 --crop-size=32x48 --seed 1", "write --crop-size 32 48"),
        ("--scale-range (0.5,2)", "write --scale-range 0.5 2"),
        ("--crop-size 32", "see train_seg.py --help"),
        ("--crop-size --seed 1", "see train_seg.py --help"),
    ],
)
def test_several_values_in_one_word_are_told_apart(words, cure):
    flag = next(word for word in words.split("=")[0].split() if word in ("--crop-size", "--scale-range"))
    assert refusal(words.split()) == f"{flag}: expected 2 arguments; {cure}"


def test_one_word_for_label_values_is_welcome_in_a_run_and_resuming_repeats_the_command(tmp_path):
    saved = to_plain_dict(parse_train_config(["--crop-size", "64", "96", "--precision", "32-true"]))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**saved, "label_values": "rank"}))
    resumed = parse_train_config(["--resume", "--output-dir", str(tmp_path), "--precision", "auto"])
    assert (resumed.precision, resumed.crop_size) == ("32-true", (64, 96))
    assert resumed.loss_options["label_values"] == ("rank",)


def asked_and_used(folder: Path) -> list[str]:
    """The flags that go on with a run that left crop, precision and paths to its data and machine."""
    asked = to_plain_dict(parse_train_config(["--data-path", "streets", "--augmentations", "own.yaml"]))
    used = Used((64, 96), "bf16-mixed", 2, str(Path("streets").absolute()), str(Path("own.yaml").absolute()))
    (folder / "config.yaml").write_text(yaml.safe_dump(asked))
    (folder / "used.yaml").write_text(yaml.safe_dump(used.to_dict()))
    return ["--resume", "--output-dir", str(folder)]


def test_what_a_run_used_is_kept_beside_what_was_asked(tmp_path, monkeypatch):
    argv = asked_and_used(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    resumed = parse_train_config(argv)
    assert (resumed.crop_size, resumed.precision) == (None, "auto")
    assert resumed.data_path == str(tmp_path / "streets") and resumed.augmentations == str(tmp_path / "own.yaml")
    used = used_so_far(resumed)
    assert (used.crop_size, used.precision, used.data_path) == ((64, 96), "bf16-mixed", str(tmp_path / "streets"))
    assert parse_train_config(["--config", str(tmp_path / "used.yaml")]).crop_size == (64, 96)


@pytest.mark.parametrize("words", ["--crop-size 64 96", "--precision auto", "--precision bf16-mixed"])
def test_asking_for_what_the_run_used_is_welcome(tmp_path, words):
    argv = asked_and_used(tmp_path)
    assert parse_train_config([*argv, *words.split(), "--augmentations", "own.yaml"]) == parse_train_config(argv)


@pytest.mark.parametrize("words", ["--crop-size 64 64", "--precision 32-true", "--augmentations other.yaml"])
def test_asking_for_something_else_is_not(tmp_path, words):
    assert f"{words.split()[0]} was " in refusal([*asked_and_used(tmp_path), *words.split()])


def test_a_run_of_before_that_kept_only_what_it_used_goes_on_with_it(tmp_path):
    saved = parse_train_config(["--crop-size", "64", "96", "--precision", "bf16-mixed", "--data-path", "/streets"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_plain_dict(saved)))
    resumed = parse_train_config(["--resume", "--output-dir", str(tmp_path), "--precision", "auto"])
    used = used_so_far(resumed)
    assert (used.crop_size, used.precision, used.data_path) == ((64, 96), "bf16-mixed", "/streets")


def test_a_run_cannot_be_resumed_with_fewer_epochs(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_plain_dict(parse_train_config(["--epochs", "3"]))))
    with pytest.raises(InputError, match=r"--epochs 2 is less than the 3"):
        parse_train_config(["--resume", "--output-dir", str(tmp_path), "--epochs", "2"])


def test_a_run_with_a_config_of_wrong_types_cannot_be_resumed(tmp_path):
    (tmp_path / "config.yaml").write_text("epochs: many")
    with pytest.raises(InputError, match=r"config.yaml: --epochs must be a whole number, got many"):
        parse_train_config(["--resume", "--output-dir", str(tmp_path)])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--loss focal --gamma 3", []),
        ("--loss ce+0.5*weighted_dice --class-weights enet --label-smoothing 0.1", []),
        ("--loss mse --alpha 6", []),
        ("--loss focal --alpha 0.25", ["--alpha does nothing with --loss focal, only with outlying_mse and mse"]),
        ("--loss ce --class-weights enet", ["--class-weights does nothing with --loss ce, only with weighted_NAME"]),
        (
            "--loss outlying_mse --label-smoothing 0.1 --adjustment 2",
            [
                "--label-smoothing does nothing with --loss outlying_mse, only with ce",
                "--adjustment does nothing with --loss outlying_mse, only with logit_adjusted and vector_scaling",
            ],
        ),
        ("--label-values power", [f"--label-values does nothing with {DEFAULT}, only with outlying_mse"]),
        (
            "--loss outlying_mse --label-power 0.75",
            ["--label-power does nothing with --label-values other than power"],
        ),
        ("--loss outlying_mse --label-values Power --label-power 0.75", []),
        ("--score-units label_values", [f"--score-units does nothing with {DEFAULT}, only with outlying_mse"]),
        ("--score-units label_values --loss weighted_outlying_mse", []),
        ("--augmentations own.yaml --color none", ["--color does nothing with --augmentations"]),
        ("--init-from runs/a --bias-init prior", ["--bias-init does nothing with --init-from"]),
        ("--loss weighted_ce --late-jaccard 0.3", []),
        ("--late-jaccard 0.3", [f"--late-jaccard adds to the Jaccard of {DEFAULT}: leave one of the two out"]),
    ],
)
def test_options_that_change_nothing_are_told(flags, expected):
    assert parse_train_config(flags.split()).unused_options() == expected


def test_exponents_without_a_point_are_numbers():
    assert parse_train_config(["--trainer.gradient_clip_val", "1e-1"]).trainer == {"gradient_clip_val": 0.1}


def test_a_run_without_flags_weighs_the_classes():
    """docs/losses.md, "Which loss when"."""
    config = TrainConfig()
    assert config.loss == "0.25*weighted_ce+0.75*jaccard"
    assert config.loss_options["class_weights"] == "median_frequency"
