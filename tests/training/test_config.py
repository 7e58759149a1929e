"""Options: one field, one flag, one line of YAML; wrong input is one line that names the flag."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from segloss.config import (
    EvalConfig,
    FrequencyConfig,
    TrainConfig,
    parse_train_config,
    read_config_file,
    resolve_workers,
)
from segloss.errors import InputError
from segloss.flags import from_plain_dict, parse_config, to_plain_dict
from segloss.losses import CLASS_WEIGHTS, LABEL_VALUES, LOSSES

KINDS = {"train_seg.py": TrainConfig, "eval_seg.py": EvalConfig, "python -m segloss.frequency": FrequencyConfig}


def changed(config) -> dict:
    """The options that are not the class's own defaults."""
    defaults = to_plain_dict(type(config)())
    defaults["workers"] = resolve_workers(None)
    return {key: value for key, value in to_plain_dict(config).items() if value != defaults[key]}


def parse_eval(argv: list[str]) -> EvalConfig:
    return parse_config(EvalConfig, "eval_seg.py", argv)


# ---- flags


def test_without_flags_every_option_has_the_default_of_its_class():
    assert changed(parse_train_config([])) == {}
    assert (
        changed(parse_config(FrequencyConfig, "frequency", [])) == {} if hasattr(FrequencyConfig, "workers") else True
    )
    assert changed(parse_eval(["--checkpoint", "runs/a"])) == {"checkpoint": ["runs/a"]}


def test_defaults_are_not_shared_between_configs():
    one, other = TrainConfig(), TrainConfig()
    one.label_values.append("x")
    one.trainer["x"] = 1
    assert other.label_values == ["rank"]
    assert other.trainer == {}


# A value other than the default for every field of TrainConfig: flags and what they mean.
EVERY_TRAIN_FLAG = {
    "dataset": (["folder"], "folder"),
    "data_path": (["some where"], "some where"),
    "classes": (["32"], 32),
    "val_share": (["0.3"], 0.3),
    "check": (["off"], "off"),
    "arch": (["fpn"], "fpn"),
    "encoder": (["mit_b0"], "mit_b0"),
    "encoder_weights": (["imagenet"], "imagenet"),
    "loss": (["focal"], "focal"),
    "class_weights": (["enet"], "enet"),
    "gamma": (["3"], 3.0),
    "label_smoothing": (["0.1"], 0.1),
    "adjustment": (["-0.5"], -0.5),
    "epochs": (["7"], 7),
    "batch_size": (["3"], 3),
    "lr": (["1e-4"], 1e-4),
    "encoder_lr_factor": (["1"], 1.0),
    "weight_decay": (["0"], 0.0),
    "warmup_share": (["0"], 0.0),
    "image_scale": (["0.5"], 0.5),
    "scale_range": (["0.5", "2"], [0.5, 2.0]),
    "crop_size": (["64", "96"], [64, 96]),
    "color": (["strong"], "strong"),
    "augmentations": (["own.yaml"], str(Path("own.yaml").absolute())),
    "guided_crops": (["0.5"], 0.5),
    "cat_max_ratio": (["0.75"], 0.75),
    "repeat_threshold": (["0.1"], 0.1),
    "cache": (["ram"], "ram"),
    "workers": (["11"], 11),
    "seed": (["5"], 5),
    "precision": (["32-true"], "32-true"),
    "accelerator": (["cpu"], "cpu"),
    "devices": (["2"], 2),
    "monitor": (["loss"], "loss"),
    "output_dir": (["runs/x"], "runs/x"),
    "resume": ([], True),
    "trainer": (['{"max_steps": 3}'], {"max_steps": 3}),
    "label_values": (["1", "2.5", "7"], ["1", "2.5", "7"]),
    "label_power": (["1"], 1.0),
    "alpha": (["6"], 6.0),
}


