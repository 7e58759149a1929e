"""Scripts that complete commands, options and their values in a shell, by shtab."""

from argparse import ArgumentParser
from collections.abc import Mapping

from segloss.early import described, described_keys
from segloss.errors import InputError, unknown_name
from segloss.flags import build_parser

SCRIPTS = {"segloss-train": "train", "segloss-eval": "eval"}  # installed under names of their own


def completion(shell: str, progs: Mapping[str, str]) -> str:
    """The script for ``segloss``, ``segloss-train`` and ``segloss-eval``.

    Args:
        shell: one of those that shtab writes for, such as bash, zsh or fish.
        progs: name of each command -> its ``prog``.

    Raises:
        InputError: another shell, or shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise InputError("--completion needs shtab", "pip install shtab") from error
    if shell not in shtab.SUPPORTED_SHELLS:
        raise unknown_name("shell", shell, shtab.SUPPORTED_SHELLS)
    whole = ArgumentParser("segloss", description="Semantic segmentation of imbalanced data.")
    commands = whole.add_subparsers()
    for name, prog in progs.items():
        parser = completed(prog, prog)
        commands.add_parser(name, parents=[parser], add_help=False, help=parser.description)
    parsers = [whole, *(completed(progs[name], script) for script, name in SCRIPTS.items())]
    return "\n".join(shtab.complete(parser, shell) for parser in parsers)


def completed(prog: str, name: str) -> ArgumentParser:
    """The command line of a command, with what its values may be: names, files, folders."""
    import shtab

    keys = described_keys(prog)
    names = {key.name: key.names for key in keys}
    parser = build_parser(keys, name, described(prog)["doc"])
    kinds = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "RUN": shtab.DIRECTORY}
    for action in parser._actions:
        action.choices = names.get(action.dest) or action.choices
        if action.metavar in kinds:
            action.complete = kinds[str(action.metavar)]  # type: ignore[attr-defined]  # an attribute of shtab's
    return parser
