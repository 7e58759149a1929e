"""Frozen dataclasses as command-line flags, YAML files and plain dictionaries. Knows no option by its name."""

import math
import sys
from argparse import SUPPRESS, ArgumentError, ArgumentParser, BooleanOptionalAction
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from inspect import get_annotations
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

import yaml

from segloss.errors import InputError, unknown_name
from segloss.options import Option

WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}  # for what a value must be
METAVARS = {int: "N", float: "X", str: "NAME"}


@dataclass(frozen=True)
class Options:
    """What the options of every command have in common.

    A class that inherits several of them has their options too. In ``--help`` each class is a group: the first line of
    its docstring is the heading, what follows a blank line an example.
    """

    def validate(self) -> None:
        """InputError where two options do not go together; changes nothing."""


Config = TypeVar("Config", bound=Options)


class Frozen(Mapping[str, Any]):
    """A mapping that cannot be changed and, unlike MappingProxyType, can be sent to other processes."""

    def __init__(self, values: Mapping[str, Any] | None = None):
        self._values = dict(values or {})

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


def option(default: Any, help: str, *, expected: str = "", fits: Any = None, **flag: Any) -> Any:
    """A dataclass field that is a flag: an :class:`Option` whose type is the field's annotation.

    Args:
        expected, fits: what a value must be, in words and as a test.
        flag: ``metavar``; ``names``, those a value may have; ``canonical``, a function that
            spells a word as it is stored; ``of``, the modes of the command that read it; ``was``, earlier names and
            what to write instead. Names in any case are known.
    """
    declared = Option(default, help, expected, fits or Option.fits, tuple(flag.items()))
    if isinstance(default, dict):
        return field(default_factory=Frozen, metadata={"option": declared})
    return field(default=default, metadata={"option": declared})


def at_least(low: float) -> dict[str, Any]:
    """For an option's ``expected`` and ``fits``."""
    return {"expected": f"at least {low:g}", "fits": lambda value: low <= value < math.inf}


def within(low: float, high: float, ends: str = "[]") -> dict[str, Any]:
    """For an option's ``expected`` and ``fits``; ``ends`` as of an interval: ``[)`` is without ``high``."""

    def fits(value: float) -> bool:
        return (low < value or (low == value and ends[0] == "[")) and (
            value < high or (value == high and ends[1] == "]")
        )

    return {"expected": f"in {ends[0]}{low:g}, {high:g}{ends[1]}", "fits": fits}


POSITIVE: dict[str, Any] = {"expected": "positive", "fits": lambda value: 0 < value < math.inf}


def spread(options: Mapping[str, Option], **flag: Any) -> Any:
    """A field that holds a mapping and is one flag, and one line of a file, for each of ``options``."""

    def defaults() -> Frozen:
        return Frozen({name: declared.default for name, declared in options.items()})

    return field(default_factory=defaults, metadata={"spread": options, "flag": tuple(flag.items())})


@dataclass(frozen=True)
class Key:
    """One flag and one line of a file.

    Attributes:
        name: as files spell it.
        kind: type of its value.
        option: default, help and what a value must be.
        holder: the field that holds it: its own, or one that spreads.
        group: the class that declares it.
    """

    name: str
    kind: Any
    option: Option
    holder: str
    group: type

    @property
    def flag(self) -> str:
        return flag_of(self.name)

    @property
    def form(self) -> dict[str, Any]:
        return dict(self.option.flag)

    def of(self, config: Options) -> Any:
        """Its value."""
        held = getattr(config, self.holder)
        return held if self.holder == self.name else held[self.name]


def keys_of(kind: type[Options]) -> list[Key]:
    """The keys of a class, those it inherits first, each group together."""
    waiting = {f.name: f for f in fields(kind)}
    found: list[Key] = []
    for group in (*kind.__mro__[1:], kind):
        for f in [waiting.pop(name) for name in get_annotations(group) if name in waiting]:
            if "spread" not in f.metadata:
                found.append(Key(f.name, f.type, f.metadata["option"], f.name, group))
                continue
            for name, declared in f.metadata["spread"].items():
                default = tuple(declared.default) if isinstance(declared.default, list) else declared.default
                made = replace(declared, default=default, flag=(*declared.flag, *f.metadata["flag"]))
                found.append(Key(name, type(default), made, f.name, group))
    return found


def flag_of(name: str) -> str:
    """The command-line word of a field."""
    return "--" + name.replace("_", "-")


def require(condition: bool, flag: str, expected: str, value: Any) -> None:
    if not condition:
        raise InputError(f"--{flag} must be {expected}, got {value}")


# ---- values


def fitted(key: Key, value: Any, where: str | Path | None = None) -> Any:
    """A value from a command line or a file as its key's type; names as they are spelt where they are declared.

    Raises:
        InputError: another type, out of range, or an unknown name.
    """

    def refused(expected: str) -> InputError:
        got = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
        return InputError(f"{key.flag} must be {expected}, got {got}", where=where)

    try:
        made = _as(key.kind, value, key, where)
    except (TypeError, OverflowError, ValueError) as error:
        raise error if isinstance(error, InputError) else refused(_in_words(key)) from None
    if made is not None and not key.option.fits(made):
        raise refused(key.option.expected)
    return made