def test_the_table_above_holds_every_field():
    assert set(EVERY_TRAIN_FLAG) == {field.name for field in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize("name", [name for name in EVERY_TRAIN_FLAG if name != "resume"])
def test_each_field_is_set_by_the_flag_of_its_name_and_changes_nothing_else(name):
    words, value = EVERY_TRAIN_FLAG[name]
    config = parse_train_config(["--" + name.replace("_", "-"), *words])
    assert changed(config) == {name: value}
    assert type(getattr(config, name)) is type(value)


def test_flags_of_evaluation():
    config = parse_eval(
        ["--checkpoint", "a", "b c", "--decision-tau", "0", "--save-predictions", "--image-scale", "0.5"]
    )
    expected = {"checkpoint": ["a", "b c"], "decision_tau": "0", "save_predictions": True, "image_scale": 0.5}
    assert changed(config) == expected


def test_label_values_are_a_recipe_or_numbers():
    assert parse_train_config(["--label-values", "log"]).label_values_argument() == "log"
    assert parse_train_config(["--label-values", "1", "2.5"]).label_values_argument() == [1.0, 2.5]


def test_trainer_options_are_read_as_yaml_would():
    flags = (
        "--trainer.max_steps 3 --trainer.fast_dev_run true --trainer.gradient_clip_val 0.5 --trainer.profiler simple"
    )
    assert parse_train_config(flags.split()).trainer == {
        "max_steps": 3,
        "fast_dev_run": True,
        "gradient_clip_val": 0.5,
        "profiler": "simple",
    }


# ---- files


def test_flags_win_over_the_file_wherever_they_stand(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("lr: 0.5\nepochs: 3\nscale_range: [1, 2]\ntrainer:\n  max_steps: 7\n")
    from_file = {"lr": 0.5, "epochs": 3, "scale_range": [1.0, 2.0], "trainer": {"max_steps": 7}}
    assert changed(parse_train_config(["--config", str(path)])) == from_file
    for argv in (
        ["--config", str(path), "--lr", "0.2"],
        ["--lr", "0.2", "--config", str(path)],
        ["--lr", "0.2", f"--config={path}"],
    ):
        assert changed(parse_train_config(argv)) == {**from_file, "lr": 0.2}
    merged = parse_train_config(["--trainer.devices", "1", "--config", str(path)])
    assert merged.trainer == {"max_steps": 7, "devices": 1}


def test_of_two_files_the_later_wins(tmp_path):
    for name, lr in (("a", 0.1), ("b", 0.2)):
        (tmp_path / name).write_text(f"lr: {lr}\n")
    argv = ["--config", str(tmp_path / "a"), "--epochs", "3", "--config", str(tmp_path / "b")]
    assert changed(parse_train_config(argv)) == {"lr": 0.2, "epochs": 3}


def test_a_config_survives_yaml(tmp_path):
    argv = [word for name, (words, _) in EVERY_TRAIN_FLAG.items() if name != "resume" for word in (flag(name), *words)]
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
        ("--epochs many", ("--epochs: Expected a int", "many")),
        ("--epochs 1.5", ("--epochs: Expected a int", "1.5")),
        ("--batch-size many", ("--batch-size: Expected a int",)),
        ("--lr fast", ("--lr: Expected a float", "fast")),
        ("--lr", ("--lr: expected one argument",)),
        ("--crop-size 64", ("--crop-size: expected 2 arguments",)),
        ("--crop-size 64 wide", ("--crop-size", "Expected a int", "wide")),
        ("--scale-range 1", ("--scale-range: expected 2 arguments",)),
        ("--label-values", ("--label-values: expected at least one argument",)),
        ("--trainer 5", ("--trainer: Expected a dict",)),
        ("--trainer.x [1", ("--trainer.x cannot be read as YAML: [1",)),
        ("--resume true", ("unrecognized arguments: true",)),
        ("--epochs 0", ("--epochs must be at least 1, got 0",)),
        ("--batch-size 0", ("--batch-size must be at least 1, got 0",)),
        ("--devices 0", ("--devices must be at least 1, got 0",)),
        ("--workers -1", ("--workers must be 0 or more, got -1",)),
        ("--seed -1", ("--seed must be in 0..4294967295, got -1",)),
        ("--seed 4294967296", ("--seed must be in 0..4294967295",)),
        ("--lr 0", ("--lr must be positive, got 0",)),
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
        ("--val-share 0", ("--val-share must be between 0 and 1",)),
        ("--scale-range 2 1", ("--scale-range must be two positive numbers, the smaller first",)),
        ("--scale-range 0 1", ("--scale-range",)),
        ("--scale-range 1 inf", ("--scale-range",)),
        ("--crop-size 31 64", ("--crop-size must be at least 32 each, got [31, 64]",)),
        ("--loss cee", ("--loss: unknown loss 'cee'; choose one of", *LOSSES)),
        ("--loss ce+0*dice", ("--loss: factors of a sum of losses must be positive",)),
        ("--loss outlying_mse+dice", ("--loss: a squared error and a softmax loss cannot share their scores",)),
        ("--label-smoothing 1", ("--label-smoothing must be in [0, 1), got 1",)),
        ("--adjustment nan", ("--adjustment: Expected a float. Got value: nan",)),
        ("--class-weights none", ("unknown --class-weights 'none'; choose one of", *CLASS_WEIGHTS)),
        (
            "--label-values rang",
            ("unknown --label-values 'rang'; choose one of", *LABEL_VALUES, "one number per class"),
        ),
        ("--label-values rank log", ("unknown --label-values 'rank log'",)),
        ("--monitor iou", ("unknown --monitor 'iou'; choose one of miou, mean_accuracy, pixel_accuracy, loss",)),
        ("--precision bf16", ("unknown --precision 'bf16'; choose one of auto, 32-true, bf16-mixed, 16-mixed",)),
        ("--accelerator tpu", ("unknown --accelerator 'tpu'; choose one of auto, cpu, gpu, cuda, mps",)),
        ("--resume", ("--resume needs --output-dir",)),
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
        ("--checkpoint a --image-scale 0", "--image-scale must be positive, got 0"),
        ("--checkpoint a --val-share 2", "--val-share must be between 0 and 1, got 2"),
        ("--checkpoint a --decision-tau inf", "--decision-tau"),
        ("--checkpoint a --workers -2", "--workers must be 0 or more"),
        ("--checkpoint a --precision half", "unknown --precision 'half'; choose one of auto, 32-true"),
        ("--checkpoint a --accelerator none", "unknown --accelerator 'none'; choose one of auto, cpu"),
        ("--checkpoint a --los ce", "unrecognized arguments: --los"),
        ("--checkpoint a --predictions b --labels c", "give either --checkpoint"),
        ("--predictions a --labels b --images c", "--images needs --checkpoint"),
        ("--checkpoint a --save color", "--save must be given with --save-predictions or --images, got color"),
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
    "labels x": ["--predictions"],
    "class-table voc": ["--predictions"],
    "prediction-ids trainIds": ["--predictions"],
    "skip-bad": ["--predictions"],
    "training-counts x": ["--predictions"],
    "names x": None,
    "group x": ["--checkpoint", "--predictions"],
    "dataset folder": ["--checkpoint"],
    "data-path x": ["--checkpoint"],
    "split val": ["--checkpoint"],
    "classes 11": ["--checkpoint"],
    "val-share 0.3": ["--checkpoint"],
    "check off": ["--checkpoint"],
    "protocol smp": ["--checkpoint", "--predictions"],
    "boundary": ["--checkpoint", "--predictions"],
    "block 2": ["--checkpoint", "--predictions"],
    "decision-tau 0": ["--checkpoint", "--images"],
    "sweep-tau": ["--checkpoint"],
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
    "output-dir x": None,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flag", EVERY_EVALUATION_FLAG)
def test_a_flag_of_another_mode_is_refused(mode, flag):
    """With --predictions, --sweep-tau ended in a traceback after all the scoring; most others were passed over."""
    argv, modes = [*MODES[mode].split(), *f"--{flag}".split()], EVERY_EVALUATION_FLAG[flag]
    if modes is None or mode in modes:
        parse_eval(argv)
        return
    message = refusal(argv, parse_eval)
    words = {word.split("=")[0] for word in argv if word.startswith("--")}
    assert message.split()[0] in words and f"does nothing with {mode}, only with " in message


def test_every_evaluation_flag_has_its_modes():
    tried = {flag.split()[0].replace("-", "_") for flag in EVERY_EVALUATION_FLAG}
    assert tried | {"checkpoint", "predictions", "images"} == {f.name for f in dataclasses.fields(EvalConfig)}


def test_workers_of_masks_are_those_asked_for():
    masks = MODES["--predictions"].split()
    assert parse_eval([*masks, "--workers", "3"]).workers == 3 and parse_eval(masks).workers is None
    assert parse_eval(["--checkpoint", "a"]).workers is not None


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"epoch: 3\n", "'epoch' is not accepted; did you mean --epochs?"),
        (b"epochs: many\n", "--epochs: Expected a int. Got value: many"),
        (b"epochs: 0\n", "--epochs must be at least 1, got 0"),
        (b"loss: cee\n", "--loss: unknown loss 'cee'; choose one of"),
        (b"lr: .nan\n", "--lr"),
        (b"a: [\n", "Problems parsing config"),
        (b"", "expected options"),
        (b"- a\n", "expected options"),
        (b"\x89PNG\xff\x00", "--config: the file is not YAML text"),
    ],
)
def test_a_wrong_config_file_is_answered_in_one_line(tmp_path, content, part):
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    assert part in refusal(["--config", str(path)])


