"""All commands: what each is called, which class declares its options, and how it is started."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import segloss
from segloss.early import answer_early, described
from segloss.errors import InputError, exit_on_input_error, unknown_name
from segloss.launchers import place_in
from segloss.ranks import together


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        prog: as its help calls it.
        config: name of the class in ``segloss.config`` that declares its options.
        main: ``module:function`` of its words.
        shared: launchers may start several processes of it, which share the work.
        without_data: options with which it needs no data set.
    """

    prog: str
    config: str
    main: str
    shared: bool = False
    without_data: tuple[str, ...] = ()


COMMANDS = {
    "train": Command("train_seg.py", "TrainConfig", "train_seg:train", True, ("resume",)),
    "eval": Command("eval_seg.py", "EvalConfig", "eval_seg:evaluate", True),
    "doctor": Command(
        "python -m segloss.doctor", "DoctorConfig", "segloss.doctor.command:main", True, ("predictions", "labels")
    ),
    "frequency": Command("python -m segloss.frequency", "FrequencyConfig", "segloss.frequency.command:main", True),
    "plan": Command("python -m segloss.plan", "PlanConfig", "segloss.plan.command:main"),
    "rasterise": Command("python -m segloss.rasterise", "RasteriseConfig", "segloss.rasterise.command:main"),
    "export": Command("python -m segloss.export", "ExportConfig", "segloss.export.command:main"),
    "demo": Command("python -m segloss.demo", "DemoConfig", "segloss.demo.command:main"),
}


def run_command(name: str, argv: Sequence[str] | None = None) -> None:
    """Run a command; what a user can mend becomes one line on stderr and its exit status, Ctrl-C too."""
    exit_on_input_error(partial(_run, COMMANDS[name], argv))


def _run(command: Command, argv: Sequence[str] | None) -> None:
    # Before torch is loaded: OpenMP's threads spin while they wait, on a busy machine for most of the time.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if place_in(os.environ)[1] == 1:  # of several the first speaks for all, which they arrange among themselves
        answer_early(command.prog, argv)
    module, _, function = command.main.partition(":")

    def main() -> None:
        call: Callable[[Sequence[str] | None], None] = getattr(import_module(module), function)
        call(argv)

    together(main) if command.shared else main()


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m segloss``: run a command by its name; without one list them."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        run_command(words[0], words[1:])
    else:
        exit_on_input_error(partial(_answer, words))


def _answer(words: Sequence[str]) -> None:
    """Everything but a command."""
    first = words[0] if words else "--help"
    if first == "--version":
        print(f"segloss {segloss.__version__}")
    elif first in ("-h", "--help"):
        print(overview())
    elif first == "--completion" and len(words) == 2:
        from segloss.completion import completion

        print(completion(words[1], {name: command.prog for name, command in COMMANDS.items()}))
    elif first.startswith("-"):
        cure = "python -m segloss lists the commands"
        raise InputError(f"unrecognized arguments: {' '.join(words)}", cure)
    else:
        raise unknown_name("command", first, COMMANDS)


def overview() -> str:
    """The commands, a line each."""
    lines = ["usage: python -m segloss COMMAND [options]", ""]
    for name, command in COMMANDS.items():
        told = described(command.prog)["doc"].partition("\n")[0].partition("``: ")[2].rstrip(".")
        lines.append(f"  {name:<10} {told}")
    lines += ["", "options:"]
    lines += ["  COMMAND --help       its options", "  --version            which segloss this is"]
    lines += ["  --completion SHELL   script that completes commands (bash, zsh ...)"]
    return "\n".join(lines)
