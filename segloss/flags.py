"""Frozen dataclasses as command-line flags, YAML files and plain dictionaries. Knows no option by its name."""

import re
import sys
from argparse import SUPPRESS, ArgumentError, ArgumentParser, BooleanOptionalAction
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from inspect import get_annotations
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml

import segloss
from segloss.errors import InputError, unknown_name
from segloss.options import Option
from segloss.synonyms import meant_flag, meant_value
from segloss.written_options import meant_path, read_options_file, yaml_value

# What a value of each type must be, in words.
WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
WORDS[Mapping] = "options, as {name: value}"
METAVARS = {int: "N", float: "X", str: "NAME"}


@dataclass(frozen=True)
class Options:
    """What the options of every command have in common.

    A class that inherits several of them has their options too. In ``--help`` each is a group, for whose heading and
    example its docstring is taken apart at the colon.
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


def option(default: Any, help: str, expected: str = "", fits: Callable[[Any], bool] = Option.fits, **flag: Any) -> Any:
    """A dataclass field that is a flag: an :class:`Option` whose type is the field's annotation.

    Args:
        expected, fits: what a value must be, in words and as a test.
        flag: ``metavar``; ``names``, those a value may have, in any case; ``canonical``, a function that spells a word
            as it is stored; ``of``, the modes of the command that read it; ``was``, earlier names and what to write
            instead; ``bare``, given as a word without the flag too, in the order of declaration; ``path``, a file or
            folder, read by :func:`segloss.written_options.meant_path`.
    """
    default = Frozen(default) if isinstance(default, dict) else default
    metadata = {"option": Option(default, help, expected, fits, tuple(flag.items()))}
    if isinstance(default, Frozen):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


def spread(options: Mapping[str, Option], **flag: Any) -> Any:
    """A field that holds a mapping and is one flag, and one line of a file, for each of ``options``."""

    def defaults() -> Frozen:
        return Frozen({name: _default(declared) for name, declared in options.items()})

    return field(default_factory=defaults, metadata={"spread": options, "flag": tuple(flag.items())})


def _default(declared: Option) -> Any:
    """The default of an option, as what cannot be changed."""
    return tuple(declared.default) if isinstance(declared.default, list) else declared.default


@dataclass(frozen=True)
class Key:
    """One flag and one line of a file.

    Attributes:
        name: as files spell it.
        kind: type of its value, or of each where it has several.
        many: how many values: a number, ``"+"``, or None for one.
        optional: whether it may be None.
        names: those a value may have; none where any may be.
        option: default, help and what a value must be.
        holder: the field that holds it: its own, or one that spreads.
        group: the class that declares it.
    """

    name: str
    kind: Any
    many: int | str | None
    optional: bool
    names: tuple[str, ...]
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
                found.append(_key(f.name, f.type, f.metadata["option"], f.name, group))
                continue
            for name, declared in f.metadata["spread"].items():
                default = _default(declared)
                made = replace(declared, default=default, flag=(*declared.flag, *f.metadata["flag"]))
                found.append(_key(name, type(default), made, f.name, group))
    return found


def _key(name: str, annotation: Any, declared: Option, holder: str, group: type) -> Key:
    """The key of a type such as ``int``, ``Literal["a", "b"] | None``, ``tuple[int, int]`` or ``tuple[str, ...]``."""
    parts = [part for part in get_args(annotation) if part is not NoneType]
    optional = len(parts) < len(get_args(annotation))
    kind, many = parts[0] if optional else annotation, None
    if tuple in (kind, get_origin(kind)):
        items = get_args(kind) or (str, ...)
        kind, many = items[0], "+" if ... in items else len(items)
    names = get_args(kind) if get_origin(kind) is Literal else tuple(dict(declared.flag).get("names", ()))
    kind = str if names else get_origin(kind) or kind
    return Key(name, kind, many, optional, names, declared, holder, group)


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
    if value is None and key.optional:
        return None
    parts = value if key.many and isinstance(value, list | tuple) else [value]
    got = " ".join(map(str, parts))
    try:
        made = tuple(_as(key, part) for part in parts)
        if isinstance(key.many, int) and len(made) != key.many:
            raise TypeError
    except InputError:
        raise
    except (TypeError, ValueError, OverflowError):
        kind = WORDS[key.kind]
        expected = kind if key.many in (None, "+") else f"{key.many} {kind.removeprefix('a ')}s"
        raise InputError(f"{key.flag} must be {expected}, got {got}", _meant_instead(key, value), where) from None
    for name in made if key.names else ():
        if name not in key.names:
            raise unknown_name(key.flag, name, key.names, where, meant_value(key.name, str(name), key.names))
    whole = made if key.many else made[0]
    if not key.option.fits(whole):
        raise InputError(f"{key.flag} must be {key.option.expected}, got {got}", where=where)
    return whole


def _meant_instead(key: Key, value: Any) -> str:
    """What to write for a value of another type, where that can be told."""
    if value is None:
        return "write none" if "none" in (key.option.default, *key.names) else "leave it out to have the default"
    parts = _several_in(key, value) if isinstance(value, str) else []
    return f"write [{', '.join(parts)}]" if parts else ""


def _several_in(key: Key, text: str) -> list[str]:
    """Of a key of several the values in one text: ``32 32``, ``32,32`` or ``32x32``; none if they do not fit."""
    parts = re.findall(r"[^\s,x()\[\]]+", text)
    with suppress(InputError):
        return parts if isinstance(key.many, int) and fitted(key, parts) else []
    return []


def _as(key: Key, value: Any) -> Any:
    """One value as its key's type; TypeError or ValueError where it cannot be."""
    if key.kind is Mapping:
        read = yaml_value(value, key.flag) if isinstance(value, str) else value
        if not isinstance(read, Mapping):
            raise TypeError
        return Frozen(read)
    if isinstance(value, bool) is not (key.kind is bool) or not isinstance(value, str | int | float):
        raise TypeError
    if key.kind is int and isinstance(value, float):
        raise TypeError
    made = key.kind(value)
    if key.names:
        return {name.lower(): name for name in key.names}.get(made.lower(), made)
    return key.form["canonical"](made) if "canonical" in key.form and key.kind is str else made


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