def test_a_missing_config_file_is_named(tmp_path):
    message = refusal(["--config", str(tmp_path / "gone.yaml")])
    assert message.startswith("--config: ") and "gone.yaml" in message
    assert "not a file" in refusal(["--config", str(tmp_path)])


def test_a_saved_config_with_an_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="here: unknown option 'colour'; known are accelerator, adjustment, alpha"):
        from_plain_dict(TrainConfig, {"lr": 0.1, "colour": 3}, "here")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "is missing, so .* is no run folder"),
        (b"- a\n", "expected options, got list"),
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
    saved = TrainConfig(
        lr=0.1, loss="ce", crop_size=[64, 96], label_values=["1", "2"], epochs=5, output_dir=str(tmp_path)
    )
    saved.trainer = {"max_steps": 3}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_plain_dict(saved)))
    return ["--resume", "--output-dir", str(tmp_path)]


def test_the_config_of_the_run_stands_in_for_the_defaults(run):
    assert changed(parse_train_config(run)) == {
        "lr": 0.1,
        "loss": "ce",
        "crop_size": [64, 96],
        "label_values": ["1", "2"],
        "epochs": 5,
        "trainer": {"max_steps": 3},
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
    assert message == (
        f"{name} was {was} in {run[-1]} and is {now} now; leave it out to go on with that run, "
        "or choose another --output-dir"
    )


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
        ("--trainer.limit_train_batches 2", "trainer", {"max_steps": 3, "limit_train_batches": 2}),
    ],
)
def test_where_and_how_long_it_runs_can_be_changed(run, words, name, value):
    config = parse_train_config([*run, *words.split()])
    assert changed(config) == {**changed(parse_train_config(run)), name: value}


