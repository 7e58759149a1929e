"""What a command answers before torch is loaded, which takes seconds: help, unknown options, a folder that is missing.

It reads the options from ``described.json``, which ``python -m segloss.described`` writes from the classes that
declare them: all of each but the tests of its values. What passes here is read again by
:func:`segloss.flags.parse_config`; so is everything where one of the files that declare options has changed since.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from segloss.errors import InputError
from segloss.flags import WORDS, Frozen, Key, Options, build_parser, fitted, keys_of, read_words
from segloss.options import Option

DESCRIBED = "described.json"
DECLARING = (
    "config",
    "datasets",
    "losses",
    "measures",
    "decisions.py",
    "flags.py",
    "models.py",
    "options.py",
    "written_options.py",
)
KINDS = {getattr(kind, "__name__", str(kind)): kind for kind in WORDS}
# Of Option.flag; what else there is are functions.
_FORM = ("bare", "metavar", "of", "was")


def answer_early(prog: str, argv: Sequence[str] | None = None) -> None:
    """Refuse what is certain to be refused, or answer ``--help``; return if torch is needed to know more.

    Raises:
        InputError: an unknown flag or name, a value of another type, no word on where the data lie.
        SystemExit: ``--help`` or ``--version`` was answered.
    """
    if described("sources") != sources_digest():
        return
    told = described(prog)
    keys = described_keys(prog)
    given = read_words(build_parser(keys, prog, told["doc"]), keys, argv)
    known = {key.name: key for key in keys}
    values = {name: fitted(known[name], value) for name, value in given.values.items()}
    places, without = told["places"], told["without_data"]
    if given.files or given.printed or values.get("data_path") or any(values.get(name) for name in without):
        return
    place = places.get(values.get("dataset", known["dataset"].option.default)) if places else None
    if place and not os.environ.get(place["variable"] or ""):
        raise InputError(place["what"], place["cure"])


def described(key: str) -> Any:
    """What :func:`describe` has told of a command, by its ``prog``; ``sources``: digest of what it was made from."""
    return _described()[key]


@cache
def _described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files("segloss") / DESCRIBED).read_text(encoding="utf-8"))
    return found


def sources_digest() -> str:
    """Of the modules that declare options, names and text."""
    package = Path(__file__).parent
    found = [path for place in DECLARING for path in (package / place).glob("*.py")]
    digest = hashlib.sha256()
    for path in sorted([*found, *(package / name for name in DECLARING if name.endswith(".py"))]):
        digest.update(f"{path.relative_to(package).as_posix()}\n{path.read_text(encoding='utf-8')}".encode())
    return digest.hexdigest()


def describe(kind: type[Options], places: Mapping[str, Any], without_data: Sequence[str]) -> dict[str, Any]:
    """What ``described.json`` holds of a command: its docstring, and by group all of its keys but functions."""
    groups: dict[type, dict[str, Any]] = {}
    for key in keys_of(kind):
        group = groups.setdefault(key.group, {"doc": key.group.__doc__ or "", "keys": []})
        default = key.option.default
        group["keys"].append(
            {
                "name": key.name,
                "kind": key.kind.__name__,
                "many": key.many,
                "optional": key.optional,
                "names": list(key.names),
                "default": dict(default) if isinstance(default, Mapping) else default,
                "help": key.option.help,
                "flag": {word: value for word, value in key.option.flag if word in _FORM},
            }
        )
    held = {"doc": kind.__doc__ or "", "places": dict(places), "without_data": list(without_data)}
    return {**held, "groups": list(groups.values())}


def described_keys(prog: str) -> list[Key]:
    """The keys of a command, with tests that any value passes."""
    found = []
    for told in described(prog)["groups"]:
        group = type("Described", (), {"__doc__": told["doc"]})
        for each in told["keys"]:
            kind, default = KINDS[each["kind"]], each["default"]
            made = Frozen(default) if kind is Mapping else tuple(default) if isinstance(default, list) else default
            form = tuple((word, _fixed(value)) for word, value in each["flag"].items())
            option = Option(made, each["help"], flag=form)
            names = tuple(each["names"])
            found.append(Key(each["name"], kind, each["many"], each["optional"], names, option, each["name"], group))
    return found


def _fixed(value: Any) -> Any:
    """A list, as JSON has it, as the tuple that it was."""
    return tuple(value) if isinstance(value, list) else value