def read_file_of(kind: type[Options], path: Path, where: str | Path) -> dict[str, Any]:
    """The values in a YAML file of a class's options, not yet fitted, its texts as they are written; InputError."""
    return read_options_file(path, where, [key.name for key in keys_of(kind) if key.kind is str])


def _read(kind: type[Options], values: Mapping[str, Any], where: str | Path | None) -> dict[str, Any]:
    keys = {key.name: key for key in keys_of(kind)}
    for name in values:
        if name not in keys:
            _refuse_earlier_name(str(name), keys.values(), where)
            if meant := meant_flag(str(name), keys):
                raise InputError(f"unknown option {name!r}", f"it is {meant} here: {_help_of(keys[meant])}", where)
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
    spreads: dict[str, dict[str, Any]] = {}
    for key in keys_of(kind):
        own = held if key.holder == key.name else spreads.setdefault(key.holder, {})
        own[key.name] = values.get(key.name, key.option.default)
    return kind(**held, **{holder: Frozen(options) for holder, options in spreads.items()})


# ---- the command line


def parse_config(
    kind: type[Config], prog: str, argv: Sequence[str] | None = None, start: Mapping[str, Any] | None = None
) -> Config:
    """Flags over ``--config FILE`` (of several the later) over ``start`` over the class's own defaults; checked.

    Raises:
        InputError: an unknown flag, a value of the wrong type or out of range.
    """
    keys = keys_of(kind)
    given = read_words(build_parser(keys, prog, kind.__doc__ or ""), keys, argv)
    values: dict[str, Any] = {}
    for layer in (_read(kind, start or {}, None), *_layers(kind, given)):
        for name, value in layer.items():
            values[name] = Frozen({**values.get(name, {}), **value}) if isinstance(value, Mapping) else value
    config = _assembled(kind, values)
    if given.printed:
        print(yaml.safe_dump(to_plain_dict(config), sort_keys=False), end="")
        raise SystemExit(0)
    config.validate()
    return config


def given_names(kind: type[Options], prog: str, argv: Sequence[str] | None = None) -> set[str]:
    """The options that flags and ``--config FILE`` give a value, be it that of the default; errors as above."""
    given = read_words(build_parser(keys_of(kind), prog, kind.__doc__ or ""), keys_of(kind), argv)
    return {name for layer in _layers(kind, given) for name in layer}


def _layers(kind: type[Options], given: "Given") -> list[Mapping[str, Any]]:
    """What files and flags hold, fitted; the later wins."""
    of_files = [_given(kind, read_file_of(kind, path, where), where) for where, path in given.files.items()]
    return [*of_files, _given(kind, given.values, None), *given.parts]


def _given(kind: type[Options], values: Mapping[str, Any], where: str | None) -> dict[str, Any]:
    """What a user has written, fitted. Not what was saved: of another machine it may have paths that this has not."""
    found = _read(kind, values, where)
    for key in keys_of(kind):
        if key.form.get("path") and found.get(key.name):
            held = found[key.name]
            made = tuple(meant_path(path, key.flag, where) for path in (held if key.many else [held]))
            found[key.name] = made if key.many else made[0]
    return found


def _refuse_second_value(word: str, words: Sequence[str], keys: Iterable[Key]) -> None:
    """InputError where a word follows the value of an option that takes one, as of a pattern the shell wrote out, or
    an option that takes none."""
    follows = [i for i in range(2, len(words)) if words[i] == word and not words[i - 1].startswith("--")]
    before = [other for other in words[: follows[0]] if other.startswith("--")] if follows else []
    switches = {key.flag: key for key in keys if key.kind is bool}
    before_it = [words[i - 1] for i in range(1, len(words)) if words[i] == word and words[i - 1] in switches]
    if not word.startswith("-") and before_it:
        key = switches[before_it[0]]
        cure = f"leave it out; it is: {_help_of(key)}".replace("%%", "%")
        raise InputError(f"{key.flag} takes no value, got {word}", cure)
    taken = {key.flag: key for key in keys if not key.many and key.kind not in (bool, Mapping)}
    if not word.startswith("-") and before and before[-1] in taken:
        key = taken[before[-1]]
        cure = f"write one, and no * for the shell to make many of; it is: {_help_of(key)}".replace("%%", "%")
        raise InputError(f"{key.flag} takes one value, got another: {word}", cure)