# ---- help


@pytest.mark.parametrize("prog", KINDS)
@pytest.mark.parametrize("width", [80, 120])
def test_help_names_every_flag_and_fits_the_terminal(prog, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as stop:
        parse_config(KINDS[prog], prog, ["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {prog}")
    assert max(map(len, text.splitlines())) <= width
    explained = {match[1] for match in re.finditer(r"^  (--[a-z-]+)", text, re.MULTILINE)}
    for field in dataclasses.fields(KINDS[prog]):
        assert flag(field.name) in explained
        assert " ".join(field.metadata["help"].split()) in " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crop_size: [64]", "--crop-size must be 2 int"),
        ("scale_range: [1]", "--scale-range must be 2 float"),
        ("scale_range: 1", "--scale-range"),
        ("seed: null", "--seed"),
    ],
)
def test_a_value_of_another_type_in_a_file_is_named(tmp_path, text, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        parse_train_config(["--config", str(path)])


def test_one_word_for_label_values_is_welcome_in_a_run_and_resuming_repeats_the_command(tmp_path):
    saved = to_plain_dict(parse_train_config(["--crop-size", "64", "96", "--precision", "32-true"]))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**saved, "label_values": "rank"}))
    resumed = parse_train_config(["--resume", "--output-dir", str(tmp_path), "--precision", "auto"])
    assert (resumed.precision, resumed.crop_size, resumed.label_values) == ("32-true", [64, 96], ["rank"])


def test_a_run_cannot_be_resumed_with_fewer_epochs(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_plain_dict(parse_train_config(["--epochs", "3"]))))
    with pytest.raises(InputError, match=r"--epochs 2 is less than the 3"):
        parse_train_config(["--resume", "--output-dir", str(tmp_path), "--epochs", "2"])


def test_a_run_with_a_config_of_wrong_types_cannot_be_resumed(tmp_path):
    (tmp_path / "config.yaml").write_text("epochs: many")
    with pytest.raises(InputError, match=r"config.yaml: --epochs must be int, got 'many'"):
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
            "--label-smoothing 0.1 --adjustment 2",
            [
                "--label-smoothing does nothing with --loss outlying_mse, only with ce",
                "--adjustment does nothing with --loss outlying_mse, only with logit_adjusted and vector_scaling",
            ],
        ),
        ("--augmentations a.yaml --color none", ["--color does nothing with --augmentations"]),
    ],
)
def test_options_that_change_nothing_are_told(flags, expected):
    assert parse_train_config(flags.split()).unused_options() == expected


def test_exponents_without_a_point_are_numbers():
    assert parse_train_config(["--trainer.gradient_clip_val", "1e-1"]).trainer == {"gradient_clip_val": 0.1}
