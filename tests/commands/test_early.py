"""What commands answer before torch is loaded is what they would answer after it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import segloss
import segloss.config
from segloss import early
from segloss.commands import COMMANDS, main, overview, run_command
from segloss.datasets.formats import data_place
from segloss.described import described_commands, written
from segloss.early import DESCRIBED, answer_early, described_keys
from segloss.errors import InputError
from segloss.flags import keys_of, parse_config

ROOT = Path(__file__).resolve().parents[2]
KINDS = {command.prog: getattr(segloss.config, command.config) for command in COMMANDS.values()}


def loaded(words: list[str], among: str = "torch", **environ: str) -> tuple[int, str, str, bool]:
    """Status, both outputs, and whether a module was loaded, of ``python -m segloss`` with these words."""
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('loaded' if {among!r} in sys.modules else 'not loaded'))\n"
        f"sys.argv[1:] = {words!r}\n"
        "from segloss.commands import main\nmain()"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environ})
    out, _, last = done.stdout.rstrip("\n").rpartition("\n")
    return done.returncode, out, done.stderr, last == "loaded"


def test_the_description_is_that_of_the_classes():
    file = (ROOT / "segloss" / DESCRIBED).read_text(encoding="utf-8")
    found = json.loads(file)
    del found["sources"]
    assert found == json.loads(json.dumps(described_commands())), "run python -m segloss.described"
    assert file == written(), "run python -m segloss.described"


@pytest.mark.parametrize("prog", KINDS)
def test_described_keys_are_those_of_the_class_but_for_the_tests(prog):
    for told, key in zip(described_keys(prog), keys_of(KINDS[prog]), strict=True):
        for name in ("name", "kind", "many", "optional", "names"):
            assert getattr(told, name) == getattr(key, name)
        assert told.option.default == key.option.default and told.group.__doc__ == key.group.__doc__


def asked(call, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        call()
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("prog", KINDS)
@pytest.mark.parametrize("word", ["--help", "--version"])
def test_early_and_late_answers_to_a_question_are_one(prog, word, capsys):
    early = asked(lambda: answer_early(prog, [word]), capsys)
    assert early == asked(lambda: parse_config(KINDS[prog], prog, [word]), capsys) and early


WRONG = [
    *("--lr fast", "--epochs 2.5", "--lrr 1", "--backbone resnet18", "--arch unnet", "--crop-size 64", "--loss"),
    *("--trainer.x", "--precision fp16", "--dataset cammvid", "--schedule step", "--workers two", "--no-resume x"),
    *("--mix pasta", "--early-stop", "--learning-rate=1", "extra", "--crop-size 64 x"),
]


@pytest.mark.parametrize("words", WRONG)
def test_early_and_late_refusals_are_one(words):
    said = []
    for call in (answer_early, lambda prog, argv: parse_config(KINDS[prog], prog, argv)):
        with pytest.raises(InputError) as refused:
            call("train_seg.py", words.split())
        said.append(str(refused.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("prog", KINDS)
def test_every_default_and_a_value_of_each_kind_passes_early(prog):
    for key in keys_of(KINDS[prog]):
        value = {int: "3", float: "0.5", str: key.names[0] if key.names else "word"}.get(key.kind)
        words = [value] * (key.many if isinstance(key.many, int) else 1) if value else []
        if key.kind in (int, float, str, bool):
            answer_early(prog, [key.flag, *words, "--config", "some.yaml"])


@pytest.mark.parametrize(
    ("words", "environ", "said"),
    [
        ("", {}, "error: data set 'camvid' needs --data-path; give the folder that holds it; for images of your own "),
        ("--dataset cityscapes", {}, "error: data set 'cityscapes' needs --data-path (or $CITYSCAPES_DATASET); give"),
        ("--dataset FOLDER", {}, "error: data set 'folder' needs --data-path; give the folder that holds it\n"),
        ("--lrr 1", {}, "error: unrecognized arguments: --lrr 1; did you mean --lr? see train_seg.py --help\n"),
        ("--data-path=", {}, "error: data set 'camvid' needs --data-path"),
    ],
)
def test_training_refuses_without_torch(words, environ, said):
    environ = {"CITYSCAPES_DATASET": "", **environ}
    status, out, fault, torch = loaded(["train", *words.split()], **environ)
    assert (status, out, torch) == (2, "", False) and fault.startswith(said)


def test_questions_are_answered_without_torch():
    for words in (["train", "--help"], ["eval", "--help"], ["--version"], [], ["--completion", "bash"]):
        status, out, fault, torch = loaded(words)
        assert (status, fault, torch) == (0, "", False) and out


@pytest.mark.parametrize(
    "words", ["--dataset synthetic --data-path= --epochs 0", "--resume", "--config a.yaml", "--data-path a"]
)
def test_what_is_not_certain_is_left_to_the_command(words):
    answer_early("train_seg.py", words.split())


def test_a_folder_in_the_environment_is_one(monkeypatch):
    words = ["--dataset", "cityscapes"]
    monkeypatch.setenv("CITYSCAPES_DATASET", "somewhere")
    answer_early("train_seg.py", words)
    monkeypatch.setenv("CITYSCAPES_DATASET", "")
    for refuse in (lambda: answer_early("train_seg.py", words), lambda: data_place("cityscapes", None)):
        with pytest.raises(InputError, match="needs --data-path"):
            refuse()


def test_masks_need_no_data_set():
    answer_early("python -m segloss.doctor", ["--predictions", "a", "--labels", "b"])
    answer_early("eval_seg.py", ["--checkpoint", "a"])


def test_nothing_is_answered_early_where_a_source_has_changed_since(monkeypatch):
    monkeypatch.setattr(early, "DECLARING", (*early.DECLARING, "errors.py"))
    for words in ("--help", "--lrr 1", ""):
        answer_early("train_seg.py", words.split())


# ---- the list of commands


def test_all_commands_are_listed(capsys):
    main([])
    told = capsys.readouterr().out
    assert told == overview() + "\n" and max(map(len, told.splitlines())) <= 80
    assert all(f"  {name} " in told for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian", "unknown command 'trian'; choose one of train, eval"),
        ("--verison", "unrecognized arguments: --verison"),
        ("--completion cmd", "unknown shell 'cmd'; choose one of bash"),
        ("--completion", "unrecognized arguments: --completion"),
    ],
)
def test_what_is_no_command_is_refused(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2 and capsys.readouterr().err.startswith(f"error: {said}")


def test_a_command_runs_by_its_name(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--dataset", "folder", "--data-path", str(tmp_path / "none")])
    assert stop.value.code == 2 and "none" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_command("frequency", ["--dataset", "synthetic", "--split", "tset"])
    assert "unknown --split 'tset'" in capsys.readouterr().err


def test_bash_completes_commands_options_and_values():
    script = loaded(["--completion", "bash"])[1]
    program = (
        f"{script}\n"
        'ask() { local name=$1; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=();'
        ' _shtab_$name "$1" "${!#}"; echo ${COMPREPLY[*]}; }\n'
        "ask segloss segloss d\n"
        "ask segloss segloss train --enc\n"
        "ask segloss_train segloss-train --precision b\n"
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["doctor", "demo"],
        ["--encoder", "--encoder-weights", "--encoder-lr-factor"],
        ["bf16-mixed"],
    ], done.stderr


# ---- the package


def test_public_names_are_those_of_their_modules_and_listed():
    import segloss.losses

    assert segloss.OutlyingMSELoss is segloss.losses.OutlyingMSELoss
    assert {*segloss.__all__} <= {*dir(segloss)}
    for name in segloss.__all__:
        assert getattr(segloss, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'OutlyingLoss'"):
        segloss.OutlyingLoss  # noqa: B018


def test_a_module_of_the_package_is_there_when_it_is_asked_for():
    program = "import segloss; print(segloss.metrics.ConfusionMatrix.__name__, segloss.losses.decide.__name__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "ConfusionMatrix decide\n"