def _parted(flag: str | None, words: Sequence[str], keys: Iterable[Key]) -> str:
    """The cure where the values of a flag of several are one word."""
    lines = " ".join(words).replace(f"{flag}=", f"{flag} ").split(f"{flag} ")[1:]
    for key in [key for key in keys if key.flag == flag]:
        for parts in [_several_in(key, line.split(" --")[0]) for line in lines]:
            if parts:
                return f"write {flag} {' '.join(parts)}"
    return ""


@dataclass(frozen=True)
class Given:
    """What a command line holds: values by name, not yet fitted; parts of mappings; files of options."""

    values: dict[str, Any]
    parts: list[dict[str, Frozen]]
    files: dict[str, Path]
    printed: bool


def read_words(parser: ArgumentParser, keys: Sequence[Key], argv: Sequence[str] | None = None) -> Given:
    """A command line taken apart; of ``--help`` the process ends.

    Raises:
        InputError: an unknown flag, or too many or too few words for one.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    heads = {f"{key.flag}.": key.name for key in keys if key.kind is Mapping}
    for flag in {word.partition("=")[0] for word in words if word.startswith(tuple(heads))}:
        parser.add_argument(flag, dest=flag)
    try:
        found, unknown = parser.parse_known_args(words)
    except ArgumentError as error:
        cure = _parted(error.argument_name, words, keys) or f"see {parser.prog} --help"
        raise InputError(error.message, cure, error.argument_name) from error
    given, bare = vars(found), [key.name for key in keys if key.form.get("bare")]
    while unknown and bare and not unknown[0].startswith("-"):
        given[bare.pop(0)] = unknown.pop(0)
    if unknown:
        _refuse_earlier_name(unknown[0], keys, None)
        named = {key.name: key for key in keys}
        if meant := meant_flag(unknown[0], named):
            what = f"unrecognized arguments: {' '.join(unknown)}"
            raise InputError(what, f"it is {named[meant].flag} here: {_help_of(named[meant]).replace('%%', '%')}")
        _refuse_second_value(unknown[0], words, keys)
        near = get_close_matches(unknown[0].split("=")[0].replace("_", "-"), [key.flag for key in keys], 1, 0.75)
        cure = f"did you mean {near[0]}? see" if near else "see"
        raise InputError(f"unrecognized arguments: {' '.join(unknown)}", f"{cure} {parser.prog} --help")
    files = {f"--config {file}": Path(meant_path(file, "--config")) for file in given.pop("config", ())}
    printed = given.pop("print_config", False)
    parts = []
    for flag in [word for word in given if word.startswith("--")]:
        head, _, part = flag.partition(".")
        parts.append({heads[f"{head}."]: Frozen({part: yaml_value(given.pop(flag), flag)})})
    return Given(given, parts, files, printed)


def build_parser(keys: Sequence[Key], prog: str, doc: str) -> ArgumentParser:
    """The command line of keys: a flag each, a group per class that declares them; it leaves out what is not given."""
    bare = [key.form["metavar"] for key in keys if key.form.get("bare")]
    parser = ArgumentParser(
        prog=prog,
        usage=" ".join([prog, *bare, "[options]"]),
        description=doc.partition("\n")[0].replace("``", ""),
        allow_abbrev=False,
        exit_on_error=False,
        argument_default=SUPPRESS,
    )
    parser.add_argument("--config", action="append", metavar="FILE", help="YAML file with any of these options")
    parser.add_argument("--print_config", action="store_true", help="write all options as such a file, and stop")
    parser.add_argument("--version", action="version", version=f"segloss {segloss.__version__}")
    groups: dict[type, Any] = {}
    for key in keys:
        if key.group not in groups:
            own = key.group.__doc__ or ""
            heading, _, example = own.partition(": ")
            told = (heading, f"example: {example}") if own != doc else ("this command", None)
            groups[key.group] = parser.add_argument_group(*told)
        form: dict[str, Any] = {"nargs": key.many, "metavar": key.form.get("metavar", METAVARS.get(key.kind))}
        form = {"action": BooleanOptionalAction} if key.kind is bool else form
        groups[key.group].add_argument(key.flag, help=_help_of(key), **form)
    return parser


def _help_of(key: Key) -> str:
    """Help, the names there are where it does not tell them itself, and the default."""
    told = all(name in key.option.help for name in key.names)
    listed = "" if told else f": {', '.join(key.names)}"
    default = key.option.default
    words = " ".join(map(str, default)) if isinstance(default, tuple) else default
    none = default is None or default is False or words in ("", {})
    return f"{key.option.help}{listed}{'' if none else f' (default: {words})'}".replace("%", "%%")
