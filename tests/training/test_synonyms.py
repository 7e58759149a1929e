"""What other toolkits call our options is answered with ours, in one line."""

import pytest

from segloss.config import DoctorConfig, EvalConfig, ExportConfig, FrequencyConfig, TrainConfig
from segloss.errors import LISTED, InputError, unknown_name
from segloss.flags import from_plain_dict, keys_of, parse_config
from segloss.losses import build_criterion
from segloss.synonyms import FLAGS, VALUES


def refusal(kind, argv: str) -> str:
    with pytest.raises(InputError) as raised:
        parse_config(kind, "a.py", argv.split())
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("kind", "argv", "ours"),
    [
        (TrainConfig, "--device cuda", "--accelerator"),
        (TrainConfig, "--pretrained", "--encoder-weights"),
        (TrainConfig, "--num-classes 3", "--class-file"),
        (TrainConfig, "--data X", "--data-path"),
        (TrainConfig, "--model unet", "--arch"),
        (TrainConfig, "--backbone resnet18", "--encoder"),
        (TrainConfig, "--bs 8", "--batch-size"),
        (TrainConfig, "--learning-rate 1e-3", "--lr"),
        (TrainConfig, "--learning_rate=1e-3", "--lr"),
        (TrainConfig, "--work-dir runs", "--output-dir"),
        (TrainConfig, "--amp", "--precision"),
        (TrainConfig, "--gpus 2", "--devices"),
        (TrainConfig, "--img-size 512", "--image-scale"),
        (TrainConfig, "--out runs", "--output-dir"),
        (TrainConfig, "-b 8", "--batch-size"),
        (TrainConfig, "--max-norm 1", "--trainer"),
        (TrainConfig, "--weights a.pth", "--encoder-weights"),
        (TrainConfig, "--lr-scheduler cosine", "--schedule"),
        (EvalConfig, "--ckpt a", "--checkpoint"),
        (EvalConfig, "--model a", "--checkpoint"),
        (EvalConfig, "--img_path a", "--images"),
        (EvalConfig, "--weights a", "--checkpoint"),
        (EvalConfig, "--tau 0.5", "--decision"),
        (EvalConfig, "--tta", "--tta-flip"),
        (EvalConfig, "--out a", "--output-dir"),
        (EvalConfig, "--gt a", "--labels"),
        (EvalConfig, "--pred-dir a", "--predictions"),
        (EvalConfig, "--num-classes 3", "--class-table"),
        (EvalConfig, "--source a", "--images"),
    ],
)
def test_a_flag_of_others_is_answered_with_ours(kind, argv, ours):
    assert f"; it is {ours} here: " in refusal(kind, argv)


@pytest.mark.parametrize(
    ("argv", "ours"),
    [
        ("--precision fp16", "16-mixed"),
        ("--precision BF16", "bf16-mixed"),
        ("--loss cross_entropy", "ce"),
        ("--loss CrossEntropy", "ce"),
        ("--loss weighted_cross_entropy", "weighted_ce"),
        ("--loss ce+0.5*lovasz-softmax", None),  # no word of ours at all
        ("--loss ce+0.5*lovasz_softmax", "lovasz"),
        ("--accelerator cuda:0", "gpu"),
    ],
)
def test_a_value_of_others_is_answered_with_ours(argv, ours):
    message = refusal(TrainConfig, f"--dataset synthetic {argv}")
    assert ("did you mean" in message) == (ours is not None)
    assert ours is None or f"did you mean {ours}?" in message


def test_a_key_of_a_file_is_answered_too():
    with pytest.raises(InputError, match=r"unknown option 'learning_rate'; it is lr here: "):
        from_plain_dict(TrainConfig, {"learning_rate": 1})


def test_every_word_leads_to_an_option_or_a_value_that_exists():
    commands = (TrainConfig, EvalConfig, DoctorConfig, ExportConfig, FrequencyConfig)
    known = [{key.name.replace("_", "-") for key in keys_of(kind)} for kind in commands]
    assert set(FLAGS) <= set().union(*known)
    for name in VALUES["loss"]:
        build_criterion(name, (2, 1))
    choices = {key.name: key.names for key in keys_of(TrainConfig)}
    for option in ("precision", "accelerator"):
        assert set(VALUES[option]) <= set(choices[option])
        assert not {word for words in VALUES[option].values() for word in words} & set(choices[option])


def test_of_a_long_list_the_names_are_told_that_resemble():
    names = [f"resnet{n}" for n in range(18, 60)] + ["mit_b0"]
    message = str(unknown_name("encoder", "resnet-34x", names))
    assert "did you mean resnet34?" in message and f"... ({len(names)} in all)" in message
    assert message.count(",") <= LISTED // 2
    assert "resnet18" in str(unknown_name("encoder", "zzz", names))