def _as(kind: Any, value: Any, key: Key, where: str | Path | None) -> Any:
    """The value as that type; TypeError or ValueError where it cannot be."""
    if value is None and NoneType in get_args(kind):
        return None
    kind = _bare(kind)
    if items := _items(kind):
        parts = value if isinstance(value, list | tuple) else (value,)
        if items[-1] is not ... and len(parts) != len(items):
            raise TypeError
        return tuple(_as(items[0], part, key, where) for part in parts)
    if get_origin(kind) is Mapping:
        value = yaml_value(value) if isinstance(value, str) else value
        if not isinstance(value, Mapping):
            raise TypeError
        return Frozen(value)
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, str | int | float):
        raise TypeError
    if kind is int and isinstance(value, float):
        raise TypeError
    if names := _names(kind, key):
        return _known(str(value), names, key, where)
    made = kind(value)
    return key.form["canonical"](made) if "canonical" in key.form and kind is str else made


def _names(kind: Any, key: Key) -> tuple[str, ...]:
    """The names that a value may have; none where any may be."""
    return get_args(kind) if get_origin(kind) is Literal else tuple(key.form.get("names", ()))


def _known(value: str, names: Sequence[str], key: Key, where: str | Path | None) -> str:
    by_lower = {name.lower(): name for name in names}
    if value.lower() not in by_lower:
        raise unknown_name(key.flag, value, names, where)
    return by_lower[value.lower()]


def _bare(kind: Any) -> Any:
    """A type without its ``| None``."""
    return next(part for part in get_args(kind) if part is not NoneType) if NoneType in get_args(kind) else kind


def _items(kind: Any) -> tuple[Any, ...]:
    """What the type of several values holds, as in ``tuple[int, int]`` or ``tuple[str, ...]``; else nothing."""
    return get_args(kind) or (str, ...) if tuple in (kind, get_origin(kind)) else ()


def _in_words(key: Key) -> str:
    """What the type of a key asks of a value."""
    kind = _bare(key.kind)
    if items := _items(kind):
        each = WORDS.get(items[0], "a name")
        return f"a list, each {each}" if ... in items else f"{len(items)} {each.removeprefix('a ')}s"
    return "options, as {name: value}" if get_origin(kind) is Mapping else WORDS.get(kind, "a name")


def yaml_value(text: str) -> Any:
    """What a text means in YAML, and numbers such as 1e-3 too, which without a point are text to YAML 1.1."""
    read = yaml.safe_load(text)
    with suppress(ValueError, TypeError):
        return float(read) if isinstance(read, str) else read
    return read


# ---- dictionaries and files


def to_plain_dict(config: Options) -> dict[str, Any]:
    """Plain values, for YAML and checkpoints, in the order of ``--help``."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(held) for name, held in value.items()}
        return [plain(part) for part in value] if isinstance(value, list | tuple) else value

    return {key.name: plain(key.of(config)) for key in keys_of(type(config))}


def from_plain_dict(kind: type[Config], values: Mapping[str, Any], where: str | Path | None = None) -> Config:
    """A config from a saved dictionary; InputError for a key it does not have or a value that does not fit."""
    return _assembled(kind, _read(kind, values, where))


def _read(kind: type[Options], values: Mapping[str, Any], where: str | Path | None) -> dict[str, Any]:
    keys = {key.name: key for key in keys_of(kind)}
    for name in values:
        if name not in keys:
            _refuse_earlier_name(str(name), keys.values(), where)
            near = get_close_matches(str(name), keys, 1, 0.75)
            cure = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(keys))}"
            raise InputError(f"unknown option {name!r}", cure, where)
    return {name: fitted(keys[name], value, where) for name, value in values.items()}


def _refuse_earlier_name(word: str, keys: Iterable[Key], where: str | Path | None) -> None:
    """InputError with the new spelling, if a flag or the key of a file is one of an earlier version."""
    name = word.partition("=")[0].lstrip("-").replace("-", "_")
    for key in keys:
        if name in key.form.get("was", ()):
            raise InputError(f"{flag_of(name)} is {key.flag} now", f"write {key.form['was'][name]}", where)


def _assembled(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """The config of fitted values, with defaults for the rest."""
    held: dict[str, Any] = {}
    for key in keys_of(kind):
        value = values.get(key.name, key.option.default)
        if key.holder == key.name:
            held[key.name] = Frozen(value) if isinstance(value, dict) else value
        else:
            held.setdefault(key.holder, {})[key.name] = value
    return kind(**{name: Frozen(value) if isinstance(value, dict) else value for name, value in held.items()})


def read_options_file(path: Path, where: str | Path) -> dict[str, Any]:
    """A YAML file of options; InputError if it is something else."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=where) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot be read as YAML: {' '.join(str(error).split())}", where=where) from error
    if not isinstance(values, dict):
        raise InputError(f"expected options, one 'name: value' a line, got {values!r:.60}", where=where)
    return values


# ---- the command line


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message, f"see {self.prog} --help")


def parse_config(
    kind: type[Config], prog: str, argv: Sequence[str] | None = None, start: Mapping[str, Any] | None = None
) -> Config:
    """Flags over ``--config FILE`` (of several the later) over ``start`` over the class's own defaults; checked.

    Raises:
        InputError: an unknown flag, a value of the wrong type or out of range.
    """
    parser, keys = build_parser(kind, prog), keys_of(kind)
    words, dotted = _without_dotted(keys, list(sys.argv[1:] if argv is None else argv))
    try:
        found, unknown = parser.parse_known_args(words)
    except ArgumentError as error:
        raise InputError(error.message, f"see {prog} --help", error.argument_name) from error
    if unknown:
        _refuse_earlier_name(unknown[0], keys, None)
        near = get_close_matches(unknown[0].split("=")[0].replace("_", "-"), [key.flag for key in keys], 1, 0.75)
        cure = f"did you mean {near[0]}? see" if near else "see"
        raise InputError(f"unrecognized arguments: {' '.join(unknown)}", f"{cure} {prog} --help")
    given = vars(found)
    layers = [_read(kind, start or {}, None)]
    for file in given.pop("config", ()):
        layers.append(_read(kind, read_options_file(Path(file), f"--config {file}"), f"--config {file}"))
    printed = given.pop("print_config", False)
    layers += [_read(kind, given, None), dotted]
    values: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            values[name] = Frozen({**values.get(name, {}), **value}) if isinstance(value, Mapping) else value
    config = _assembled(kind, values)
    if printed:
        print(yaml.safe_dump(to_plain_dict(config), sort_keys=False), end="")
        raise SystemExit(0)
    config.validate()
    return config


def build_parser(kind: type[Options], prog: str) -> ArgumentParser:
    """The command line of a class: a flag per key, a group per class it inherits; it leaves out what is not given."""
    parser = _Parser(
        prog=prog,
        usage=f"{prog} [options]",
        description=_heading(kind),
        allow_abbrev=False,
        exit_on_error=False,
        argument_default=SUPPRESS,
    )
    parser.add_argument("--config", action="append", metavar="FILE", help="YAML file with any of these options")
    parser.add_argument("--print_config", action="store_true", help="write all options as such a file, and stop")
    groups: dict[type, Any] = {}
    for key in keys_of(kind):
        if key.group not in groups:
            heading = "this command" if key.group is kind else _heading(key.group).rstrip(".")
            example = (key.group.__doc__ or "").partition("\n\n")[2].strip()
            groups[key.group] = parser.add_argument_group(heading, f"example: {example}" if example else None)
        if key.kind is bool:
            groups[key.group].add_argument(key.flag, action=BooleanOptionalAction, help=_help_of(key))
        else:
            groups[key.group].add_argument(key.flag, help=_help_of(key), **_words_of(key))
    return parser


def _heading(kind: type) -> str:
    return (kind.__doc__ or "").partition("\n")[0].replace("``", "")


def _words_of(key: Key) -> dict[str, Any]:
    """How many words follow a flag, and what they are called."""
    kind = _bare(key.kind)
    items = _items(kind)
    metavar = key.form.get("metavar", METAVARS.get(items[0] if items else kind, "NAME"))
    nargs = key.form.get("nargs", "+" if ... in items else len(items) or None)
    return {"metavar": metavar, "nargs": nargs}


def _help_of(key: Key) -> str:
    """Help, the names there are, and the default."""
    kind = _bare(key.kind)
    names = _names(_items(kind)[0] if _items(kind) else kind, key)
    listed = f": {', '.join(names)}" if names else ""
    default = key.option.default
    words = " ".join(map(str, default)) if isinstance(default, tuple) else default
    none = default is None or default is False or words in ("", {})
    told = "" if none else f" (default: {words})"
    return f"{key.option.help}{listed}{told}".replace("%", "%%")


def _without_dotted(keys: Sequence[Key], words: Sequence[str]) -> tuple[list[str], dict[str, Frozen]]:
    """The words without ``--FLAG.NAME VALUE`` of options that are mappings, and what those say."""
    heads = {f"{key.flag}.": key.name for key in keys if get_origin(key.kind) is Mapping}
    rest: list[str] = []
    found: dict[str, dict[str, Any]] = {}
    waiting = iter(words)
    for word in waiting:
        head = next((head for head in heads if word.startswith(head)), None)
        if head is None:
            rest.append(word)
            continue
        flag, equals, text = word.partition("=")
        text = text if equals else next(waiting, "")
        try:
            found.setdefault(heads[head], {})[flag.removeprefix(head)] = yaml_value(text)
        except yaml.YAMLError as error:
            raise InputError(f"cannot be read as YAML: {text}", where=flag) from error
    return rest, {name: Frozen(values) for name, values in found.items()}
